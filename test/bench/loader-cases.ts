import { type Batch, Loader, openDataset, openDevice, openLoader } from "../../src/index.ts";
import { Order } from "../../src/plan/shuffle.ts";
import {
  BareMapping,
  dropCache,
  PreadSweep,
  residencyOf,
  type SweepSetting,
  shardsOf,
  sum,
  touchedMemory,
  warm,
} from "./bare.ts";
import { ROW_BYTES, rowShards, tokenShard } from "./data.ts";
import { compare, measure, quantile, type Row, seconds } from "./harness.ts";

/** Runs of one part of the table, by the name of their first row. */
export type Cases = Readonly<Record<string, () => Promise<Row[]>>>;

const HEADER_BYTES = 16_384;
const SEQUENTIAL_ROWS = 4096;
const GATHER_ROWS = 256;
const PAD_ROWS = 64;
const PAD_TO = 64;
const MIB = 2 ** 20;
/** More than both sides map together, so that the loader lets no page go, as the bare loops let none go. */
export const KEEP_ALL = 2 ** 40;
/** A disk wants more on its way than memory does. */
const COLD_SEGMENTS = 11;
const ARENA_BYTES = 3 * SEQUENTIAL_ROWS * ROW_BYTES;

export async function drain(
  batches: AsyncIterable<Batch>,
  take: (batch: Batch) => void = () => {},
): Promise<void> {
  for await (using batch of batches) take(batch);
}

export function bytesOf(batch: Batch, column: string): Uint8Array {
  const { view } = batch.column(column);
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function check(ours: number, theirs: number): void {
  if (Math.abs(ours - theirs) > 1e-6 * Math.abs(theirs)) throw new Error(`sums differ: ${ours}, ${theirs}`);
}

/** Sums mappings in pieces as long as the loader's batches. */
function bareSum(mappings: readonly BareMapping[]): number {
  let total = 0;
  for (const { bytes } of mappings) {
    for (let at = HEADER_BYTES; at < bytes.length; at += SEQUENTIAL_ROWS * ROW_BYTES) {
      total += sum(bytes.subarray(at, at + SEQUENTIAL_ROWS * ROW_BYTES));
    }
  }
  return total;
}

export const sequential: Cases = {
  "loader.map.sequential": async () => {
    const folder = rowShards(4);
    const paths = shardsOf(folder);
    warm(paths);
    const mappings = paths.map((path) => new BareMapping(path));
    const bytes = mappings.reduce((total, { bytes }) => total + bytes.length - HEADER_BYTES, 0);
    const options = { batchSize: SEQUENTIAL_ROWS, strategy: "map", memoryBytes: KEEP_ALL } as const;
    await using kept = await openLoader(folder, { ...options, epochs: Number.POSITIVE_INFINITY });
    const expected = bareSum(mappings);
    const ours = async (loader: Loader) => {
      let total = 0;
      const time = await seconds(() => drain(loader.epoch(), (batch) => (total += sum(bytesOf(batch, "x")))));
      check(total, expected);
      return bytes / time / 1e9;
    };
    const again = await measure({
      name: "loader.map.sequential",
      unit: "GB/s",
      against: "a bare loop that sums the same mapping",
      higherIsBetter: true,
      note: `${paths.length} GiB warm, batches of 12 MiB, mappings kept from round to round on both sides`,
      ours: () => ours(kept),
      theirs: async () => bytes / (await seconds(() => bareSum(mappings))) / 1e9,
    });
    const first = await measure({
      name: "loader.map.first",
      unit: "GB/s",
      against: "a bare loop that maps and sums",
      higherIsBetter: true,
      note: "the same, each round opens, maps and closes on both sides",
      ours: async () => {
        await using loader = await openLoader(folder, options);
        return await ours(loader);
      },
      theirs: async () => {
        const time = await seconds(() => {
          const fresh = paths.map((path) => new BareMapping(path));
          bareSum(fresh);
          for (const mapping of fresh) mapping.close();
        });
        return bytes / time / 1e9;
      },
    });
    for (const mapping of mappings) mapping.close();
    return [again, first];
  },
};

const SWEEP: readonly SweepSetting[] = [1, 2, 4, 8].flatMap((lanes) =>
  [MIB, 4 * MIB, 16 * MIB].map((pieceBytes) => ({ lanes, pieceBytes })),
);

async function bestSetting(
  sweep: PreadSweep,
  paths: readonly string[],
  before: () => void,
  runs = 3,
): Promise<SweepSetting> {
  const medians: { setting: SweepSetting; rate: number }[] = [];
  for (const setting of SWEEP) {
    const rates: number[] = [];
    for (let i = 0; i < runs; i++) {
      before();
      rates.push(await sweep.run(paths, setting));
    }
    medians.push({ setting, rate: quantile(rates, 0.5) });
  }
  return medians.sort((a, b) => b.rate - a.rate)[0]!.setting;
}

function settingText({ lanes, pieceBytes }: SweepSetting): string {
  return `${lanes} lanes of ${pieceBytes / MIB} MiB`;
}

/** Loads a source by `read` into an arena of 3 segments of 12 MiB; bytes a second. */
async function loaderRead(
  source: string | readonly string[],
  loader: Loader | undefined,
  prefetch = 2,
): Promise<number> {
  const own = loader ?? (await openLoader(source, { ...READ_OPTIONS, prefetch }));
  const before = own.stats.bytes;
  const time = await seconds(() => drain(own.epoch()));
  const rate = (own.stats.bytes - before) / time;
  if (loader === undefined) await own.close();
  return rate;
}

const READ_OPTIONS = {
  batchSize: SEQUENTIAL_ROWS,
  strategy: "read",
  epochs: Number.POSITIVE_INFINITY,
} as const;

export const reads: Cases = {
  "loader.read.warm": async () => {
    const folder = rowShards(4);
    const paths = shardsOf(folder);
    warm(paths);
    const memory = touchedMemory(ARENA_BYTES);
    const sweep = new PreadSweep({ address: memory.address, byteLength: memory.bytes.length });
    const best = await bestSetting(sweep, paths, () => {});
    await using loader = await openLoader(folder, READ_OPTIONS);
    const row = await measure({
      name: "loader.read.warm",
      unit: "GB/s",
      against: `bare parallel pread, best of a sweep: ${settingText(best)}`,
      higherIsBetter: true,
      note: `4 GiB, warm (${(residencyOf(paths) * 100).toFixed(0)}% resident), arena of 3 × 12 MiB on both sides`,
      ours: async () => (await loaderRead(folder, loader)) / 1e9,
      theirs: async () => (await sweep.run(paths, best)) / 1e9,
    });
    sweep.close();
    return [row];
  },
  "loader.read.cold": async () => {
    const paths = shardsOf(rowShards(4)).slice(0, 2);
    const memory = touchedMemory(COLD_SEGMENTS * SEQUENTIAL_ROWS * ROW_BYTES);
    const sweep = new PreadSweep({ address: memory.address, byteLength: memory.bytes.length });
    let stayed = 0;
    const cold = () => {
      stayed = Math.max(stayed, dropCache(paths));
    };
    const best = await bestSetting(sweep, paths, cold, 2);
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let round = 0; round < 7; round++) {
      const turns = [
        async () => ours.push((await loaderRead(paths, undefined, COLD_SEGMENTS - 1)) / 1e9),
        async () => theirs.push((await sweep.run(paths, best)) / 1e9),
      ];
      if (round % 2 === 1) turns.reverse();
      for (const turn of turns) {
        cold();
        await turn();
      }
    }
    sweep.close();
    const state = stayed < 0.01 ? "cold" : "WARM";
    const row = compare(
      {
        name: "loader.read.cold",
        unit: "GB/s",
        against: `bare parallel pread, best of a sweep: ${settingText(best)}`,
        higherIsBetter: true,
        note: `2 GiB, ${state}: at most ${(stayed * 100).toFixed(2)}% resident by mincore before each turn; arena of ${COLD_SEGMENTS} × 12 MiB on both sides`,
      },
      ours,
      theirs,
    );
    return [row];
  },
};

export const copies: Cases = {
  "loader.gather": async () => {
    const folder = rowShards(4);
    const paths = shardsOf(folder);
    warm(paths);
    const mappings = paths.map((path) => new BareMapping(path));
    const perShard = (mappings[0]!.bytes.length - HEADER_BYTES) / ROW_BYTES;
    const numRows = perShard * paths.length;
    const limit = 400 * GATHER_ROWS;
    const ids = new Float64Array(limit);
    const { bytes: ring } = touchedMemory(3 * GATHER_ROWS * ROW_BYTES);
    const bare = () => {
      for (let i = 0; i < limit; i++) {
        const shard = Math.floor(ids[i]! / perShard);
        const from = HEADER_BYTES + (ids[i]! - shard * perShard) * ROW_BYTES;
        ring.set(
          mappings[shard]!.bytes.subarray(from, from + ROW_BYTES),
          (i % (3 * GATHER_ROWS)) * ROW_BYTES,
        );
      }
    };
    const options = { batchSize: GATHER_ROWS, seed: 3, limit, memoryBytes: KEEP_ALL };
    // Every page is mapped once before anything is timed, on both sides.
    for (const { bytes } of mappings) sum(bytes);
    const device = await openDevice("host");
    using dataset = openDataset(folder, device, { strategy: "map" });
    await drain(new Loader(dataset, device, { batchSize: 4096 }), (batch) => void sum(bytesOf(batch, "x")));
    await using loader = new Loader(dataset, device, { ...options, epochs: Number.POSITIVE_INFINITY });
    let epoch = 0;
    const row = await measure({
      name: "loader.gather",
      unit: "rows/s",
      against: "a bare copy loop over the same indices",
      higherIsBetter: true,
      warmups: 3,
      note: `shuffled rows of 3 KiB from 4 GiB in batches of ${GATHER_ROWS}, warm, mappings kept on both sides`,
      ours: async () => limit / (await seconds(() => drain(loader.epoch()))),
      theirs: async () => {
        new Order({ numSamples: numRows, seed: 3, epoch: epoch++ }).fill(ids, 0, limit);
        return limit / (await seconds(bare));
      },
    });
    for (const mapping of mappings) mapping.close();
    return [row];
  },
  "loader.pad": async () => {
    const numRows = 50_000;
    const path = tokenShard(numRows);
    const mapping = new BareMapping(path);
    await using loader = await openLoader(path, {
      batchSize: PAD_ROWS,
      padTo: PAD_TO,
      strategy: "map",
      epochs: Number.POSITIVE_INFINITY,
    });
    const bare = await barePad(path, mapping);
    const row = await measure({
      name: "loader.pad",
      unit: "rows/s",
      against: "a bare loop that copies each row to its place and fills the rest",
      higherIsBetter: true,
      warmups: 24,
      rounds: 41,
      note: `40 to 480 int32 tokens a row, batches of ${PAD_ROWS}, padded to a multiple of ${PAD_TO}; ours makes a mask too`,
      ours: async () => numRows / (await seconds(() => drain(loader.epoch()))),
      theirs: async () => numRows / (await seconds(bare)),
    });
    mapping.close();
    return [row];
  },
};

/** A loop over the file's own arrays: where they lie is found once, outside of what is timed. */
async function barePad(path: string, mapping: BareMapping): Promise<() => void> {
  await using loader = await openLoader(path, { view: "tensors", batchSize: 2, strategy: "map" });
  const places = new Map<string, { at: number; length: number }>();
  await drain(loader, (batch) => {
    for (const column of batch.columns.values()) {
      places.set(column.name, { at: column.byteOffset, length: column.byteLength / 4 });
    }
  });
  const arrayOf = ({ at, length }: { at: number; length: number }) =>
    new Int32Array(mapping.bytes.buffer, at, length);
  const tokens = arrayOf(places.get("tokens")!);
  const offsets = arrayOf(places.get("tokens.offsets")!);
  const { bytes } = touchedMemory(3 * PAD_ROWS * 512 * 4);
  const ring = new Int32Array(bytes.buffer);
  return () => {
    for (let first = 0; first + 1 < offsets.length; first += PAD_ROWS) {
      const end = Math.min(first + PAD_ROWS, offsets.length - 1);
      let longest = 0;
      for (let row = first; row < end; row++) longest = Math.max(longest, offsets[row + 1]! - offsets[row]!);
      const width = Math.ceil(longest / PAD_TO) * PAD_TO;
      const base = ((first / PAD_ROWS) % 3) * PAD_ROWS * 512;
      for (let row = first; row < end; row++) {
        const at = base + (row - first) * width;
        const length = offsets[row + 1]! - offsets[row]!;
        ring.set(tokens.subarray(offsets[row]!, offsets[row + 1]!), at);
        ring.fill(0, at + length, at + width);
      }
    }
  };
}
