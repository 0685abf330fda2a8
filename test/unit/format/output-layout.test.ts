/** Layouts of outputs, up to sizes that no test could write, against what this library's readers find in them. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { describeArrow } from "../../../src/format/arrow.ts";
import { ARROW_OUTPUT } from "../../../src/format/arrow-encode.ts";
import {
  type FileLayout,
  fixedPlaces,
  type GroupSize,
  isVariable,
  type OutputField,
  type OutputFormat,
  rowBytesOf,
} from "../../../src/format/output-layout.ts";
import { describeSafetensors } from "../../../src/format/safetensors.ts";
import { SAFETENSORS_OUTPUT } from "../../../src/format/safetensors-encode.ts";
import { schemaOf } from "../../../src/loader/writeback/manifest.ts";
import type { ByteReader, DType } from "../../../src/types.ts";

const ARROW_DTYPES: readonly DType[] = [
  "I8",
  "U8",
  "I16",
  "U16",
  "F16",
  "I32",
  "U32",
  "F32",
  "F64",
  "I64",
  "U64",
];
const OWN: readonly OutputField[] = [
  { name: "row", kind: "fixed", dtype: "I64", nullable: false },
  { name: "shard", kind: "name", dtype: "I32", nullable: false },
];

/** Fields of fixed size come first, as the formats want them. */
const fieldsIn = (dtypes: readonly DType[]) =>
  fc
    .array(
      fc.record({
        kind: fc.constantFrom("fixed", "list", "utf8"),
        dtype: fc.constantFrom(...dtypes),
        length: fc.option(fc.integer({ min: 1, max: 4096 }), { nil: undefined }),
        nullable: fc.boolean(),
      }),
      { maxLength: 6 },
    )
    .map((some) => {
      const fields = some.map(({ kind, dtype, length, nullable }, i): OutputField => {
        const name = `c"${i}é`;
        if (kind === "utf8") return { name, kind, dtype: "U8", nullable };
        if (kind === "list") return { name, kind, dtype, nullable };
        return { name, kind: "fixed", dtype, length, nullable };
      });
      return [...OWN, ...fields.filter((field) => !isVariable(field)), ...fields.filter(isVariable)];
    });

const groupsFor = (fields: readonly OutputField[], most: number) =>
  fc.array(
    fc.integer({ min: 0, max: 2_000_000 }).chain((numRows) =>
      fc
        .tuple(...fields.map(() => fc.record({ elements: fc.nat(most), nullCount: fc.nat(numRows) })))
        .map((sizes) => ({
          numRows,
          fields: sizes.map((size, i) => ({
            // Bytes of a column stay below 2^31, as the writer's cut sees to.
            elements:
              numRows > 0 && isVariable(fields[i]!) ? Math.floor(size.elements / rowBytesOf(fields[i]!)) : 0,
            nullCount: fields[i]!.nullable ? size.nullCount : 0,
          })),
        })),
    ),
    { minLength: 1, maxLength: 4 },
  );

/** The file with its pieces alone, and zeros elsewhere. */
function readerOf({ pieces, byteLength }: FileLayout): ByteReader {
  return (byteOffset, length) => {
    expect(byteOffset + length).toBeLessThanOrEqual(byteLength);
    const bytes = new Uint8Array(length);
    for (const { at, bytes: piece } of pieces) {
      const from = Math.max(at, byteOffset);
      const to = Math.min(at + piece.length, byteOffset + length);
      if (from < to) bytes.set(piece.subarray(from - at, to - at), from - byteOffset);
    }
    return bytes;
  };
}

/** Ranges that a layout gives away, pieces among them. */
function rangesOf(fields: readonly OutputField[], layout: FileLayout, groups: readonly GroupSize[]) {
  const ranges = layout.pieces.map(({ at, bytes }) => [at, at + bytes.length] as const);
  layout.groups.forEach(({ numRows, fields: places }, g) => {
    places.forEach(({ validity, offsets, values }, f) => {
      const field = fields[f]!;
      const size = isVariable(field) ? (groups[g]?.fields[f]?.elements ?? 0) : numRows;
      if (numRows > 0) ranges.push([values, values + size * rowBytesOf(field)]);
      if (offsets !== undefined) ranges.push([offsets.at, offsets.at + (numRows + 1) * offsets.width]);
      if (validity !== undefined) ranges.push([validity, validity + Math.ceil(numRows / 8)]);
    });
  });
  return ranges.filter(([start, end]) => start < end).sort((a, b) => a[0] - b[0]);
}

function expectApart(fields: readonly OutputField[], layout: FileLayout, groups: readonly GroupSize[]): void {
  let before = 0;
  for (const [start, end] of rangesOf(fields, layout, groups)) {
    expect(start).toBeGreaterThanOrEqual(before);
    before = end;
  }
  expect(before).toBeLessThanOrEqual(layout.byteLength);
}

/** Fixed fields of the first group lie where they were promised, whatever the others hold. */
function expectPromise(format: OutputFormat, fields: readonly OutputField[], layout: FileLayout): void {
  const [first] = layout.groups;
  if (first === undefined || first.numRows === 0) return;
  const { fields: places, end } = fixedPlaces(format, fields, "the shard", first.numRows);
  fields.forEach((field, f) => {
    if (isVariable(field)) return;
    expect(places[f]).toEqual(first.fields[f]!);
    expect(places[f]!.values + first.numRows * rowBytesOf(field)).toBeLessThanOrEqual(end);
  });
}

describe("Arrow", () => {
  test("files are what the reader takes them for", () => {
    const cases = fieldsIn(ARROW_DTYPES).chain((fields) =>
      fc.tuple(fc.constant(fields), groupsFor(fields, 2 ** 31 - 1)),
    );
    fc.assert(
      fc.property(cases, ([fields, groups]) => {
        const layout = ARROW_OUTPUT.layout(fields, "the shard", groups);
        expectApart(fields, layout, groups);
        expectPromise(ARROW_OUTPUT, fields, layout);
        const { rows, format } = describeArrow(readerOf(layout), layout.byteLength);
        expect(format).toBe("arrow-file");
        expect(rows!.schema).toEqual(schemaOf(fields, true));
        const full = layout.groups.filter(({ numRows }) => numRows > 0);
        expect(rows!.groups.map(({ rowStart, numRows }) => [rowStart, numRows])).toEqual(
          full.map(({ rowStart, numRows }) => [rowStart, numRows]),
        );
        full.forEach((group, g) => {
          group.fields.forEach((place, f) => {
            const read = rows!.groups[g]!.columns[f]!;
            expect(read.values.start).toBe(place.values);
            expect(read.offsets?.range.start).toBe(place.offsets?.at as number);
            const size = groups.filter(({ numRows }) => numRows > 0)[g]!.fields[f]!;
            if (size.nullCount > 0) {
              expect(read.validity).toEqual({
                range: { start: place.validity!, end: place.validity! + Math.ceil(group.numRows / 8) },
                nullCount: size.nullCount,
              });
            } else expect(read.validity).toBeUndefined();
            expect(place.values % 64).toBe(0);
          });
        });
      }),
      { numRuns: 150 },
    );
  });

  test("knows what it has no type for", () => {
    for (const dtype of ["BF16", "BOOL", "C64", "F8_E4M3"] as const) {
      const field: OutputField = { name: "x", kind: "list", dtype, nullable: false };
      expect(() => ARROW_OUTPUT.check(field)).toThrow(/"x" is of .* Arrow has no type for/);
      expect(() => SAFETENSORS_OUTPUT.check(field)).not.toThrow();
    }
  });
});

describe("safetensors", () => {
  test("files are what the reader takes them for", () => {
    const dtypes: readonly DType[] = [...ARROW_DTYPES, "BF16", "F8_E4M3", "C64"];
    const cases = fieldsIn(dtypes).chain((fields) =>
      fc.tuple(fc.constant(fields), groupsFor(fields, 2 ** 40)),
    );
    fc.assert(
      fc.property(cases, ([fields, [group]]) => {
        const groups = [group!];
        const layout = SAFETENSORS_OUTPUT.layout(fields, 'the "shard"', groups);
        expectApart(fields, layout, groups);
        expectPromise(SAFETENSORS_OUTPUT, fields, SAFETENSORS_OUTPUT.layout(fields, "the shard", groups));
        const { rows, notRows, metadata } = describeSafetensors(readerOf(layout), layout.byteLength);
        expect(notRows).toBeUndefined();
        expect(metadata).toEqual({ shard: 'the "shard"' });
        expect(rows!.schema).toEqual(schemaOf(fields, false));
        expect(rows!.numRows).toBe(group!.numRows);
        rows!.schema.columns.forEach(({ name }, c) => {
          const read = rows!.groups[0]?.columns[c];
          if (read === undefined) return;
          const f = fields.findIndex((field) => field.name === name);
          const place = layout.groups[0]!.fields[f]!;
          expect(read.values.start).toBe(place.values);
          expect(read.offsets?.range.start).toBe(place.offsets?.at as number);
          expect(place.values % Math.min(8, rowBytesOf({ ...fields[f]!, length: undefined }))).toBe(0);
        });
      }),
      { numRuns: 150 },
    );
  });
});
