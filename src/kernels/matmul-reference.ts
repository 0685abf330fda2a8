/** The matrix product as it is defined. */
import { ConstantReader } from "./constants.ts";
import { floatsOf, WEIGHT_BYTES, type WeightType } from "./weights.ts";

/** What a pipeline's options come to. */
export interface MatmulForm {
  readonly type: WeightType;
  readonly parts: number;
  readonly gated: boolean;
  readonly bias: boolean;
  readonly accumulate: boolean;
}

/** What a dispatch's buffers and constants hold, for the rows there are. */
export interface Operands {
  readonly x: Float32Array;
  readonly inner: number;
  readonly outputs: readonly number[];
  readonly rows: number;
  readonly y: Float32Array;
  /** Length of a row of y. */
  readonly width: number;
}

export function operandsOf(
  form: MatmulForm,
  buffers: readonly Uint8Array[],
  constants: Uint8Array,
): Operands {
  const read = new ConstantReader(constants);
  const inner = read.uint();
  const outputs = [read.uint(), read.uint(), read.uint()].slice(0, form.parts);
  const countAt = read.uint();
  const maxRows = read.uint();
  const [x, info, y] = [buffers[0]!, buffers[7]!, buffers[8]!];
  const rows = Math.min(maxRows, new Uint32Array(info.buffer, info.byteOffset, countAt + 1)[countAt]!);
  const width = form.gated ? outputs[0]! : outputs.reduce((sum, one) => sum + one, 0);
  return {
    x: new Float32Array(x.buffer, x.byteOffset, rows * inner),
    inner,
    outputs,
    rows,
    y: new Float32Array(y.buffer, y.byteOffset, rows * width),
    width,
  };
}

/** By sums in double precision: slow, and what the other forms are held against. */
export function matmulReference(
  form: MatmulForm,
  buffers: readonly Uint8Array[],
  constants: Uint8Array,
): void {
  const { x, inner, outputs, rows, y, width } = operandsOf(form, buffers, constants);
  const bytes = WEIGHT_BYTES[form.type];
  let before = 0;
  for (const [part, count] of outputs.entries()) {
    const bias = form.bias ? floatsOf(form.type, buffers[4 + part]!, 0, count) : undefined;
    for (let n = 0; n < count; n++) {
      const weights = floatsOf(form.type, buffers[1 + part]!.subarray(n * inner * bytes), 0, inner);
      for (let row = 0; row < rows; row++) {
        let sum = bias?.[n] ?? 0;
        for (let k = 0; k < inner; k++) sum += weights[k]! * x[row * inner + k]!;
        const at = row * width + (form.gated ? 0 : before) + n;
        if (form.gated) y[at] = part === 0 ? silu(sum) : y[at]! * sum;
        else y[at] = form.accumulate ? y[at]! + sum : sum;
      }
    }
    before += count;
  }
}

/** `v * sigmoid(v)`. */
export function silu(value: number): number {
  return value / (1 + Math.exp(-value));
}
