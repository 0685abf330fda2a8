import { describe, expect, test } from "bun:test";
import type { DType, Shape } from "../../../src/types.ts";
import { describeBytes, fileOfTensors } from "./safetensors-files.ts";

type Tensor = readonly [string, DType, Shape];

function rowsOf(...tensors: Tensor[]) {
  const { rows, notRows, tensors: layouts } = describeBytes(fileOfTensors(tensors));
  expect(rows === undefined).toBe(notRows !== undefined);
  const rangeOf = (name: string) => layouts!.find((tensor) => tensor.name === name)!.range;
  return { rows, notRows, rangeOf };
}

describe("fixed columns", () => {
  test("come by name, with the shape of a row and all rows in one group", () => {
    const { rows, rangeOf } = rowsOf(
      ["label", "I32", [5]],
      ["image", "U8", [5, 28, 28]],
      ["Zed", "C64", [5, 1]],
    );
    const columns = [
      { name: "Zed", dtype: "C64", shape: [1], ragged: false, logical: "number", nullable: false },
      { name: "image", dtype: "U8", shape: [28, 28], ragged: false, logical: "number", nullable: false },
      { name: "label", dtype: "I32", shape: [], ragged: false, logical: "number", nullable: false },
    ] as const;
    const layouts = columns.map(({ name, dtype }) => ({ dtype, values: rangeOf(name), bitPacked: false }));
    expect(rows).toEqual({
      schema: { columns },
      numRows: 5,
      groups: [{ rowStart: 0, numRows: 5, columns: layouts }],
    });
  });

  test("the same columns in another order of bytes give the same schema", () => {
    const one = rowsOf(["a", "F32", [2, 3]], ["b", "U8", [2]]);
    const other = rowsOf(["b", "U8", [2]], ["a", "F32", [2, 3]]);
    expect(one.rows!.schema).toEqual(other.rows!.schema);
  });

  test("no rows, no groups", () => {
    const { rows } = rowsOf(["a", "F32", [0, 3]], ["b", "F4", [0, 3]]);
    expect([rows!.numRows, rows!.groups, rows!.schema.columns.length]).toEqual([0, [], 2]);
    expect(rowsOf(["a", "U8", [0, 2 ** 40, 2 ** 40]]).rows!.numRows).toBe(0);
  });

  test("a column may be without bytes where another has some", () => {
    expect(rowsOf(["a", "F32", [3, 0]], ["b", "U8", [3]]).rows!.numRows).toBe(3);
  });

  test("elements below a byte, where rows are whole bytes", () => {
    expect(rowsOf(["a", "F4", [3, 2]], ["b", "F6_E2M3", [3, 4]]).rows!.numRows).toBe(3);
  });
});

describe("ragged columns", () => {
  for (const [dtype, width] of [
    ["I32", 4],
    ["U32", 4],
    ["I64", 8],
    ["U64", 8],
  ] as const) {
    test(`cut by offsets of ${dtype}`, () => {
      const { rows, rangeOf } = rowsOf(["x", "F32", [9, 4]], ["x.offsets", dtype, [4]], ["id", "U8", [3]]);
      expect(rows!.numRows).toBe(3);
      expect(rows!.schema.columns.map(({ name, shape, ragged }) => [name, shape, ragged])).toEqual([
        ["id", [], false],
        ["x", [4], true],
      ]);
      expect(rows!.groups[0]!.columns[1]).toEqual({
        dtype: "F32",
        values: rangeOf("x"),
        bitPacked: false,
        offsets: { range: rangeOf("x.offsets"), width },
      });
    });
  }

  test("no rows: one offset", () => {
    const { rows } = rowsOf(["x", "U8", [7]], ["x.offsets", "I32", [1]]);
    expect([rows!.numRows, rows!.groups]).toEqual([0, []]);
  });

  test("a tensor called .offsets is a column where it cuts nothing", () => {
    const names = (...tensors: Tensor[]) => rowsOf(...tensors).rows!.schema.columns.map(({ name }) => name);
    expect(names(["x.offsets", "I32", [3]])).toEqual(["x.offsets"]);
    expect(names(["x", "U8", [3]], ["x.offsets", "F32", [3]])).toEqual(["x", "x.offsets"]);
    expect(names(["x", "U8", [3]], ["x.offsets", "I16", [3]])).toEqual(["x", "x.offsets"]);
    expect(names(["x", "U8", [3]], ["x.offsets", "I32", [3, 2]])).toEqual(["x", "x.offsets"]);
  });

  test("offsets of offsets are a column", () => {
    const { rows } = rowsOf(["x", "U8", [9]], ["x.offsets", "I32", [4]], ["x.offsets.offsets", "I32", [3]]);
    expect(rows!.schema.columns.map(({ name, ragged }) => [name, ragged])).toEqual([
      ["x", true],
      ["x.offsets.offsets", false],
    ]);
  });

  test("the empty name has offsets too", () => {
    expect(rowsOf(["", "U8", [9]], [".offsets", "I64", [3]]).rows!.numRows).toBe(2);
  });
});

describe("what is not rows says why", () => {
  const cases: [string, Tensor[]][] = [
    ["the file holds no tensor", []],
    [
      'tensor "a" has 4 rows but tensor "b" has 5 rows',
      [
        ["b", "U8", [5]],
        ["a", "U8", [4]],
        ["c", "U8", [4]],
      ],
    ],
    ['tensor "s" is a scalar and has no rows', [["s", "F32", []]]],
    [
      'tensor "x" is a scalar and has no rows',
      [
        ["x", "F32", []],
        ["x.offsets", "I32", [3]],
      ],
    ],
    [
      'tensor "id" has 3 rows but tensor "x" has 2 rows',
      [
        ["x", "U8", [3]],
        ["x.offsets", "I32", [3]],
        ["id", "U8", [3]],
      ],
    ],
    [
      'tensor "x.offsets" is empty; it needs one offset more than there are rows',
      [
        ["x", "U8", [3]],
        ["x.offsets", "I32", [0]],
      ],
    ],
    ['rows of tensor "a" are 12 bits (F4 [3]), not whole bytes', [["a", "F4", [2, 3]]]],
    ["its 9007199254740991 rows hold no bytes", [["a", "U8", [2 ** 53 - 1, 0]]]],
  ];
  for (const [sentence, tensors] of cases) {
    test(sentence, () => {
      expect(rowsOf(...tensors).notRows).toBe(sentence);
    });
  }

  test("tensors are there all the same", () => {
    expect(describeBytes(fileOfTensors([["s", "F32", []]])).tensors!.length).toBe(1);
  });
});
