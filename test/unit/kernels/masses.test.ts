/** Masses, their logarithm, and the random words: against doubles, known answers, and their text as C++. */
import { describe, expect, test } from "bun:test";
import type { KernelSource } from "../../../src/device/device.ts";
import { logOfMass, MASSES_TEXT, massOf } from "../../../src/kernels/masses.ts";
import { PHILOX_TEXT, philox } from "../../../src/kernels/philox.ts";
import { floats, useForms, wordsIn } from "./forms.ts";
import { PIPELINE } from "./memory.ts";

const split = (mass: number) => [mass % 2 ** 32, Math.floor(mass / 2 ** 32)] as const;

/** Words 2 i and 2 i + 1: the mass of float i. */
const MASSES: KernelSource = {
  name: "masses",
  host: ([from, to], _constants, threads) => {
    const d = new Float32Array(from!.buffer, from!.byteOffset, threads);
    const words = new Uint32Array(to!.buffer, to!.byteOffset, 2 * threads);
    for (let i = 0; i < threads; i++) words.set(split(massOf(d[i]!)), 2 * i);
  },
  text: `${MASSES_TEXT}
HR_KERNEL(masses, HR_IN(0, float, from), HR_OUT(1, uint32_t, to)) {
  if (hr_thread >= hr_threads) return;
  uint64_t mass = mass_of(from[hr_thread]);
  to[2u * hr_thread] = uint32_t(mass);
  to[2u * hr_thread + 1u] = uint32_t(mass >> 32);
}
`,
};

/** Float i: the logarithm of the mass in words 2 i and 2 i + 1. */
const LOGARITHMS: KernelSource = {
  name: "logarithms",
  host: ([from, to], _constants, threads) => {
    const words = new Uint32Array(from!.buffer, from!.byteOffset, 2 * threads);
    const out = new Float32Array(to!.buffer, to!.byteOffset, threads);
    for (let i = 0; i < threads; i++) out[i] = logOfMass(words[2 * i]! + words[2 * i + 1]! * 2 ** 32);
  },
  text: `${MASSES_TEXT}
HR_KERNEL(logarithms, HR_IN(0, uint32_t, from), HR_OUT(1, float, to)) {
  if (hr_thread >= hr_threads) return;
  to[hr_thread] = log_of(uint64_t(from[2u * hr_thread + 1u]) << 32 | from[2u * hr_thread]);
}
`,
};

/** Six words in, counter and key; four words out. */
const RANDOM: KernelSource = {
  name: "random_words",
  host: ([from, to], _constants, threads) => {
    const words = new Uint32Array(from!.buffer, from!.byteOffset, 6 * threads);
    const out = new Uint32Array(to!.buffer, to!.byteOffset, 4 * threads);
    for (let i = 0; i < threads; i++) {
      const counter = words.slice(6 * i, 6 * i + 4);
      philox(counter, words[6 * i + 4]!, words[6 * i + 5]!);
      out.set(counter, 4 * i);
    }
  },
  text: `${PHILOX_TEXT}
HR_KERNEL(random_words, HR_IN(0, uint32_t, from), HR_OUT(1, uint32_t, to)) {
  if (hr_thread >= hr_threads) return;
  const HR_DEVICE uint32_t *own = from + 6u * hr_thread;
  hr_uint4 counter;
  counter.x = own[0];
  counter.y = own[1];
  counter.z = own[2];
  counter.w = own[3];
  counter = philox(counter, own[4], own[5]);
  HR_DEVICE uint32_t *result = to + 4u * hr_thread;
  result[0] = counter.x;
  result[1] = counter.y;
  result[2] = counter.z;
  result[3] = counter.w;
}
`,
};

const run = useForms([MASSES, LOGARITHMS, RANDOM]);

/** `threads` of a kernel that reads one buffer and writes another. */
function over(source: KernelSource, from: ArrayBufferView, outBytes: number, threads: number) {
  const after = run(source, [from, new Uint8Array(outBytes)], (at) => ({
    ...{ pipeline: PIPELINE, threads, constants: new Uint8Array(0) },
    buffers: at.map(({ buffer }) => ({ buffer, offset: 0 })),
  }));
  return after[1]!;
}

describe("a mass", () => {
  test("is that part of the whole, to the precision of a float", () => {
    const d = floats(20_000, 4, 12.25).map((value) => value - 12.25);
    const words = wordsIn(over(MASSES, d, 8 * d.length, d.length));
    let worst = 0;
    for (const [i, value] of d.entries()) {
      const mass = words[2 * i]! + words[2 * i + 1]! * 2 ** 32;
      const exact = Math.exp(value) * 2 ** 34;
      worst = Math.max(worst, (Math.abs(mass - exact) - 0.5) / exact);
    }
    expect(worst).toBeLessThan(2 ** -23);
    expect(worst).toBeGreaterThan(0);
  });

  test("is whole at 0, and nothing where there is none", () => {
    expect(massOf(0)).toBe(2 ** 34);
    expect(massOf(-0)).toBe(2 ** 34);
    expect(massOf(Math.fround(-1e-9))).toBe(2 ** 34);
    const none = [-24.6, -1e30, Number.NEGATIVE_INFINITY, Number.NaN, 0.1, Number.POSITIVE_INFINITY];
    const edges = Float32Array.from([0, -0, -1e-9, -24.25, -24.27, -24.5, -24.500002, ...none]);
    const words = wordsIn(over(MASSES, edges, 8 * edges.length, edges.length));
    expect([...words.subarray(14)].every((word) => word === 0)).toBe(true);
    expect(words[6]).toBe(1);
    expect(words[8]).toBe(0);
  });

  test("grows with the logit but for the last place", () => {
    const d = floats(5000, 9, 12)
      .map((value) => value - 12)
      .sort();
    const masses = Array.from(d, massOf);
    for (let i = 1; i < masses.length; i++) {
      expect(masses[i]!).toBeGreaterThanOrEqual(masses[i - 1]! * (1 - 2 ** -22));
    }
  });
});

test("a mass's logarithm is near that of doubles, at powers of two and beside them too", () => {
  const masses = Array.from({ length: 53 }, (_, i) => 2 ** i).flatMap((power) =>
    [power - 1, power, power + 1, Math.round(power * Math.SQRT2), Math.round(power * 1.7)].filter(
      (mass) => mass >= 1,
    ),
  );
  const words = Uint32Array.from(masses.flatMap(split));
  const logs = new Float32Array(over(LOGARITHMS, words, 4 * masses.length, masses.length).buffer);
  for (const [i, mass] of masses.entries()) {
    const exact = Math.log(mass / 2 ** 34);
    expect(Math.abs(logs[i]! - exact)).toBeLessThan(3e-7 + 1.2e-7 * Math.abs(exact));
  }
});

describe("random words", () => {
  /** Of the authors' own table of known answers. */
  test.each([
    ["00000000 00000000 00000000 00000000 00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"],
    ["ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"],
    ["243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"],
  ])("of %s", (given, expected) => {
    const words = (text: string) => Uint32Array.from(text.split(" "), (word) => Number.parseInt(word, 16));
    expect([...wordsIn(over(RANDOM, words(given), 16, 1))]).toEqual([...words(expected)]);
  });

  test("are the same in both forms", () => {
    const from = new Uint32Array(floats(6 * 1000, 5).buffer);
    expect(new Set(wordsIn(over(RANDOM, from, 16_000, 1000))).size).toBeGreaterThan(3990);
  });
});
