/** The sampler in TypeScript: what the kernel's text has to compute, bit by bit. */
import { logOfMass, MAX_VOCAB, massOf, WHOLE_MASS } from "./masses.ts";
import { philox } from "./philox.ts";

/** Bits of a row's flags. */
export const SampleFlag = {
  /** Draws; takes the likeliest token without. */
  drawn: 1,
  /** Gives the logarithm of the token's probability. */
  logprob: 2,
  /** The repetition penalty is in force. */
  penalized: 4,
} as const;

/** Words of a row's parameters. */
export const SampleField = {
  slot: 0,
  flags: 1,
  inverseTemperature: 2,
  topK: 3,
  topP: 4,
  minP: 5,
  penalty: 6,
  seedLow: 7,
  seedHigh: 8,
  rowLow: 9,
  rowHigh: 10,
  step: 11,
} as const;
export const SAMPLE_WORDS = 12;

/** Lanes that take groups of four tokens in turn. */
const LANES = 256;
const LARGEST = 3.4028234663852886e38;
const { fround } = Math;

/** Which tokens a draw is made from. */
interface Cut {
  /** Those with a logit above it, all of them. */
  readonly bound: number;
  /** And of those with exactly that logit the first so many. */
  readonly tied: number;
  /** That of each of these. */
  readonly tiedMass: number;
}
const KEEP_ALL: Cut = { bound: Number.NEGATIVE_INFINITY, tied: 0, tiedMass: 0 };

/** Chooses tokens, one row after the other. It keeps memory for one row. */
export class RowSampler {
  readonly #vocab: number;
  readonly #lanes = new Float64Array(LANES);
  readonly #counter = new Uint32Array(4);
  #logits = new Float32Array(0);
  #order = new Float64Array(0);
  #masses = new Float64Array(0);
  /** Of the token that {@link RowSampler.choose} chose last, where it was asked for; 0 where not. */
  logprob = 0;

  constructor(vocab: number) {
    this.#vocab = vocab;
  }

  /** The token of the row of logits that begins at `start`, -1 where none can be chosen. `words` and `floats` are one
   * view of the row's parameters, which begin at `at`; `seen` is the slot's words, where a penalty is in force. */
  choose(
    logits: Float32Array,
    start: number,
    words: Uint32Array,
    floats: Float32Array,
    at: number,
    seen?: Uint32Array,
  ): number {
    const flags = words[at + SampleField.flags]!;
    const own =
      seen === undefined
        ? undefined
        : this.#penalized(logits, start, floats[at + SampleField.penalty]!, seen);
    const rowLogits = own ?? logits;
    const rowStart = own === undefined ? start : 0;
    let token = this.#likeliest(rowLogits, rowStart);
    if (token >= 0 && (flags & SampleFlag.drawn) !== 0) {
      token = this.#draw(rowLogits, rowStart, rowLogits[rowStart + token]!, words, floats, at);
    }
    this.logprob = token < 0 ? Number.NaN : 0;
    if (token >= 0 && (flags & SampleFlag.logprob) !== 0)
      this.logprob = this.#logprobOf(logits, start, token);
    return token;
  }

  #penalized(logits: Float32Array, start: number, penalty: number, seen: Uint32Array): Float32Array {
    if (this.#logits.length === 0) this.#logits = new Float32Array(this.#vocab);
    const own = this.#logits;
    own.set(logits.subarray(start, start + this.#vocab));
    for (let word = 0; word < seen.length; word++) {
      for (let bits = seen[word]!; bits !== 0; bits &= bits - 1) {
        const token = word * 32 + 31 - Math.clz32(bits & -bits);
        if (token >= this.#vocab) break;
        const logit = own[token]!;
        if (!Number.isFinite(logit)) continue;
        const made = fround(logit > 0 ? logit / penalty : logit * penalty);
        own[token] = Number.isNaN(made) ? made : Math.min(LARGEST, Math.max(-LARGEST, made));
      }
    }
    return own;
  }

  /** The first token with the largest finite logit, or -1. */
  #likeliest(logits: Float32Array, start: number): number {
    let most = Number.NEGATIVE_INFINITY;
    let token = -1;
    for (let i = 0; i < this.#vocab; i++) {
      const logit = logits[start + i]!;
      if (logit > most && logit < Number.POSITIVE_INFINITY) {
        most = logit;
        token = i;
      }
    }
    return token;
  }

  #logprobOf(logits: Float32Array, start: number, token: number): number {
    const most = logits[start + this.#likeliest(logits, start)]!;
    let total = 0;
    for (let i = 0; i < this.#vocab; i++) total += massOf(fround(logits[start + i]! - most));
    return fround(fround(logits[start + token]! - most) - logOfMass(total));
  }

  #draw(
    logits: Float32Array,
    start: number,
    most: number,
    words: Uint32Array,
    floats: Float32Array,
    at: number,
  ): number {
    const minMass = words[at + SampleField.minP]! * 8;
    const masses = this.#massesOf(logits, start, most, floats[at + SampleField.inverseTemperature]!);
    const cut = this.#cut(logits, start, words[at + SampleField.topK]!, words[at + SampleField.topP]!);
    const { bound, tiedMass } = cut;
    const tied = tiedMass > 0 && tiedMass >= minMass ? cut.tied : 0;
    const lanes = this.#lanes.fill(0);
    let above = 0;
    for (let i = 0; i < this.#vocab; i++) {
      const kept = logits[start + i]! > bound && masses[i]! >= minMass ? masses[i]! : 0;
      masses[i] = kept;
      lanes[(i >>> 2) % LANES]! += kept;
      above += kept;
    }
    const target = this.#random(words, at, above + tied * tiedMass);
    if (target < above) return this.#tokenAt(target);
    return tied === 0 ? -1 : this.#tiedToken(logits, start, bound, Math.floor((target - above) / tiedMass));
  }

  /** Masses by token; 0 for logits that are not finite. */
  #massesOf(logits: Float32Array, start: number, most: number, inverse: number): Float64Array {
    if (this.#masses.length === 0) this.#masses = new Float64Array(this.#vocab);
    const masses = this.#masses;
    for (let i = 0; i < this.#vocab; i++) {
      masses[i] = massOf(fround(fround(logits[start + i]! - most) * inverse));
    }
    return masses;
  }

  /** What topK and topP keep. Both are parts of one order: the largest logit first, of equal ones the first token. */
  #cut(logits: Float32Array, start: number, topK: number, topP: number): Cut {
    if (topP === 0 && (topK === 0 || topK >= this.#vocab)) return KEEP_ALL;
    const order = this.#sorted(logits, start);
    const { length } = order;
    // The order is the numbers' from the last one down.
    const tokenAt = (place: number) => {
      const number = order[length - 1 - place]!;
      return (Math.floor(number / MAX_VOCAB) + 1) * MAX_VOCAB - 1 - number;
    };
    const logitAt = (place: number) => logits[start + tokenAt(place)]!;
    let kept = length;
    if (topK > 0 && topK < length) {
      kept = topK;
      while (kept < length && logitAt(kept) === logitAt(topK - 1)) kept++;
    }
    if (topP === 0) return kept < length ? { bound: logitAt(kept), tied: 0, tiedMass: 0 } : KEEP_ALL;
    let total = 0;
    for (let place = 0; place < kept; place++) total += this.#masses[tokenAt(place)]!;
    const want = Number((BigInt(total) * BigInt(topP) + 0xffffffffn) >> 32n);
    let place = 0;
    let tiedMass = this.#masses[tokenAt(0)]!;
    for (let sum = tiedMass; sum < want; sum += tiedMass) tiedMass = this.#masses[tokenAt(++place)]!;
    const bound = logitAt(place);
    let tied = 0;
    while (tied <= place && logitAt(place - tied) === bound) tied++;
    return { bound, tied, tiedMass };
  }

  /** The finite logits, from the smallest on, each as a number of which the token is the lower part. */
  #sorted(logits: Float32Array, start: number): Float64Array {
    if (this.#order.length === 0) this.#order = new Float64Array(this.#vocab);
    const bits = new Uint32Array(logits.buffer, logits.byteOffset, logits.length);
    let count = 0;
    for (let i = 0; i < this.#vocab; i++) {
      if (!Number.isFinite(logits[start + i]!)) continue;
      const word = logits[start + i] === 0 ? 0 : bits[start + i]!;
      const key = word >>> 31 === 0 ? word + 2 ** 31 : 2 ** 32 - 1 - word;
      this.#order[count++] = key * MAX_VOCAB + (MAX_VOCAB - 1 - i);
    }
    return this.#order.subarray(0, count).sort();
  }

  /** An integer from 0, below `total`. */
  #random(words: Uint32Array, at: number, total: number): number {
    const counter = this.#counter;
    counter[0] = words[at + SampleField.rowLow]!;
    counter[1] = words[at + SampleField.rowHigh]!;
    counter[2] = words[at + SampleField.step]!;
    counter[3] = 0;
    philox(counter, words[at + SampleField.seedLow]!, words[at + SampleField.seedHigh]!);
    const random = (BigInt(counter[1]!) << 32n) | BigInt(counter[0]!);
    return Number((random * BigInt(total)) >> 64n);
  }

  /** The token at which the masses exceed `target`, lane by lane. */
  #tokenAt(target: number): number {
    let rest = target;
    let lane = 0;
    while (rest >= this.#lanes[lane]!) rest -= this.#lanes[lane++]!;
    for (let first = lane * 4; first < this.#vocab; first += LANES * 4) {
      for (let i = first; i < Math.min(first + 4, this.#vocab); i++) {
        if (rest < this.#masses[i]!) return i;
        rest -= this.#masses[i]!;
      }
    }
    return -1;
  }

  #tiedToken(logits: Float32Array, start: number, logit: number, number: number): number {
    let rest = number;
    for (let i = 0; i < this.#vocab; i++) {
      if (logits[start + i] === logit && rest-- === 0) return i;
    }
    return -1;
  }
}

/** The word of a row's parameters for topP: parts of 2^32, at least 1; 0 keeps all. */
export function topPWord(topP: number): number {
  return topP >= 1 ? 0 : Math.min(2 ** 32 - 1, Math.max(1, Math.round(topP * 2 ** 32)));
}

/** That for minP: parts of 2^31. */
export function minPWord(minP: number): number {
  return Math.round((minP * WHOLE_MASS) / 8);
}
