/** Matrix products of vendors' libraries, as far as devices agree on them. */
import { HeadraceError } from "../../errors.ts";
import type { MatmulOptions } from "../device.ts";
import { checkRange } from "../requests.ts";
import { bounded } from "./checks.ts";

export type MatmulType = MatmulOptions["type"];

/** {@link MatmulOptions} with all that has a default. */
export type Matmul = Required<MatmulOptions>;

const BYTES: Readonly<Record<MatmulType, number>> = { F32: 4, F16: 2, BF16: 2 };
/** The libraries count in 32-bit integers. */
const MOST = 2 ** 31 - 1;
const NAMES = ["x", "w", "y"] as const;

/** Throws `BAD_OPTION` for what is out of its bounds, or no type that a product takes. */
export function resolveMatmul(options: MatmulOptions): Matmul {
  const { type, outputType = "F32", accumulate = false } = options;
  const outputs = bounded("outputs", options.outputs, 1, MOST);
  if (BYTES[type] === undefined || (outputType !== "F32" && outputType !== type)) {
    const text = `a product of ${type} with results in ${outputType}; types are F32, F16 and BF16, and results F32 or the same`;
    throw new HeadraceError("BAD_OPTION", text);
  }
  return {
    inner: bounded("inner", options.inner, 1, MOST),
    outputs,
    type,
    outputType,
    outputStride: bounded("outputStride", options.outputStride ?? outputs, outputs, MOST),
    accumulate,
  };
}

/** `matmul of [T, 576] and [1536, 576] in BF16`. */
export function matmulName({ inner, outputs, type }: Matmul): string {
  return `matmul of [T, ${inner}] and [${outputs}, ${inner}] in ${type}`;
}

/** A buffer of a product, from its offset on. */
export interface MatmulBuffer {
  readonly byteLength: number;
  readonly offset: number;
  /** Where the buffer starts, for its alignment. */
  readonly address: number;
}

/** Throws `BAD_OPTION` or `OUT_OF_RANGE` unless x, w and y hold a product of `rows` rows. */
export function checkMatmul(
  matmul: Matmul,
  buffers: readonly MatmulBuffer[],
  constants: Uint8Array,
  rows: number,
): void {
  const what = `dispatch of ${matmulName(matmul)}`;
  if (buffers.length !== NAMES.length || constants.byteLength > 0) {
    const given = `${buffers.length} buffers and ${constants.byteLength} bytes of constants were given`;
    throw new HeadraceError("BAD_OPTION", `${what}: ${given}, and it takes x, w and y, and no constants`);
  }
  if (rows > MOST) throw new HeadraceError("BAD_OPTION", `${what}: ${rows} rows are over ${MOST}`);
  if (rows === 0) return;
  const { inner, outputs, type, outputType, outputStride } = matmul;
  const needed = [
    rows * inner * BYTES[type],
    outputs * inner * BYTES[type],
    ((rows - 1) * outputStride + outputs) * BYTES[outputType],
  ];
  for (const [index, { byteLength, offset, address }] of buffers.entries()) {
    const name = NAMES[index]!;
    checkRange(`${what}: ${name} of ${rows} rows`, offset, needed[index]!, byteLength);
    const elementType = name === "y" ? outputType : type;
    if ((address + offset) % BYTES[elementType] === 0) continue;
    const text = `${name} holds ${elementType}, which must start on a multiple of ${BYTES[elementType]} bytes`;
    throw new HeadraceError("BAD_OPTION", `${what}: ${text}, and its offset is ${offset}`);
  }
}
