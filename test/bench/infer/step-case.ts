/** Where the time of a decoding step goes, and what it cannot be less than: the weights' bytes over what the memory of the
 * device moves a second. */
import {
  type Device,
  type DispatchCall,
  type InferRequest,
  openDevice,
  openLlama,
  RequestList,
  type Sequence,
} from "../../../src/index.ts";
import type { CaseResult } from "../cuda/rounds.ts";
import { judge, progress } from "../cuda/rounds.ts";
import { quantile } from "../harness.ts";
import { weightBytes } from "./data.ts";
import type { InferBenchOptions } from "./options.ts";
import { gpuData } from "./peer-case.ts";

/** Tokens that each sequence has before its first step is timed. */
const PROMPT_TOKENS = 64;
const TIMED_STEPS = 30;
/** Dispatches of one kernel in one submission, beside one alone. */
const REPLAYS = 20;
const COPY_BYTES = 1024 * 2 ** 20;

/** A kernel's part of a step. */
interface Part {
  readonly kernel: string;
  readonly launches: number;
  /** Of all of them, alone on the device and back to back. */
  readonly microseconds: number;
}

/** One size of a step. */
interface StepSize {
  readonly slots: number;
  readonly medianMs: number;
  readonly p99Ms: number;
  /** From the submission to the completion, as JavaScript sees them. */
  readonly deviceMs: number;
  readonly outputTokensPerSecond: number;
}

export async function stepParts(options: InferBenchOptions): Promise<CaseResult> {
  const { shape, model } = gpuData(options);
  await using real = openDevice(options.device);
  const watch = watched(real);
  const bytesPerSecond = await copyRate(real, options.quick);
  const floorMs = (weightBytes(model) / bytesPerSecond) * 1000;
  const engine = await openLlama(model, watch.device, { slots: options.slots, contextLength: 512 });
  try {
    const sizes: StepSize[] = [];
    for (let slots = 1; slots <= options.slots; slots *= 4) {
      const request = (row: number): InferRequest => ({
        row,
        prompt: Int32Array.from({ length: PROMPT_TOKENS }, (_, i) => (row * 31 + i * 7) % shape.vocab),
        maxNewTokens: 512,
      });
      const all = Array.from({ length: slots }, (_, slot) => slot);
      for (const slot of all) {
        engine.reserve?.(slot, PROMPT_TOKENS + TIMED_STEPS + 8);
        const { prompt } = request(slot);
        const chunk = { slot, position: 0, tokens: prompt, last: true, generated: 0, request: request(slot) };
        await engine.prefill([chunk]);
      }
      const times: number[] = [];
      watch.deviceMs.length = 0;
      for (let i = -3; i < TIMED_STEPS; i++) {
        if (i === 0) watch.deviceMs.length = 0;
        const started = performance.now();
        await engine.decode(all);
        if (i >= 0) times.push(performance.now() - started);
      }
      const medianMs = quantile(times, 0.5);
      sizes.push({
        slots,
        medianMs,
        p99Ms: quantile(times, 0.99),
        deviceMs: quantile(watch.deviceMs, 0.5),
        outputTokensPerSecond: (1000 * slots) / medianMs,
      });
      progress(
        `infer.step: ${slots} slots: ${medianMs.toFixed(3)} ms, of which device ${sizes.at(-1)!.deviceMs.toFixed(3)}`,
      );
      if (slots * 4 > options.slots) break;
      for (const slot of all) engine.release(slot);
    }
    const parts = await partsOf(real, watch.lastCalls());
    const alone = sizes[0]!;
    const text = {
      name: "infer.step",
      unit: "ms",
      against: "the weights' bytes over the rate of a copy on the device",
      note: `one sequence; copies run at ${(bytesPerSecond / 1e9).toFixed(0)} GB/s`,
      // For the record: one sequence waits for the latency of kernels, not for memory.
      atLeast: 0,
      higherIsBetter: false,
    };
    const row = judge(text, [alone.medianMs], [floorMs]);
    return { rows: [row], leftOut: [], details: { floorMs, bytesPerSecond, sizes, parts } };
  } finally {
    await engine.close();
  }
}

/** `real`, noting each sequence's calls and how long submissions take. Private fields want the real object behind. */
function watched(real: Device) {
  const calls = new Map<Sequence, readonly DispatchCall[]>();
  const deviceMs: number[] = [];
  let last: readonly DispatchCall[] = [];
  const device = new Proxy(real, {
    get(target, name) {
      if (name === "createSequence") {
        return (list: readonly DispatchCall[]) => {
          const sequence = target.createSequence(list);
          calls.set(sequence, list);
          last = list;
          return sequence;
        };
      }
      if (name === "createQueue") {
        return () => {
          const queue = target.createQueue();
          const completion = queue.completion.bind(queue);
          queue.completion = async (ticket) => {
            const done = await completion(ticket);
            deviceMs.push(done.completedMs - done.submittedMs);
            return done;
          };
          return queue;
        };
      }
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  return { device, deviceMs, lastCalls: () => last };
}

/** Time of each kernel of a step, by its name, the slowest first: many dispatches of it less one, over their number. */
async function partsOf(device: Device, calls: readonly DispatchCall[]): Promise<Part[]> {
  const queue = device.createQueue();
  try {
    const found = new Map<string, { launches: number; microseconds: number }>();
    for (const call of calls) {
      const one = await timed(call, 1);
      const many = await timed(call, REPLAYS);
      const { name } = call.pipeline;
      const part = found.get(name) ?? { launches: 0, microseconds: 0 };
      part.launches++;
      part.microseconds += Math.max(0, (1000 * (many - one)) / (REPLAYS - 1));
      found.set(name, part);
    }
    return [...found]
      .map(([kernel, part]) => ({ kernel, ...part }))
      .sort((a, b) => b.microseconds - a.microseconds);
  } finally {
    await queue.close();
  }

  /** The least of three, ms. */
  async function timed(call: DispatchCall, count: number): Promise<number> {
    let least = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 3; i++) {
      const list = new RequestList();
      for (let k = 0; k < count; k++) list.dispatch(call);
      const started = performance.now();
      const { error } = await queue.completion(queue.submit(list));
      if (error !== undefined) throw error;
      least = Math.min(least, performance.now() - started);
    }
    return least;
  }
}

/** Bytes a second of a copy inside the device's memory, read and written, the best of five. */
async function copyRate(device: Device, quick: boolean): Promise<number> {
  const byteLength = quick ? COPY_BYTES / 16 : COPY_BYTES;
  using source = device.createBuffer(byteLength, "private");
  using target = device.createBuffer(byteLength, "private");
  const queue = device.createQueue();
  try {
    let best = 0;
    for (let i = 0; i < 6; i++) {
      const started = performance.now();
      const list = new RequestList();
      for (let k = 0; k < 4; k++) list.copy(source, 0, target, 0, byteLength);
      const { error } = await queue.completion(queue.submit(list));
      if (error !== undefined) throw error;
      if (i > 0) best = Math.max(best, (8 * byteLength) / ((performance.now() - started) / 1000));
    }
    return best;
  } finally {
    await queue.close();
  }
}
