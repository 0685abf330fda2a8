/** What the tests of the sampler share: rows with their options, and what is to be expected of them. */
import type { KernelSource } from "../../../src/device/device.ts";
import type { SamplingOptions } from "../../../src/infer/engine.ts";
import {
  resolveSampling,
  type SampledRow,
  sampleParamsView,
  writeSampleParams,
} from "../../../src/infer/sampling.ts";
import { SAMPLE_PARAMS_BYTES, sampleCall } from "../../../src/kernels/sample.ts";
import { seenWords } from "../../../src/kernels/seen.ts";
import { floatsIn, infoOf, poison, type RunForms } from "./forms.ts";
import { PIPELINE } from "./memory.ts";

export interface SampleRow extends Partial<SampledRow> {
  readonly logits: ArrayLike<number>;
  readonly options?: SamplingOptions;
}

export interface Sampled {
  readonly tokens: readonly number[];
  readonly logprobs: readonly number[];
}

/** The rows' logits and parameters as the kernel takes them. */
export function packRows(rows: readonly SampleRow[]) {
  const vocab = rows[0]!.logits.length;
  const logits = new Float32Array(rows.length * vocab);
  const params = new ArrayBuffer(rows.length * SAMPLE_PARAMS_BYTES);
  const view = sampleParamsView(params, 0, rows.length);
  for (const [i, { logits: own, options, slot = 0, row = i, step = 0, logprob = false }] of rows.entries()) {
    logits.set(own, i * vocab);
    writeSampleParams(view, i, resolveSampling(options), { slot, row, step, logprob });
  }
  return { vocab, logits, params: new Uint32Array(params) };
}

/** Samples the first `count` of some rows of one vocabulary; `seen` has the bits of slots. What is not sampled keeps
 * the token 0x7fa5a5a5. */
export function sampleRows(
  run: RunForms,
  kernel: KernelSource,
  rows: readonly SampleRow[],
  seen: Uint32Array<ArrayBuffer> = new Uint32Array(0),
  count: number = rows.length,
): Sampled {
  const { vocab, logits, params } = packRows(rows);
  const buffers = [logits, params, seen, infoOf(count, 1), poison(rows.length), poison(rows.length)];
  const after = run(kernel, buffers, (at) =>
    sampleCall(PIPELINE, {
      ...{ logits: at[0]!, params: at[1]!, seen: at[2]!, info: at[3]!, tokens: at[4]!, logprobs: at[5]! },
      ...{ vocab, numSlots: seen.length / seenWords(vocab), countAt: 1, maxRows: rows.length },
    }),
  );
  const tokens = new Int32Array(after[4]!.buffer);
  return { tokens: [...tokens], logprobs: [...floatsIn(after[5]!)] };
}

/** The bits of some tokens. */
export function bitsOf(tokens: readonly number[], vocab: number): Uint32Array<ArrayBuffer> {
  const bits = new Uint32Array(seenWords(vocab));
  for (const token of tokens) bits[token >>> 5]! |= 1 << (token & 31);
  return bits;
}

/** The probability of each token, by the words of the options, in doubles. */
export function distribution(
  logits: ArrayLike<number>,
  options: SamplingOptions,
  held: readonly number[] = [],
): number[] {
  const { temperature, topK, topP, minP, repetitionPenalty } = resolveSampling(options);
  const scaled = Array.from(logits, (logit, i) => {
    if (!held.includes(i)) return logit / temperature;
    return (logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty) / temperature;
  });
  const order = scaled.map((_, i) => i).filter((i) => Number.isFinite(scaled[i]!));
  order.sort((a, b) => scaled[b]! - scaled[a]! || a - b);
  const most = scaled[order[0]!]!;
  const weight = (i: number) => Math.exp(scaled[i]! - most);
  const least = topK > 0 && topK < order.length ? scaled[order[topK - 1]!]! : Number.NEGATIVE_INFINITY;
  const likely = order.filter((i) => scaled[i]! >= least);
  const total = likely.reduce((sum, i) => sum + weight(i), 0);
  let count = 0;
  for (let sum = 0; count < likely.length && (count === 0 || sum < topP * total); count++) {
    sum += weight(likely[count]!);
  }
  const kept = new Set((topP < 1 ? likely.slice(0, count) : likely).filter((i) => weight(i) >= minP));
  const whole = [...kept].reduce((sum, i) => sum + weight(i), 0);
  return scaled.map((_, i) => (kept.has(i) ? weight(i) / whole : 0));
}

/** Whether a token is among those that the options leave, give or take what the device's rounding may move. */
export function hasChance(
  token: number,
  logits: ArrayLike<number>,
  options: SamplingOptions,
  held: readonly number[],
): boolean {
  const { temperature, topK, topP, minP, repetitionPenalty } = resolveSampling(options);
  const heldOnes = new Set(held);
  const scaled = Array.from(logits, (logit, i) => {
    if (!heldOnes.has(i)) return logit / temperature;
    return (logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty) / temperature;
  });
  const own = scaled[token];
  if (own === undefined || !Number.isFinite(own)) return false;
  const finite = scaled.filter(Number.isFinite).sort((a, b) => b - a);
  const weights = finite.map((logit) => Math.exp(logit - finite[0]!));
  const more = finite.filter((logit) => logit > own + 1e-5 * Math.max(1, Math.abs(own))).length;
  if (topK > 0 && more >= topK) return false;
  const sum = (count: number) => weights.slice(0, count).reduce((all, weight) => all + weight, 0);
  const likely =
    topK > 0 && topK < finite.length ? finite.filter((l) => l >= finite[topK - 1]!).length : finite.length;
  if (sum(more) > topP * sum(likely) * 1.001) return false;
  return Math.exp(own - finite[0]!) > Math.max(minP, 2 ** -35) * 0.999;
}

/** Pearson's statistic against what a random one exceeds once in a million times, as a multiple of that. Nothing of
 * probability 0 may have been drawn. */
export function surprise(drawn: readonly number[], probabilities: readonly number[]): number {
  const counts = new Float64Array(probabilities.length);
  for (const one of drawn) counts[one]!++;
  let statistic = 0;
  let classes = 0;
  let [rest, restExpected] = [0, 0];
  for (const [i, probability] of probabilities.entries()) {
    const expected = probability * drawn.length;
    if (probability === 0 && counts[i]! > 0) return Number.POSITIVE_INFINITY;
    if (expected < 10) {
      rest += counts[i]!;
      restExpected += expected;
      continue;
    }
    statistic += (counts[i]! - expected) ** 2 / expected;
    classes++;
  }
  if (restExpected >= 5) {
    statistic += (rest - restExpected) ** 2 / restExpected;
    classes++;
  }
  const freedom = classes - 1;
  if (freedom < 1) return 0;
  // Wilson and Hilferty's approximation.
  const part = 2 / (9 * freedom);
  return statistic / (freedom * (1 - part + 4.75 * Math.sqrt(part)) ** 3);
}
