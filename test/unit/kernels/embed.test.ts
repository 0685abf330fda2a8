/** Rows of an embedding table: the table's values, whatever its type, and nothing beyond the count. */
import { describe, expect, test } from "bun:test";
import { embedRowsCall, embedRowsKernel } from "../../../src/kernels/embed.ts";
import { WEIGHT_TYPES } from "../../../src/kernels/weights.ts";
import { expectCode } from "../../conformance/harness.ts";
import { elementsOf, floats, floatsIn, infoOf, poison, useForms, valuesOf, wordsIn } from "./forms.ts";
import { Guarded, PIPELINE } from "./memory.ts";

const kernels = WEIGHT_TYPES.map(embedRowsKernel);
const run = useForms(kernels);
const VOCAB = 23;

describe.each(WEIGHT_TYPES.map((type, i) => ({ type, kernel: kernels[i]! })))("a table of $type", (of) => {
  test.each([1, 2, 3, 4, 5, 8, 31, 64, 192])("with rows of %i elements", (hidden) => {
    const table = elementsOf(of.type, floats(VOCAB * hidden, hidden, 100));
    const values = valuesOf(of.type, table);
    const tokens = Int32Array.of(0, VOCAB - 1, 7, 7, 1, 99, 99);
    const out = run(of.kernel, [table, tokens, infoOf(5, 2), poison(7 * hidden)], ([at, ids, info, to]) =>
      embedRowsCall(PIPELINE, {
        type: of.type,
        ...{ table: at!, tokens: ids!, info: info!, out: to!, vocab: VOCAB, hidden, countAt: 2, maxRows: 7 },
      }),
    )[3]!;
    const expected = [...tokens.subarray(0, 5)].flatMap((id) => [
      ...values.subarray(id * hidden, (id + 1) * hidden),
    ]);
    expect([...floatsIn(out).subarray(0, 5 * hidden)]).toEqual(expected);
    expect(
      wordsIn(out)
        .subarray(5 * hidden)
        .every((word) => word === 0x7fa5a5a5),
    ).toBe(true);
  });

  test("gives NaN for a token that it does not have", () => {
    const hidden = 6;
    const table = elementsOf(of.type, floats(VOCAB * hidden));
    const tokens = Int32Array.of(-1, 3, VOCAB, 2 ** 31 - 1, -(2 ** 31));
    const out = run(of.kernel, [table, tokens, infoOf(99), poison(5 * hidden)], ([at, ids, info, to]) =>
      embedRowsCall(PIPELINE, {
        type: of.type,
        ...{ table: at!, tokens: ids!, info: info!, out: to!, vocab: VOCAB, hidden, countAt: 0, maxRows: 5 },
      }),
    )[3]!;
    const rows = [0, 1, 2, 3, 4].map((row) => floatsIn(out).subarray(row * hidden, (row + 1) * hidden));
    expect(rows.map((row) => row.every(Number.isNaN))).toEqual([true, false, true, true, true]);
    expect([...rows[1]!].some(Number.isNaN)).toBe(false);
  });
});

test("values keep their bits, NaNs and infinities too", () => {
  const bits = Uint16Array.from({ length: 65_536 }, (_, i) => i);
  const tokens = Int32Array.of(0);
  for (const type of ["F16", "BF16"] as const) {
    const out = run(kernels[WEIGHT_TYPES.indexOf(type)]!, [bits, tokens, infoOf(1), poison(65_536)], (at) =>
      embedRowsCall(PIPELINE, {
        ...{ type, table: at[0]!, tokens: at[1]!, info: at[2]!, out: at[3]! },
        ...{ vocab: 1, hidden: 65_536, countAt: 0, maxRows: 1 },
      }),
    )[3]!;
    const values = valuesOf(type, bits);
    const wrong = floatsIn(out).findIndex((value, i) => !Object.is(value, values[i]));
    expect(wrong).toBe(-1);
  }
});

test("a call checks its options", () => {
  using buffer = new Guarded(4096);
  const place = { buffer };
  const options = {
    ...({ type: "F32", table: place, tokens: place, info: place, out: place } as const),
    ...{ vocab: 8, hidden: 16, countAt: 1, maxRows: 4 },
  };
  const call = (change: object) => () => embedRowsCall(PIPELINE, { ...options, ...change });
  expect(call({})().threads).toBe(16);
  expectCode("BAD_OPTION", call({ type: "I32" }));
  expectCode("BAD_OPTION", () => embedRowsKernel("F64" as "F32"));
  expectCode("BAD_OPTION", call({ hidden: 0 }));
  expectCode("BAD_OPTION", call({ maxRows: -1 }));
  expectCode("BAD_OPTION", call({ countAt: 0.5 }));
  expectCode("BAD_OPTION", call({ table: { buffer, byteOffset: 2 } }));
  expectCode("OUT_OF_RANGE", call({ vocab: 65 }));
  expectCode("OUT_OF_RANGE", call({ maxRows: 65 }));
  expectCode("OUT_OF_RANGE", call({ countAt: 1024 }));
});
