/**
 * Chooses the next token of each row from its logits, on the device.
 *
 * **What is chosen.** Infinite logits and NaNs are never chosen, and count for nothing. In this order:
 *
 * 1. *Penalty* p: a logit l of a token that the slot's bits hold becomes `l / p` where it is positive, `l p` where not;
 *    what grows too large becomes the largest finite number.
 * 2. *Greedy* rows take the largest logit, of equal ones the first token, and are done.
 * 3. *Temperature* t: a token's mass is the integer nearest to `2^34 exp((l - m) / t)`, where m is the largest logit,
 *    and `1 / t` an F32 (see `masses.ts`). What is less likely than 2^-35 of the likeliest has the mass 0.
 * 4. *topK*: kept are the K largest logits, and those equal to the K-th.
 * 5. *topP* P: of these, in the order of their logits, of equal ones the first token first, as few as have P times the
 *    mass of all of them, rounded up; one at least. P counts as a multiple of 2^-32.
 * 6. *minP* M: of these, those with a mass of `2^34 M` at least. M counts as a multiple of 2^-31.
 * 7. *The draw*: r = floor(x S / 2^64) for the sum S of their masses and the random x, 64 bits that Philox 4x32-10 gives
 *    for the counter (row, step, 0) and the key (seed): its first word is the lower one. The token is the one at which
 *    the masses, added up, exceed r. They are added in this order: first the tokens before the last one that topP kept
 *    and those equal to it, or all where topP is 1; lane by lane, where token i is of lane `floor(i / 4) mod 256`, and by
 *    their ids; then those equal to the last one, by their ids.
 *
 * All of it but the logits is integers, or F32 operations that round once, so that every device chooses the same token
 * from the same logits, whatever else is in the batch.
 *
 * **The logprob** is that of the logits as they came: `l - m - ln(S / 2^34)`, with m and S as above for p = t = 1.
 */
import type { KernelSource, Pipeline } from "../device/device.ts";
import type { DispatchCall } from "../device/requests.ts";
import { bindPlace, ConstantReader, checkInteger, type Place, packConstants } from "./constants.ts";
import { MAX_VOCAB } from "./masses.ts";
import { GROUP_SIZE } from "./portable.ts";
import { RowSampler, SAMPLE_WORDS, SampleField, SampleFlag } from "./sample-host.ts";
import { SAMPLE_TEXT } from "./sample-text.ts";
import { seenWords } from "./seen.ts";
import { bindRows, checkThreads, float32Of, rowsOf, type StepRows, wordsOf } from "./step.ts";

/** Bytes of a row's parameters. */
export const SAMPLE_PARAMS_BYTES = SAMPLE_WORDS * 4;

/**
 * Buffers: logits (F32, `[rows, vocab]`), params ({@link SAMPLE_PARAMS_BYTES} a row), seen (uint32, `[numSlots,
 * seenWords(vocab)]`: read for rows with a penalty alone), info, tokens (int32, one a row), logprobs (F32, one a row).
 * Word `countAt` of info holds the number of rows. The token is -1, and the logprob NaN, for a row without a finite
 * logit, or with a penalty and a slot out of range. The logprob of a row that asks for none is 0.
 */
export function sampleKernel(): KernelSource {
  let sampler: { readonly vocab: number; readonly rows: RowSampler } | undefined;
  return {
    name: "sample",
    host: ([logits, params, seen, info, tokens, logprobs], constants) => {
      const read = new ConstantReader(constants);
      const vocab = read.uint();
      const numSlots = read.uint();
      const rows = rowsOf(info!, read.uint(), read.uint());
      if (sampler?.vocab !== vocab) sampler = { vocab, rows: new RowSampler(vocab) };
      const all = float32Of(logits!, rows * vocab);
      const words = wordsOf(params!, rows * SAMPLE_WORDS);
      const floats = float32Of(params!, rows * SAMPLE_WORDS);
      const held = wordsOf(seen!, numSlots * seenWords(vocab));
      const token = new Int32Array(tokens!.buffer, tokens!.byteOffset, rows);
      const logprob = float32Of(logprobs!, rows);
      for (let row = 0; row < rows; row++) {
        const at = row * SAMPLE_WORDS;
        const isPenalized = (words[at + SampleField.flags]! & SampleFlag.penalized) !== 0;
        const slot = words[at + SampleField.slot]!;
        if (isPenalized && slot >= numSlots) {
          token[row] = -1;
          logprob[row] = Number.NaN;
          continue;
        }
        const first = slot * seenWords(vocab);
        const own = isPenalized ? held.subarray(first, first + seenWords(vocab)) : undefined;
        token[row] = sampler.rows.choose(all, row * vocab, words, floats, at, own);
        logprob[row] = sampler.rows.logprob;
      }
    },
    text: SAMPLE_TEXT,
  };
}

export interface SampleOptions extends StepRows {
  /** F32 at a multiple of 4 bytes; loads are wide where it is a multiple of 16 and `vocab` one of 4. */
  readonly logits: Place;
  /** Words at a multiple of 4 bytes, as is `seen`. */
  readonly params: Place;
  readonly seen: Place;
  /** int32 at a multiple of 4 bytes. */
  readonly tokens: Place;
  /** F32 at a multiple of 4 bytes. */
  readonly logprobs: Place;
  /** Logits of a row, up to 2^19. */
  readonly vocab: number;
  /** Slots that `seen` has bits for; 0 where no row has a penalty. */
  readonly numSlots: number;
}

/** A dispatch of {@link sampleKernel}. Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
export function sampleCall(pipeline: Pipeline, options: SampleOptions): DispatchCall {
  const { logits, params, seen, tokens, logprobs, vocab, numSlots, countAt, maxRows } = options;
  checkInteger("sample: vocab", vocab, 1, MAX_VOCAB);
  checkInteger("sample: numSlots", numSlots, 0, 2 ** 24 - 1);
  const info = bindRows("sample", options);
  return {
    pipeline,
    buffers: [
      bindPlace("sample: logits", logits, maxRows * vocab * 4, 4),
      bindPlace("sample: params", params, maxRows * SAMPLE_PARAMS_BYTES, 4),
      bindPlace("sample: seen", seen, numSlots * seenWords(vocab) * 4, 4),
      info,
      bindPlace("sample: tokens", tokens, maxRows * 4, 4),
      bindPlace("sample: logprobs", logprobs, maxRows * 4, 4),
    ],
    constants: packConstants([vocab, numSlots, countAt, maxRows]),
    threads: checkThreads("sample", maxRows, maxRows * GROUP_SIZE),
    threadsPerGroup: GROUP_SIZE,
  };
}
