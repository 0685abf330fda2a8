/** Random matrix products, and what they have to come to. */
import { floatBitsToBfloat, floatBitsToHalf, halfToFloatBits } from "../../../src/kernels/floats.ts";
import { type MatmulKernelOptions, matmulCall, matmulKernel } from "../../../src/kernels/matmul.ts";
import type { WeightType } from "../../../src/kernels/weights.ts";
import type { Argument, Run } from "./runners.ts";

/** Numbers in [-1, 1) that repeat with their seed. */
export function randoms(seed: number): () => number {
  let state = (seed * 2654435761) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 31;
  };
}

/** `count` numbers in a type: their bytes, and what these are as numbers. */
export function stored(type: WeightType, count: number, next: () => number) {
  const values = Float32Array.from({ length: count }, next);
  const bits = new Uint32Array(values.buffer);
  if (type === "F32") return { bytes: new Uint8Array(values.slice().buffer), values };
  const half = Uint16Array.from(bits, type === "F16" ? floatBitsToHalf : floatBitsToBfloat);
  half.forEach((one, i) => {
    bits[i] = type === "F16" ? halfToFloatBits(one) : one << 16;
  });
  return { bytes: new Uint8Array(half.buffer), values };
}

export interface MatmulCase extends MatmulKernelOptions {
  readonly inner: number;
  readonly outputs: readonly number[];
  readonly rows: number;
  /** Of the dispatch. */
  readonly maxRows: number;
  /** What info says of the rows, where that is too many. */
  readonly claimed?: number;
  /** Bytes by which x and weights miss an aligned place. */
  readonly shift?: number;
  readonly seed?: number;
}

/** A case's operands, the same for the same seed whatever the number of rows. */
export function operands(one: MatmulCase) {
  const { inner, outputs, maxRows, seed = 1, type, bias = false } = one;
  const weights = outputs.map((count, part) => stored(type, count * inner, randoms(seed * 10 + part)));
  const biases = bias ? outputs.map((count, part) => stored(type, count, randoms(seed * 10 + 3 + part))) : [];
  const width = one.gated ? outputs[0]! : outputs.reduce((sum, count) => sum + count, 0);
  const x = stored("F32", maxRows * inner, randoms(seed * 10 + 6)).values;
  const y = stored("F32", maxRows * width, randoms(seed * 10 + 7)).values;
  // Beyond the rows there are, nothing may be read.
  x.fill(Number.NaN, one.rows * inner);
  if (!one.accumulate) y.fill(Number.NaN);
  return { weights, biases, width, x, y };
}

/** y after the product, by `run`. */
export async function productOf(run: Run, one: MatmulCase): Promise<Float32Array> {
  const { weights, biases, x, y } = operands(one);
  const { shift = 0, outputs } = one;
  const info = Uint32Array.of(0xffff, 0xffff, one.claimed ?? one.rows);
  const args: Argument[] = [
    { bytes: new Uint8Array(x.buffer), shift: 4 * shift },
    ...weights.map(({ bytes }) => ({ bytes, shift: 4 * shift })),
    ...biases.map(({ bytes }) => ({ bytes })),
    { bytes: new Uint8Array(info.buffer) },
    { bytes: new Uint8Array(y.slice().buffer) },
  ];
  const after = await run(matmulKernel(one), args, (pipeline, places) =>
    matmulCall(pipeline, {
      ...one,
      x: places[0]!,
      weights: places.slice(1, 1 + outputs.length),
      biases: places.slice(1 + outputs.length, 1 + outputs.length + biases.length),
      info: places.at(-2)!,
      y: places.at(-1)!,
      countAt: 2,
    }),
  );
  for (const [i, { bytes }] of args.slice(0, -1).entries()) {
    if (Buffer.compare(bytes, after[i]!) !== 0) throw new Error(`argument ${i} was written to`);
  }
  const bytes = after.at(-1)!;
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}

/** What y has to hold, in double precision, and how far off a sum in single precision may be: every product and sum
 * adds half a unit in the last place of what is added up, at most; fused ones and double sums less. */
export function expected(one: MatmulCase): { readonly want: Float64Array; readonly bound: Float64Array } {
  const { weights, biases, width, x, y } = operands(one);
  const { inner, outputs, rows, gated = false, accumulate = false } = one;
  const want = Float64Array.from(y);
  const bound = new Float64Array(y.length);
  const unit = 2 ** -24;
  for (let row = 0; row < rows; row++) {
    const sums: { sum: number; error: number }[] = [];
    for (const [part, count] of outputs.entries()) {
      for (let n = 0; n < count; n++) {
        let sum = 0;
        let size = 0;
        for (let k = 0; k < inner; k++) {
          const product = x[row * inner + k]! * weights[part]!.values[n * inner + k]!;
          sum += product;
          size += Math.abs(product);
        }
        const bias = biases[part]?.values[n] ?? 0;
        // Matrix units add three products for each.
        const terms = (one.matrixUnits ? 3 : 1) * inner + 12;
        sums.push({ sum: sum + bias, error: terms * unit * (size + Math.abs(bias)) });
      }
    }
    for (let n = 0; n < width; n++) {
      const at = row * width + n;
      const { sum, error } = sums[n]!;
      if (gated) {
        const opened = sums[n + width]!;
        const gate = sum / (1 + Math.exp(-sum));
        want[at] = gate * opened.sum;
        // The gate's slope is below 1.1.
        bound[at] =
          1.1 * error * (Math.abs(opened.sum) + opened.error) +
          Math.abs(gate) * opened.error +
          8 * unit * Math.abs(want[at]!);
      } else {
        want[at] = accumulate ? y[at]! + sum : sum;
        bound[at] = error + 2 * unit * (Math.abs(want[at]!) + (accumulate ? Math.abs(y[at]!) : 0));
      }
    }
  }
  return { want, bound };
}

/** Says how a result is wrong; undefined where it is right. */
export function wrongness(one: MatmulCase, got: Float32Array): string | undefined {
  const { want, bound } = expected(one);
  for (const [i, value] of want.entries()) {
    const isRight = Number.isNaN(value) ? Number.isNaN(got[i]!) : Math.abs(got[i]! - value) <= bound[i]!;
    if (!isRight) return `element ${i} is ${got[i]}, not ${value} within ${bound[i]}`;
  }
  return undefined;
}
