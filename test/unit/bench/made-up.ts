/** Records of runs that never were, the same for the same seed. */
import type {
  BenchRecord,
  CeilingRecord,
  CellKey,
  CellRecord,
  Quantiles,
  RunRecord,
  TrialRecord,
} from "../../../src/bench/record.ts";

/** A cell to make up: its rate in 10^9 bytes a second, and how far trials lie from it, as a part of it. */
export interface MadeUp extends Partial<CellKey> {
  readonly rate: number;
  readonly spread?: number;
  readonly rounds?: number;
  readonly compression?: number;
  readonly residency?: number;
  /** Of the rounds, how many could not be shown to be cold. */
  readonly unproven?: number;
  readonly busy?: number;
  readonly peakRssBytes?: number;
  readonly skipped?: string;
  readonly ceiling?: string;
  readonly against?: string;
}

export const MACHINE: RunRecord["machine"] = {
  cpu: "AMD EPYC 9B45",
  cores: 2,
  memoryBytes: 25_000_000_000,
  os: "Debian GNU/Linux 12 (bookworm)",
  kernel: "6.1.0",
  arch: "x64",
  disk: "ext4 on /dev/vda",
  memoryFreeBytes: 22_000_000_000,
  load: 0.1,
};

export function madeUpRun(change: Partial<RunRecord> = {}): RunRecord {
  return {
    kind: "run",
    version: 1,
    date: "2026-11-22T12:00:00.000Z",
    command: "headrace bench --formats safetensors,arrow --rounds 7",
    machine: MACHINE,
    versions: { headrace: "0.1.0", bun: "1.4.5", libzstd: "1.5.4" },
    settings: { rounds: 7, bytes: 1_000_000_000, prefetch: 2, formats: ["safetensors", "arrow"] },
    ...change,
  };
}

/** Numbers in [0, 1), always the same (mulberry32). */
export function randoms(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The records of a run with `cells`. */
export function madeUpRecords(
  cells: readonly MadeUp[],
  run: Partial<RunRecord> = {},
  seed = 1,
): BenchRecord[] {
  const next = randoms(seed);
  const made = cells.map((cell) => madeUpCell(cell, next));
  return [
    madeUpRun(run),
    ceiling("pread-cold", 2.2),
    ceiling("pread-warm", 26),
    ceiling("memcpy", 17),
    ...made.flatMap(({ trials }) => trials),
    ...made.map(({ record }) => record),
  ];
}

function ceiling(name: string, rate: number): CeilingRecord {
  const spread = { p5: rate * 0.97, p95: rate * 1.02, low: rate * 0.98, high: rate * 1.01 };
  const note = "8 threads, 4 MiB each, median of 7";
  return { kind: "ceiling", name, gigabytesPerSecond: { median: rate, ...spread }, note };
}

function madeUpCell(cell: MadeUp, next: () => number): { record: CellRecord; trials: TrialRecord[] } {
  const key = keyOf(cell);
  const { rounds = 7, spread = 0.03, unproven = 0, residency = key.temperature === "cold" ? 0 : 1 } = cell;
  const bytes = 1_000_000_000;
  const trials = Array.from({ length: rounds + 1 }, (_, i): TrialRecord => {
    const rate = cell.rate * (1 + spread * (2 * next() - 1));
    const ms = 16e-3 / rate;
    return {
      kind: "trial",
      cell: key.id,
      round: i - 1,
      seconds: bytes / 1e9 / rate,
      openSeconds: 0.01,
      bytes,
      fileBytes: Math.round(bytes / (cell.compression ?? 1)),
      checksum: "c0ffee",
      residency: i > 0 && i <= unproven ? 0.7 : residency,
      temperature: i > 0 && i <= unproven ? "warm" : key.temperature,
      cpuSeconds: (0.3 + 0.1 * next()) / cell.rate,
      minorFaults: Math.round(next() * 20_000),
      majorFaults: 0,
      peakRssBytes: cell.peakRssBytes ?? 180_000_000,
      batchMs: [0.02, 0.2, 1, 3, 5 + 10 * next(), 40].map((factor) => factor * ms * 1000),
      numBatches: 60,
    };
  });
  const counted = trials.slice(1 + unproven).map((trial) => trial.bytes / trial.seconds / 1e9);
  return { record: recordOf(cell, key, counted, trials), trials: cell.skipped === undefined ? trials : [] };
}

function keyOf(cell: MadeUp): CellKey {
  const { data = "weights", format = "safetensors", path = "read", temperature = "cold" } = cell;
  const { order = "sequential", lanes = 8, requestBytes, device = "host", peer } = cell;
  const id = [data, format, path, temperature, order, lanes, requestBytes, device, peer].join("|");
  return { id, data, format, path, temperature, order, lanes, requestBytes, device, peer };
}

function recordOf(cell: MadeUp, key: CellKey, rates: number[], trials: TrialRecord[]): CellRecord {
  const none = cell.skipped !== undefined || rates.length === 0;
  const rate = none ? around(0, 0) : quantilesOf(rates);
  const last = trials.at(-1)!;
  const name = cell.ceiling ?? `pread-${key.temperature}`;
  return {
    kind: "cell",
    cell: key,
    rounds: rates.length,
    gigabytesPerSecond: rate,
    cpuSecondsPerGigabyte: none ? 0 : last.cpuSeconds,
    minorFaultsPerGigabyte: last.minorFaults,
    majorFaultsPerGigabyte: 0,
    peakRssBytes: last.peakRssBytes,
    batchMs: none ? [] : last.batchMs,
    busyShare: cell.busy === undefined ? undefined : around(cell.busy, 0.02),
    compression: cell.compression ?? 1,
    residency: last.residency,
    ceiling: none ? undefined : { name, part: rate.median / (key.temperature === "cold" ? 2.2 : 26) },
    ratios:
      cell.against === undefined
        ? undefined
        : [{ against: cell.against, ratio: around(cell.rate / 1.5, 0.1) }],
    skipped: cell.skipped,
  };
}

function around(median: number, spread: number): Quantiles {
  const [less, more] = [median * (1 - spread), median * (1 + spread)];
  return { median, p5: less, p95: more, low: less, high: more };
}

function quantilesOf(values: readonly number[]): Quantiles {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (part: number) => sorted[Math.round(part * (sorted.length - 1))]!;
  return { median: at(0.5), p5: at(0), p95: at(1), low: at(0.2), high: at(0.8) };
}

/** Records as the lines of a file. */
export function linesOf(records: readonly BenchRecord[]): string {
  return records.map((record) => `${JSON.stringify(record)}\n`).join("");
}

/** Few cells: what a quick run has. */
export const FEW: readonly MadeUp[] = [
  { rate: 2.1, path: "read" },
  { rate: 1.2, path: "map" },
  { rate: 1.25, path: "js-read", format: "safetensors", lanes: 1 },
];

/** Rates from 0.1 to 100 GB/s in one chart, under long names, with a ceiling within reach. */
export const WIDE_RANGE: readonly MadeUp[] = [0.1, 0.35, 1, 3, 9, 30, 100].flatMap((rate, i): MadeUp[] => [
  {
    rate,
    temperature: "warm",
    format: `safetensors.bp.zst-${10 + i}`,
    path: "mtlio-compressed-zlib",
    device: "metal",
    compression: 1 + rate / 50,
    busy: rate / 101,
    requestBytes: 3_000_001,
    against: "safetensors 0.6.2 (Python) of safetensors",
  },
  {
    rate: rate * 0.9,
    temperature: "warm",
    format: "arrow.zstd-body-22",
    path: "peer",
    peer: `pyarrow-dataset 24.0.${rate} (Python, from the nightly channel)`,
  },
]);

/** About 200 cells of every kind that a run has. */
export function manyCells(): MadeUp[] {
  const next = randoms(7);
  const formats = ["safetensors", "arrow", "safetensors.zst-3", "safetensors.zst-9", "safetensors.lz4-1"];
  formats.push("arrow.zst-3", "arrow.lz4-body", "arrow.zstd-body-3", "safetensors.bp.zst-3");
  const cells: MadeUp[] = [];
  for (const temperature of ["cold", "warm"] as const) {
    const scale = temperature === "cold" ? 1 : 6;
    for (const [i, format] of formats.entries()) {
      const packed = format.includes(".");
      const compression = packed ? 1.1 + next() * 1.9 : 1;
      const rate = () => scale * (0.4 + 1.6 * next());
      for (const path of packed ? ["stream", "js-read"] : ["map", "read", "js-read"]) {
        cells.push({ rate: rate(), format, path, temperature, compression, busy: 0.5 + next() / 2 });
        cells.push({ rate: rate(), format, path, temperature, compression, order: "random" });
      }
      for (const lanes of [1, 2, 4, 16]) {
        const grown = scale * Math.min(2.1, 0.5 * lanes ** 0.8 * (1 + i / 20));
        cells.push({
          rate: grown,
          format,
          path: packed ? "stream" : "read",
          temperature,
          compression,
          lanes,
        });
      }
      for (const requestBytes of [2 ** 18, 2 ** 20, 2 ** 22, 2 ** 24]) {
        cells.push({ rate: rate(), format, path: "read", temperature, compression, lanes: 4, requestBytes });
      }
      const peer = i % 2 === 0 ? "safetensors 0.6.2 (Python)" : "pyarrow 24.0.0 (Python)";
      cells.push({ rate: rate() / 2, format, path: "peer", temperature, compression, lanes: 1, peer });
    }
  }
  for (const cell of cells.slice(0, 12)) Object.assign(cell, { against: "pyarrow 24.0.0 (Python)" });
  cells.push({ rate: 1, path: "mtlio-raw", skipped: "device host has no MTLIO queue" });
  cells.push({ rate: 1.9, data: "tokens", format: "arrow", unproven: 3, spread: 0.2 });
  cells.push({ rate: 1.85, data: "tokens", format: "arrow", path: "map", spread: 0.2 });
  return cells;
}

/** A name that would be markup, ends quotes, turns text round, and is long. */
const HOSTILE = `<script>alert(1)</script>"'><img src=x onerror=alert(2)>&amp;\u202e${"mx".repeat(150)}`;

/** Records with such names wherever there are any. */
export function hostileRecords(): BenchRecord[] {
  const named = { data: HOSTILE, format: HOSTILE, device: HOSTILE };
  return madeUpRecords(
    [
      { rate: 2, ...named, against: HOSTILE, ceiling: HOSTILE, busy: 0.5, compression: 2 },
      { rate: 1.5, ...named, lanes: 2, requestBytes: 3_000_001 },
      { rate: 1, ...named, path: HOSTILE, peer: HOSTILE },
      { rate: 1, format: HOSTILE, skipped: HOSTILE },
    ],
    {
      command: HOSTILE,
      date: HOSTILE,
      versions: { [HOSTILE]: HOSTILE },
      settings: { [HOSTILE]: [HOSTILE] },
      machine: { ...MACHINE, cpu: HOSTILE, disk: HOSTILE },
    },
  );
}
