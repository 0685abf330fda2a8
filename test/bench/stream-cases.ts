/** Compressed shards against the libraries and their command lines. */
import { dlopen, ptr } from "bun:ffi";
import { openSync } from "node:fs";
import { availableParallelism } from "node:os";
import { type Loader, openDataset, openDevice, openLoader } from "../../src/index.ts";
import type { ChunkTable } from "../../src/types.ts";
import { warm } from "./bare.ts";
import { measure, type Row, seconds } from "./harness.ts";
import { type Cases, drain } from "./loader-cases.ts";
import { container, DATA_BYTES, ROW_BYTES } from "./stream-data.ts";
import type { BareJob } from "./stream-worker.ts";

const BATCH_ROWS = 4096;
const MIB = 2 ** 20;
/** As the loader's arena has: three segments. */
const RING_BYTES = 3 * BATCH_ROWS * ROW_BYTES;
const THREADS = Math.min(2, availableParallelism());
const ROUNDS = 9;

const { mmap } = dlopen(process.platform === "darwin" ? "libSystem.B.dylib" : "libc.so.6", {
  // void *mmap(void *, size_t, int, int, int, off_t);
  mmap: { args: ["ptr", "usize", "i32", "i32", "i32", "i64"], returns: "ptr" },
}).symbols;

/** The library's decoding of a file's chunks on threads of its own, whose memory and mapping are kept. */
class BareDecoder {
  readonly #workers = Array.from(
    { length: THREADS },
    () => new Worker(new URL("./stream-worker.ts", import.meta.url)),
  );
  readonly #jobs: readonly Omit<BareJob, "next">[];
  readonly #ring: Uint8Array<ArrayBuffer>;

  constructor(path: string, { starts, fileOffset, fileLength }: ChunkTable, codec: "zstd" | "lz4") {
    this.#ring = new Uint8Array(new ArrayBuffer(RING_BYTES)).fill(1);
    const source = Number(mmap(null, Bun.file(path).size, 1, 1, openSync(path, "r"), 0));
    // Each thread has a part of its own: one that is held up must not be written over.
    const byteLength = RING_BYTES / THREADS;
    this.#jobs = this.#workers.map((_, i) => {
      const ring = { address: ptr(this.#ring) + i * byteLength, byteLength };
      return { codec, source, fileOffset, fileLength, starts, ring };
    });
  }

  async run(): Promise<void> {
    const next = new SharedArrayBuffer(4);
    const ended = this.#workers.map(
      (worker) =>
        new Promise<void>((resolve, reject) => {
          worker.onmessage = () => resolve();
          worker.onerror = (event) => reject(new Error(event.message));
        }),
    );
    this.#workers.forEach((worker, i) => {
      worker.postMessage({ ...this.#jobs[i]!, next } satisfies BareJob);
    });
    await Promise.all(ended);
  }
}

async function tableOf(path: string): Promise<ChunkTable> {
  await using device = openDevice("host");
  using dataset = openDataset(path, device);
  return dataset.describe(0).chunks!;
}

/** A loader that goes on epoch by epoch, and its rate over one. */
export async function epochRate(loader: Loader): Promise<number> {
  return DATA_BYTES / (await seconds(() => drain(loader.epoch()))) / 1e9;
}

export function openEndless(path: string): Promise<Loader> {
  return openLoader(path, { device: "host", batchSize: BATCH_ROWS, epochs: Number.POSITIVE_INFINITY });
}

async function againstLibrary(kind: "tokens" | "floats", codec: "zstd" | "lz4"): Promise<Row[]> {
  const path = await container(kind, { codec });
  warm([path]);
  const table = await tableOf(path);
  const bare = new BareDecoder(path, table, codec);
  await using loader = await openEndless(path);
  const ratio = (table.byteLength / Bun.file(path).size).toFixed(2);
  const row = await measure({
    name: `stream.decode.${codec}.${kind}`,
    unit: "GB/s",
    against: `lib${codec} on ${THREADS} threads into touched memory`,
    higherIsBetter: true,
    rounds: ROUNDS,
    note: `${DATA_BYTES / MIB} MiB warm, ${table.maxLength / 1024} KiB chunks, ratio ${ratio}, batches of ${(BATCH_ROWS * ROW_BYTES) / MIB} MiB, checksums verified on both sides`,
    ours: () => epochRate(loader),
    theirs: async () => DATA_BYTES / (await seconds(() => bare.run())) / 1e9,
  });
  return [row];
}

async function againstTool(kind: "tokens" | "floats", codec: "zstd" | "lz4"): Promise<Row[]> {
  if (Bun.which(codec) === null) {
    console.log(`stream.peer.${codec}: skipped: there is no ${codec} command here`);
    return [];
  }
  const path = await container(kind, { codec });
  warm([path]);
  await using loader = await openEndless(path);
  const tool = async () => {
    const child = Bun.spawn([codec, "-dc", path], { stdout: Bun.file("/dev/null"), stderr: "ignore" });
    if ((await child.exited) !== 0) throw new Error(`${codec} -dc failed`);
  };
  const row = await measure({
    name: `stream.peer.${codec}.${kind}`,
    unit: "GB/s",
    against: `${codec} -dc to /dev/null`,
    higherIsBetter: true,
    rounds: ROUNDS,
    note: "the same container, warm; the tool's start is part of its time",
    ours: () => epochRate(loader),
    theirs: async () => DATA_BYTES / (await seconds(tool)) / 1e9,
  });
  return [row];
}

async function randomRows(codec: "zstd" | "lz4"): Promise<Row[]> {
  const path = await container("tokens", { codec });
  warm([path]);
  const table = await tableOf(path);
  const bare = new BareDecoder(path, table, codec);
  const rows = 32;
  let seed = 0;
  let chunks = 0;
  const row = await measure({
    name: `stream.random.${codec}`,
    unit: "ms",
    against: `decoding all chunks by lib${codec} on ${THREADS} threads`,
    higherIsBetter: false,
    rounds: ROUNDS,
    note: `${rows} random rows of ${ROW_BYTES / 1024} KiB from ${DATA_BYTES / MIB} MiB`,
    ours: async () => {
      await using loader = await openLoader(path, {
        device: "host",
        batchSize: rows,
        seed: seed++,
        limit: 2 * rows,
        // Nothing is decoded before it is asked for.
        prefetch: 0,
      });
      // The first batch starts the Workers.
      const batches = loader[Symbol.asyncIterator]();
      (await batches.next()).value!.release();
      const before = loader.stats.decodedBytes;
      const time = await seconds(async () => (await batches.next()).value!.release());
      const decoded = loader.stats.decodedBytes - before;
      chunks = decoded / table.maxLength;
      if (decoded > rows * table.maxLength) throw new Error(`${decoded} bytes decoded for ${rows} rows`);
      return time * 1e3;
    },
    theirs: async () => 1e3 * (await seconds(() => bare.run())),
  });
  return [{ ...row, note: `${row.note}; at most one chunk a row (${chunks.toFixed(1)} in the last round)` }];
}

export const decodes: Cases = {
  "stream.decode.zstd.tokens": () => againstLibrary("tokens", "zstd"),
  "stream.decode.lz4.tokens": () => againstLibrary("tokens", "lz4"),
  "stream.decode.zstd.floats": () => againstLibrary("floats", "zstd"),
  "stream.decode.lz4.floats": () => againstLibrary("floats", "lz4"),
};

export const tools: Cases = {
  "stream.peer.zstd": () => againstTool("tokens", "zstd"),
  "stream.peer.lz4": () => againstTool("tokens", "lz4"),
};

export const random: Cases = {
  "stream.random.zstd": () => randomRows("zstd"),
  "stream.random.lz4": () => randomRows("lz4"),
};
