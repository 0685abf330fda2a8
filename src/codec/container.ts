/**
 * Writing compressed files: chunks of the file inside, each a frame of its own with its length and checksum, and a table
 * of them in a skippable frame at the end, so that common tools give the file back and readers find each chunk.
 */
import { HeadraceError } from "../errors.ts";
import { MAX_CHUNK_BYTES } from "../format/chunk-list.ts";
import { encodePlaneTable } from "../format/plane-table.ts";
import { encodeSeekTable } from "../format/seek-table.ts";
import type { CodecName } from "./codec.ts";
import { openCompressPool } from "./compress-pool.ts";
import type { CompressDone, CompressWork } from "./compress-worker.ts";
import { checkLevel } from "./open.ts";
import { PlaneBorders } from "./plane-borders.ts";
import type { WorkerPool } from "./worker-pool.ts";

/** Bytes of the file inside in a chunk, where nothing else is said: shorter ones compress less well (zstd takes other
 * settings for those up to 256 KiB), longer ones make random rows dearer. */
export const DEFAULT_CHUNK_BYTES: Readonly<Record<CodecName, number>> = { zstd: 2 ** 19, lz4: 2 ** 18 };
const MIN_CHUNK_BYTES = 2 ** 12;
const MAX_THREADS = 64;
/** Chunks under way, for each thread. */
const AHEAD = 3;

export interface ContainerOptions {
  readonly codec: CodecName;
  /** zstd: 1 to 19, default 3, with planes 1. LZ4: 1 and 2 are fast, 3 to 12 search longer; default 1. */
  readonly level?: number | undefined;
  /** Bytes of the file inside in a chunk, from 4 KiB to 1 GiB, a multiple of 4; defaults in {@link DEFAULT_CHUNK_BYTES}. */
  readonly chunkBytes?: number | undefined;
  /** Whether chunks have checksums; default true. */
  readonly checksum?: boolean | undefined;
  /** Workers that compress, 1 to 64; default one a core. The file does not depend on it. */
  readonly threads?: number | undefined;
  /** Whether the bytes of 16- and 32-bit floats are split into planes before they are compressed: zstd alone, and what is
   * written has to be a safetensors file, whose header says where they are. */
  readonly planes?: boolean | undefined;
}

/** Where a container's bytes go. Calls come one after another; what they throw, the container's methods throw. */
export interface ContainerTarget<End> {
  /** For messages. */
  readonly path: string;
  /** Takes all of `bytes`, which do not change meanwhile. */
  write(bytes: Uint8Array): Promise<void>;
  /** After all bytes. */
  finish(): Promise<End>;
  /** Instead of `finish`, or after it has failed. Never throws. */
  abort(): Promise<void>;
}

/** A container in the making. Calls come one after another, each when the one before has ended. */
export interface ContainerWriter<End> {
  /** Takes the next bytes of the file inside, which are the caller's again when this resolves. Throws what the target
   * does, `DEVICE_FAILED`, `CLOSED`, and of the header what reading it throws where planes are split. */
  write(bytes: Uint8Array): Promise<void>;
  /** Writes what is left and the table, and finishes the target, whose answer is `file`; `byteLength` counts the bytes
   * taken. Throws as `write`, and `BAD_OPTION` where nothing was written. */
  finish(): Promise<{ byteLength: number; file: End }>;
  /** Ends without a file; does nothing after `finish`. Never throws. */
  abort(): Promise<void>;
}

/** Starts a container. `open` is called once, when the options are found good. Throws `BAD_OPTION`, and what `open`
 * does. */
export async function openContainer<End>(
  open: () => Promise<ContainerTarget<End>>,
  options: ContainerOptions,
): Promise<ContainerWriter<End>> {
  const settings = settle(options);
  return new FrameWriter(await open(), settings);
}

interface Settings {
  readonly codec: CodecName;
  readonly level: number;
  readonly chunkBytes: number;
  readonly checksum: boolean;
  readonly threads: number;
  readonly planes: boolean;
}

function settle(options: ContainerOptions): Settings {
  const { codec, checksum = true, planes = false } = options;
  if (codec !== "zstd" && codec !== "lz4") {
    throw new HeadraceError("BAD_OPTION", `codec ${JSON.stringify(codec)}: must be zstd or lz4`);
  }
  const chunkBytes = options.chunkBytes ?? DEFAULT_CHUNK_BYTES[codec];
  const threads = options.threads ?? Math.min(navigator.hardwareConcurrency, MAX_THREADS);
  const fits = chunkBytes >= MIN_CHUNK_BYTES && chunkBytes <= MAX_CHUNK_BYTES && chunkBytes % 4 === 0;
  if (!Number.isInteger(chunkBytes) || !fits) {
    throw new HeadraceError(
      "BAD_OPTION",
      `chunkBytes ${chunkBytes}: must be a multiple of 4 from ${MIN_CHUNK_BYTES} to ${MAX_CHUNK_BYTES}`,
    );
  }
  if (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS) {
    throw new HeadraceError("BAD_OPTION", `threads ${threads}: must be an integer from 1 to ${MAX_THREADS}`);
  }
  if (planes && codec !== "zstd") {
    throw new HeadraceError("BAD_OPTION", "byte planes need the codec zstd");
  }
  // Of planes, those that compress need no search for matches, and in the others it finds some that cost more than they
  // save: level 1 gives smaller files than those up to 9.
  const level = checkLevel(codec, options.level ?? (planes ? 1 : undefined));
  return { codec, level, chunkBytes, checksum, threads, planes };
}

class FrameWriter<End> implements ContainerWriter<End> {
  readonly #file: ContainerTarget<End>;
  readonly #settings: Settings;
  readonly #pool: WorkerPool<CompressWork, CompressDone>;
  readonly #borders: PlaneBorders | undefined;
  /** Chunks that are being compressed or written, oldest first. */
  readonly #underWay: Promise<void>[] = [];
  readonly #free: ArrayBuffer[] = [];
  #written: Promise<void> = Promise.resolve();
  #chunk: Uint8Array<ArrayBuffer> | undefined;
  #filled = 0;
  #byteLength = 0;
  readonly #table = { fileLength: [] as number[], length: [] as number[], checksums: [] as number[] };
  readonly #planes: number[] = [];
  #state: "open" | "finished" | "aborted" = "open";

  constructor(file: ContainerTarget<End>, settings: Settings) {
    this.#file = file;
    this.#settings = settings;
    const { codec, level, checksum, threads } = settings;
    this.#pool = openCompressPool({ codec, level, checksum }, threads);
    if (settings.planes) this.#borders = new PlaneBorders();
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#checkOpen();
    this.#borders?.push(bytes);
    for (let at = 0; at < bytes.length; ) {
      // Until the header is whole nobody knows where planes start, but all of it is in chunks without any.
      const limit = this.#limit();
      this.#chunk ??= new Uint8Array(this.#free.pop() ?? new ArrayBuffer(this.#settings.chunkBytes));
      const taken = Math.min(bytes.length - at, limit - this.#filled);
      this.#chunk.set(bytes.subarray(at, at + taken), this.#filled);
      at += taken;
      this.#filled += taken;
      this.#byteLength += taken;
      if (this.#filled === limit) await this.#submit();
    }
  }

  async finish(): Promise<{ byteLength: number; file: End }> {
    this.#checkOpen();
    this.#borders?.end();
    if (this.#filled > 0) await this.#submit();
    await this.#written;
    const { codec, checksum, planes } = this.#settings;
    const { fileLength, length, checksums } = this.#table;
    if (length.length === 0)
      throw new HeadraceError("BAD_OPTION", `${this.#file.path}: nothing was written to it`);
    if (planes) {
      const table = encodePlaneTable(Uint8Array.from(this.#planes));
      await this.#file.write(table);
      fileLength.push(table.length);
      length.push(0);
    }
    const hasChecksums = checksum && codec === "lz4";
    await this.#file.write(
      encodeSeekTable(codec, {
        fileLength: Uint32Array.from(fileLength),
        length: Uint32Array.from(length),
        checksums: hasChecksums ? Uint32Array.from(checksums) : undefined,
      }),
    );
    const file = await this.#file.finish();
    this.#state = "finished";
    this.#pool.close();
    return { byteLength: this.#byteLength, file };
  }

  async abort(): Promise<void> {
    if (this.#state !== "open") return;
    this.#state = "aborted";
    this.#pool.close();
    await this.#written.catch(() => {});
    await this.#file.abort();
  }

  #checkOpen(): void {
    if (this.#state === "open") return;
    throw new HeadraceError("CLOSED", `${this.#file.path}: the container was ${this.#state}`);
  }

  /** Bytes of the current chunk when it is full. */
  #limit(): number {
    const start = this.#byteLength - this.#filled;
    const border = this.#borders?.endOf(start) ?? Number.POSITIVE_INFINITY;
    return Math.min(this.#settings.chunkBytes, border - start);
  }

  async #submit(): Promise<void> {
    const { buffer } = this.#chunk!;
    const byteLength = this.#filled;
    const planes = this.#borders?.widthAt(this.#byteLength - byteLength) ?? 1;
    this.#chunk = undefined;
    this.#filled = 0;
    this.#planes.push(planes);
    const compressed = this.#pool.run({ buffer, byteLength, planes }, [buffer]);
    const before = this.#written;
    this.#written = (async () => {
      await before;
      await this.#put(await compressed, byteLength);
    })();
    // A failure is met by whoever waits for it next.
    this.#written.catch(() => {});
    this.#underWay.push(this.#written);
    if (this.#underWay.length > this.#settings.threads * AHEAD) await this.#underWay.shift();
  }

  async #put({ buffer, frame, checksum }: CompressDone, byteLength: number): Promise<void> {
    this.#free.push(buffer);
    await this.#file.write(frame);
    this.#table.fileLength.push(frame.length);
    this.#table.length.push(byteLength);
    if (checksum !== undefined) this.#table.checksums.push(checksum);
  }
}
