/**
 * Elements of one type into another, with a scale and a bias where wanted.
 *
 * A source element becomes an F32, times `scale`, plus `bias`, each rounded to the nearest; then the target's type:
 *
 * - F16, BF16: the nearest, ties to even; what is too large becomes infinite.
 * - I32, I8, U8: the nearest integer, ties to even; what is too large or too small becomes the largest or the smallest,
 *   and NaN 0.
 *
 * All values of F16, BF16, I8, U8, I16 and U16 are F32s too; I32 and U32 past 2^24 are rounded to one, ties to even.
 * Without scale and bias nothing is calculated: the same type gives the same bits, and NaNs stay what they are, but
 * for the bits that do not fit. With them a NaN stays some NaN, and a GPU that knows no subnormal F32s may take them as 0.
 */
import type { FunctionConstant, KernelSource, Pipeline } from "../device/device.ts";
import type { DispatchCall } from "../device/requests.ts";
import { HeadraceError } from "../errors.ts";
import {
  bindPlace,
  ConstantReader,
  checkInteger,
  MAX_THREADS,
  type Place,
  packConstants,
} from "./constants.ts";
import {
  type ConvertSource,
  type ConvertTarget,
  decoderOf,
  ELEMENT_BYTES,
  encoderOf,
  scaledBy,
  TARGETS,
} from "./elements.ts";

const NUMBERS = Object.keys(ELEMENT_BYTES) as readonly ConvertSource[];
const FLOATS: readonly string[] = ["F32", "F16", "BF16"];
/** Elements that a thread converts at once. */
const QUAD = 4;

const TEXT = `
enum Type : uint32_t { F32, F16, BF16, I8, U8, I16, U16, I32, U32 };

HR_FUNCTION_CONSTANT(0, uint32_t, FROM);
HR_FUNCTION_CONSTANT(1, uint32_t, TO);
HR_FUNCTION_CONSTANT(2, bool, SCALED);

struct ConvertConstants { uint64_t count; float scale; float bias; };

HR_FN uint32_t bytes_of(uint32_t type) {
  if (type == I8 || type == U8) return 1u;
  return type == F16 || type == BF16 || type == I16 || type == U16 ? 2u : 4u;
}

HR_FN float decoded(uint32_t bits) {
  if (FROM == F32) return HR_FLOAT_OF(bits);
  if (FROM == F16) {
    hr_half value;
    value.bits = uint16_t(bits);
    return hr_float(value);
  }
  if (FROM == BF16) return HR_FLOAT_OF(bits << 16);
  if (FROM == I8) return float(int8_t(bits));
  if (FROM == I16) return float(int16_t(bits));
  if (FROM == I32) return float(int32_t(bits));
  return float(bits);
}

/* The nearest integer, ties to even: past 2^23 there are no others, and below it the sum is rounded to one. */
HR_FN float rounded(float value) {
  if (value >= 0.0f) return value < 8388608.0f ? value + 8388608.0f - 8388608.0f : value;
  return value > -8388608.0f ? value - 8388608.0f + 8388608.0f : value;
}

HR_FN uint32_t integer_of(float value, float least, float most) {
  if (value != value) return 0u;
  float whole = rounded(value);
  return uint32_t(int32_t(whole < least ? least : whole > most ? most : whole));
}

HR_FN uint32_t encoded(float value) {
  if (TO == F16) return hr_to_half(value).bits;
  if (TO == BF16) return hr_to_bfloat(value).bits;
  if (TO == I8) return integer_of(value, -128.0f, 127.0f);
  if (TO == U8) return integer_of(value, 0.0f, 255.0f);
  if (TO == I32) return value >= 2147483648.0f ? 0x7fffffffu : integer_of(value, -2147483648.0f, 2147483648.0f);
  return HR_BITS_OF(value);
}

HR_FN uint32_t converted(uint32_t bits, float scale, float bias) {
  if (!SCALED && FROM == TO) return bits;
  float value = decoded(bits);
  if (SCALED) {
    value = value * scale;
    value = value + bias;
  }
  return encoded(value);
}

HR_FN uint32_t load_one(const HR_DEVICE uint8_t *at, uint32_t bytes) {
  if (bytes == 1u) return at[0];
  return bytes == 2u ? uint32_t(hr_load<uint16_t>(at)) : hr_load<uint32_t>(at);
}
HR_FN void store_one(HR_DEVICE uint8_t *at, uint32_t bits, uint32_t bytes) {
  if (bytes == 1u) at[0] = uint8_t(bits);
  else if (bytes == 2u) hr_store<uint16_t>(at, uint16_t(bits));
  else hr_store<uint32_t>(at, bits);
}

HR_FN hr_uint4 load_quad(const HR_DEVICE uint8_t *at, uint32_t bytes) {
  if (bytes == 4u) return hr_load<hr_uint4>(at);
  uint64_t all = bytes == 2u ? hr_load<uint64_t>(at) : uint64_t(hr_load<uint32_t>(at));
  uint32_t width = 8u * bytes, mask = bytes == 2u ? 0xffffu : 0xffu;
  hr_uint4 quad;
  quad.x = uint32_t(all) & mask;
  quad.y = uint32_t(all >> width) & mask;
  quad.z = uint32_t(all >> (2u * width)) & mask;
  quad.w = uint32_t(all >> (3u * width)) & mask;
  return quad;
}
HR_FN void store_quad(HR_DEVICE uint8_t *at, hr_uint4 quad, uint32_t bytes) {
  if (bytes == 4u) {
    hr_store<hr_uint4>(at, quad);
  } else if (bytes == 2u) {
    uint64_t low = (quad.x & 0xffffu) | quad.y << 16, high = (quad.z & 0xffffu) | quad.w << 16;
    hr_store<uint64_t>(at, low | high << 32);
  } else {
    hr_store<uint32_t>(at, (quad.x & 0xffu) | (quad.y & 0xffu) << 8 | (quad.z & 0xffu) << 16 | quad.w << 24);
  }
}

HR_KERNEL(convert, HR_IN(0, uint8_t, source), HR_OUT(1, uint8_t, target), HR_CONSTANTS(2, ConvertConstants, c)) {
  if (hr_thread >= hr_threads) return;
  uint32_t from = bytes_of(FROM), to = bytes_of(TO);
  bool isWide = (HR_ADDRESS(source) & (4u * from - 1u)) == 0u && (HR_ADDRESS(target) & (4u * to - 1u)) == 0u;
  for (uint64_t at = 4u * uint64_t(hr_thread); at < c.count; at += 4u * uint64_t(hr_threads)) {
    if (isWide && at + 4u <= c.count) {
      hr_uint4 quad = load_quad(source + at * from, from);
      quad.x = converted(quad.x, c.scale, c.bias);
      quad.y = converted(quad.y, c.scale, c.bias);
      quad.z = converted(quad.z, c.scale, c.bias);
      quad.w = converted(quad.w, c.scale, c.bias);
      store_quad(target + at * to, quad, to);
    } else {
      for (uint64_t one = at; one < at + 4u && one < c.count; one++) {
        store_one(target + one * to, converted(load_one(source + one * from, from), c.scale, c.bias), to);
      }
    }
  }
}
`;

/** The types of a conversion, and whether it has a scale and a bias. */
export interface Conversion {
  readonly from: ConvertSource;
  /** I32, I8 and U8 need a float type as `from`. */
  readonly to: ConvertTarget;
  /** Without it {@link ConvertOptions.scale} and `bias` have no meaning. */
  readonly scaled?: boolean;
}

/** The kernel of one conversion. Buffers: source, target. Throws `BAD_OPTION` for types that have none. */
export function convertKernel({ from, to, scaled = false }: Conversion): KernelSource {
  checkTypes(from, to);
  const functionConstants: FunctionConstant[] = [
    { index: 0, type: "uint", value: NUMBERS.indexOf(from) },
    { index: 1, type: "uint", value: NUMBERS.indexOf(to) },
    { index: 2, type: "bool", value: scaled },
  ];
  return {
    name: "convert",
    host: ([source, target], constants) => {
      const read = new ConstantReader(constants);
      const count = read.long();
      const scale = read.float();
      const bias = read.float();
      if (!scaled && from === to) {
        target!.set(source!.subarray(0, count * ELEMENT_BYTES[from]));
        return;
      }
      const decode = decoderOf(from, source!, count);
      const encode = encoderOf(to, target!, count);
      if (!scaled) for (let i = 0; i < count; i++) encode(i, decode(i));
      else {
        const change = scaledBy(scale, bias);
        for (let i = 0; i < count; i++) encode(i, change(decode(i)));
      }
    },
    text: TEXT,
    functionConstants,
  };
}

function checkTypes(from: ConvertSource, to: ConvertTarget): void {
  if (!Object.hasOwn(ELEMENT_BYTES, from) || !TARGETS.includes(to)) {
    const known = `${NUMBERS.join(", ")} to ${TARGETS.join(", ")}`;
    throw new HeadraceError("BAD_OPTION", `convert: ${from} to ${to} is none of ${known}`);
  }
  if (FLOATS.includes(from) || FLOATS.includes(to)) return;
  throw new HeadraceError(
    "BAD_OPTION",
    `convert: ${from} to ${to}: an integer can become F32, F16 or BF16 alone`,
  );
}

export interface ConvertOptions extends Conversion {
  /** At a multiple of the element's size, as is `target`, which must not overlap it. Where both lie at multiples of
   * four elements, four are loaded and stored at once. */
  readonly source: Place;
  readonly target: Place;
  /** Elements. */
  readonly count: number;
  /** Rounded to an F32; 1 without. */
  readonly scale?: number;
  /** Rounded to an F32; 0 without. */
  readonly bias?: number;
}

/** A dispatch of {@link convertKernel}, of the same types. Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
export function convertCall(pipeline: Pipeline, options: ConvertOptions): DispatchCall {
  const { from, to, scaled = false, source, target, count, scale = 1, bias = 0 } = options;
  checkTypes(from, to);
  checkInteger("convert: count", count);
  if (!scaled && (scale !== 1 || bias !== 0)) {
    const message = `convert: scale ${scale} and bias ${bias} need a kernel with \`scaled\``;
    throw new HeadraceError("BAD_OPTION", message);
  }
  return {
    pipeline,
    buffers: [
      bindPlace("convert: source", source, count * ELEMENT_BYTES[from], ELEMENT_BYTES[from]),
      bindPlace("convert: target", target, count * ELEMENT_BYTES[to], ELEMENT_BYTES[to]),
    ],
    constants: packConstants([{ long: count }, { float: scale }, { float: bias }]),
    threads: Math.min(MAX_THREADS, Math.ceil(count / QUAD)),
  };
}
