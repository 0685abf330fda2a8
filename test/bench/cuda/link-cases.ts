/** Against the machine: files in the page cache to device memory, beside bare copies, registration and reads. */
import { availableParallelism } from "node:os";
import { PreadSweep, type SweepSetting } from "../bare.ts";
import { quantile } from "../harness.ts";
import { BareGpu, LINK_PIECE, type RegisterSetting } from "./bare.ts";
import { type Data, warmth, weights } from "./data.ts";
import type { BenchOptions } from "./options.ts";
import { expectSums, Feed, loadAll, openBenchDevice, traceEpoch } from "./ours.ts";
import { type CaseResult, type CudaRow, interleave, judge, type RowText, smallest, sweep } from "./rounds.ts";

export type Case = (options: BenchOptions) => Promise<CaseResult>;

const MIB = 2 ** 20;
/** Batches of an epoch of the weights, about: 512 MiB of 8 GiB. */
const BATCHES = 16;

/** What a row is held against, by name: the median of the smallest is the limit. */
type Limits = Readonly<Record<string, readonly number[]>>;

function judgeAgainstSmallest(
  text: Omit<RowText, "against">,
  ours: readonly number[],
  limits: Limits,
): CudaRow {
  const names = Object.keys(limits);
  const least = smallest(limits, names);
  const others = names.filter((name) => name !== least);
  const said = others.map((name) => `${name} ${quantile(limits[name]!, 0.5).toPrecision(3)} GB/s`);
  const note = said.length === 0 ? text.note : `${text.note}; ${said.join(", ")}`;
  return judge({ ...text, against: least, note }, ours, limits[least]!);
}

function sizeText(data: Data): string {
  return `${(data.byteLength / 1e9).toFixed(2)} GB in ${data.paths.length} safetensors files, ${warmth(data.paths)}`;
}

const LINK = `pinned memory to the device in pieces of ${LINK_PIECE / MIB} MiB`;

/** An epoch in batches of a few tensors each, every byte summed up on the device; GB/s. */
export async function feedRate(feed: Feed, data: Data): Promise<number> {
  const pass = await feed.epoch();
  expectSums(data, pass.sums);
  return pass.bytes / pass.seconds / 1e9;
}

export function batchBytesOf(options: BenchOptions): number {
  return Math.max(1, Math.floor(options.sizeBytes / BATCHES));
}

export const mapLink: Case = async (options) => {
  const data = await weights(options.dataFolder, options.sizeBytes);
  const bare = new BareGpu();
  await using own = openBenchDevice(options);
  const batchBytes = batchBytesOf(options);
  await using feed = new Feed(own.device, data.paths, "map", "tensors", {
    batchBytes,
    epochs: Number.POSITIVE_INFINITY,
  });
  const figures = await interleave(
    "cuda.map.link",
    { ours: () => feedRate(feed, data), [LINK]: () => bare.link(data.byteLength) },
    options.repeats,
  );
  await traceEpoch(options, "cuda.map.link", async (tracer) => {
    await using traced = new Feed(own.device, data.paths, "map", "tensors", { batchBytes, tracer });
    await traced.epoch();
  });
  bare.close();
  const { ours, ...limits } = figures;
  const note = `${sizeText(data)}, epochs after the first, batches of at most ${(batchBytes / MIB).toFixed(0)} MiB, each summed up on the GPU as it arrives`;
  const row = judgeAgainstSmallest(
    { name: "cuda.map.link", unit: "GB/s", note, atLeast: 0.9 },
    ours!,
    limits,
  );
  return { rows: [row], leftOut: [], details: {} };
};

const REGISTER_THREADS = [1, 2, 4, 8];
const REGISTER_WINDOWS = [64 * MIB, 256 * MIB];

function registerText({ threads, windowBytes }: RegisterSetting): string {
  return `${threads} threads, windows of ${windowBytes / MIB} MiB`;
}

export const mapFirst: Case = async (options) => {
  const data = await weights(options.dataFolder, options.sizeBytes);
  const bare = new BareGpu();
  const settings = REGISTER_THREADS.flatMap((threads) =>
    REGISTER_WINDOWS.map((windowBytes) => ({ threads, windowBytes })),
  );
  const best = await sweep("registration", settings, registerText, (setting) =>
    bare.register(data.paths, setting),
  );
  const registration = `bare registration of the mapped files, best of a sweep (${best.text})`;
  const figures = await interleave(
    "cuda.map.first",
    {
      ours: () => firstLoad(options, data, "map"),
      [LINK]: () => bare.link(data.byteLength),
      [registration]: () => bare.register(data.paths, best.best),
    },
    options.repeats,
  );
  bare.close();
  const { ours, ...limits } = figures;
  const note = `${sizeText(data)}, all tensors at once into a fresh device (its opening left out), opening, mapping, registering and device memory counted; summed up on the GPU afterwards`;
  const row = judgeAgainstSmallest(
    { name: "cuda.map.first", unit: "GB/s", note, atLeast: 0.9 },
    ours!,
    limits,
  );
  return { rows: [row], leftOut: [], details: { registration: best.medians } };
};

/** Everything fresh, and the device's opening and closing left out; GB/s. */
export async function firstLoad(
  options: BenchOptions,
  data: Data,
  strategy: "map" | "read",
): Promise<number> {
  await using own = openBenchDevice(options);
  return await loadAll(own.device, data, strategy);
}

const READ_THREADS = [4, 8, 12, 16, 24, 32];
const UPLOAD_THREADS = READ_THREADS.slice(1);

function preadText({ lanes, pieceBytes }: SweepSetting): string {
  return `${lanes} threads, pieces of ${pieceBytes / MIB} MiB`;
}

/** The best that bare threads reach which read and upload at once. */
async function bestUpload(options: BenchOptions, data: Data, bare: BareGpu) {
  const most = Math.max(8, availableParallelism());
  const settings = UPLOAD_THREADS.filter((count) => count <= most)
    .flatMap((lanes) => [2, 4, 8].map((mib) => ({ lanes, pieceBytes: mib * MIB })))
    .filter((setting) => bare.hasRoom(setting));
  const run = (setting: SweepSetting) => bare.readAndUpload(data.paths, setting);
  return await sweep("pread and upload at once", settings, preadText, run, options.quick ? 1 : 3);
}

export const readLink: Case = async (options) => {
  const data = await weights(options.dataFolder, options.sizeBytes);
  const bare = new BareGpu();
  const pread = new PreadSweep(bare.pinned);
  const threads = READ_THREADS.filter((count) => count <= Math.max(4, availableParallelism()));
  const settings = threads.flatMap((lanes) => [1, 4, 16].map((mib) => ({ lanes, pieceBytes: mib * MIB })));
  const run = async (setting: SweepSetting) => (await pread.run(data.paths, setting)) / 1e9;
  const best = await sweep("pread", settings, preadText, run, options.quick ? 1 : 2);
  const reads = `bare pread into pinned memory, best of a sweep (${best.text})`;
  const both = await bestUpload(options, data, bare);
  await using own = openBenchDevice(options);
  const batchBytes = batchBytesOf(options);
  await using feed = new Feed(own.device, data.paths, "read", "tensors", {
    batchBytes,
    epochs: Number.POSITIVE_INFINITY,
  });
  const figures = await interleave(
    "cuda.read.link",
    {
      ours: () => feedRate(feed, data),
      [LINK]: () => bare.link(data.byteLength),
      [reads]: () => run(best.best),
    },
    options.repeats,
  );
  await traceEpoch(options, "cuda.read.link", async (tracer) => {
    await using traced = new Feed(own.device, data.paths, "read", "tensors", { batchBytes, tracer });
    await traced.epoch();
  });
  pread.close();
  bare.close();
  const { ours, ...limits } = figures;
  const ceiling = both.medians[both.text]!;
  const note = `${sizeText(data)}, batches of at most ${(batchBytes / MIB).toFixed(0)} MiB, each summed up on the GPU as it arrives; bare threads that read and upload at once reach ${ceiling.toPrecision(3)} GB/s (${both.text})`;
  const row = judgeAgainstSmallest(
    { name: "cuda.read.link", unit: "GB/s", note, atLeast: 0.9 },
    ours!,
    limits,
  );
  const details = { pread: best.medians, readAndUpload: both.medians };
  return { rows: [{ ...row, ceiling }], leftOut: [], details };
};
