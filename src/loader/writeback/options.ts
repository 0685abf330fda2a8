/** What a writer can be asked for, and the checks of it. */
import type { Device } from "../../device/device.ts";
import { HeadraceError } from "../../errors.ts";
import type { OutputField, OutputFormat } from "../../format/output-layout.ts";
import { fieldsOf, OUTPUT_FORMATS, type OutputColumn, type OutputFormatName } from "./columns.ts";
import { DISK, type FileOps } from "./files.ts";
import { digestOf, type JobIdentity } from "./job.ts";
import { type JobRecord, jobRecord } from "./manifest.ts";
import type { InputShard, OutputName } from "./output.ts";

export interface WriterOptions {
  /** Tells this job from others in the same folder: whatever its outputs depend on. Plain JSON. */
  readonly job: JobIdentity;
  /** Of the dataset that the rows come from; part of the files' names. */
  readonly fingerprint: string;
  /** The shards of the input in order, as {@link Dataset.shards} has them: each gets one output shard. */
  readonly shards: readonly InputShard[];
  /** Beside `row` and `shard`, which every file has. In files, those of fixed size come first. */
  readonly columns: readonly OutputColumn[];
  /** Default `arrow`. */
  readonly format?: OutputFormatName | undefined;
  /** `input`, the default: rows lie in the order of the input, and the files' bytes depend on the rows alone.
   * `completion`: in the order in which they were added. */
  readonly order?: "input" | "completion" | undefined;
  /** Column of text whose presence means that the row failed; default `error`, where there is such a column. */
  readonly errorColumn?: string | undefined;
  /** Where values in device memory come from. Borrowed. */
  readonly device?: Device | undefined;
  /** Most bytes that wait for the disk before {@link Writer.add} asks to wait; default 64 MiB. */
  readonly maxPendingBytes?: number | undefined;
  /** What was added is made durable after so many ms, or bytes, whichever is first; defaults 1000 and 64 MiB. */
  readonly syncMs?: number | undefined;
  readonly syncBytes?: number | undefined;
  /** Of each of three staging buffers for values in device memory; default 16 MiB. */
  readonly stageBytes?: number | undefined;
  /** Bytes of rows that are held while a shard is put together; default 8 MiB. */
  readonly mergeBytes?: number | undefined;
  /** Rows that failed earlier, and have their error for output, are the writer's {@link Writer.remaining} again; default
   * false. Shards that are whole stay as they are until all their rows are there. */
  readonly retryFailed?: boolean | undefined;
  /** Most bytes of one column in a record batch of Arrow; default, and at most, 2^31 - 1. A row that holds more comes
   * alone. */
  readonly maxBatchBytes?: number | undefined;
}

/** The options, checked, with what follows from them. */
export interface ResolvedWriterOptions {
  readonly job: JobRecord;
  readonly format: OutputFormat;
  readonly fields: readonly OutputField[];
  readonly errorField: number;
  readonly inInputOrder: boolean;
  readonly retryFailed: boolean;
  readonly names: readonly OutputName[];
  readonly device: Device | undefined;
  readonly maxPendingBytes: number;
  readonly syncMs: number;
  readonly syncBytes: number;
  readonly stageBytes: number;
  readonly mergeBytes: number;
  readonly maxGroupBytes: number;
  readonly ops: FileOps;
}

const MIB = 2 ** 20;
/** Bytes of the longest file name that comes of a shard's own. */
const MAX_STEM = 120;

/** Throws `BAD_OPTION`, `UNKNOWN_DTYPE`, `UNSUPPORTED_TYPE`. */
export function resolveWriterOptions(options: WriterOptions, ops: FileOps = DISK): ResolvedWriterOptions {
  const { job, fingerprint, shards, columns, format: formatName = "arrow", order = "input" } = options;
  if (!Object.hasOwn(OUTPUT_FORMATS, formatName)) throw bad("format", formatName, "arrow or safetensors");
  if (order !== "input" && order !== "completion") throw bad("order", order, "input or completion");
  if (typeof fingerprint !== "string" || !/^[0-9A-Za-z]{8,}$/.test(fingerprint)) {
    throw bad("fingerprint", fingerprint, "the fingerprint of a dataset");
  }
  checkShards(shards);
  const format = OUTPUT_FORMATS[formatName];
  const fields = fieldsOf(columns, format);
  const maxGroupBytes = whole("maxBatchBytes", options.maxBatchBytes, 2 ** 31 - 1, 1, 2 ** 31 - 1);
  const errorColumn = options.errorColumn ?? "error";
  const errorField = fields.findIndex(({ name, kind }) => name === errorColumn && kind === "utf8");
  if (errorField < 0 && options.errorColumn !== undefined) {
    throw bad("errorColumn", errorColumn, "the name of a column of kind utf8");
  }
  if (errorField >= 0 && !fields[errorField]!.nullable) {
    throw bad("errorColumn", errorColumn, "a nullable column: rows without an error have no text there");
  }
  const identity = {
    job,
    fingerprint,
    shards: digestOf(shards.map(({ name, start, end }) => [name, start, end])),
    columns: fields.map(({ name, kind, dtype, length, nullable }) => ({
      name,
      kind,
      dtype,
      length,
      nullable,
    })),
    format: formatName,
    order,
    errorColumn: errorField < 0 ? null : errorColumn,
    maxBatchBytes: maxGroupBytes,
  };
  return {
    job: jobRecord(identity, digestOf(identity)),
    format,
    fields,
    errorField,
    inInputOrder: order === "input",
    retryFailed: errorField >= 0 && options.retryFailed === true,
    names: namesOf(shards, fingerprint.slice(0, 8), format.extension),
    device: options.device,
    maxPendingBytes: whole("maxPendingBytes", options.maxPendingBytes, 64 * MIB, 1),
    syncMs: whole("syncMs", options.syncMs, 1000, 0, 2 ** 31 - 1),
    syncBytes: whole("syncBytes", options.syncBytes, 64 * MIB, 1),
    stageBytes: whole("stageBytes", options.stageBytes, 16 * MIB, 1, 2 ** 30),
    mergeBytes: whole("mergeBytes", options.mergeBytes, 8 * MIB, 1),
    maxGroupBytes: formatName === "arrow" ? maxGroupBytes : format.maxFieldBytes,
    ops,
  };
}

function checkShards(shards: readonly InputShard[]): void {
  let previousEnd = 0;
  const seen = new Set<string>();
  shards.forEach(({ name, start, end }, i) => {
    const whole = Number.isSafeInteger(start) && Number.isSafeInteger(end);
    if (!whole || start < previousEnd || end < start) {
      throw new HeadraceError(
        "BAD_OPTION",
        `shards[${i}] (${name}) holds rows [${start}, ${end}), and the one before it ends at ${previousEnd}; shards are in order and apart`,
      );
    }
    if (end - start > 2 ** 31 - 1) {
      throw new HeadraceError(
        "BAD_OPTION",
        `shards[${i}] (${name}) has ${end - start} rows; at most ${2 ** 31 - 1}`,
      );
    }
    if (typeof name !== "string" || name === "" || seen.has(name)) {
      throw new HeadraceError(
        "BAD_OPTION",
        `shards[${i}]: its name ${JSON.stringify(name)} is empty or given twice`,
      );
    }
    seen.add(name);
    previousEnd = end;
  });
}

/** `prose-00000-1f3a5b7c.arrow`: of the input shard's name and its dataset's fingerprint. */
function namesOf(shards: readonly InputShard[], fingerprint: string, extension: string): OutputName[] {
  const stems = shards.map(({ name }) =>
    name
      .replace(/\.(safetensors|arrow|arrows|feather|ipc)$/, "")
      .replace(/[^A-Za-z0-9._-]/g, "_")
      .replace(/^\./, "_")
      .slice(0, MAX_STEM),
  );
  // Some file systems take names that differ in case alone for the same.
  const unique = new Set(stems.map((stem) => stem.toLowerCase())).size === stems.length;
  return shards.map((shard, index) => {
    const stem = unique ? stems[index]! : `${stems[index]!}-${index}`;
    return { index, shard, fileName: `${stem}-${fingerprint}${extension}` };
  });
}

function whole(
  name: string,
  value: number | undefined,
  otherwise: number,
  least: number,
  most = Number.MAX_SAFE_INTEGER,
): number {
  if (value === undefined) return otherwise;
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  const upper = most === Number.MAX_SAFE_INTEGER ? "" : ` to ${most}`;
  throw bad(name, value, `a whole number from ${least}${upper}`);
}

function bad(name: string, value: unknown, wanted: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", `${name} is ${String(value)}; it must be ${wanted}`);
}
