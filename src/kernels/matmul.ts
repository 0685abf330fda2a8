/**
 * Matrix products over rows: `y[t] = W x[t]`, for the weights of up to three layers that read the same x.
 *
 * A row's result depends on that row and the weights alone, to the last bit: not on how many rows there are, on the
 * dispatch's `maxRows`, or on which tile computes it. See {@link matmulText} for the order of the sums.
 */
import type { KernelSource, Pipeline } from "../device/device.ts";
import type { DispatchCall } from "../device/requests.ts";
import { HeadraceError } from "../errors.ts";
import { bindPlace, checkInteger, MAX_THREADS, type Place, packConstants } from "./constants.ts";
import { matmulOnHost } from "./matmul-host.ts";
import type { MatmulForm } from "./matmul-reference.ts";
import { matmulGroups, matmulText, tileOf } from "./matmul-text.ts";
import { GROUP_SIZE } from "./portable.ts";
import { WEIGHT_BYTES, WEIGHT_TYPES, type WeightType } from "./weights.ts";

export interface MatmulKernelOptions {
  /** Of the weights, and of the biases. */
  readonly type: WeightType;
  /** Matrices that are multiplied with the same x; 1 without. */
  readonly parts?: 1 | 2 | 3;
  /** With two parts of as many outputs each: `y = silu(W0 x) * (W1 x)`. */
  readonly gated?: boolean;
  /** Whether a bias is added to the outputs of each part, before `gated`. */
  readonly bias?: boolean;
  /** Adds to what y holds, instead of writing over it. */
  readonly accumulate?: boolean;
  /** The `maxRows` of the dispatches: with `outputs` it decides how large tiles are, and nothing else. Pipelines of the
   * same {@link matmulTile} are the same. 1 without. */
  readonly maxRows?: number;
  /** Rows of each part's weights, as the dispatches have them; may be left out without `matrixUnits`. */
  readonly outputs?: readonly number[];
  /** Whether the GPU's units for products of bfloats are used, with BF16 weights alone (see {@link fitsMatrixUnits}): on
   * CUDA from compute capability 8.0 on. Sums are as exact, and added in another order, so that who wants the same bits keeps to one. Other GPUs do the
   * same slowly, and the host takes no notice. */
  readonly matrixUnits?: boolean;
}

/** Whether `matrixUnits` can be used: BF16 weights and x at multiples of 16 bytes, and `inner` a multiple of 32. */
export function fitsMatrixUnits(type: WeightType, inner: number, places: readonly Place[]): boolean {
  const aligned = places.every(({ buffer, byteOffset = 0 }) => (buffer.gpuAddress + byteOffset) % 16 === 0);
  return type === "BF16" && inner % 32 === 0 && aligned;
}

/** Names the tile that dispatches with these options use. */
export function matmulTile(options: MatmulKernelOptions): string {
  return tileOf(options).name;
}

/**
 * Buffers: x (F32, `[rows, inner]`), three weights (`[outputs, inner]` each, as Hugging Face files have them), three
 * biases (`[outputs]`), info (uint32; word `countAt` holds the number of rows), y (F32): `[rows, sum of outputs]`, the
 * parts side by side, or `[rows, outputs]` with `gated`. Weights and biases that are not used bind the first weights.
 * Rows from the count on are neither read nor written. Throws `BAD_OPTION` for options that do not fit together.
 */
export function matmulKernel(options: MatmulKernelOptions): KernelSource {
  const form = formOf(options);
  const tile = tileOf(options);
  return {
    name: "matmul",
    host: matmulOnHost(form),
    text: matmulText(tile, form.gated),
    functionConstants: [
      { index: 0, type: "uint", value: WEIGHT_TYPES.indexOf(form.type) },
      { index: 1, type: "bool", value: form.gated },
      { index: 2, type: "bool", value: form.bias },
      { index: 3, type: "bool", value: form.accumulate },
    ],
  };
}

function formOf(options: MatmulKernelOptions): MatmulForm {
  const { type, parts = 1, gated = false, bias = false, accumulate = false, maxRows = 1 } = options;
  if (!WEIGHT_TYPES.includes(type)) {
    throw new HeadraceError("BAD_OPTION", `matmul: type ${type} is none of ${WEIGHT_TYPES.join(", ")}`);
  }
  if (options.matrixUnits && type !== "BF16") {
    throw new HeadraceError("BAD_OPTION", `matmul: matrixUnits take BF16 weights, not ${type}`);
  }
  checkInteger("matmul: parts", parts, 1, 3);
  checkInteger("matmul: maxRows", maxRows, 0, MAX_THREADS);
  if (gated && (parts !== 2 || accumulate)) {
    const given = accumulate ? "accumulate" : `${parts} parts`;
    throw new HeadraceError("BAD_OPTION", `matmul: gated does not go with ${given}; it takes 2 parts`);
  }
  return { type, parts, gated, bias, accumulate };
}

export interface MatmulOptions extends MatmulKernelOptions {
  /** Row 0, at a multiple of 4 bytes; loads are wide where it is a multiple of 16, and `inner` of 8. */
  readonly x: Place;
  /** One a part, at multiples of the element's size; loads are wide at multiples of 16. */
  readonly weights: readonly Place[];
  /** One a part, with `bias`. */
  readonly biases?: readonly Place[];
  /** Words at a multiple of 4 bytes. */
  readonly info: Place;
  /** Row 0 of the result, at a multiple of 4 bytes. It must overlap nothing else. */
  readonly y: Place;
  /** Length of a row of x, and of the weights. */
  readonly inner: number;
  /** Rows of each part's weights. */
  readonly outputs: readonly number[];
  /** The word of info that holds the number of rows; a larger one than `maxRows` counts as that. */
  readonly countAt: number;
  /** Rows that x and y have room for. */
  readonly maxRows: number;
}

/** A dispatch of {@link matmulKernel} with the same options. Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
export function matmulCall(pipeline: Pipeline, options: MatmulOptions): DispatchCall {
  const { x, weights, biases = [], info, y, inner, outputs, countAt, maxRows } = options;
  const form = formOf(options);
  checkInteger("matmul: inner", inner, 1, 2 ** 24);
  checkInteger("matmul: countAt", countAt, 0, 2 ** 24);
  checkCounts(form, weights, biases, outputs);
  if (options.matrixUnits && !fitsMatrixUnits(form.type, inner, [x, ...weights])) {
    const message = `matmul: matrixUnits need an inner length in multiples of 32, not ${inner}, and x and weights at multiples of 16 bytes`;
    throw new HeadraceError("BAD_OPTION", message);
  }
  const bytes = WEIGHT_BYTES[form.type];
  const [first] = weights;
  const bound = [0, 1, 2].map((part) =>
    part < form.parts
      ? bindPlace(`matmul: weights ${part}`, weights[part]!, outputs[part]! * inner * bytes, bytes)
      : bindPlace("matmul: weights 0", first!, 0, bytes),
  );
  const biased = [0, 1, 2].map((part) =>
    form.bias && part < form.parts
      ? bindPlace(`matmul: bias ${part}`, biases[part]!, outputs[part]! * bytes, bytes)
      : bindPlace("matmul: weights 0", first!, 0, bytes),
  );
  const total = outputs.reduce((sum, one) => sum + one, 0);
  const width = form.gated ? outputs[0]! : total;
  checkInteger("matmul: elements of y", maxRows * width);
  const groups = matmulGroups(tileOf(options), maxRows, outputs, form.gated);
  checkInteger(`matmul: threads for ${maxRows} rows`, groups * GROUP_SIZE, 0, MAX_THREADS);
  return {
    pipeline,
    buffers: [
      bindPlace("matmul: x", x, maxRows * inner * 4, 4),
      ...bound,
      ...biased,
      bindPlace("matmul: info", info, (countAt + 1) * 4, 4),
      bindPlace("matmul: y", y, maxRows * width * 4, 4),
    ],
    constants: packConstants([inner, ...[0, 1, 2].map((part) => outputs[part] ?? 0), countAt, maxRows]),
    threads: groups * GROUP_SIZE,
    threadsPerGroup: GROUP_SIZE,
  };
}

function checkCounts(
  form: MatmulForm,
  weights: readonly Place[],
  biases: readonly Place[],
  outputs: readonly number[],
): void {
  const { parts, gated, bias } = form;
  if (weights.length !== parts || outputs.length !== parts || biases.length !== (bias ? parts : 0)) {
    const given = `${weights.length} weights, ${outputs.length} outputs and ${biases.length} biases`;
    const wanted = `${parts}, ${parts} and ${bias ? parts : 0}`;
    throw new HeadraceError("BAD_OPTION", `matmul: ${given} are not ${wanted}`);
  }
  for (const [part, count] of outputs.entries()) checkInteger(`matmul: outputs ${part}`, count, 1, 2 ** 31);
  if (gated && outputs[0] !== outputs[1]) {
    const message = `matmul: gated needs as many outputs twice, not ${outputs[0]} and ${outputs[1]}`;
    throw new HeadraceError("BAD_OPTION", message);
  }
}
