/** What files in mode `stream` are read from: themselves, or a compressed form that this machine made of them. */
import { statSync } from "node:fs";
import { HeadraceError } from "../../errors.ts";
import { nodeError } from "../common/errors.ts";
import type { PreparedStream, PrepareStreamOptions } from "../device.ts";
import { ensureCached, findCached } from "./cache.ts";
import type { StreamSource } from "./file.ts";
import { CODECS, chunkBytesOf, type StreamCodec, type StreamOptions } from "./options.ts";
import type { MetalQueue } from "./queue.ts";

/** The streams of one device. */
export class MetalStreams {
  readonly #options: StreamOptions;
  readonly #codec: StreamCodec | undefined;

  constructor(options: StreamOptions = {}) {
    this.#options = options;
    // Checked with the other options.
    this.#codec = options.codec as StreamCodec | undefined;
  }

  /** The compressed form of a file, where a valid one is there; looks at lengths and times alone. */
  find(path: string): StreamSource | undefined {
    const codec = this.#codec;
    if (codec === undefined) return undefined;
    const found = findCached(this.#key(path, codec));
    return "reason" in found ? undefined : { path: found.compressedPath, codec: CODECS[codec] };
  }

  /** Makes the compressed form unless a valid one is there, or waits while another makes it. `compressor` is a queue of this device's. Throws
   * `CANCELLED`, `FILE_CHANGED`, `BAD_STREAM`, `DISK_FULL`, `IO_ERROR`, and what opening the file throws. */
  async prepare(
    compressor: () => MetalQueue,
    path: string,
    { onProgress, signal }: PrepareStreamOptions,
  ): Promise<PreparedStream> {
    const byteLength = lengthOf(path);
    const codec = this.#codec;
    if (codec === undefined) {
      onProgress?.(byteLength, byteLength);
      return { path, byteLength, codec: "none", made: false };
    }
    if (signal?.aborted) throw cancelled(path, signal);
    onProgress?.(0, byteLength);
    const key = this.#key(path, codec);
    const cached = await ensureCached(
      key,
      (source, target, _codec, chunkBytes) =>
        compress(compressor(), { source, target, codec: CODECS[codec], chunkBytes }, signal, (done) =>
          onProgress?.(done, byteLength),
        ),
      signal === undefined ? {} : { signal },
    );
    onProgress?.(byteLength, byteLength);
    return {
      path: cached.compressedPath,
      byteLength: lengthOf(cached.compressedPath),
      codec,
      made: cached.made,
    };
  }

  #key(path: string, codec: StreamCodec) {
    const { cacheFolder } = this.#options;
    return { path, codec, chunkBytes: chunkBytesOf(this.#options), cacheFolder };
  }
}

/** Between two looks at how far a compression has come. */
const PROGRESS_MS = 100;

/** Resolves to the source's bytes. */
async function compress(
  queue: MetalQueue,
  job: Parameters<MetalQueue["compress"]>[0],
  signal: AbortSignal | undefined,
  onProgress: (bytesDone: number) => void,
): Promise<number> {
  const ticket = queue.compress(job);
  const stop = () => queue.cancel(ticket);
  const ticker = setInterval(() => onProgress(queue.compressed(ticket)), PROGRESS_MS);
  signal?.addEventListener("abort", stop, { once: true });
  try {
    const { error, bytesDone } = await queue.completion(ticket);
    // Whoever removes what was half made must not meet the one who makes it.
    await queue.quiesced(ticket);
    if (error !== undefined) throw signal?.aborted ? cancelled(job.source, signal) : error;
    return bytesDone;
  } finally {
    clearInterval(ticker);
    signal?.removeEventListener("abort", stop);
  }
}

function cancelled(path: string, signal: AbortSignal): HeadraceError {
  return new HeadraceError("CANCELLED", `${path}: compressing was cancelled`, { cause: signal.reason });
}

function lengthOf(path: string): number {
  try {
    return statSync(path).size;
  } catch (error) {
    throw nodeError(`${path}: finding its length`, error);
  }
}
