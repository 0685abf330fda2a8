/**
 * Every failure that a caller can meet, by code. The README's table has a cause and a remedy for each.
 * A code never changes its meaning; new ones may come.
 */
export const ERROR_CODES = [
  // What the caller asked for
  "BAD_OPTION",
  "UNKNOWN_COLUMN",
  "STATE_MISMATCH",
  "CLOSED",
  "BATCH_TOO_LARGE",
  "BATCHES_HELD",
  // Finding the data
  "SOURCE_NOT_FOUND",
  "SOURCE_EMPTY",
  "SOURCE_MIXED",
  "SOURCE_UNREADABLE",
  "UNKNOWN_FORMAT",
  "BAD_MANIFEST",
  "BAD_INDEX",
  "UNSAFE_PATH",
  "SCHEMA_MISMATCH",
  "NOT_ROWS",
  // safetensors
  "HEADER_TOO_SMALL",
  "HEADER_TOO_LARGE",
  "HEADER_LENGTH",
  "HEADER_NOT_UTF8",
  "HEADER_NOT_JSON",
  "HEADER_DUPLICATE_KEY",
  "HEADER_BAD_ENTRY",
  "UNKNOWN_DTYPE",
  "TENSOR_OFFSETS",
  "TENSOR_OVERFLOW",
  "TENSOR_MISALIGNED",
  "TENSOR_SIZE",
  "DATA_INCOMPLETE",
  "TENSOR_NOT_FOUND",
  // Arrow
  "ARROW_MAGIC",
  "ARROW_FOOTER",
  "ARROW_MESSAGE",
  "ARROW_BUFFER",
  "ARROW_TRUNCATED",
  "UNSUPPORTED_TYPE",
  "UNSUPPORTED_COMPRESSION",
  // Models
  "BAD_MODEL",
  // Compressed shards
  "BAD_CHUNK",
  // Results of a benchmark
  "BAD_RESULTS",
  // Values that lie
  "BAD_OFFSETS",
  "BAD_DICTIONARY",
  // Packing and verifying
  "BAD_INPUT",
  "DIGEST_MISMATCH",
  // Writing outputs
  "OTHER_JOB",
  "BUSY",
  // Moving bytes
  "FILE_CHANGED",
  "SHORT_READ",
  "IO_ERROR",
  "DISK_FULL",
  "TIMED_OUT",
  "CANCELLED",
  "OUT_OF_MEMORY",
  "OUT_OF_RANGE",
  "DEVICE_UNAVAILABLE",
  "DEVICE_FAILED",
  "DEVICE_LOST",
  "BAD_ENGINE",
  "SERVER_FAILED",
  "BAD_KERNEL",
  "BAD_STREAM",
  "UNSUPPORTED",
] as const;

/** One of {@link ERROR_CODES}. */
export type ErrorCode = (typeof ERROR_CODES)[number];

/**
 * The only error this library throws on purpose. Match on `code`; `message` is one line for a person and
 * names the file, the numbers, and where it can, what to do.
 */
export class HeadraceError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "HeadraceError";
    this.code = code;
  }

  /** The same failure, with `context` (a file's path, most often) in front of its message. */
  within(context: string): HeadraceError {
    return new HeadraceError(this.code, `${context}: ${this.message}`, { cause: this.cause ?? this });
  }
}

/** Runs `work` and puts `context` in front of the message of any {@link HeadraceError} it throws. */
export function withContext<T>(context: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw error instanceof HeadraceError ? error.within(context) : error;
  }
}
