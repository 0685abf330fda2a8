/** The tensors view: each tensor is a sample of its own shape. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { writeArrow } from "./arrow-files.ts";
import { openLoader } from "./device.ts";
import {
  assertRestoresEverywhere,
  bytesOf,
  collect,
  expectCode,
  randomBytes,
  useTempDir,
} from "./helpers.ts";
import { type RawTensor, writeRaw } from "./safetensors-files.ts";

const temp = useTempDir();
const BYTES: Readonly<Record<string, number>> = { U8: 1, F32: 4, BF16: 2, I64: 8, F4: 0.5 };

function tensor(name: string, dtype: string, shape: readonly number[]): RawTensor {
  const count = shape.reduce((a, b) => a * b, 1);
  const bytes = randomBytes(count * BYTES[dtype]!, name.length + count).map((byte) => byte & 0x3f);
  return { name, dtype, shape, bytes };
}

/** An odd number of bytes in front, so that nothing after it is aligned. */
const TENSORS: readonly RawTensor[] = [
  tensor("odd", "U8", [3]),
  tensor("weight", "F32", [4, 5]),
  tensor("scalar", "F32", []),
  tensor("empty", "F32", [0, 7]),
  tensor("scalar64", "I64", []),
  tensor("half", "BF16", [9]),
  tensor("four", "F4", [2, 3]),
  tensor("last", "U8", [1]),
];

async function expectTensors(source: string, tensors: readonly RawTensor[], options = {}): Promise<void> {
  const seen = new Map<string, string>();
  await collect(source, { view: "tensors", ...options }, (batch) => {
    expect(batch.columns.size).toBe(batch.numSamples);
    for (const { name, dtype, shape, view } of batch.columns.values()) {
      expect(seen.has(name)).toBe(false);
      seen.set(name, `${dtype}[${shape}] ${Buffer.from(bytesOf(view)).toString("hex")}`);
    }
  });
  const wanted = tensors.map(
    ({ name, dtype, shape, bytes }) =>
      [name, `${dtype}[${shape}] ${Buffer.from(bytes).toString("hex")}`] as const,
  );
  expect(seen).toEqual(new Map(wanted));
}

describe("tensors", () => {
  test("of all shapes, aligned or not, one at a time and together", async () => {
    writeRaw(temp("a.safetensors"), TENSORS);
    for (const strategy of ["map", "read"] as const) {
      for (const batchSize of [undefined, 1, 3, 100]) {
        for (const seed of [undefined, 1])
          await expectTensors(temp(), TENSORS, { strategy, batchSize, seed });
      }
    }
  });

  test("aligned ones are mapped, misaligned ones are copied to an aligned place", async () => {
    const tensors = [tensor("a", "I64", [2]), tensor("b", "U8", [1]), tensor("c", "F32", [8])];
    // The header's length decides where data starts; spaces in a name bring it to a multiple of 8.
    for (const pad of Array.from({ length: 8 }, (_, i) => "n".repeat(i))) {
      const named = tensors.map((one) => ({ ...one, name: one.name === "b" ? `b${pad}` : one.name }));
      writeRaw(temp("a.safetensors"), named);
      await collect(temp(), { view: "tensors", strategy: "map", batchSize: 3 }, (batch) => {
        const { a, c } = Object.fromEntries(batch.columns);
        expect(a!.view).toBeInstanceOf(BigInt64Array);
        expect(c!.view).toBeInstanceOf(Float32Array);
        // 17 bytes lie between their starts, so at most one of them is aligned in the file.
        expect([a!.mapped, c!.mapped]).not.toEqual([true, true]);
        for (const column of [a!, c!]) expect(column.byteOffset % 4).toBe(0);
      });
    }
  });

  test("come in the order of their bytes, with typed views", async () => {
    writeRaw(temp("a.safetensors"), TENSORS);
    const names: string[] = [];
    const kinds: string[] = [];
    await collect(temp(), { view: "tensors", batchSize: 3 }, (batch) => {
      expect(batch.rowMask).toBeUndefined();
      for (const column of batch.columns.values()) {
        names.push(column.name);
        kinds.push(column.view.constructor.name);
      }
    });
    expect(names).toEqual(TENSORS.map(({ name }) => name));
    expect(kinds.slice(0, 6).join(" ")).toBe(
      "Uint8Array Float32Array Float32Array Float32Array BigInt64Array Uint16Array",
    );
  });

  test("chosen by name and pattern; unknown ones get a suggestion", async () => {
    writeRaw(temp("a.safetensors"), TENSORS);
    const chosen = TENSORS.filter(({ name }) => name.startsWith("scalar") || name === "half");
    await expectTensors(temp(), chosen, { columns: ["scalar*", "half"], batchSize: 2 });
    await expectCode(
      "UNKNOWN_COLUMN",
      () => openLoader(temp(), { view: "tensors", columns: ["wieght"] }),
      "wieght",
      "weight",
    );
  });

  test("batches by bytes keep their limit unless one tensor is larger", async () => {
    writeRaw(temp("a.safetensors"), TENSORS);
    const sizes = new Map(TENSORS.map(({ name, bytes }) => [name, bytes.length]));
    const seen: string[] = [];
    await collect(temp(), { view: "tensors", batchBytes: 24 }, (batch) => {
      const names = [...batch.columns.keys()];
      const total = names.reduce((sum, name) => sum + sizes.get(name)!, 0);
      expect(total <= 24 || names.length === 1).toBe(true);
      expect(batch.byteLength).toBe(total);
      seen.push(...names);
    });
    expect(seen.sort()).toEqual([...sizes.keys()].sort());
  });

  test("restore anywhere", async () => {
    writeRaw(temp("a.safetensors"), TENSORS);
    await assertRestoresEverywhere((resume) =>
      openLoader(temp(), { view: "tensors", batchSize: 3, seed: 1, resume }),
    );
  });
});

describe("which view", () => {
  test("auto takes rows where every shard has them, else tensors", async () => {
    writeRaw(temp("a.safetensors"), [tensor("x", "U8", [4, 2]), tensor("y", "F32", [4])]);
    {
      await using loader = await openLoader(temp());
      expect(loader.dataset.view).toBe("rows");
    }
    writeRaw(temp("b.safetensors"), [tensor("z", "U8", [5]), tensor("w", "F32", [4])]);
    await using loader = await openLoader(temp());
    expect(loader.dataset.view).toBe("tensors");
  });

  test("rows that are none are refused, and Arrow has no tensors", async () => {
    writeRaw(temp("a.safetensors"), [tensor("x", "U8", [4, 2]), tensor("s", "F32", [])]);
    await expectCode("NOT_ROWS", () => openLoader(temp(), { view: "rows" }), "a.safetensors", "tensors view");
    writeArrow(temp("x.arrow"), { batches: [2] });
    await expectCode("BAD_OPTION", () => openLoader(temp("x.arrow"), { view: "tensors" }), "x.arrow");
  });

  test("one tensor in two shards is refused with both", async () => {
    writeRaw(temp("a.safetensors"), [tensor("x", "U8", [3]), tensor("s", "F32", [])]);
    writeRaw(temp("b.safetensors"), [tensor("x", "U8", [3]), tensor("t", "F32", [])]);
    await expectCode(
      "SCHEMA_MISMATCH",
      () => openLoader(temp()),
      "tensor x",
      "a.safetensors",
      "b.safetensors",
    );
  });
});

describe("an index", () => {
  const first = TENSORS.slice(0, 4);
  const second = TENSORS.slice(4);

  function write(weightMap: Record<string, string>, totalSize?: number): void {
    writeRaw(temp("m-1.safetensors"), first);
    writeRaw(temp("m-2.safetensors"), second);
    const metadata = totalSize === undefined ? {} : { total_size: totalSize };
    writeFileSync(temp("m.safetensors.index.json"), JSON.stringify({ metadata, weight_map: weightMap }));
  }

  function rightMap(): Record<string, string> {
    return Object.fromEntries([
      ...first.map(({ name }) => [name, "m-1.safetensors"]),
      ...second.map(({ name }) => [name, "m-2.safetensors"]),
    ]);
  }

  test("leads to all tensors of all shards, by its path or its folder", async () => {
    const total = TENSORS.reduce((sum, { bytes }) => sum + bytes.length, 0);
    write(rightMap(), total);
    for (const source of [temp(), temp("m.safetensors.index.json")]) {
      await expectTensors(source, TENSORS, { view: undefined, batchSize: 3, seed: 1 });
    }
  });

  test("that is wrong is refused", async () => {
    const map = rightMap();
    const open = () => openLoader(temp());
    write({ ...map, weight: "m-2.safetensors" });
    await expectCode("BAD_INDEX", open, "weight", "m-1.safetensors", "m-2.safetensors");
    write({ ...map, more: "m-2.safetensors" });
    await expectCode("BAD_INDEX", open, "more");
    const { odd: _, ...fewer } = map;
    write(fewer);
    await expectCode("BAD_INDEX", open, "odd");
    write({ ...map, gone: "m-3.safetensors" });
    await expectCode("BAD_INDEX", open, "m-3.safetensors", "does not exist");
    write(map, 17);
    await expectCode("BAD_INDEX", open, 17);
    for (const name of ["../m-1.safetensors", "/etc/passwd", "a/../../x.safetensors", ""]) {
      write({ ...map, odd: name });
      await expectCode("UNSAFE_PATH", open, "m.safetensors.index.json", JSON.stringify(name));
    }
    for (const text of [
      "",
      "{",
      "[]",
      '{"weight_map": 3}',
      '{"weight_map": {"a": 1}}',
      "{}",
      '{"weight_map":{}}',
    ]) {
      writeFileSync(temp("m.safetensors.index.json"), text);
      await expectCode(text.endsWith("{}}") ? "SOURCE_EMPTY" : "BAD_INDEX", open);
    }
  });
});
