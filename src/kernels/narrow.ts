/**
 * Rows of floats in the type that a vendor's matrix product takes: as they are, or a gate and what it opens made into
 * one, `silu(gate) * up`. Each element is calculated in F32 and rounded once, to the nearest, ties to even.
 */
import type { KernelSource, Pipeline } from "../device/device.ts";
import type { DispatchCall } from "../device/requests.ts";
import {
  bindPlace,
  ConstantReader,
  checkInteger,
  MAX_THREADS,
  type Place,
  packConstants,
} from "./constants.ts";
import { encoderOf } from "./elements.ts";
import { silu } from "./matmul-reference.ts";
import {
  bindRows,
  checkThreads,
  checkType,
  float32Of,
  ROWS_TEXT,
  rowsOf,
  type StepRows,
  typeConstant,
} from "./step.ts";
import { WEIGHT_BYTES, type WeightType } from "./weights.ts";

const TEXT = `${ROWS_TEXT}
enum FloatType : uint32_t { F32, F16, BF16 };

HR_FUNCTION_CONSTANT(0, uint32_t, TYPE);
HR_FUNCTION_CONSTANT(1, bool, GATED);

struct NarrowConstants { uint32_t width; uint32_t countAt; uint32_t maxRows; };

HR_KERNEL(narrow_rows, HR_IN(0, float, x), HR_IN(1, uint32_t, info), HR_OUT(2, uint8_t, y),
          HR_CONSTANTS(3, NarrowConstants, c)) {
  if (hr_thread >= hr_threads) return;
  uint32_t row = hr_thread / c.width, i = hr_thread % c.width;
  if (row >= rows_of(info, c.countAt, c.maxRows)) return;
  float value = x[uint64_t(row) * (GATED ? 2u * c.width : c.width) + i];
  if (GATED) {
    float up = x[uint64_t(row) * (2u * c.width) + c.width + i];
    value = value / (1.0f + hr_exp(-value)) * up;
  }
  if (TYPE == F32) hr_store<uint32_t>(y + uint64_t(hr_thread) * 4u, HR_BITS_OF(value));
  else if (TYPE == F16) hr_store<uint16_t>(y + uint64_t(hr_thread) * 2u, hr_to_half(value).bits);
  else hr_store<uint16_t>(y + uint64_t(hr_thread) * 2u, hr_to_bfloat(value).bits);
}
`;

export interface NarrowKernelOptions {
  /** Of the result. */
  readonly to: WeightType;
  /** Whether a row of x is `width` gates, and then as many numbers that they open. */
  readonly gated?: boolean;
}

/** Buffers: x (F32, `[rows, width]`, or twice as wide with `gated`), info, y (`[rows, width]` of `to`). Throws
 * `BAD_OPTION` for another type. */
export function narrowRowsKernel({ to, gated = false }: NarrowKernelOptions): KernelSource {
  checkType("narrow_rows: to", to);
  return {
    name: "narrow_rows",
    host: ([x, info, y], constants) => {
      const read = new ConstantReader(constants);
      const width = read.uint();
      const count = rowsOf(info!, read.uint(), read.uint()) * width;
      const from = float32Of(x!, gated ? 2 * count : count);
      const encode = encoderOf(to, y!, count);
      const one = new Float32Array(1);
      const bits = new Uint32Array(one.buffer);
      for (let at = 0; at < count; at++) {
        const gate = gated ? at + Math.floor(at / width) * width : at;
        one[0] = gated ? Math.fround(silu(from[gate]!)) * from[gate + width]! : from[at]!;
        encode(at, bits[0]!);
      }
    },
    text: TEXT,
    functionConstants: [typeConstant(to), { index: 1, type: "bool", value: gated }],
  };
}

export interface NarrowOptions extends NarrowKernelOptions, StepRows {
  /** At a multiple of 4 bytes. */
  readonly x: Place;
  /** At a multiple of its elements' size; must not overlap x. */
  readonly y: Place;
  /** Elements of a row of y. */
  readonly width: number;
}

/** A dispatch of {@link narrowRowsKernel} of the same form. Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
export function narrowRowsCall(pipeline: Pipeline, options: NarrowOptions): DispatchCall {
  const { to, gated = false, x, y, width, countAt, maxRows } = options;
  checkInteger("narrow_rows: width", width, 1, MAX_THREADS);
  const info = bindRows("narrow_rows", options);
  const threads = checkThreads("narrow_rows", maxRows, maxRows * width);
  return {
    pipeline,
    buffers: [
      bindPlace("narrow_rows: x", x, threads * (gated ? 8 : 4), 4),
      info,
      bindPlace("narrow_rows: y", y, threads * WEIGHT_BYTES[to], WEIGHT_BYTES[to]),
    ],
    constants: packConstants([width, countAt, maxRows]),
    threads,
  };
}
