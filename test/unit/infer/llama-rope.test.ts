import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { RopeConfig } from "../../../src/infer/llama/config.ts";
import { fillRopeTable, inverseFrequencies } from "../../../src/infer/llama/rope.ts";

interface GoldenRope {
  readonly parameters: Readonly<Record<string, number | string>>;
  readonly headSize: number;
  readonly positions: readonly number[];
  readonly cos: readonly (readonly number[])[];
  readonly sin: readonly (readonly number[])[];
}

/** By Hugging Face transformers: test/golden/make_llama.py. */
const GOLDEN: readonly GoldenRope[] = JSON.parse(
  readFileSync(join(import.meta.dir, "../../golden/files/llama-rope.json"), "utf8"),
);

function configOf({ parameters }: GoldenRope): RopeConfig {
  const of = (name: string) => Number(parameters[name]);
  if (parameters.rope_type === "default") return { theta: of("rope_theta") };
  const scaling = {
    factor: of("factor"),
    lowFreqFactor: of("low_freq_factor"),
    highFreqFactor: of("high_freq_factor"),
    originalMaxPositions: of("original_max_position_embeddings"),
  };
  return { theta: of("rope_theta"), scaling };
}

describe("the rotation", () => {
  test.each(GOLDEN)("is that of transformers: $parameters.rope_type, $headSize", (golden) => {
    const frequencies = inverseFrequencies(configOf(golden), golden.headSize);
    const pairs = golden.headSize / 2;
    expect(frequencies.length).toBe(pairs);
    const table = new Float32Array((Math.max(...golden.positions) + 1) * pairs * 2);
    fillRopeTable(table, frequencies);
    golden.positions.forEach((position, row) => {
      for (let i = 0; i < pairs; i++) {
        const at = (position * pairs + i) * 2;
        // The last bit of a frequency turns far positions by 2^-24 of their angle.
        const most = 1e-6 + position * frequencies[i]! * 2 ** -23;
        expect(Math.abs(table[at]! - golden.cos[row]![i]!)).toBeLessThan(most);
        expect(Math.abs(table[at + 1]! - golden.sin[row]![i]!)).toBeLessThan(most);
      }
    });
  });

  test("scaling leaves fast turns, slows slow ones by the factor, and those between by less", () => {
    const scaling = { factor: 4, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 64 };
    const plain = inverseFrequencies({ theta: 500_000 }, 16);
    const scaled = inverseFrequencies({ theta: 500_000, scaling }, 16);
    const ratios = Array.from(plain, (frequency, i) => frequency / scaled[i]!);
    expect(ratios[0]).toBe(1);
    expect(ratios.at(-1)).toBeCloseTo(4, 5);
    expect(ratios.some((ratio) => ratio > 1.01 && ratio < 3.99)).toBe(true);
    expect(ratios).toEqual([...ratios].sort((a, b) => a - b));
  });
});
