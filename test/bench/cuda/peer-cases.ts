/** Against what a PyTorch user would take, on the same files, in turns. */
import { ROW_BYTES } from "../data.ts";
import { quantile } from "../harness.ts";
import { batchSums, type RowData, rows, warmth, weights } from "./data.ts";
import { type Case, firstLoad } from "./link-cases.ts";
import type { BenchOptions } from "./options.ts";
import { Feed, openBenchDevice, type Pass, traceEpoch } from "./ours.ts";
import { Peer, PeerMissing } from "./peer.ts";
import { interleave, judge, progress } from "./rounds.ts";
import { Team } from "./team.ts";

const BATCH = 1024;
/** Batches whose checksums one submission computes. */
const GROUP = 4;
const PREFETCH = 2 * GROUP + 3;
const SEED = 3;

/** Leaves a row out, with the reason, where a peer cannot be asked; ours is run and checked all the same. */
function leavingOut(name: string, run: Case, alone: (options: BenchOptions) => Promise<string>): Case {
  return async (options) => {
    try {
      return await run(options);
    } catch (error) {
      if (!(error instanceof PeerMissing)) throw error;
      const reason = `${error.message}; ours alone: ${await alone(options)}`;
      return { rows: [], leftOut: [{ name, reason }], details: {} };
    }
  };
}

interface Loaded {
  readonly seconds: number;
  readonly bytes: number;
  readonly tensors: number;
}

const againstSafetensors: Case = async (options) => {
  const data = await weights(options.dataFolder, options.sizeBytes);
  await using peer = await Peer.python("weights.py", options.device);
  const theirs = async (way: string) => {
    const { seconds, bytes, tensors } = await peer.ask<Loaded>({ op: "load", paths: data.paths, way });
    const expected = Object.keys(data.sums).length;
    if (tensors !== expected) throw new Error(`${way} loaded ${tensors} tensors of ${expected}`);
    return bytes / seconds / 1e9;
  };
  const figures = await interleave(
    "cuda.peer.safetensors",
    {
      map: () => firstLoad(options, data, "map"),
      load_file: () => theirs("load_file"),
      read: () => firstLoad(options, data, "read"),
      safe_open: () => theirs("safe_open"),
    },
    options.repeats,
  );
  const best = quantile(figures.map, 0.5) >= quantile(figures.read, 0.5) ? "map" : "read";
  const other = best === "map" ? "read" : "map";
  const note = [
    `ours by ${best} (by ${other} ${quantile(figures[other], 0.5).toPrecision(3)} GB/s)`,
    `${(data.byteLength / 1e9).toFixed(2)} GB in ${data.paths.length} files, ${warmth(data.paths)}`,
    "all tensors to device memory, everything counted from opening the files on, with fresh device memory; the start of device and context left out on both sides",
  ].join("; ");
  const text = { unit: "GB/s", note, atLeast: 10 };
  return {
    rows: [
      judge(
        {
          ...text,
          name: "cuda.peer.safetensors",
          against: 'safetensors.torch.load_file(device="cuda")',
        },
        figures[best],
        figures.load_file,
      ),
      judge(
        {
          ...text,
          name: "cuda.peer.safetensors.safe_open",
          against: 'safetensors.safe_open(device="cuda:0"), tensor by tensor',
        },
        figures[best],
        figures.safe_open,
      ),
    ],
    leftOut: [],
    details: { peer: peer.ready },
  };
};

export const safetensors = leavingOut("cuda.peer.safetensors", againstSafetensors, async (options) => {
  const data = await weights(options.dataFolder, options.sizeBytes);
  const rates = [await firstLoad(options, data, "map"), await firstLoad(options, data, "read")];
  return `${rates[0]!.toPrecision(3)} GB/s by map, ${rates[1]!.toPrecision(3)} by read`;
});

const WORKERS = [0, 2, 4, 8, 12, 16];
const QUICK_WORKERS = [0, 2];
const WAYS = { samples: "one row a sample", batches: "whole batches indexed at once" } as const;
type Way = keyof typeof WAYS;

/** Rounds of the peer last about so long, but not more than an epoch. */
const ROUND_SECONDS = 1.5;
const PROBE_BATCHES = 64;

interface Epoch {
  readonly seconds: number;
  readonly rows: number;
}

/** One DataLoader in a process of its own. */
class DataLoaderPeer {
  readonly #peer: Peer;
  readonly #data: RowData;
  #seed = 0;

  constructor(peer: Peer, data: RowData) {
    this.#peer = peer;
    this.#data = data;
  }

  async open(way: Way, workers: number): Promise<void> {
    const { numRows, dataOffset, paths } = this.#data;
    const place = { path: paths[0], offset: dataOffset, rows: numRows, columns: ROW_BYTES / 4 };
    await this.#peer.ask({ op: "open", ...place, batch: BATCH, workers, way });
  }

  /** Rows a second. */
  async epoch(batches: number): Promise<number> {
    const { seconds, rows: count } = await this.#peer.ask<Epoch>({
      ...{ op: "epoch", batches, seed: this.#seed++ },
    });
    const expected = Math.min(batches * BATCH, this.#data.numRows);
    if (count !== expected) throw new Error(`DataLoader gave ${count} rows of ${expected}`);
    return count / seconds;
  }
}

/** A DataLoader with the worker count that did best. */
interface Best extends AsyncDisposable {
  readonly loader: DataLoaderPeer;
  readonly workers: number;
  /** Batches of a round. */
  readonly batches: number;
  /** Rows a second by worker count, or why there is no such figure. */
  readonly sweep: Record<string, number | string>;
  readonly ready: Peer["ready"];
}

/** Tries all worker counts. A count that fails costs its process, and leaves the others. */
async function bestWorkers(options: BenchOptions, data: RowData, way: Way): Promise<Best> {
  const figures: Record<string, number | string> = {};
  let best = { workers: -1, rate: 0 };
  const batches = Math.min(PROBE_BATCHES, Math.floor(data.numRows / BATCH));
  let peer: Peer | undefined;
  for (const workers of options.quick ? QUICK_WORKERS : WORKERS) {
    try {
      peer ??= await Peer.python("rows.py", options.device);
      const loader = new DataLoaderPeer(peer, data);
      await loader.open(way, workers);
      // Starts the workers and brings their pages in.
      await loader.epoch(batches);
      const rate = Math.max(await loader.epoch(batches), await loader.epoch(batches));
      figures[workers] = rate;
      if (rate > best.rate) best = { workers, rate };
    } catch (error) {
      if (!(error instanceof PeerMissing)) throw error;
      figures[workers] = error.message;
      await peer?.[Symbol.asyncDispose]();
      peer = undefined;
    }
    progress(`DataLoader, ${WAYS[way]}, ${workers} workers: ${figures[workers]}`);
  }
  if (best.workers < 0) throw new PeerMissing(`DataLoader: ${Object.values(figures)[0]}`);
  const kept = peer ?? (await Peer.python("rows.py", options.device));
  const loader = new DataLoaderPeer(kept, data);
  await loader.open(way, best.workers);
  const wanted = Math.ceil((best.rate * ROUND_SECONDS) / BATCH);
  return {
    loader,
    workers: best.workers,
    batches: Math.max(batches, Math.min(wanted, Math.floor(data.numRows / BATCH))),
    sweep: figures,
    ready: kept.ready,
    [Symbol.asyncDispose]: () => kept[Symbol.asyncDispose](),
  };
}

/** Compares each batch's checksum on the device with that of the same rows in the file. */
async function checkRows(team: Team, data: RowData, pass: Pass): Promise<void> {
  const count = pass.ids.reduce((total, ids) => total + ids.length, 0);
  if (count !== data.numRows) throw new Error(`${count} rows arrived of ${data.numRows}`);
  const ids = new Float64Array(new SharedArrayBuffer(count * 8));
  let at = 0;
  for (const part of pass.ids) {
    ids.set(part, at);
    at += part.length;
  }
  const expected = await batchSums(team, data, ids, BATCH);
  for (const [i, { sum }] of pass.sums.entries()) {
    if (sum !== expected[i]) throw new Error(`batch ${i} has the checksum ${sum}, its rows ${expected[i]}`);
  }
  if (expected.length !== pass.sums.length)
    throw new Error(`${pass.sums.length} batches of ${expected.length}`);
}

const LOADING = { batchSize: BATCH, seed: SEED, prefetch: PREFETCH, epochs: Number.POSITIVE_INFINITY };

/** A whole epoch, each batch compared with its rows in the file; rows a second. */
async function rowRate(team: Team, data: RowData, feed: Feed): Promise<number> {
  const pass = await feed.epoch({ group: GROUP, ids: true });
  await checkRows(team, data, pass);
  return data.numRows / pass.seconds;
}

const againstDataLoader: Case = async (options) => {
  const data = await rows(options.dataFolder, options.sizeBytes / 2);
  await using samples = await bestWorkers(options, data, "samples");
  await using batches = await bestWorkers(options, data, "batches");
  const best = { samples, batches };

  using team = new Team();
  await using own = openBenchDevice(options);
  await using feed = new Feed(own.device, data.paths, "map", "rows", LOADING);
  const figures = await interleave(
    "cuda.peer.dataloader",
    {
      ours: () => rowRate(team, data, feed),
      samples: () => samples.loader.epoch(samples.batches),
      batches: () => batches.loader.epoch(batches.batches),
    },
    options.repeats,
  );
  await traceEpoch(options, "cuda.peer.dataloader", async (tracer) => {
    await using traced = new Feed(own.device, data.paths, "map", "rows", { ...LOADING, tracer });
    await traced.epoch({ group: GROUP });
  });
  const note = (way: Way) =>
    [
      `rows of 3 KiB of ${(data.byteLength / 1e9).toFixed(2)} GB, ${warmth(data.paths)}, shuffled, batches of ${BATCH} to device memory`,
      `ours by map, whole epochs, each batch summed up on the GPU`,
      `theirs over the mapped file, pinned, persistent workers, best of ${Object.keys(best[way].sweep).join(", ")}: ${best[way].workers}, rounds of ${best[way].batches} batches`,
    ].join("; ");
  const row = (name: string, way: Way, atLeast: number) =>
    judge(
      {
        ...{ name, unit: "rows/s", note: note(way), atLeast },
        against: `PyTorch DataLoader, ${WAYS[way]}`,
      },
      figures.ours,
      figures[way],
    );
  return {
    // The second is not what people write; it must not be faster than ours all the same.
    rows: [row("cuda.peer.dataloader", "samples", 5), row("cuda.peer.dataloader.batches", "batches", 1)],
    leftOut: [],
    details: {
      peer: samples.ready,
      dataloader: { samples: samples.sweep, batches: batches.sweep },
    },
  };
};

export const dataloader = leavingOut("cuda.peer.dataloader", againstDataLoader, async (options) => {
  const data = await rows(options.dataFolder, options.sizeBytes / 2);
  using team = new Team();
  await using own = openBenchDevice(options);
  await using feed = new Feed(own.device, data.paths, "map", "rows", LOADING);
  await rowRate(team, data, feed);
  return `${Math.round(await rowRate(team, data, feed))} rows/s in the second epoch`;
});
