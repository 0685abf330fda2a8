import { afterAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { openCompressor } from "../../../src/codec/open.ts";
import { describeArrow } from "../../../src/format/arrow.ts";
import { type BodyCodec, checkWriteField, encodeBatch } from "../../../src/format/arrow-write.ts";
import { readerOf, rowsOf } from "./arrow-helpers.ts";
import { anyRows, fileOf, hexRows, type WriteBatch } from "./arrow-write-files.ts";
import { decoderOf, logicalBytes } from "./decode-chunks.ts";

const compressors = { zstd: openCompressor("zstd"), lz4: openCompressor("lz4") };
afterAll(() => {
  compressors.zstd.close();
  compressors.lz4.close();
});
const CODECS = {
  none: undefined,
  zstd: { codec: "zstd", compress: (bytes) => compressors.zstd.frame(bytes) },
  lz4: { codec: "lz4", compress: (bytes) => compressors.lz4.frame(bytes) },
} as const satisfies Record<string, BodyCodec | undefined>;
const anyCodec = fc.constantFrom(...(Object.keys(CODECS) as (keyof typeof CODECS)[]));

describe("files written batch by batch", () => {
  test("are described as what went in, also where only some bodies are compressed", () => {
    fc.assert(
      fc.property(
        anyRows,
        fc.array(anyCodec, { minLength: 3, maxLength: 3 }),
        ({ fields, batches }, codecs) => {
          const { bytes } = fileOf(fields, batches, (i) => CODECS[codecs[i]!]);
          const description = describeArrow(readerOf(bytes), bytes.length, undefined, decoderOf(bytes));
          const isCompressed = codecs.slice(0, batches.length).some((name) => name !== "none");
          if (!isCompressed) expect(description.chunks).toBeUndefined();
          const logical = logicalBytes(bytes, description);
          const { schema, groups } = description.rows!;
          expect(groups.map((group) => group.numRows)).toEqual(batches.map((batch) => batch.numRows));
          batches.forEach((batch, b) => {
            fields.forEach((field, f) => {
              const found = rowsOf(logical, batch.numRows, schema.columns[f]!, groups[b]!.columns[f]!);
              expect(found).toEqual(hexRows(field, batch, batch.columns[f]!));
            });
          });
        },
      ),
      { numRuns: 150 },
    );
  });

  test("have messages, bodies and plain buffers on multiples of 64 bytes", () => {
    fc.assert(
      fc.property(anyRows, anyCodec, ({ fields, batches }, codec) => {
        const { bytes, places } = fileOf(fields, batches, () => CODECS[codec]);
        for (const { offset, metadataLength, bodyLength } of places) {
          expect([offset % 64, metadataLength % 64, bodyLength % 64]).toEqual([0, 0, 0]);
        }
        if (codec !== "none") return;
        const { groups } = describeArrow(readerOf(bytes), bytes.length).rows!;
        for (const { columns } of groups)
          for (const { values, offsets, validity } of columns)
            for (const range of [values, offsets?.range, validity?.range])
              expect((range?.start ?? 0) % 64).toBe(0);
      }),
      { numRuns: 50 },
    );
  });

  test("keep a buffer as it is where its frame is no smaller", () => {
    const noise = new Uint8Array(
      Buffer.concat(Array.from({ length: 25 }, (_, i) => Bun.SHA256.hash(`${i}`) as Uint8Array)),
    );
    const fields = [
      { name: "noise", kind: "fixed", dtype: "U8", nullable: false },
      { name: "zeros", kind: "fixed", dtype: "I64", nullable: false },
    ] as const;
    const columns = [
      { values: noise, nullCount: 0 },
      { values: new Uint8Array(6400), nullCount: 0 },
    ];
    const { bytes } = fileOf(fields, [{ numRows: 800, columns }], () => CODECS.zstd);
    const { chunks } = describeArrow(readerOf(bytes), bytes.length);
    expect([...chunks!.codec]).toEqual([0, 1]);
    expect([...chunks!.starts]).toEqual([0, 800, 7200]);
    expect(chunks!.fileLength[0]).toBe(800);
    expect(chunks!.fileLength[1]).toBeLessThan(100);
  });

  test("take their columns' own arrays, without a copy", () => {
    const values = new Uint8Array(4000);
    const field = { name: "a", kind: "fixed", dtype: "F32", nullable: false } as const;
    const { pieces } = encodeBatch([field], 1000, [{ values, nullCount: 0 }]);
    expect(pieces.some((piece) => piece.buffer === values.buffer)).toBe(true);
  });

  test.each([
    ["values", { values: new Uint8Array(39), nullCount: 0 }, "values of 10 rows need 40 bytes, it has 39"],
    [
      "validity",
      { values: new Uint8Array(40), nullCount: 1, validity: new Uint8Array(9) },
      "validity of 10 rows need 10 bytes, it has 9",
    ],
  ])("refuse a column with too few %s", (_, column, message) => {
    const field = { name: "a", kind: "fixed", dtype: "F32", nullable: true } as const;
    expect(() => encodeBatch([field], 10, [column])).toThrow(`column "a": its ${message}`);
  });

  test("refuse lists with too few offsets or elements", () => {
    const field = { name: "a", kind: "list", dtype: "I32", nullable: false } as const;
    const encode = (column: WriteBatch["columns"][number]) => () => encodeBatch([field], 2, [column]);
    const values = new Uint8Array(12);
    expect(encode({ values, offsets: Int32Array.of(0, 1), nullCount: 0 })).toThrow("offsets of 2 rows");
    expect(encode({ values, offsets: Int32Array.of(0, 1, 4), nullCount: 0 })).toThrow("need 16 bytes");
  });

  test("have no place for some types, and say so", () => {
    const check = (kind: "fixed" | "list", dtype: "BF16" | "F8_E4M3" | "BOOL" | "I32") => () =>
      checkWriteField({ name: "a", kind, dtype, nullable: false });
    expect(check("fixed", "BF16")).toThrow('column "a" is of BF16, which Arrow has no type for');
    expect(check("list", "F8_E4M3")).toThrow("which Arrow has no type for");
    expect(check("list", "BOOL")).toThrow("store it as U8");
    check("fixed", "BOOL")();
    check("list", "I32")();
  });
});
