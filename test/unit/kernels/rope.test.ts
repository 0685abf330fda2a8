/** Rotary positions and the write into the paged cache. */
import { describe, expect, test } from "bun:test";
import { type RopeCacheOptions, ropeCacheCall, ropeCacheKernel } from "../../../src/kernels/rope.ts";
import { WEIGHT_TYPES, type WeightType } from "../../../src/kernels/weights.ts";
import { expectCode } from "../../conformance/harness.ts";
import { elementsOf, floats, floatsIn, infoOf, useForms, valuesOf } from "./forms.ts";
import { Guarded, PIPELINE } from "./memory.ts";

const kernels = WEIGHT_TYPES.map((cacheType) => ropeCacheKernel({ cacheType }));
const run = useForms(kernels);

/** Cosine and sine of `position / 10000^(2 j / headSize)`. */
function turnsOf(contextLength: number, headSize: number): Float32Array<ArrayBuffer> {
  const turns = new Float32Array(contextLength * headSize);
  for (let position = 0; position < contextLength; position++) {
    for (let j = 0; j < headSize / 2; j++) {
      const angle = position * 10_000 ** ((-2 * j) / headSize);
      turns[position * headSize + 2 * j] = Math.cos(angle);
      turns[position * headSize + 2 * j + 1] = Math.sin(angle);
    }
  }
  return turns;
}

/** `q * cos + rotate_half(q) * sin`, as the models' own code has it, in doubles. */
function rotated(head: Float32Array, position: number): number[] {
  const half = head.length / 2;
  return Array.from(head, (value, i) => {
    const angle = position * 10_000 ** ((-2 * (i % half)) / head.length);
    const other = i < half ? -head[i + half]! : head[i - half]!;
    return value * Math.cos(angle) + other * Math.sin(angle);
  });
}

const SHAPE = { numHeads: 6, numKvHeads: 3, headSize: 32, contextLength: 48, blockTokens: 8 } as const;
const PAGES = { numBlocks: 20, numSlots: 4, tableStride: 5 } as const;
const WIDTH = (6 + 2 * 3) * 32;
const CACHE = 20 * 3 * 8 * 32;

interface Rows {
  readonly positions: readonly number[];
  readonly slots: readonly number[];
  readonly table: Uint32Array<ArrayBuffer>;
  readonly count?: number;
}

function turn(type: WeightType, { positions, slots, table, count = positions.length }: Rows) {
  const maxRows = positions.length;
  const qkv = floats(maxRows * WIDTH, 3, 2);
  const cache = elementsOf(type, new Float32Array(CACHE).fill(-77));
  const after = run(
    kernels[WEIGHT_TYPES.indexOf(type)]!,
    [
      ...[qkv, turnsOf(48, 32), Uint32Array.from(positions), Uint32Array.from(slots)],
      ...[table, infoOf(count, 3), cache, cache],
    ],
    (at) =>
      ropeCacheCall(PIPELINE, {
        ...{ cacheType: type, ...SHAPE, ...PAGES, countAt: 3, maxRows },
        ...{ qkv: at[0]!, cosSin: at[1]!, positions: at[2]!, slots: at[3]!, blockTable: at[4]! },
        ...{ info: at[5]!, kCache: at[6]!, vCache: at[7]! },
      }),
  );
  const read = (bytes: Uint8Array<ArrayBuffer>) =>
    valuesOf(type, type === "F32" ? floatsIn(bytes) : new Uint16Array(bytes.buffer));
  return { before: qkv, qkv: floatsIn(after[0]!), k: read(after[6]!), v: read(after[7]!) };
}

/** The table of slots whose blocks lie in no order. */
const TABLE = Uint32Array.from({ length: 4 * 5 }, (_, i) => (i * 7 + 3) % 20);

describe.each(WEIGHT_TYPES)("a cache of %s", (type) => {
  test("has each key and value in its place, and queries are turned where they are", () => {
    const rows = { positions: [0, 1, 7, 8, 39, 20, 3], slots: [0, 0, 2, 2, 3, 1, 1], table: TABLE, count: 6 };
    const { before, qkv, k, v } = turn(type, rows);
    const [expectedK, expectedV] = [new Float32Array(CACHE).fill(-77), new Float32Array(CACHE).fill(-77)];
    const expectedQkv = before.slice();
    for (let row = 0; row < 6; row++) {
      const position = rows.positions[row]!;
      const headAt = (head: number) => before.subarray(row * WIDTH + head * 32, row * WIDTH + head * 32 + 32);
      for (let head = 0; head < 6; head++) {
        expectedQkv.set(rotated(headAt(head), position), row * WIDTH + head * 32);
      }
      const block = TABLE[rows.slots[row]! * 5 + Math.floor(position / 8)]!;
      for (let head = 0; head < 3; head++) {
        const to = ((block * 3 + head) * 8 + (position % 8)) * 32;
        expectedK.set(rotated(headAt(6 + head), position), to);
        expectedV.set(headAt(9 + head), to);
      }
    }
    expect(furthest(qkv, expectedQkv)).toBeLessThan(1e-6);
    const unit = { F32: 1e-6, F16: 2e-3, BF16: 1.6e-2 }[type];
    expect(furthest(k, expectedK)).toBeLessThan(unit);
    expect(v).toEqual(valuesOf(type, elementsOf(type, expectedV)));
    expect(k.filter((value) => value !== -77).length).toBeGreaterThan(6 * 3 * 32 - 8);
  });

  test("is left alone by rows that are out of range, whose queries become NaN", () => {
    const table = TABLE.slice();
    table[3 * 5 + 1] = 20;
    table[3 * 5 + 2] = 2 ** 32 - 1;
    const wrong = [
      [48, 0],
      [40, 0],
      [47, 3],
      [2 ** 32 - 1, 0],
      [3, 4],
      [3, 2 ** 32 - 1],
      [8, 3],
      [16, 3],
    ];
    const { before, qkv, k, v } = turn(type, {
      positions: wrong.map(([position]) => position!),
      slots: wrong.map(([, slot]) => slot!),
      table,
    });
    for (let row = 0; row < wrong.length; row++) {
      const start = row * WIDTH;
      expect(qkv.subarray(start, start + 6 * 32).every(Number.isNaN)).toBe(true);
      const rest = [start + 6 * 32, start + WIDTH] as const;
      expect(qkv.subarray(...rest)).toEqual(before.subarray(...rest));
    }
    expect([...k, ...v].every((value) => value === -77)).toBe(true);
  });
});

function furthest(actual: Float32Array, expected: ArrayLike<number>): number {
  expect(actual.length).toBe(expected.length);
  return actual.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i]!)), 0);
}

test("a call checks its options", () => {
  using buffer = new Guarded(2 ** 16);
  const place = { buffer };
  const options: RopeCacheOptions = {
    ...{ cacheType: "F16", ...SHAPE, ...PAGES, countAt: 0, maxRows: 3 },
    ...{ qkv: place, cosSin: place, positions: place, slots: place, blockTable: place, info: place },
    ...{ kCache: place, vCache: place },
  };
  const call = (change: Partial<RopeCacheOptions>) => () =>
    ropeCacheCall(PIPELINE, { ...options, ...change });
  expect(call({})().threads).toBe(3 * 12 * 16);
  expectCode("BAD_OPTION", call({ headSize: 31 }));
  expectCode("BAD_OPTION", call({ headSize: 0 }));
  expectCode("BAD_OPTION", call({ numHeads: 0 }));
  expectCode("BAD_OPTION", call({ numKvHeads: 1.5 }));
  expectCode("BAD_OPTION", call({ blockTokens: 0 }));
  expectCode("BAD_OPTION", call({ numSlots: -1 }));
  expectCode("BAD_OPTION", call({ tableStride: Number.NaN }));
  expectCode("BAD_OPTION", call({ kCache: { buffer, byteOffset: 1 } }));
  expectCode("OUT_OF_RANGE", call({ numBlocks: 43 }));
  expectCode("OUT_OF_RANGE", call({ contextLength: 513 }));
  expectCode("OUT_OF_RANGE", call({ numSlots: 4000 }));
  expectCode("OUT_OF_RANGE", call({ maxRows: 43 }));
  expectCode("BAD_OPTION", () => ropeCacheKernel({ cacheType: "I8" as "F32" }));
});
