/** Rows of an embedding table by token, as F32. */
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
import { halfToFloatBits } from "./floats.ts";
import {
  bindRows,
  checkThreads,
  checkType,
  FLOATS_TEXT,
  ROWS_TEXT,
  rowsOf,
  type StepRows,
  typeConstant,
  wordsOf,
} from "./step.ts";
import { WEIGHT_BYTES, type WeightType } from "./weights.ts";

/** Elements that a thread takes at once. */
const QUAD = 4;
/** The bits of the NaN that stands for what is not there. */
const NAN_BITS = 0x7fc00000;

const TEXT = `${ROWS_TEXT}${FLOATS_TEXT}
struct EmbedConstants { uint32_t hidden; uint32_t vocab; uint32_t countAt; uint32_t maxRows; };

HR_FN uint32_t bits_at(const HR_DEVICE uint8_t *table, uint64_t index) {
  return HR_BITS_OF(float_at(table, index));
}

HR_FN hr_uint4 wide_at(const HR_DEVICE uint8_t *table, uint64_t index) {
  if (TYPE == F32) return hr_load<hr_uint4>(table + index * 4u);
  uint64_t all = hr_load<uint64_t>(table + index * 2u);
  hr_uint4 quad;
  quad.x = HR_BITS_OF(float_of(uint32_t(all) & 0xffffu));
  quad.y = HR_BITS_OF(float_of(uint32_t(all >> 16) & 0xffffu));
  quad.z = HR_BITS_OF(float_of(uint32_t(all >> 32) & 0xffffu));
  quad.w = HR_BITS_OF(float_of(uint32_t(all >> 48)));
  return quad;
}

HR_KERNEL(embed_rows, HR_IN(0, uint8_t, table), HR_IN(1, uint32_t, tokens), HR_IN(2, uint32_t, info),
          HR_OUT(3, uint32_t, out), HR_CONSTANTS(4, EmbedConstants, c)) {
  if (hr_thread >= hr_threads) return;
  uint32_t quads = (c.hidden + 3u) / 4u, row = hr_thread / quads, column = hr_thread % quads * 4u;
  if (row >= rows_of(info, c.countAt, c.maxRows)) return;
  uint32_t token = tokens[row];
  uint64_t from = uint64_t(token) * c.hidden + column;
  HR_DEVICE uint32_t *to = out + (uint64_t(row) * c.hidden + column);
  bool isThere = token < c.vocab, isWide = (c.hidden & 3u) == 0u;
  isWide = isWide && (HR_ADDRESS(out) & 15u) == 0u && (HR_ADDRESS(table) & (TYPE == F32 ? 15u : 7u)) == 0u;
  if (isThere && isWide) {
    hr_store<hr_uint4>((HR_DEVICE uint8_t *)to, wide_at(table, from));
    return;
  }
  for (uint32_t i = 0; i < 4u && column + i < c.hidden; i++) to[i] = isThere ? bits_at(table, from + i) : 0x7fc00000u;
}
`;

/**
 * The kernel for a table of one type. Buffers: table (`[vocab, hidden]`), tokens (int32, one a row), info, out (F32,
 * `[rows, hidden]`). A token that the table does not have reads nothing: its row becomes NaN, and so does what is
 * computed of it. Throws `BAD_OPTION` for another type.
 */
export function embedRowsKernel(type: WeightType): KernelSource {
  checkType("embed_rows: type", type);
  return {
    name: "embed_rows",
    host: (buffers, constants) => embedOnHost(type, buffers, constants),
    text: TEXT,
    functionConstants: [typeConstant(type)],
  };
}

function embedOnHost(
  type: WeightType,
  [table, tokens, info, out]: readonly Uint8Array[],
  constants: Uint8Array,
): void {
  const read = new ConstantReader(constants);
  const hidden = read.uint();
  const vocab = read.uint();
  const rows = rowsOf(info!, read.uint(), read.uint());
  const ids = wordsOf(tokens!, rows);
  const to = wordsOf(out!, rows * hidden);
  const stride = hidden * WEIGHT_BYTES[type];
  for (let row = 0; row < rows; row++) {
    const start = row * hidden;
    const id = ids[row]!;
    if (id >= vocab) {
      to.fill(NAN_BITS, start, start + hidden);
      continue;
    }
    const at = table!.byteOffset + id * stride;
    if (type === "F32") {
      to.set(new Uint32Array(table!.buffer, at, hidden), start);
      continue;
    }
    const halves = new Uint16Array(table!.buffer, at, hidden);
    if (type === "BF16") for (let i = 0; i < hidden; i++) to[start + i] = halves[i]! << 16;
    else for (let i = 0; i < hidden; i++) to[start + i] = halfToFloatBits(halves[i]!);
  }
}

export interface EmbedRowsOptions extends StepRows {
  /** The type that the pipeline was made for. */
  readonly type: WeightType;
  /** Row 0, at a multiple of the element's size; loads are wide at a multiple of four, where `hidden` is one too. */
  readonly table: Place;
  /** Rows of the table. */
  readonly vocab: number;
  /** Elements of a row. */
  readonly hidden: number;
  /** int32 at a multiple of 4 bytes. */
  readonly tokens: Place;
  /** At a multiple of 4 bytes; stores are wide at a multiple of 16. */
  readonly out: Place;
}

/** A dispatch of {@link embedRowsKernel}. Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
export function embedRowsCall(pipeline: Pipeline, options: EmbedRowsOptions): DispatchCall {
  const { type, table, vocab, hidden, tokens, out, countAt, maxRows } = options;
  checkType("embed_rows: type", type);
  checkInteger("embed_rows: hidden", hidden, 1, 2 ** 24);
  checkInteger("embed_rows: vocab", vocab, 0, MAX_THREADS);
  const info = bindRows("embed_rows", options);
  const size = WEIGHT_BYTES[type];
  return {
    pipeline,
    buffers: [
      bindPlace("embed_rows: table", table, vocab * hidden * size, size),
      bindPlace("embed_rows: tokens", tokens, maxRows * 4, 4),
      info,
      bindPlace("embed_rows: out", out, maxRows * hidden * 4, 4),
    ],
    constants: packConstants([hidden, vocab, countAt, maxRows]),
    threads: checkThreads("embed_rows", maxRows, maxRows * Math.ceil(hidden / QUAD)),
  };
}
