import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { HeadraceError } from "../../../src/errors.ts";
import {
  byteLengthOf,
  DTYPES,
  dtypeBits,
  isDType,
  itemAlignment,
  numElements,
  shapeText,
  typedView,
} from "../../../src/format/dtype.ts";
import type { DType, TypedArray } from "../../../src/types.ts";

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof HeadraceError) return error.code;
    throw error;
  }
  return "nothing thrown";
}

const TABLE: [DType, number, number, { new (...args: never[]): TypedArray; name: string }][] = [
  ["BOOL", 8, 1, Uint8Array],
  ["F4", 4, 1, Uint8Array],
  ["F6_E2M3", 6, 1, Uint8Array],
  ["F6_E3M2", 6, 1, Uint8Array],
  ["U8", 8, 1, Uint8Array],
  ["I8", 8, 1, Int8Array],
  ["F8_E5M2", 8, 1, Uint8Array],
  ["F8_E4M3", 8, 1, Uint8Array],
  ["F8_E8M0", 8, 1, Uint8Array],
  ["F8_E4M3FNUZ", 8, 1, Uint8Array],
  ["F8_E5M2FNUZ", 8, 1, Uint8Array],
  ["I16", 16, 2, Int16Array],
  ["U16", 16, 2, Uint16Array],
  ["F16", 16, 2, Float16Array],
  ["BF16", 16, 2, Uint16Array],
  ["I32", 32, 4, Int32Array],
  ["U32", 32, 4, Uint32Array],
  ["F32", 32, 4, Float32Array],
  ["C64", 64, 4, Float32Array],
  ["F64", 64, 8, Float64Array],
  ["I64", 64, 8, BigInt64Array],
  ["U64", 64, 8, BigUint64Array],
];

describe("the table", () => {
  test("names all dtypes in the format's order", () => {
    expect(DTYPES).toEqual(TABLE.map(([dtype]) => dtype));
  });

  for (const [dtype, bits, alignment, View] of TABLE) {
    test(dtype, () => {
      expect(dtypeBits(dtype)).toBe(bits);
      expect(itemAlignment(dtype)).toBe(alignment);
      const view = typedView(dtype, new ArrayBuffer(32), 8, 16);
      expect(view.constructor.name).toBe(View.name);
      expect([view.byteOffset, view.byteLength]).toEqual([8, 16]);
      expect(byteLengthOf(dtype, [4])).toBe((bits * 4) / 8);
    });
  }

  test("knows no other names, those of object members neither", () => {
    for (const name of ["", "f32", "F32 ", "F128", "constructor", "__proto__", "toString"]) {
      expect(isDType(name)).toBe(false);
    }
    expect(DTYPES.every(isDType)).toBe(true);
  });
});

describe("byteLengthOf", () => {
  test("scalars and empty tensors", () => {
    expect(byteLengthOf("F64", [])).toBe(8);
    expect(byteLengthOf("F64", [3, 0, 5])).toBe(0);
    expect(byteLengthOf("F4", [0])).toBe(0);
    expect(numElements([])).toBe(1);
  });

  test("elements below a byte must fill whole bytes", () => {
    expect(byteLengthOf("F4", [3, 2])).toBe(3);
    expect(byteLengthOf("F6_E2M3", [4])).toBe(3);
    expect(codeOf(() => byteLengthOf("F4", [3]))).toBe("TENSOR_MISALIGNED");
    expect(codeOf(() => byteLengthOf("F4", []))).toBe("TENSOR_MISALIGNED");
    expect(codeOf(() => byteLengthOf("F6_E3M2", [2]))).toBe("TENSOR_MISALIGNED");
  });

  test("a product past 2^53-1 is refused, whatever follows; a 0 before it is not", () => {
    expect(codeOf(() => byteLengthOf("U8", [2 ** 32, 2 ** 32]))).toBe("TENSOR_OVERFLOW");
    expect(codeOf(() => byteLengthOf("U8", [2 ** 32, 2 ** 32, 0]))).toBe("TENSOR_OVERFLOW");
    expect(byteLengthOf("U8", [0, 2 ** 32, 2 ** 32])).toBe(0);
  });

  test("bytes past 2^53-1 are refused, the last ones before it are not", () => {
    expect(byteLengthOf("U8", [Number.MAX_SAFE_INTEGER])).toBe(Number.MAX_SAFE_INTEGER);
    expect(codeOf(() => byteLengthOf("U16", [2 ** 52]))).toBe("TENSOR_OVERFLOW");
    expect(byteLengthOf("U16", [2 ** 52 - 1])).toBe(2 ** 53 - 2);
    expect(codeOf(() => byteLengthOf("F4", [2 ** 52]))).toBe("TENSOR_OVERFLOW");
  });

  test("dimensions that no number holds exactly, and those that are none", () => {
    expect(codeOf(() => numElements([2 ** 53]))).toBe("TENSOR_OVERFLOW");
    expect(codeOf(() => numElements([Number.POSITIVE_INFINITY]))).toBe("TENSOR_OVERFLOW");
    for (const dim of [-1, 1.5, Number.NaN, Number.NEGATIVE_INFINITY]) {
      expect(codeOf(() => numElements([dim]))).toBe("BAD_OPTION");
    }
  });

  test("property: agrees with exact arithmetic, step by step", () => {
    const dim = fc.oneof(fc.nat(5), fc.nat(2 ** 30), fc.maxSafeNat());
    fc.assert(
      fc.property(fc.constantFrom(...DTYPES), fc.array(dim, { maxLength: 6 }), (dtype, shape) => {
        const most = BigInt(Number.MAX_SAFE_INTEGER);
        let count = 1n;
        let expected: string | number = "";
        for (const size of shape) {
          count *= BigInt(size);
          if (count > most) expected = "TENSOR_OVERFLOW";
          if (expected !== "") break;
        }
        const bits = count * BigInt(dtypeBits(dtype));
        const isSubByte = dtypeBits(dtype) < 8;
        if (expected === "") {
          if ((isSubByte ? bits : bits / 8n) > most) expected = "TENSOR_OVERFLOW";
          else expected = bits % 8n === 0n ? Number(bits / 8n) : "TENSOR_MISALIGNED";
        }
        let actual: string | number = 0;
        const code = codeOf(() => {
          actual = byteLengthOf(dtype, shape);
        });
        expect(code === "nothing thrown" ? actual : code).toBe(expected);
      }),
    );
  });
});

describe("typedView", () => {
  test("shows the bits of the file", () => {
    const bytes = Uint8Array.of(0x00, 0x3c, 0x80, 0x3f, 0, 0, 0x80, 0xbf);
    expect(typedView("F16", bytes.buffer, 0, 2)[0]).toBe(1);
    expect(typedView("BF16", bytes.buffer, 2, 2)[0]).toBe(0x3f80);
    expect(typedView("F32", bytes.buffer, 4, 4)[0]).toBe(-1);
    expect(typedView("U64", bytes.buffer, 0, 8)[0]).toBe(0xbf8000003f803c00n);
  });

  test("copies nothing", () => {
    const buffer = new ArrayBuffer(8);
    typedView("U8", buffer, 3, 1)[0] = 7;
    expect([...new Uint8Array(buffer)]).toEqual([0, 0, 0, 7, 0, 0, 0, 0]);
  });

  test("refuses what is not aligned, not whole or not inside", () => {
    const buffer = new ArrayBuffer(16);
    const ranges: [number, number][] = [
      [2, 4],
      [0, 6],
      [16, 4],
      [12, 8],
      [-4, 4],
      [0, -4],
      [0.5, 4],
      [0, 4.5],
    ];
    for (const [offset, length] of ranges) {
      expect(codeOf(() => typedView("F32", buffer, offset, length))).toBe("OUT_OF_RANGE");
    }
    expect(typedView("F32", buffer, 16, 0).length).toBe(0);
  });
});

test("shapeText cuts long shapes", () => {
  expect(shapeText([])).toBe("[]");
  expect(shapeText([2, 3])).toBe("[2,3]");
  expect(shapeText(new Array(100).fill(1))).toBe("[1,1,1,1,1,1,1,1,…]");
});
