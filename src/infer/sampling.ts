/** Sampling options: their defaults, what is refused, and their form on the device. */
import { HeadraceError } from "../errors.ts";
import { minPWord, SAMPLE_WORDS, SampleField, SampleFlag, topPWord } from "../kernels/sample-host.ts";
import type { SamplingOptions } from "./engine.ts";

/** Options as they are in force: checked, with nothing left open. */
export interface Sampling {
  /** 0 takes the likeliest token. */
  readonly temperature: number;
  /** 0 keeps all. */
  readonly topK: number;
  /** 1 keeps all. */
  readonly topP: number;
  /** 0 keeps all. */
  readonly minP: number;
  /** 1 changes nothing. */
  readonly repetitionPenalty: number;
  readonly seed: number;
}

/** Ends of the ranges of temperatures but 0, and of penalties: beyond them F32 holds nothing of use. */
const LEAST = 1e-6;
const MOST = 1e6;
const WHOLE = `a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`;

/** What is wrong with sampling options; undefined where nothing is. */
export function whyBadSampling(options: SamplingOptions): string | undefined {
  const { temperature, topK, topP, minP, repetitionPenalty, seed } = withDefaults(options);
  const isWithin = (value: number, least: number, most: number) =>
    typeof value === "number" && value >= least && value <= most;
  if (temperature !== 0 && !isWithin(temperature, LEAST, MOST)) {
    return `temperature is ${temperature}; it must be 0, which is greedy, or a number from ${LEAST} to ${MOST}`;
  }
  if (!(Number.isSafeInteger(topK) && topK >= 0)) return `topK is ${topK}; it must be ${WHOLE}`;
  if (!isWithin(topP, Number.MIN_VALUE, 1))
    return `topP is ${topP}; it must be a number above 0, and at most 1`;
  if (!isWithin(minP, 0, 1)) return `minP is ${minP}; it must be a number from 0 to 1`;
  if (!isWithin(repetitionPenalty, LEAST, MOST)) {
    return `repetitionPenalty is ${repetitionPenalty}; it must be a number from ${LEAST} to ${MOST}`;
  }
  if (!(Number.isSafeInteger(seed) && seed >= 0)) return `seed is ${seed}; it must be ${WHOLE}`;
  return undefined;
}

/** Throws `BAD_OPTION` for what {@link whyBadSampling} finds. */
export function resolveSampling(options: SamplingOptions = {}): Sampling {
  const wrong = whyBadSampling(options);
  if (wrong !== undefined) throw new HeadraceError("BAD_OPTION", wrong);
  return withDefaults(options);
}

function withDefaults(options: SamplingOptions): Sampling {
  const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1, seed = 0 } = options;
  return { temperature, topK, topP, minP, repetitionPenalty, seed };
}

/** Whether tokens that a sequence holds must be known: the kernel of `seen.ts` keeps them. */
export function needsSeen({ repetitionPenalty }: Sampling): boolean {
  return repetitionPenalty !== 1;
}

/** What a row's parameters are made of beside its options. */
export interface SampledRow {
  /** Where the tokens that it holds are marked. */
  readonly slot: number;
  /** Its index in the dataset, from 0 and below 2^53. */
  readonly row: number;
  /** Tokens that it has made so far. */
  readonly step: number;
  readonly logprob: boolean;
}

/** Views of memory for rows' parameters: the same bytes as words and as floats. */
export interface SampleParamsView {
  readonly words: Uint32Array;
  readonly floats: Float32Array;
}

/** Both views of `[byteOffset, byteOffset + rows * SAMPLE_PARAMS_BYTES)` of `memory`. */
export function sampleParamsView(memory: ArrayBuffer, byteOffset: number, rows: number): SampleParamsView {
  return {
    words: new Uint32Array(memory, byteOffset, rows * SAMPLE_WORDS),
    floats: new Float32Array(memory, byteOffset, rows * SAMPLE_WORDS),
  };
}

/** Writes the parameters of row `index` of a dispatch of the sampler's kernel. */
export function writeSampleParams(
  { words, floats }: SampleParamsView,
  index: number,
  sampling: Sampling,
  { slot, row, step, logprob }: SampledRow,
): void {
  const { temperature, topK, topP, minP, repetitionPenalty, seed } = sampling;
  const at = index * SAMPLE_WORDS;
  const flags =
    (temperature > 0 ? SampleFlag.drawn : 0) |
    (logprob ? SampleFlag.logprob : 0) |
    (repetitionPenalty !== 1 ? SampleFlag.penalized : 0);
  words[at + SampleField.slot] = slot;
  words[at + SampleField.flags] = flags;
  floats[at + SampleField.inverseTemperature] = temperature > 0 ? 1 / temperature : 1;
  words[at + SampleField.topK] = Math.min(topK, 2 ** 32 - 1);
  words[at + SampleField.topP] = topPWord(topP);
  words[at + SampleField.minP] = minPWord(minP);
  floats[at + SampleField.penalty] = repetitionPenalty;
  words[at + SampleField.seedLow] = seed;
  words[at + SampleField.seedHigh] = seed / 2 ** 32;
  words[at + SampleField.rowLow] = row;
  words[at + SampleField.rowHigh] = row / 2 ** 32;
  words[at + SampleField.step] = step;
}
