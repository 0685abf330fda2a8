/** Rows of Arrow shards: every kind of column, nulls, dictionaries, record batches of all sizes. */
import { describe, expect, test } from "bun:test";
import { ARROW_SAMPLES, KINDS, writeArrow, writeArrowDataset } from "./arrow-files.ts";
import { openLoader } from "./device.ts";
import { collect, type ExpectedColumn, expectCode, expectRows, idsOf, useTempDir } from "./helpers.ts";

const temp = useTempDir();
const someNull = (sample: number, column: number) => (sample * 7 + column * 3) % 4 === 0;
/** Shard `b` has no null at all, nor do the first rows of `a`. */
const laterNull = (sample: number, column: number) => sample >= 20 && someNull(sample, column);

describe("every kind of column", () => {
  for (const strategy of ["map", "read"] as const) {
    for (const [title, isNull] of [
      ["without nulls", () => false],
      ["with nulls everywhere", someNull],
      ["with nulls in one shard", laterNull],
    ] as const) {
      test(`${strategy}, ${title}`, async () => {
        const oracle = writeArrowDataset(temp, { isNull });
        for (const batchSize of [1, 4, ARROW_SAMPLES, 1000]) {
          for (const seed of [undefined, 2]) {
            const all = await collect(temp(), { strategy, batchSize, seed }, (b) => expectRows(b, oracle));
            expect(idsOf(all).sort((a, b) => a - b)).toEqual(Array.from({ length: 30 }, (_, i) => i));
          }
        }
        for (const lastBatch of ["pad", "drop"] as const) {
          await collect(temp(), { strategy, batchSize: 8, lastBatch }, (b) => expectRows(b, oracle));
        }
      });
    }
  }

  test("types, shapes and meanings", async () => {
    writeArrowDataset(temp);
    await using loader = await openLoader(temp());
    const types = Object.fromEntries(
      loader.dataset.schema.columns.map((c) => [c.name, [c.dtype, c.shape, c.ragged, c.logical]]),
    );
    expect(types.vector).toEqual(["F32", [3], false, "number"]);
    expect(types.matrix).toEqual(["I16", [2, 2], false, "number"]);
    expect(types.bits).toEqual(["BOOL", [5], false, "number"]);
    expect(types.bool).toEqual(["BOOL", [], false, "number"]);
    expect(types.tokens).toEqual(["I32", [], true, "number"]);
    expect(types.points).toEqual(["F32", [2], true, "number"]);
    expect(types.text).toEqual(["U8", [], true, "utf8"]);
    expect(types.blob).toEqual(["U8", [], true, "binary"]);
    expect(types.day).toEqual(["I32", [], false, "date32[day]"]);
    expect(types.when).toEqual(["I64", [], false, "timestamp[ms, UTC]"]);
    expect(types.source).toEqual(["I32", [], false, "dictionary<utf8>"]);
    for await (using batch of loader) {
      const found = [...batch.columns.values()].map((c) => [c.name, c.dtype, c.logical]);
      expect(found).toEqual(loader.dataset.schema.columns.map((c) => [c.name, c.dtype, c.logical]));
    }
  });
});

test("padded lists and texts", async () => {
  const kinds = KINDS.filter((kind) => ["tokens", "points", "text", "i8"].includes(kind.name));
  const oracle = writeArrowDataset(temp, { kinds, isNull: someNull });
  const texts = oracle.find((column) => column.name === "text")!;
  for (const strategy of ["map", "read"] as const) {
    for (const padTo of [1, 16]) {
      await collect(temp(), { strategy, padTo, padValue: 5, batchSize: 7, seed: 1 }, (batch) => {
        expectRows(batch, oracle, 5);
        [...batch.sampleIds].forEach((id, row) => {
          const wanted = texts.rows[id];
          if (wanted) expect(batch.column("text").text(row)).toBe(new TextDecoder().decode(wanted));
        });
      });
    }
  }
});

test("map and read give the same bytes, nulls and all", async () => {
  writeArrowDataset(temp, { isNull: someNull });
  for (const options of [{}, { seed: 4 }, { padTo: 4 }, { lastBatch: "pad" }] as const) {
    const map = await collect(temp(), { batchSize: 7, ...options, strategy: "map" });
    const read = await collect(temp(), { batchSize: 7, ...options, strategy: "read" });
    expect(read).toEqual(map);
  }
});

describe("validity", () => {
  test("is there only where a row group of the batch has a null", async () => {
    writeArrowDataset(temp, { isNull: laterNull });
    const found: boolean[] = [];
    await collect(temp(), { batchSize: 10 }, (batch) => {
      found.push(batch.column("i32").validity !== undefined);
    });
    expect(found).toEqual([false, false, true]);
  });
});

describe("dictionaries", () => {
  const kinds = KINDS.filter((kind) => kind.name === "source" || kind.name === "i8");

  test("codes mean the same in every shard, whatever its own vocabulary", async () => {
    const word = (values: readonly string[]) => ({
      ...kinds[1]!,
      value: (s: number) => values[s % values.length],
    });
    const oracle: ExpectedColumn[] = [];
    writeArrow(temp("a.arrow"), { batches: [4, 2], kinds: [word(["x", "y", "z"])] }, oracle);
    writeArrow(temp("b.arrow"), { batches: [3], first: 6, kinds: [word(["z", "w"])] }, oracle);
    writeArrow(temp("c.arrow"), { batches: [3], first: 9, kinds: [word(["y"])] }, oracle);
    for (const strategy of ["map", "read"] as const) {
      const codeOf = new Map<string, number>();
      await collect(temp(), { strategy, batchSize: 5, seed: 8 }, (batch) => {
        expectRows(batch, oracle);
        const column = batch.column("source");
        for (let row = 0; row < batch.size; row++) {
          const code = Number(column.view[row]);
          const text = column.text(row);
          expect(codeOf.get(text) ?? code).toBe(code);
          codeOf.set(text, code);
        }
      });
      expect([...codeOf].sort()).toEqual([
        ["w", 3],
        ["x", 0],
        ["y", 1],
        ["z", 2],
      ]);
    }
  });

  test("a column of nulls alone has an empty vocabulary and rows without text", async () => {
    const oracle: ExpectedColumn[] = [];
    writeArrow(temp("a.arrow"), { batches: [3], kinds, isNull: (_, c) => c === 1 }, oracle);
    await collect(temp(), { batchSize: 2 }, (batch) => {
      expectRows(batch, oracle);
      expect(batch.column("source").dictionary!.length).toBe(0);
    });
  });

  test("the loader's dictionaries refuse codes that are not there", async () => {
    writeArrow(temp("a.arrow"), { batches: [3], kinds });
    await using loader = await openLoader(temp());
    const dictionary = loader.dataset.dictionaries.get("source")!;
    expect(Array.from({ length: dictionary.length }, (_, i) => dictionary.text(i))).toEqual([
      "web",
      "book",
      "mail",
    ]);
    for (const code of [-1, 3, 0.5]) await expectCode("OUT_OF_RANGE", () => dictionary.bytes(code), code, 3);
  });
});

test("columns may come in another order in another shard", async () => {
  const kinds = KINDS.filter((kind) => ["i8", "text", "vector", "source"].includes(kind.name));
  const oracle: ExpectedColumn[] = [];
  writeArrow(temp("a.arrow"), { batches: [4], kinds }, oracle);
  writeArrow(temp("b.arrow"), { batches: [4], first: 4, kinds: [...kinds].reverse() }, oracle);
  for (const strategy of ["map", "read"] as const) {
    await collect(temp(), { strategy, batchSize: 3, seed: 1 }, (batch) => expectRows(batch, oracle));
  }
});

test("files that end in empty record batches, and shards without rows", async () => {
  const kinds = KINDS.filter((kind) => kind.name !== "source");
  const oracle: ExpectedColumn[] = [];
  writeArrow(temp("a.arrow"), { batches: [0, 4, 0, 2, 0], kinds }, oracle);
  writeArrow(temp("b.arrow"), { batches: [], first: 6, kinds }, oracle);
  writeArrow(temp("c.arrow"), { batches: [0], first: 6, kinds, form: "stream" }, oracle);
  writeArrow(temp("d.arrow"), { batches: [3], first: 6, kinds }, oracle);
  for (const strategy of ["map", "read"] as const) {
    const all = await collect(temp(), { strategy, batchSize: 4 }, (batch) => expectRows(batch, oracle));
    expect(idsOf(all)).toEqual(Array.from({ length: 9 }, (_, i) => i));
  }
});

test("a shard opened again under maxOpenShards 1 gives the same", async () => {
  const oracle = writeArrowDataset(temp, { isNull: someNull });
  for (const strategy of ["map", "read"] as const) {
    const options = { strategy, batchSize: 2, seed: 3, epochs: 2, maxOpenShards: 1 };
    const few = await collect(temp(), options, (batch) => expectRows(batch, oracle));
    expect(few).toEqual(await collect(temp(), { ...options, maxOpenShards: 128 }));
  }
});
