/** Numbers from a seed, the same on every machine: data, orders and intervals can be made again. */

/** The generator sfc32 of Chris Doty-Humphrey's PractRand: 128 bits of state, quick in JavaScript. */
export class Random {
  #a = 0;
  #b = 0;
  #c: number;
  #counter = 1;

  /** `seed` counts by its low 32 bits. */
  constructor(seed: number) {
    this.#c = seed | 0;
    for (let i = 0; i < 15; i++) this.u32();
  }

  /** A whole number from 0 to 2^32 - 1. */
  u32(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** From 0 up to, and without, 1. */
  unit(): number {
    return this.u32() / 2 ** 32;
  }

  /** A whole number below `bound`, which is at most 2^32. */
  below(bound: number): number {
    return Math.floor(this.unit() * bound);
  }

  /** From the normal distribution around 0 with deviation 1, by Box and Muller's method. */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.unit())) * Math.cos(2 * Math.PI * this.unit());
  }

  /** Puts `items` in a random order, in place, and returns them. */
  shuffle<T extends { length: number; [index: number]: unknown }>(items: T): T {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const item = items[i];
      items[i] = items[j];
      items[j] = item;
    }
    return items;
  }
}

/** A seed for one use of a run's seed: uses with other names get other numbers. */
export function seedFor(seed: number, name: string): number {
  return Number(Bun.hash.xxHash32(name, seed >>> 0));
}
