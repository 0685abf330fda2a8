import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { DTYPES, dtypeBits, itemAlignment } from "../../../src/format/dtype.ts";
import { describeSafetensors, PADDING_NAME } from "../../../src/format/safetensors.ts";
import {
  type EncodedHeader,
  encodeHeader,
  type HeaderOptions,
  type TensorSpec,
} from "../../../src/format/safetensors-header.ts";
import type { DType } from "../../../src/types.ts";
import { failureOf } from "../failure.ts";
import { spec } from "./safetensors-files.ts";

function describeEncoded({ header, dataByteLength }: EncodedHeader) {
  return describeSafetensors(
    (at, length) => header.subarray(at, at + length),
    header.length + dataByteLength,
  );
}

const text = ({ header }: EncodedHeader) => new TextDecoder().decode(header.subarray(8)).trimEnd();

/** Valid tensors: scalars, empty ones, all dtypes, any names; sub-byte dtypes with a last dimension of 4n. */
const tensors = fc
  .uniqueArray(
    fc.record({
      name: fc.string({ unit: "binary", maxLength: 12 }).filter((name) => name.isWellFormed()),
      dtype: fc.constantFrom(...DTYPES),
      dims: fc.array(fc.nat(9), { maxLength: 4 }),
    }),
    { selector: ({ name }) => name, maxLength: 12 },
  )
  .map((parts) =>
    parts
      .filter(({ name }) => name !== "__metadata__" && !PADDING_NAME.test(name))
      .map(({ name, dtype, dims }) => spec(name, dtype, dtypeBits(dtype) < 8 ? [...dims, 4] : dims)),
  );
const metadata = fc.dictionary(
  fc.string({ unit: "binary" }).filter((key) => key.isWellFormed()),
  fc.string({ unit: "binary" }).filter((value) => value.isWellFormed()),
);
const options = fc.record({
  alignment: fc.constantFrom(8, 24, 64, 4096, 16384),
  pageAlignTensors: fc.boolean(),
});

describe("property: describe(encode(x)) = x", () => {
  test("names, dtypes, shapes, metadata and places", () => {
    fc.assert(
      fc.property(tensors, metadata, options, (given, meta, chosen) => {
        const encoded = encodeHeader(given, meta, chosen);
        const described = describeEncoded(encoded);
        expect(Object.entries(described.metadata).sort()).toEqual(Object.entries(meta).sort());
        expect(described.tensors!.length).toBe(given.length);
        for (const [index, { name, dtype, shape }] of given.entries()) {
          const tensor = described.tensors!.find((found) => found.name === name)!;
          const { start, end } = encoded.dataOffsets[index]!;
          const base = encoded.header.length;
          expect(tensor).toEqual({ name, dtype, shape, range: { start: base + start, end: base + end } });
        }
      }),
    );
  });

  test("the data starts on the alignment, and each tensor on its elements, or on the alignment if asked", () => {
    fc.assert(
      fc.property(tensors, options, (given, chosen) => {
        const { header, dataOffsets, order } = encodeHeader(given, {}, chosen);
        expect(header.length % chosen.alignment).toBe(0);
        expect([...order].sort((a, b) => a - b)).toEqual(given.map((_, index) => index));
        let at = 0;
        for (const index of order) {
          const { start, end } = dataOffsets[index]!;
          const unit = chosen.pageAlignTensors ? chosen.alignment : itemAlignment(given[index]!.dtype);
          expect(start % unit).toBe(0);
          expect(start).toBeGreaterThanOrEqual(at);
          expect(end - start).toBe(given[index]!.byteLength);
          at = end;
        }
      }),
    );
  });

  test("the order given does not matter", () => {
    fc.assert(
      fc.property(tensors, metadata, (given, meta) => {
        const backwards = Object.fromEntries(Object.entries(meta).reverse());
        const one = encodeHeader(given, meta).header;
        const other = encodeHeader([...given].reverse(), backwards).header;
        expect(Buffer.compare(one, other)).toBe(0);
      }),
    );
  });
});

describe("the text", () => {
  test("is compact, sorted by dtype from the widest down, then by name", () => {
    const encoded = encodeHeader(
      [spec("b", "F32", [1]), spec("m", "BOOL", [2]), spec("a", "F32", []), spec("q", "U64", [0])],
      { z: "1", a: "2" },
    );
    expect(text(encoded)).toBe(
      '{"__metadata__":{"a":"2","z":"1"},' +
        '"q":{"dtype":"U64","shape":[0],"data_offsets":[0,0]},' +
        '"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},' +
        '"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},' +
        '"m":{"dtype":"BOOL","shape":[2],"data_offsets":[8,10]}}',
    );
    expect(encoded.order).toEqual([3, 2, 0, 1]);
    expect(encoded.dataByteLength).toBe(10);
  });

  test("names are in the order of their UTF-8 bytes", () => {
    const encoded = encodeHeader([spec("😀", "U8", [1]), spec("\uffee", "U8", [1]), spec("é", "U8", [1])]);
    expect(encoded.order).toEqual([2, 1, 0]);
  });

  test("is padded by spaces to a page, and no more", () => {
    const { header } = encodeHeader([]);
    expect(header.length).toBe(16384);
    expect(new TextDecoder().decode(header.subarray(8))).toBe(`{}${" ".repeat(16374)}`);
    expect(encodeHeader([], {}, { alignment: 8 }).header.length).toBe(16);
  });

  test("fillers stand before each tensor that would not start on a page", () => {
    const given = [spec("a", "U8", [4096]), spec("b", "U8", [1]), spec("c", "U8", [0]), spec("d", "U8", [2])];
    const encoded = encodeHeader(given, {}, { alignment: 4096, pageAlignTensors: true });
    expect(encoded.dataOffsets.map(({ start }) => start)).toEqual([0, 4096, 8192, 8192]);
    expect(text(encoded)).toContain('"__pad_0__":{"dtype":"U8","shape":[4095],"data_offsets":[4097,8192]}');
    expect(text(encoded)).not.toContain("__pad_1__");
  });
});

describe("what cannot be written", () => {
  const wrong = (tensor: Partial<TensorSpec>): TensorSpec => ({ ...spec("a", "U8", [4]), ...tensor });
  const many = Array.from({ length: 4 }, (_, i) => spec(`${i}${"x".repeat(30_000_000)}`, "U8", [0]));
  const cases: [string, string, TensorSpec[], Record<string, string>, HeaderOptions][] = [
    ["a wrong length", "TENSOR_SIZE", [wrong({ byteLength: 5 })], {}, {}],
    ["a length that is none", "TENSOR_SIZE", [wrong({ byteLength: Number.NaN })], {}, {}],
    ["an unknown dtype", "UNKNOWN_DTYPE", [wrong({ dtype: "f32" as DType })], {}, {}],
    ["an overflow", "TENSOR_OVERFLOW", [wrong({ shape: [2 ** 40, 2 ** 40] })], {}, {}],
    [
      "an overflow of all together",
      "TENSOR_OVERFLOW",
      [spec("a", "U8", [2 ** 53 - 1]), spec("b", "U8", [9])],
      {},
      {},
    ],
    ["half a byte", "TENSOR_MISALIGNED", [wrong({ dtype: "F4", shape: [3] })], {}, {}],
    ["a negative dimension", "BAD_OPTION", [wrong({ shape: [-4] })], {}, {}],
    ["too many dimensions", "BAD_OPTION", [wrong({ shape: new Array(129).fill(1) })], {}, {}],
    ["a name given twice", "BAD_OPTION", [wrong({}), wrong({})], {}, {}],
    ["the name of the metadata", "BAD_OPTION", [wrong({ name: "__metadata__" })], {}, {}],
    ["the name of a filler", "BAD_OPTION", [wrong({ name: "__pad_12__" })], {}, {}],
    ["half a surrogate pair", "BAD_OPTION", [wrong({ name: "\ud800" })], {}, {}],
    ["half a surrogate pair in metadata", "BAD_OPTION", [], { k: "\udc00" }, {}],
    ["metadata of numbers", "BAD_OPTION", [], { k: 1 as unknown as string }, {}],
    ["an alignment of 0", "BAD_OPTION", [], {}, { alignment: 0 }],
    ["an alignment of 12", "BAD_OPTION", [], {}, { alignment: 12 }],
    ["a huge alignment", "BAD_OPTION", [], {}, { alignment: 2 ** 27 }],
    ["an alignment that is none", "BAD_OPTION", [], {}, { alignment: Number.NaN }],
    ["a header over the limit", "HEADER_TOO_LARGE", many, {}, {}],
  ];
  for (const [what, code, given, meta, chosen] of cases) {
    test(`${code}: ${what}`, () => {
      const failure = failureOf(() => encodeHeader(given, meta, chosen));
      expect([failure.code as string, failure.message.includes("\n")]).toEqual([code, false]);
    });
  }
});
