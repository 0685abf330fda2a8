/** Chunks of compressed files into memory: what a device offers besides its queues, on Workers of its own. */
import type { HeadraceError } from "../errors.ts";
import type { ChunkTable } from "../types.ts";
import type { DeviceBuffer } from "./device.ts";

/** A compressed file that is open to be decoded from. Owned by its opener. */
export interface ChunkFile extends Disposable {
  readonly path: string;
  readonly table: ChunkTable;
  /** Decodes a small range of logical bytes on this thread, into fresh memory of the caller's. Throws `BAD_CHUNK`,
   * `SHORT_READ`, `IO_ERROR`, `FILE_CHANGED`. */
  readSync(byteOffset: number, byteLength: number): Uint8Array;
  close(): void;
}

/** Which logical bytes go where. Filling it checks nothing. */
export interface DecodeRequest {
  readonly file: ChunkFile;
  readonly byteOffset: number;
  readonly byteLength: number;
  /** Memory that the host sees. */
  readonly target: DeviceBuffer;
  readonly targetOffset: number;
}

/** The end of a decoding, good or bad. */
export interface DecodeEnd {
  /** Absent on success; else the first failure. What was to be written is undefined then. */
  readonly error?: HeadraceError | undefined;
  /** Logical bytes that were decoded, those of whole chunks that only a part of was wanted included, and those that
   * {@link ChunkFile.readSync} has decoded since the decoding before; 0 where it ended early. */
  readonly decodedBytes: number;
}

/** A decoding under way. */
export interface Decoding {
  /** Resolves when it has ended, also in failure; never rejects. */
  readonly ended: Promise<DecodeEnd>;
  /** Resolves once no memory of the requests is in use any more: with {@link Decoding.ended}, or after an early end when
   * lanes have finished the chunks that they were at. */
  readonly quiet: Promise<void>;
  /** Asks for an early end, with `CANCELLED`. */
  cancel(): void;
}

export interface DecodeOptions {
  /** Fails what has not ended by then; default never. */
  readonly timeoutMs?: number | undefined;
  /** Bytes of decoded chunks that are kept at most, from now until another decoding says; default half of the memory,
   * of the machine or of the process's control group. In any case no more than there is to spare. */
  readonly keepBytes?: number | undefined;
  /** Whether chunks that are wanted in part are likely to be wanted again, as in a random order; default false. */
  readonly comeAgain?: boolean | undefined;
}

export interface OpenChunksOptions {
  /** Whether checksums are verified; default true. */
  readonly checksums?: boolean | undefined;
}

/** Decodes on Workers, side by side. Borrowed from its device, which closes it. */
export interface ChunkDecoders {
  /** For people: which library decodes each codec, and what was missing. */
  readonly facts: Readonly<Record<string, string>>;
  /** Throws what opening a file throws, `FILE_CHANGED` where it is shorter than the table says, and `UNSUPPORTED` where
   * nothing here decodes its codec. */
  open(path: string, table: ChunkTable, options?: OpenChunksOptions): ChunkFile;
  /** Whole chunks are decoded where they are wanted, in place; of others the part that is wanted is copied. No chunk is
   * decoded twice for one call. Chunks that were wanted in part are kept for later calls: up to 256 MiB (of less
   * than 4 GiB of memory a sixteenth), and more for chunks that are said to come again or do after they had to go, as long
   * as a quarter of the memory stays available. What has not ended after `timeoutMs` fails with `TIMED_OUT`. Throws
   * `OUT_OF_RANGE`, `CLOSED`, `BAD_OPTION`, and `UNSUPPORTED` for memory that the host does not see. */
  start(requests: readonly DecodeRequest[], options?: DecodeOptions): Decoding;
}
