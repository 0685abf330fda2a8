/** Columns that are measured and cut anew, against what a few lines of plain code say. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { DType, TypedArray } from "../../src/index.ts";
import { Rebatcher } from "../../src/pack/rebatch.ts";
import type { PackBatch, PackField } from "../../src/pack/rows.ts";
import { sizesOf } from "../../src/pack/sizes.ts";
import { Range, ShardStats } from "../../src/pack/stats.ts";

const bytesOf = (values: ArrayBufferView) =>
  new Uint8Array(values.buffer as ArrayBuffer, values.byteOffset, values.byteLength);

/** As manifests write them. */
function listed(value: number | bigint): number | string {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
  return Number.isFinite(value) ? value + 0 : String(value);
}

const wide = fc.oneof(
  fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
  fc.bigInt(-5n, 5n),
  fc.constantFrom(-(2n ** 63n), 2n ** 63n - 1n, 2n ** 32n, -(2n ** 32n)),
);
const double = fc.oneof(
  fc.double(),
  fc.constantFrom(0, -0, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY),
);

describe("bounds", () => {
  const cases: readonly (readonly [DType, fc.Arbitrary<number | bigint>, (values: never[]) => TypedArray])[] =
    [
      ["I8", fc.integer({ min: -128, max: 127 }), (values) => Int8Array.from(values)],
      ["U8", fc.integer({ min: 0, max: 255 }), (values) => Uint8Array.from(values)],
      ["I16", fc.integer({ min: -32768, max: 32767 }), (values) => Int16Array.from(values)],
      ["U16", fc.integer({ min: 0, max: 65535 }), (values) => Uint16Array.from(values)],
      ["I32", fc.integer(), (values) => Int32Array.from(values)],
      ["U32", fc.integer({ min: 0, max: 2 ** 32 - 1 }), (values) => Uint32Array.from(values)],
      ["I64", wide, (values) => BigInt64Array.from(values)],
      ["U64", wide.map((value) => BigInt.asUintN(64, value)), (values) => BigUint64Array.from(values)],
      ["F16", double, (values) => Float16Array.from(values)],
      ["F32", double, (values) => Float32Array.from(values)],
      ["F64", double, (values) => Float64Array.from(values)],
    ];
  test.each(cases)("of %s", (dtype, element, arrayOf) => {
    fc.assert(
      fc.property(fc.array(element, { minLength: 1 }), fc.nat(), (values, cut) => {
        const array = arrayOf(values as never[]);
        const range = new Range(dtype);
        const at = cut % (values.length + 1);
        range.add(bytesOf(array), 0, at);
        range.add(bytesOf(array), at, values.length);
        const known = [...(array as Iterable<number | bigint>)].filter((value) => !Number.isNaN(value));
        const sorted = known.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0));
        const want = known.length === 0 ? {} : { min: listed(sorted[0]!), max: listed(sorted.at(-1)!) };
        expect(range.result()).toEqual(want);
      }),
    );
  });

  test("of BF16, and where memory is not aligned", () => {
    const bits = new Uint16Array([0x3f80, 0xc020, 0x7fc0, 0x8000]);
    const shifted = new Uint8Array(9);
    shifted.set(bytesOf(bits), 1);
    const range = new Range("BF16");
    range.add(shifted.subarray(1), 0, 4);
    expect(range.result()).toEqual({ min: -2.5, max: 1 });
  });

  test("rows that are missing count for neither", () => {
    const field: PackField = { name: "x", kind: "fixed", dtype: "I32", shape: [2], nullable: true };
    const stats = new ShardStats([field]);
    const values = bytesOf(new Int32Array([5, 6, 0, 0, 7, 8]));
    stats.add({
      numRows: 3,
      columns: [{ values, validity: new Uint8Array([1, 0, 1]), nullCount: 1 }],
      sourceBytes: 0,
    });
    expect(stats.result()).toEqual({ x: { min: 5, max: 8, nulls: 1 } });
  });
});

describe("batches cut anew", () => {
  const fields: readonly PackField[] = [
    { name: "n", kind: "fixed", dtype: "I16", shape: [], nullable: true },
    { name: "l", kind: "list", dtype: "I32", shape: [], nullable: true },
  ];
  const row = fc.option(fc.tuple(fc.integer({ min: 1, max: 999 }), fc.array(fc.integer(), { maxLength: 5 })));
  type Row = [number, number[]] | null;

  function batchOf(rows: readonly Row[]): PackBatch {
    const offsets = new Int32Array(rows.length + 1);
    rows.forEach((one, i) => {
      offsets[i + 1] = offsets[i]! + (one?.[1].length ?? 0);
    });
    const nullCount = rows.filter((one) => one === null).length;
    const validity = nullCount > 0 ? Uint8Array.from(rows, (one) => (one === null ? 0 : 1)) : undefined;
    const numbers = Int16Array.from(rows, (one) => one?.[0] ?? 0);
    const lists = Int32Array.from(rows.flatMap((one) => one?.[1] ?? []));
    const columns = [
      { values: bytesOf(numbers), validity, nullCount },
      { values: bytesOf(lists), offsets, validity, nullCount },
    ];
    return { numRows: rows.length, columns, sourceBytes: 0 };
  }

  function rowsOf({ numRows, columns }: PackBatch): Row[] {
    const [n, l] = columns;
    const numbers = new Int16Array(n!.values.slice().buffer);
    const lists = new Int32Array(l!.values.slice().buffer);
    expect(l!.offsets!.length).toBe(numRows + 1);
    expect(numbers.length).toBe(numRows);
    return Array.from({ length: numRows }, (_, i) => {
      expect(n!.validity?.[i]).toBe(l!.validity?.[i]);
      if (n!.validity?.[i] === 0) return null;
      return [numbers[i]!, [...lists.subarray(l!.offsets![i], l!.offsets![i + 1])]];
    });
  }

  test("hold the same rows, so many each", () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(row, { maxLength: 12 }), { maxLength: 8 }),
        fc.integer({ min: 1, max: 9 }),
        (batches, size) => {
          const rebatcher = new Rebatcher(fields, size, {
            sizes: sizesOf(fields, "arrow", 2 ** 30),
            shardBytes: 2 ** 30,
          });
          const got: Row[][] = [];
          for (const rows of batches) for (const full of rebatcher.add(batchOf(rows))) got.push(rowsOf(full));
          const last = rebatcher.end(0);
          if (last !== undefined) got.push(rowsOf(last));
          expect(got.flat()).toEqual(batches.flat());
          expect(got.slice(0, -1).every((rows) => rows.length === size)).toBe(true);
        },
      ),
    );
  });

  test("end before they hold more than 64 MiB; a row that does comes alone", () => {
    const field: PackField = { name: "t", kind: "binary", dtype: "U8", shape: [], nullable: false };
    const lengths = [30, 30, 30, 70, 1].map((mib) => mib * 2 ** 20);
    const offsets = new Int32Array(lengths.length + 1);
    lengths.forEach((length, i) => {
      offsets[i + 1] = offsets[i]! + length;
    });
    const rebatcher = new Rebatcher([field], 100, {
      sizes: sizesOf([field], "arrow", 2 ** 30),
      shardBytes: 2 ** 30,
    });
    const batch = {
      numRows: 5,
      columns: [{ values: new Uint8Array(offsets[5]!), offsets, nullCount: 0 }],
      sourceBytes: 0,
    };
    const got = [...rebatcher.add(batch)].map(({ numRows }) => numRows);
    expect([...got, rebatcher.end(0)!.numRows]).toEqual([2, 1, 1, 1]);
  });
});
