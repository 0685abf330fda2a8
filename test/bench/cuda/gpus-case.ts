/** Two GPUs that load at once, each its own files, against each of them alone. */
import { join } from "node:path";
import { quantile } from "../harness.ts";
import { BareGpu } from "./bare.ts";
import { type Data, weights } from "./data.ts";
import { batchBytesOf, type Case } from "./link-cases.ts";
import { argumentsFor, type BenchOptions } from "./options.ts";
import { expectSums, Feed, type OwnDevice, openBenchDevice } from "./ours.ts";
import { Peer } from "./peer.ts";
import { type CaseResult, type CudaRow, judge, progress } from "./rounds.ts";

const ORDINALS = [0, 1] as const;
/** Epochs of a measurement, so that both sides run at the same time for nearly all of it. */
const EPOCHS = 4;

/** Every second file, on the GPU that they are for. Close it. */
export class GpuHalf implements AsyncDisposable {
  readonly #own: OwnDevice;
  readonly #feed: Feed;
  readonly #half: Pick<Data, "sums">;

  constructor(options: BenchOptions, data: Data, ordinal: number) {
    this.#own = openBenchDevice(options, ordinal);
    const paths = data.paths.filter((_, i) => i % ORDINALS.length === ordinal);
    const isOurs = (name: string) => Number(name.split(".")[1]) % ORDINALS.length === ordinal;
    this.#half = { sums: Object.fromEntries(Object.entries(data.sums).filter(([name]) => isOurs(name))) };
    this.#feed = new Feed(this.#own.device, paths, "map", "tensors", {
      batchBytes: batchBytesOf(options),
      epochs: Number.POSITIVE_INFINITY,
    });
  }

  /** Several epochs, every byte summed up on the GPU; GB/s. */
  async rate(): Promise<number> {
    let bytes = 0;
    let seconds = 0;
    for (let epoch = 0; epoch < EPOCHS; epoch++) {
      const pass = await this.#feed.epoch();
      expectSums(this.#half, pass.sums);
      bytes += pass.bytes;
      seconds += pass.seconds;
    }
    return bytes / seconds / 1e9;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#feed.close();
    await this.#own[Symbol.asyncDispose]();
  }
}

type Work = (ordinal: number) => Promise<number>;

/** Figures of each GPU, alone and together. */
interface Figures {
  readonly alone: readonly [number[], number[]];
  readonly together: readonly [number[], number[]];
}

async function takeTurns(title: string, work: Work, repeats: number): Promise<Figures> {
  const figures: Figures = { alone: [[], []], together: [[], []] };
  for (const ordinal of ORDINALS) await work(ordinal);
  for (let round = 0; round < repeats; round++) {
    const turns = [
      async () => {
        for (const ordinal of ORDINALS) figures.alone[ordinal].push(await work(ordinal));
      },
      async () => {
        const rates = await Promise.all(ORDINALS.map(work));
        for (const ordinal of ORDINALS) figures.together[ordinal].push(rates[ordinal]!);
      },
    ];
    if (round % 2 === 1) turns.reverse();
    for (const turn of turns) await turn();
    const last = (side: readonly number[][]) =>
      side.map((rates) => rates.at(-1)!.toPrecision(3)).join(" and ");
    progress(
      `${title}: round ${round + 1} of ${repeats}: alone ${last([...figures.alone])}, together ${last([...figures.together])} GB/s`,
    );
  }
  return figures;
}

function rowsOf(name: string, figures: Figures, note: string): CudaRow[] {
  return ORDINALS.map((ordinal) =>
    judge(
      {
        name: `${name}.${ordinal}`,
        unit: "GB/s",
        against: `GPU ${ordinal} alone`,
        note,
        atLeast: 0.85,
      },
      figures.together[ordinal],
      figures.alone[ordinal],
    ),
  );
}

function linkNote(link: Figures): string {
  const text = (side: Figures["alone"]) =>
    side.map((rates) => quantile(rates, 0.5).toPrecision(3)).join(" and ");
  return `bare copies from pinned memory at the same time: ${text(link.together)} GB/s, alone ${text(link.alone)}`;
}

export const twoGpus: Case = async (options): Promise<CaseResult> => {
  const count = BareGpu.count();
  if (count < ORDINALS.length) {
    const reason = `the driver counts ${count} GPU; the row needs ${ORDINALS.length}`;
    return { rows: [], leftOut: [{ name: "cuda.two-gpus", reason }], details: {} };
  }
  const data = await weights(options.dataFolder, options.sizeBytes);
  const epochs = `${EPOCHS} epochs of half of the files each, by map, every byte summed up on its GPU`;
  const inProcesses = async () => {
    await using first = await startGpu(options, 0);
    await using second = await startGpu(options, 1);
    const peers = [first, second];
    const ask = (op: string) => async (ordinal: number) =>
      (await peers[ordinal]!.ask<{ rate: number }>({ op })).rate;
    const link = await takeTurns("two links", ask("link"), options.repeats);
    const figures = await takeTurns("cuda.two-gpus", ask("load"), options.repeats);
    return { link, figures };
  };
  const { link, figures } = await inProcesses();
  const note = `${epochs}; ${linkNote(link)}`;
  const processes = rowsOf("cuda.two-gpus", figures, `a process for each; ${note}`);
  await using first = new GpuHalf(options, data, 0);
  await using second = new GpuHalf(options, data, 1);
  const halves = [first, second];
  const work: Work = (ordinal) => halves[ordinal]!.rate();
  const together = await takeTurns("cuda.two-gpus.one-process", work, options.repeats);
  const one = rowsOf("cuda.two-gpus.one-process", together, `two devices in one process; ${note}`);
  return { rows: [...processes, ...one], leftOut: [], details: {} };
};

function startGpu(options: BenchOptions, ordinal: number): Promise<Peer> {
  const script = join(import.meta.dir, "gpu-process.ts");
  return Peer.start([process.execPath, script, ...argumentsFor(options, "gpu", ordinal)]);
}
