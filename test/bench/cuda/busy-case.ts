/** Whether loading starves the GPU: a kernel that runs nine tenths of the time, alone and while batches arrive. */
import {
  type Device,
  type DeviceBuffer,
  type DeviceQueue,
  type KernelSource,
  type Pipeline,
  RequestList,
} from "../../../src/index.ts";
import { quantile } from "../harness.ts";
import { weights } from "./data.ts";
import { batchBytesOf, type Case } from "./link-cases.ts";
import { expectSums, Feed, openBenchDevice } from "./ours.ts";
import { interleave, judge } from "./rounds.ts";

/** A chain of integer arithmetic in registers, of so many steps a thread. */
const BUSY: KernelSource = {
  name: "busy",
  host: ([out], constants, threads) => {
    const steps = new DataView(constants.buffer, constants.byteOffset).getUint32(0, true);
    const view = new DataView(out!.buffer, out!.byteOffset);
    for (let thread = 0; thread < threads; thread++) view.setUint32(thread * 4, chain(thread, steps), true);
  },
  text: `
struct BusyConstants { uint32_t steps; };

HR_KERNEL(busy, HR_OUT(0, uint32_t, out), HR_CONSTANTS(1, BusyConstants, c)) {
  if (hr_thread >= hr_threads) return;
  uint32_t x = hr_thread;
  for (uint32_t i = 0; i < c.steps; i++) x = (x ^ x >> 15) * 0x2c1b3c6du + i;
  out[hr_thread] = x;
}
`,
};

function chain(start: number, steps: number): number {
  let x = start | 0;
  for (let i = 0; i < steps; i++) x = (Math.imul(x ^ (x >>> 15), 0x2c1b3c6d) + i) | 0;
  return x >>> 0;
}

/** What is launched again and again: a kernel on the whole GPU, then one thread that leaves the rest idle. */
interface Sizes {
  /** Fill the GPU. */
  readonly threads: number;
  readonly busySeconds: number;
  /** Of a round. */
  readonly roundSeconds: number;
}

const FULL: Sizes = { threads: 2 ** 18, busySeconds: 0.009, roundSeconds: 2 };
const QUICK: Sizes = { threads: 2 ** 10, busySeconds: 0.0036, roundSeconds: 0.3 };
const BUSY_PART = 0.9;
/** Periods that have been asked for at once. */
const AHEAD = 4;
const FIRST_STEPS = 64;
const MAX_STEPS = 2 ** 31;

/** Keeps the GPU busy for {@link BUSY_PART} of the time. Close it. */
class BusyLoop implements AsyncDisposable {
  readonly #queue: DeviceQueue;
  readonly #pipeline: Pipeline;
  readonly #device: Device;
  readonly #out: DeviceBuffer;
  readonly #sizes: Sizes;
  #busySteps = 0;
  #idleSteps = 0;
  /** Of the busy kernel alone, as measured. */
  busySeconds = 0;

  constructor(device: Device, sizes: Sizes) {
    this.#device = device;
    this.#sizes = sizes;
    this.#queue = device.createQueue();
    this.#pipeline = device.createPipeline(BUSY);
    this.#out = device.createBuffer(sizes.threads * 4, "private");
  }

  /** Finds how many steps take how long. */
  async tune(): Promise<void> {
    const { threads, busySeconds } = this.#sizes;
    this.#busySteps = await this.#stepsFor(threads, busySeconds);
    this.#idleSteps = await this.#stepsFor(1, (busySeconds / BUSY_PART) * (1 - BUSY_PART));
    this.busySeconds = await this.#seconds(threads, this.#busySteps);
  }

  /** Runs until `seconds` are over, or `until` has ended where that comes later; the part of the time in which the
   * kernel ran, had each run taken as long as it does alone. */
  async run(seconds: number, until: Promise<unknown> = Promise.resolve()): Promise<number> {
    const list = new RequestList();
    this.#add(list, this.#sizes.threads, this.#busySteps);
    this.#add(list, 1, this.#idleSteps);
    let going = true;
    let periods = 0;
    let ended = 0;
    void until.then(
      () => (going = false),
      () => (going = false),
    );
    const started = Bun.nanoseconds();
    const lane = async () => {
      while (going || Bun.nanoseconds() - started < seconds * 1e9) {
        await this.#submit(list);
        periods++;
        ended = Bun.nanoseconds();
        // A device that ends its submissions at once would leave no turn to those who load.
        await new Promise(setImmediate);
      }
    };
    await Promise.all(Array.from({ length: AHEAD }, lane));
    return (periods * this.busySeconds * 1e9) / (ended - started);
  }

  /** Throws unless the kernel has computed what it should have. */
  async check(): Promise<void> {
    const { threads } = this.#sizes;
    using seen = this.#device.createBuffer(threads * 4);
    const list = new RequestList();
    this.#add(list, threads, this.#busySteps);
    await this.#submit(list.copy(this.#out, 0, seen, 0, threads * 4));
    const values = new Uint32Array(seen.view(0, threads * 4));
    for (const thread of [0, threads >> 1, threads - 1]) {
      const expected = chain(thread, this.#busySteps);
      if (values[thread] !== expected) {
        throw new Error(`thread ${thread} of the busy kernel gave ${values[thread]}, not ${expected}`);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#queue.close();
    this.#out.close();
    this.#pipeline.close();
  }

  async #stepsFor(threads: number, seconds: number): Promise<number> {
    let steps = FIRST_STEPS;
    let taken = await this.#seconds(threads, steps);
    while (taken < seconds / 2 && steps < MAX_STEPS / 2) {
      steps *= 2;
      taken = await this.#seconds(threads, steps);
    }
    return Math.max(1, Math.min(MAX_STEPS, Math.round((steps * seconds) / taken)));
  }

  /** Of one run of the kernel: what four more of them take, so that the way there and back does not count, unless that
   * varies by more than they take. */
  async #seconds(threads: number, steps: number): Promise<number> {
    const one = new RequestList();
    const five = new RequestList();
    this.#add(one, threads, steps);
    for (let i = 0; i < 5; i++) this.#add(five, threads, steps);
    const taken: number[] = [];
    for (let i = 0; i < 5; i++) {
      const started = Bun.nanoseconds();
      await this.#submit(one);
      const middle = Bun.nanoseconds();
      await this.#submit(five);
      const [single, all] = [middle - started, Bun.nanoseconds() - middle];
      taken.push((all > single ? (all - single) / 4 : all / 5) / 1e9);
    }
    return quantile(taken, 0.5);
  }

  #add(list: RequestList, threads: number, steps: number): void {
    const constants = new Uint8Array(new Uint32Array([steps]).buffer);
    list.dispatch({
      pipeline: this.#pipeline,
      buffers: [{ buffer: this.#out, offset: 0 }],
      constants,
      threads,
    });
  }

  async #submit(list: RequestList): Promise<void> {
    const { error } = await this.#queue.completion(this.#queue.submit(list));
    if (error !== undefined) throw error;
  }
}

export const busy: Case = async (options) => {
  const sizes = options.quick ? QUICK : FULL;
  const data = await weights(options.dataFolder, options.sizeBytes);
  await using own = openBenchDevice(options);
  await using loop = new BusyLoop(own.device, sizes);
  await loop.tune();
  await using feed = new Feed(own.device, data.paths, "map", "tensors", {
    batchBytes: batchBytesOf(options),
    epochs: Number.POSITIVE_INFINITY,
  });
  const rates: number[] = [];
  const ours = async () => {
    const end = Bun.nanoseconds() + sizes.roundSeconds * 1e9;
    const load = async () => {
      let bytes = 0;
      let seconds = 0;
      while (Bun.nanoseconds() < end) {
        // A kernel that sums up would take the GPU's time itself.
        const pass = await feed.epoch({ unchecked: true });
        bytes += pass.bytes;
        seconds += pass.seconds;
      }
      rates.push(bytes / seconds / 1e9);
    };
    const loading = load();
    const share = await loop.run(sizes.roundSeconds, loading);
    await loading;
    return share;
  };
  const figures = await interleave(
    "cuda.busy",
    { ours, alone: () => loop.run(sizes.roundSeconds) },
    options.repeats,
  );
  // The same under the same load, with all bytes summed up.
  const checked = feed.epoch();
  await loop.run(0, checked);
  expectSums(data, (await checked).sums);
  await loop.check();
  const note = [
    `a kernel of ${(loop.busySeconds * 1000).toFixed(1)} ms on ${sizes.threads} threads, then a tenth of the period idle, ${AHEAD} periods asked for ahead, ${sizes.roundSeconds} s a round`,
    `batches by map from another queue at ${quantile(rates, 0.5).toPrecision(3)} GB/s meanwhile; their bytes summed up in one more epoch beside the kernel, since summing takes the GPU's time itself`,
  ].join("; ");
  const row = judge(
    {
      name: "cuda.busy",
      unit: "of the time busy",
      against: "the same kernel alone",
      note,
      atLeast: 0.98,
    },
    figures.ours,
    figures.alone,
  );
  return { rows: [row], leftOut: [], details: {} };
};
