/**
 * A permutation of any range of integers that is computed, not stored.
 *
 * Source of the method: a Feistel network whose two halves are added modulo a and b instead of being XORed
 * ("generalised Feistel"), and cycle walking for what lies outside the range, both from Black and Rogaway,
 * "Ciphers with Arbitrary Finite Domains", CT-RSA 2002. It is used here for shuffling and is no cipher.
 *
 * On a grid of a few cells some orders would come up far more often than others, so a range of up to
 * {@link TABLE_LENGTH} is shuffled into a table of bytes instead (Fisher and Yates, by Durstenfeld's
 * exchange, CACM 7 (7), 1964).
 */
import { HeadraceError } from "../errors.ts";
import { checkInteger, checkRoom, checkSpan } from "./check.ts";
import { type Key, mix32 } from "./mix.ts";

/** Up to this length a table of bytes holds the order. */
const TABLE_LENGTH = 256;

/** How far in `[0, size)` a round moves one half, given the other: two multiplications with a shift between
 * them, of which the high 31 bits decide. `scale` is size / 2^31, and size is under 2^27. */
function step(half: number, roundKey: number, scale: number): number {
  const h = Math.imul(half ^ roundKey, 0x85ebca6b);
  return ((Math.imul(h ^ (h >>> 15), 0xc2b2ae35) >>> 1) * scale) | 0;
}

/** `sum` modulo `size` for a sum in `[0, 2 * size)`, without a branch: one taken at random is what would
 * cost most here. */
function wrap(sum: number, size: number): number {
  return (sum - (size & ((size - 1 - sum) >> 31))) | 0;
}

/** `difference` modulo `size` for one in `(-size, size)`, without a branch. */
function unwrap(difference: number, size: number): number {
  return (difference + (size & (difference >> 31))) | 0;
}

/** Integers of 32 bits, signed: SplitMix's counter of constant step, mixed once for each half of the key. */
function generator(key: Key): () => number {
  let state = mix32(key[0]);
  return () => {
    state = (state + 0x9e3779b9) | 0;
    return mix32(mix32(state) ^ key[1]);
  };
}

function shuffledTable(length: number, next: () => number): Uint8Array {
  const table = Uint8Array.from({ length }, (_, i) => i);
  for (let left = length; left > 1; left--) {
    const chosen = Math.floor(((next() >>> 0) * left) / 2 ** 32);
    const held = table[left - 1]!;
    table[left - 1] = table[chosen]!;
    table[chosen] = held;
  }
  return table;
}

/**
 * A bijection of `[0, length)` onto itself, chosen by a key, in O(1) memory and about O(1) time.
 *
 * The range is laid on a grid of `a` by `b` cells, both near its square root, and an index is the cell
 * `(left, right)`. Six rounds each move one half by an amount that depends on the other half alone, which
 * can be undone. A result among the fewer than `a` cells past the range goes through the rounds again until
 * it falls inside, which also can be undone. `a` is even, as cyclic shifts of odd order are even
 * permutations and half of all orders of an odd square would never come up.
 *
 * `length` is from 0 to 2^53 - 1. Any other throws `BAD_OPTION`.
 */
export class Permutation {
  readonly length: number;
  readonly #table: Uint8Array | undefined;
  readonly #a: number;
  readonly #b: number;
  readonly #scaleA: number;
  readonly #scaleB: number;
  /** The cell of the last index; cells after it are outside. Cells are compared by halves and never as
   * `left * b + right`, which may pass 2^53 out there. */
  readonly #lastLeft: number;
  readonly #lastRight: number;
  readonly #k0: number;
  readonly #k1: number;
  readonly #k2: number;
  readonly #k3: number;
  readonly #k4: number;
  readonly #k5: number;

  constructor(length: number, key: Key) {
    checkInteger("length", length, 0);
    const next = generator(key);
    this.length = length;
    this.#table = length <= TABLE_LENGTH ? shuffledTable(length, next) : undefined;
    const a = Math.max(2, 2 * Math.ceil(Math.sqrt(length) / 2));
    const b = Math.max(1, Math.ceil(length / a));
    this.#a = a;
    this.#b = b;
    this.#scaleA = a / 2 ** 31;
    this.#scaleB = b / 2 ** 31;
    this.#lastLeft = Math.floor((length - 1) / b);
    this.#lastRight = length - 1 - this.#lastLeft * b;
    this.#k0 = next();
    this.#k1 = next();
    this.#k2 = next();
    this.#k3 = next();
    this.#k4 = next();
    this.#k5 = next();
  }

  /** The index at `position`. Throws `OUT_OF_RANGE` unless `position` is an integer in `[0, length)`. */
  at(position: number): number {
    this.#check("position", position);
    return this.#forward(position);
  }

  /** The position of `index`: `at(inverse(i)) === i`. Throws `OUT_OF_RANGE` as {@link at} does. */
  inverse(index: number): number {
    this.#check("index", index);
    return this.#backward(index);
  }

  /** Writes the indices at positions `[start, start + count)` to the front of `out`. Throws `OUT_OF_RANGE`
   * where the positions leave the range or `out` is too short. */
  fill(out: Float64Array, start: number, count: number): void {
    checkSpan("positions", start, count, this.length);
    checkRoom(count, out.length);
    for (let i = 0; i < count; i++) out[i] = this.#forward(start + i);
  }

  #check(what: string, value: number): void {
    if (value >= 0 && value < this.length && Number.isInteger(value)) return;
    throw new HeadraceError("OUT_OF_RANGE", `${what} ${value} is not an integer in [0, ${this.length})`);
  }

  #forward(position: number): number {
    if (this.#table !== undefined) return this.#table[position]!;
    const a = this.#a;
    const b = this.#b;
    const scaleA = this.#scaleA;
    const scaleB = this.#scaleB;
    // The quotient of integers with left * b < 2^53 never rounds up to the next integer.
    let left = (position / b) | 0;
    let right = (position - left * b) | 0;
    do {
      left = wrap(left + step(right, this.#k0, scaleA), a);
      right = wrap(right + step(left, this.#k1, scaleB), b);
      left = wrap(left + step(right, this.#k2, scaleA), a);
      right = wrap(right + step(left, this.#k3, scaleB), b);
      left = wrap(left + step(right, this.#k4, scaleA), a);
      right = wrap(right + step(left, this.#k5, scaleB), b);
    } while (left > this.#lastLeft || (left === this.#lastLeft && right > this.#lastRight));
    return left * b + right;
  }

  #backward(index: number): number {
    if (this.#table !== undefined) return this.#table.indexOf(index);
    const a = this.#a;
    const b = this.#b;
    const scaleA = this.#scaleA;
    const scaleB = this.#scaleB;
    let left = (index / b) | 0;
    let right = (index - left * b) | 0;
    do {
      right = unwrap(right - step(left, this.#k5, scaleB), b);
      left = unwrap(left - step(right, this.#k4, scaleA), a);
      right = unwrap(right - step(left, this.#k3, scaleB), b);
      left = unwrap(left - step(right, this.#k2, scaleA), a);
      right = unwrap(right - step(left, this.#k1, scaleB), b);
      left = unwrap(left - step(right, this.#k0, scaleA), a);
    } while (left > this.#lastLeft || (left === this.#lastLeft && right > this.#lastRight));
    return left * b + right;
  }
}
