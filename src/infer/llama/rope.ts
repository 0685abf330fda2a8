/**
 * The rotation of queries and keys by position: cosine and sine of each position and pair of elements.
 *
 * Rounded to float32 where Hugging Face transformers rounds (inverse frequencies, then their products with the
 * position), so that far positions turn by the angles that models were trained and published with:
 * `ROPE_INIT_FUNCTIONS` of modeling_rope_utils.py, types `default` and `llama3`.
 */
import type { RopeConfig } from "./config.ts";

/** Radians a position, one for each of the `headSize / 2` pairs; each a float32. */
export function inverseFrequencies(rope: RopeConfig, headSize: number): Float32Array {
  const { theta, scaling } = rope;
  const frequencies = new Float32Array(headSize / 2);
  for (let i = 0; i < frequencies.length; i++) {
    frequencies[i] = 1 / Math.fround(theta ** Math.fround((2 * i) / headSize));
  }
  if (scaling === undefined) return frequencies;
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositions } = scaling;
  return frequencies.map((frequency) => {
    const turns = (originalMaxPositions * frequency) / (2 * Math.PI);
    if (turns > highFreqFactor) return frequency;
    if (turns < lowFreqFactor) return frequency / factor;
    const smooth = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
    return ((1 - smooth) * frequency) / factor + smooth * frequency;
  });
}

/** Fills `table`, `[positions, headSize / 2, 2]` in C order: cosine, then sine. */
export function fillRopeTable(table: Float32Array, frequencies: Float32Array): void {
  const pairs = frequencies.length;
  const positions = table.length / (2 * pairs);
  let at = 0;
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < pairs; i++) {
      const angle = Math.fround(position * frequencies[i]!);
      table[at++] = Math.cos(angle);
      table[at++] = Math.sin(angle);
    }
  }
}
