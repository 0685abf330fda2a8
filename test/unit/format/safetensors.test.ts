import { describe, expect, test } from "bun:test";
import { describeSafetensors, findTensor } from "../../../src/format/safetensors.ts";
import { failureOf } from "../failure.ts";
import { describeBytes, entry, fileOfTensors, fileWith } from "./safetensors-files.ts";

const ONE = entry("a", "U8", [4], 0, 4);

describe("what is described", () => {
  test("tensors with their ranges in the file, metadata, and the file's length", () => {
    const header = `{"__metadata__":{"format":"pt"},${entry("w", "F32", [2, 2], 0, 16)},${entry("s", "I64", [], 16, 24)}}`;
    const file = fileWith(header, 24);
    const start = 8 + header.length;
    const description = describeBytes(file);
    expect(description.format).toBe("safetensors");
    expect(description.byteLength).toBe(file.length);
    expect({ ...description.metadata }).toEqual({ format: "pt" });
    expect(description.tensors).toEqual([
      { name: "w", dtype: "F32", shape: [2, 2], range: { start, end: start + 16 } },
      { name: "s", dtype: "I64", shape: [], range: { start: start + 16, end: start + 24 } },
    ]);
  });

  test("tensors come in the order of their bytes, empty ones at one place by name", () => {
    const entries = [
      entry("late", "U8", [2], 4, 6),
      entry("z", "U8", [0], 4, 4),
      entry("early", "U8", [4], 0, 4),
      entry("b", "F32", [3, 0], 4, 4),
      entry("at the end", "U8", [0], 6, 6),
      entry("at the start", "U8", [0], 0, 0),
    ];
    const { tensors } = describeBytes(fileWith(`{${entries}}`, 6));
    expect(tensors!.map(({ name }) => name)).toEqual([
      "at the start",
      "early",
      "b",
      "z",
      "late",
      "at the end",
    ]);
  });

  test("the header alone is read, by two calls, and never beyond the file", () => {
    const file = fileOfTensors([["a", "U8", [1000]]]);
    const reads: [number, number][] = [];
    describeSafetensors((offset, length) => {
      reads.push([offset, length]);
      return file.slice(offset, offset + length);
    }, file.length);
    expect(reads).toEqual([
      [0, 8],
      [8, file.length - 8 - 1000],
    ]);
  });

  test("a file far beyond 4 GiB takes its header's work alone", () => {
    const size = 5 * 2 ** 40;
    const file = fileWith(`{${entry("a", "BF16", [size / 4, 2], 0, size)}}`);
    const { tensors } = describeSafetensors((at, n) => file.subarray(at, at + n), file.length + size);
    expect(tensors![0]!.range).toEqual({ start: file.length, end: file.length + size });
  });

  test("a file without tensors", () => {
    for (const text of ["{}", '{"__metadata__":{}}', '{"__metadata__":null}']) {
      expect(describeBytes(fileWith(text)).tensors).toEqual([]);
    }
  });

  test("white space of JSON around the object and inside it", () => {
    for (const text of [
      `\n\t\r {${ONE}}`,
      `{${ONE}} \n\t\r`,
      `{ ${ONE.replaceAll(",", " ,\n").replaceAll(":", " : ")} }`,
    ]) {
      expect(describeBytes(fileWith(text, 4)).tensors!.length).toBe(1);
    }
  });

  test("names that other parsers stumble over are names like others", () => {
    const names = ["__proto__", "constructor", "", "a\nb", "😀", "\u0000", "__pad_x__", "__pad___"];
    const { tensors } = describeBytes(fileOfTensors(names.map((name) => [name, "U8", [1]] as const)));
    expect(tensors!.map(({ name }) => name)).toEqual(names);
    expect(({} as { dtype?: string }).dtype).toBeUndefined();
  });

  test("metadata keys too", () => {
    const { metadata } = describeBytes(fileWith('{"__metadata__":{"__proto__":"x","toString":"y"}}'));
    expect(Object.entries(metadata)).toEqual([
      ["__proto__", "x"],
      ["toString", "y"],
    ]);
    expect("toString" in describeBytes(fileWith("{}")).metadata).toBe(false);
  });

  test("page padding is checked and left out; tensors of other types by that name are not", () => {
    const file = fileOfTensors([
      ["a", "U8", [3]],
      ["__pad_0__", "U8", [5]],
      ["__pad_1__", "I8", [3]],
    ]);
    const { tensors, rows } = describeBytes(file);
    expect(tensors!.map(({ name }) => name)).toEqual(["a", "__pad_1__"]);
    expect(rows!.numRows).toBe(3);
    const wrong = fileWith(`{${ONE},${entry("__pad_0__", "U8", [5], 4, 8)}}`, 4);
    expect(failureOf(() => describeBytes(wrong)).code).toBe("TENSOR_SIZE");
  });

  test("entries may have keys that the format does not know", () => {
    const text = '{"a":{"x":[1,{"y":null}],"shape":[1],"data_offsets":[0,1],"dtype":"I8"}}';
    expect(describeBytes(fileWith(text, 1)).tensors!.length).toBe(1);
  });
});

describe("findTensor", () => {
  const description = describeBytes(
    fileOfTensors([
      ["model.layers.0.weight", "U8", [1]],
      ["model.layers.1.weight", "U8", [2]],
      ["lm_head.weight", "U8", [3]],
    ]),
  );

  test("finds by name", () => {
    expect(findTensor(description, "lm_head.weight").shape).toEqual([3]);
  });

  test("names the nearest", () => {
    const failure = failureOf(() => findTensor(description, "model.layers.2.weight"));
    expect(failure.code).toBe("TENSOR_NOT_FOUND");
    expect(failure.message).toBe(
      'no tensor "model.layers.2.weight" among the 3 of the file; did you mean "model.layers.0.weight" or "model.layers.1.weight"?',
    );
    expect(failureOf(() => findTensor(description, "LM_Head.Weight")).message).toContain(
      'mean "lm_head.weight"?',
    );
    expect(failureOf(() => findTensor(description, "nothing like it")).message).toBe(
      'no tensor "nothing like it" among the 3 of the file',
    );
  });
});

test("a header of 200,000 tensors is described in seconds", () => {
  const tensors = Array.from(
    { length: 200_000 },
    (_, i) => [`model.layers.${i}.self_attn.q_proj.weight`, "U8", [i % 7]] as const,
  );
  const file = fileOfTensors(tensors);
  const started = performance.now();
  const description = describeBytes(file);
  const elapsed = performance.now() - started;
  expect(description.tensors!.length).toBe(200_000);
  expect(elapsed).toBeLessThan(5_000);
});
