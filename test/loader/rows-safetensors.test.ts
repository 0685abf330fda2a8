/** Rows of safetensors shards: every kind of column, batch size, strategy and selection. */
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, writeSync } from "node:fs";
import type { OpenOptions } from "../../src/index.ts";
import { openLoader } from "./device.ts";
import { collect, expectCode, expectRows, idsOf, useTempDir } from "./helpers.ts";
import { ALL_SPECS, writeDataset } from "./safetensors-files.ts";

const temp = useTempDir();
const COUNTS = [5, 0, 9, 1, 7];
const TOTAL = 22;

describe("every kind of column", () => {
  for (const strategy of ["map", "read"] as const) {
    for (const batchSize of [1, 4, TOTAL, 100]) {
      for (const seed of [undefined, 3]) {
        test(`${strategy}, batches of ${batchSize}, seed ${seed}`, async () => {
          const oracle = writeDataset(temp, COUNTS);
          const options: OpenOptions = { strategy, batchSize, seed };
          const all = await collect(temp(), options, (batch) => expectRows(batch, oracle));
          expect(all.length).toBe(Math.ceil(TOTAL / batchSize));
          const ids = idsOf(all);
          expect([...ids].sort((a, b) => a - b)).toEqual(Array.from({ length: TOTAL }, (_, i) => i));
          if (seed === undefined) expect(ids).toEqual([...ids].sort((a, b) => a - b));
          else expect(ids).not.toEqual([...ids].sort((a, b) => a - b));
        });
      }
    }
  }

  test("padded to a multiple, with mask and padValue", async () => {
    const oracle = writeDataset(temp, COUNTS);
    for (const strategy of ["map", "read"] as const) {
      for (const [padTo, padValue] of [
        [1, 0],
        [4, 7],
        [32, 100],
      ] as const) {
        const columns = ["ragged_i32", "ragged_u8", "ragged_u64", "i8"];
        const options: OpenOptions = { strategy, batchSize: 6, padTo, padValue, columns, seed: 1 };
        const expected = oracle.filter((column) => columns.includes(column.name));
        await collect(temp(), options, (batch) => {
          expectRows(batch, expected, padValue);
          const width = batch.column("ragged_i32").shape[1]!;
          const longest = Math.max(
            ...[...batch.sampleIds].map(
              (id) => oracle.find((c) => c.name === "ragged_i32")!.rows[id]!.length / 4,
            ),
          );
          expect(width).toBe(Math.max(1, Math.ceil(longest / padTo)) * padTo);
          expect(batch.column("ragged_i32").offsets).toBeUndefined();
        });
      }
    }
  });

  test("dtypes and shapes are the file's", async () => {
    writeDataset(temp, [3]);
    await using loader = await openLoader(temp(), { batchSize: 3 });
    for await (using batch of loader) {
      for (const { name, dtype, shape, ragged } of ALL_SPECS) {
        const column = batch.column(name);
        expect([name, column.dtype, column.shape.slice(1)]).toEqual([name, dtype, [...shape]]);
        expect(column.offsets !== undefined).toBe(ragged !== undefined);
      }
    }
  });
});

describe("strategies", () => {
  test("map hands out the file's pages for contiguous rows, read never", async () => {
    writeDataset(temp, [12]);
    const mapped: boolean[] = [];
    await collect(temp(), { strategy: "map", batchSize: 4 }, (batch) =>
      mapped.push(batch.column("f32").mapped, batch.column("ragged_u64").mapped),
    );
    expect(mapped).toEqual(Array(6).fill(true));
    await collect(temp(), { strategy: "read", batchSize: 4 }, (batch) => {
      for (const column of batch.columns.values()) expect(column.mapped).toBe(false);
    });
  });

  test("map and read give the same bytes", async () => {
    writeDataset(temp, COUNTS);
    for (const options of [{}, { seed: 5 }, { lastBatch: "pad" }, { seed: 9, blockSize: 4 }] as const) {
      const [map, read] = await Promise.all(
        (["map", "read"] as const).map((strategy) => collect(temp(), { batchSize: 4, ...options, strategy })),
      );
      expect(read).toEqual(map!);
    }
  });
});

describe("sizes", () => {
  test("lastBatch: short, drop, pad", async () => {
    const oracle = writeDataset(temp, COUNTS);
    const sizes: Record<string, number[]> = {};
    for (const lastBatch of ["short", "drop", "pad"] as const) {
      sizes[lastBatch] = [];
      for (const strategy of ["map", "read"] as const) {
        const found: number[] = [];
        await collect(temp(), { strategy, lastBatch, batchSize: 8 }, (batch) => {
          expectRows(batch, oracle);
          found.push(batch.size);
        });
        sizes[lastBatch] = found;
      }
    }
    expect(sizes).toEqual({ short: [8, 8, 6], drop: [8, 8], pad: [8, 8, 8] });
  });

  test("padded rows of ragged and padded columns", async () => {
    const oracle = writeDataset(temp, [5]);
    const columns = ["ragged_i32", "ragged_u8"];
    const expected = oracle.filter((column) => columns.includes(column.name));
    const options: OpenOptions = { lastBatch: "pad", batchSize: 4, columns };
    await collect(temp(), options, (batch) => expectRows(batch, expected));
    await collect(temp(), { ...options, padTo: 8, padValue: 9 }, (batch) => {
      expectRows(batch, expected, 9);
      const { view, shape } = batch.column("ragged_i32");
      const rest = [...view.subarray(batch.numSamples * shape[1]!)];
      expect(rest.every((value) => value === 9)).toBe(true);
    });
  });

  test("a rank without samples gets a batch of padding alone", async () => {
    const oracle = writeDataset(temp, [5]);
    for (const padTo of [undefined, 8]) {
      const options: OpenOptions = { lastBatch: "pad", batchSize: 4, rank: 2, worldSize: 3, padTo };
      let batches = 0;
      await collect(temp(), { ...options, columns: ["i8", "ragged_i32"] }, (batch) => {
        batches++;
        expect([batch.numSamples, batch.size]).toEqual([0, 4]);
        expectRows(
          batch,
          oracle.filter((column) => ["i8", "ragged_i32"].includes(column.name)),
        );
      });
      expect(batches).toBe(1);
    }
  });
});

describe("columns", () => {
  test("only the chosen ones come, in the schema's order, by name and pattern", async () => {
    const oracle = writeDataset(temp, [6]);
    for (const [columns, wanted] of [
      [
        ["u64", "bf16"],
        ["bf16", "u64"],
      ],
      [["ragged_*"], ["ragged_bf16", "ragged_c64", "ragged_i32", "ragged_u64", "ragged_u8"]],
      [
        ["f?", "i[18]*"],
        ["f4", "f8", "i16", "i8"],
      ],
    ] as const) {
      const expected = oracle.filter((column) => (wanted as readonly string[]).includes(column.name));
      const all = await collect(temp(), { columns, batchSize: 4 }, (batch) => {
        expect([...batch.columns.keys()].sort()).toEqual([...wanted].sort());
        expectRows(batch, expected);
      });
      expect(idsOf(all).length).toBe(6);
    }
  });

  test("only their bytes are read", async () => {
    writeDataset(temp, [64], ALL_SPECS);
    const bytes: number[] = [];
    const tracer = {
      span: (
        track: string,
        _name: string,
        _start: number,
        _end: number,
        args?: Readonly<Record<string, unknown>>,
      ) => {
        if (track === "reads") bytes.push(args!.bytes as number);
      },
    };
    await collect(temp(), { strategy: "read", columns: ["f32"], batchSize: 16, tracer });
    expect(bytes).toEqual([16 * 24, 16 * 24, 16 * 24, 16 * 24]);
  });

  test("an unknown one is refused with the nearest name", async () => {
    writeDataset(temp, [2]);
    await expectCode(
      "UNKNOWN_COLUMN",
      () => openLoader(temp(), { columns: ["raged_i32"] }),
      "raged_i32",
      "ragged_i32",
    );
    await expectCode("UNKNOWN_COLUMN", () => openLoader(temp(), { columns: ["zzz*"] }), "zzz*");
  });
});

test("a shard of zero samples alone gives no batch", async () => {
  writeDataset(temp, [0, 0]);
  expect(await collect(temp(), { epochs: 3 })).toEqual([]);
});

test("row() and text() agree with the bytes and refuse rows that are not there", async () => {
  const oracle = writeDataset(temp, [4]);
  await using loader = await openLoader(temp(), { batchSize: 4 });
  for await (using batch of loader) {
    for (const expected of oracle) {
      const column = batch.column(expected.name);
      for (const row of [0, 3]) {
        const view = column.row(row);
        const got = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
        expect(Buffer.from(got).toString("hex")).toBe(Buffer.from(expected.rows[row]!).toString("hex"));
      }
      for (const row of [-1, 4, 1.5, Number.NaN]) {
        await expectCode("OUT_OF_RANGE", () => column.row(row), expected.name, row, 4);
      }
    }
  }
});

test("offsets of 32 bits reach to 2^32 where the values do", async () => {
  const far = 2 ** 31 + 2;
  const offsets = new Uint8Array(Uint32Array.of(0, 5, far, far + 8).buffer);
  const json = JSON.stringify({
    "t.offsets": { dtype: "U32", shape: [4], data_offsets: [0, 16] },
    t: { dtype: "U8", shape: [far + 8], data_offsets: [16, 16 + far + 8] },
  });
  const head = Buffer.concat([new Uint8Array(8), Buffer.from(json), offsets]);
  head.writeBigUInt64LE(BigInt(json.length));
  const file = openSync(temp("a.safetensors"), "w");
  writeSync(file, head, 0, head.length, 0);
  writeSync(file, Buffer.from("headrace"), 0, 8, head.length + far);
  closeSync(file);
  for (const strategy of ["map", "read"] as const) {
    await using loader = await openLoader(temp(), { strategy, batchSize: 1 });
    const resume = { ...loader.state(), position: 2 };
    const texts: string[] = [];
    await collect(temp(), { strategy, batchSize: 1, resume }, (batch) =>
      texts.push(batch.column("t").text(0)),
    );
    expect(texts).toEqual(["headrace"]);
  }
});
