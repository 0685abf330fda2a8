/** What the machine gives at best, measured beside the cells: bare reads, copies, the sum alone, the link, `fio`. */
import { closeSync, openSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { type Device, type DeviceBuffer, HeadraceError, openDevice, RequestList } from "../index.ts";
import type { Sweep } from "./ceiling-worker.ts";
import { prepareFiles } from "./cold.ts";
import type { CeilingRecord } from "./record.ts";
import { median, quantilesOf } from "./stats.ts";
import { HostSum } from "./sums.ts";
import { amountText } from "./text.ts";

const MIB = 2 ** 20;
const ROUNDS = 5;
const COPY_BYTES = 64 * MIB;
const SWEEP_LANES = [1, 2, 4, 8, 16];
const SWEEP_BYTES = [MIB, 4 * MIB, 16 * MIB];
/** Most bytes of files that one round of a sweep reads. */
const SWEPT_BYTES = 1e9;

export interface CeilingOptions {
  /** Shards that bare reads go over. */
  readonly paths: readonly string[];
  readonly temperatures: readonly ("cold" | "warm")[];
  /** Bytes of a sample, on average: the sum is taken sample by sample. */
  readonly sampleBytes: number;
  readonly device: string;
  readonly ordinal?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: ((text: string) => void) | undefined;
}

/** Measures all that apply here, one after the other. */
export async function* measureCeilings(options: CeilingOptions): AsyncGenerator<CeilingRecord> {
  const { signal, onStep } = options;
  const paths = sweptPaths(options.paths);
  for (const temperature of options.temperatures) {
    onStep?.(`ceiling: bare reads, ${temperature}`);
    yield await sweepReads(paths, temperature, signal);
  }
  onStep?.("ceiling: copies");
  yield await copies("memcpy", "host", undefined, signal);
  yield sumAlone(options.sampleBytes);
  if (options.device === "cuda") {
    onStep?.("ceiling: the link");
    yield await copies("link", options.device, options.ordinal, signal);
  }
  if (options.temperatures.includes("cold") && Bun.which("fio") !== null) {
    onStep?.("ceiling: fio");
    const record = fio(paths);
    if (record !== undefined) yield record;
  }
}

/** The first shards, up to the bytes of a round. */
function sweptPaths(paths: readonly string[]): string[] {
  const swept: string[] = [];
  let bytes = 0;
  for (const path of paths) {
    if (swept.length > 0 && bytes + statSync(path).size > SWEPT_BYTES) break;
    swept.push(path);
    bytes += statSync(path).size;
  }
  return swept;
}

function record(name: string, rates: readonly number[], note: string): CeilingRecord {
  return { kind: "ceiling", name, gigabytesPerSecond: quantilesOf(rates), note };
}

/** Workers that read files with `pread` into memory that is used again, and nothing else: the best of all lanes and
 * sizes after one round of each, measured over more rounds. */
async function sweepReads(
  paths: readonly string[],
  temperature: "cold" | "warm",
  signal: AbortSignal | undefined,
): Promise<CeilingRecord> {
  const sweep = new ReadSweep(paths);
  try {
    let best = { rate: 0, lanes: 1, pieceBytes: MIB };
    for (const lanes of SWEEP_LANES.filter((count) => count <= 4 * availableParallelism())) {
      for (const pieceBytes of SWEEP_BYTES) {
        signal?.throwIfAborted();
        prepareFiles(paths, temperature);
        const rate = await sweep.run(lanes, pieceBytes);
        if (rate > best.rate) best = { rate, lanes, pieceBytes };
      }
    }
    const rates: number[] = [];
    let unproven = 0;
    for (let round = 0; round < ROUNDS; round++) {
      signal?.throwIfAborted();
      if (prepareFiles(paths, temperature).temperature !== temperature) unproven++;
      rates.push(await sweep.run(best.lanes, best.pieceBytes));
    }
    const doubt = unproven === 0 ? "" : `; ${unproven} of ${ROUNDS} rounds not proven ${temperature}`;
    const note = `pread by ${amountText(best.lanes, "lane")}, ${best.pieceBytes / MIB} MiB each, the best of a sweep${doubt}`;
    return record(`pread-${temperature}`, rates, note);
  } finally {
    sweep.close();
  }
}

class ReadSweep {
  readonly #paths: readonly string[];
  readonly #byteLength: number;
  readonly #workers: Worker[] = [];

  constructor(paths: readonly string[]) {
    this.#paths = paths;
    this.#byteLength = paths.reduce((total, path) => total + statSync(path).size, 0);
  }

  /** GB/s of one pass. */
  async run(lanes: number, pieceBytes: number): Promise<number> {
    while (this.#workers.length < lanes) {
      this.#workers.push(new Worker(new URL("./ceiling-worker.ts", import.meta.url).href));
    }
    const workers = this.#workers.slice(0, lanes);
    // Without files it is the start alone: Workers that run, and memory that was touched.
    await this.#pass(workers, [], pieceBytes);
    const files = this.#paths.map((path) => ({ fd: openSync(path, "r"), byteLength: statSync(path).size }));
    try {
      const started = performance.now();
      await this.#pass(workers, files, pieceBytes);
      return this.#byteLength / (performance.now() - started) / 1e6;
    } finally {
      for (const { fd } of files) closeSync(fd);
    }
  }

  async #pass(workers: readonly Worker[], files: Sweep["files"], pieceBytes: number): Promise<void> {
    const next = new Int32Array(new SharedArrayBuffer(4));
    const ends = workers.map(
      (worker) =>
        new Promise<void>((resolve, reject) => {
          worker.onmessage = () => resolve();
          worker.onerror = ({ message }) => reject(new HeadraceError("IO_ERROR", `bare reads: ${message}`));
          worker.postMessage({ files, pieceBytes, next } satisfies Sweep);
        }),
    );
    await Promise.all(ends);
  }

  close(): void {
    for (const worker of this.#workers) worker.terminate();
  }
}

/** Copies of a device's queue: within the host's memory, or from there to the device's own. */
async function copies(
  name: "memcpy" | "link",
  deviceName: string,
  ordinal: number | undefined,
  signal: AbortSignal | undefined,
): Promise<CeilingRecord> {
  const device = openDevice(deviceName, ordinal === undefined ? {} : { ordinal });
  try {
    await device.ready?.();
    using source = device.createBuffer(COPY_BYTES);
    using target = device.createBuffer(COPY_BYTES, name === "link" ? "private" : "shared");
    new Uint8Array(source.view(0, COPY_BYTES)).fill(1);
    const rates: number[] = [];
    for (let round = -2; round < ROUNDS; round++) {
      signal?.throwIfAborted();
      const rate = await copyRate(device, source, target);
      if (round >= 0) rates.push(rate);
    }
    const way = name === "link" ? "from the host's memory to the device's" : "within memory, by all lanes";
    return record(name, rates, `copies of ${COPY_BYTES / MIB} MiB ${way}; bytes counted once`);
  } finally {
    await device.close();
  }
}

async function copyRate(device: Device, source: DeviceBuffer, target: DeviceBuffer): Promise<number> {
  const queue = device.createQueue();
  try {
    const list = new RequestList().copy(source, 0, target, 0, COPY_BYTES);
    const started = performance.now();
    const { error } = await queue.completion(queue.submit(list));
    const ms = performance.now() - started;
    if (error !== undefined) throw error;
    return COPY_BYTES / ms / 1e6;
  } finally {
    await queue.close();
  }
}

/** The host's own sum over memory that was touched: no cell that sums on the host can be faster. */
function sumAlone(sampleBytes: number): CeilingRecord {
  const rowBytes = Math.min(COPY_BYTES, Math.max(8, Math.round(sampleBytes)));
  const rows = Math.floor(COPY_BYTES / rowBytes);
  const bytes = new Uint8Array(rows * rowBytes).fill(1);
  const rates: number[] = [];
  for (let round = -2; round < ROUNDS; round++) {
    const started = performance.now();
    new HostSum().addRows(bytes, rows, rowBytes, (row) => row);
    if (round >= 0) rates.push(bytes.length / (performance.now() - started) / 1e6);
  }
  return record("checksum", rates, `XXH3 on one thread over samples of ${rowBytes} bytes in memory`);
}

/** `fio` over the largest of the files, whose pages it drops by itself; undefined where it does not run. */
function fio(paths: readonly string[]): CeilingRecord | undefined {
  const sized = paths.map((path) => ({ path, size: statSync(path).size })).sort((a, b) => b.size - a.size);
  const { path, size } = sized[0]!;
  // It takes a colon for the border between two names.
  if (path.includes(":")) return undefined;
  const jobs = Math.min(8, 2 * availableParallelism());
  const part = Math.floor(size / jobs / MIB) * MIB;
  if (part === 0) return undefined;
  const rates: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const { success, stdout } = Bun.spawnSync(
      [
        "fio",
        "--name=bench",
        `--filename=${path}`,
        "--readonly",
        "--rw=read",
        "--bs=1M",
        "--ioengine=psync",
        "--thread",
        "--group_reporting",
        "--invalidate=1",
        `--numjobs=${jobs}`,
        `--size=${part}`,
        `--offset_increment=${part}`,
        "--output-format=json",
      ],
      { stdin: "ignore", stderr: "ignore" },
    );
    const text = stdout.toString();
    if (!success || !text.includes("{")) return undefined;
    const report = JSON.parse(text.slice(text.indexOf("{"))) as { jobs: { read: { bw_bytes: number } }[] };
    rates.push(report.jobs[0]!.read.bw_bytes / 1e9);
  }
  return record(
    "fio",
    rates,
    `fio with psync, ${jobs} threads, 1 MiB, cold; median ${median(rates).toPrecision(3)} GB/s`,
  );
}
