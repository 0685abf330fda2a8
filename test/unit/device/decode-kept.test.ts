/** What a pool of decoders keeps of the chunks that it has decoded. */
import { describe, expect, test } from "bun:test";
import { Syscalls } from "../../../src/device/host/syscalls.ts";
import { bytesOf, evenly, KIB, range, run, useDecodeRig } from "./decode-rig.ts";

const { make, host, openPool } = useDecodeRig();
const PAGE = new Syscalls().pageSize;
/** What a chunk of 50,000 bytes takes. */
const KEPT = Math.ceil(50_000 / PAGE) * PAGE;

describe("what is kept", () => {
  test("whole chunks are read at once past the cache, and parts of them through it", async () => {
    const made = make(evenly(3));
    await using pool = openPool();
    using file = pool.open(made.path, made.table);
    expect(Buffer.from(file.readSync(50_000, 50_000)).equals(made.bytes.subarray(50_000, 100_000))).toBe(
      true,
    );
    expect(pool.cachedBytes).toBe(0);
    expect(Buffer.from(file.readSync(40_000, 70_000)).equals(made.bytes.subarray(40_000, 110_000))).toBe(
      true,
    );
    expect(pool.cachedBytes).toBe(2 * KEPT);
    expect(Buffer.from(file.readSync(0, 50_000)).equals(made.bytes.subarray(0, 50_000))).toBe(true);
    expect(pool.cachedBytes).toBe(2 * KEPT);
  });

  test("what is decoded on the caller's thread is not taken for memory of its own", () => {
    const made = make(evenly(6, 60_000, "lz4Frame"));
    using pool = openPool();
    using file = pool.open(made.path, made.table);
    // By what is held outside the heap the collector decides when it runs.
    const before = process.memoryUsage().external;
    for (let at = 0; at < 360_000; at += 30_000) {
      expect(Buffer.from(file.readSync(at + 1, 1000)).equals(made.bytes.subarray(at + 1, at + 1001))).toBe(
        true,
      );
    }
    expect(process.memoryUsage().external - before).toBeLessThan(2 ** 26);
  });

  test("a file may be closed after its pool", async () => {
    const made = make(evenly(3));
    const pool = openPool();
    const file = pool.open(made.path, made.table);
    file.readSync(10, 60_000);
    expect(pool.cachedBytes).toBe(2 * KEPT);
    await pool.close();
    expect(pool.cachedBytes).toBe(0);
    file.close();
    expect(pool.cachedBytes).toBe(0);
  });

  test("no more is kept than there is room for", async () => {
    const made = make(evenly(20, 60_000, "lz4Frame"));
    await using pool = openPool({ cacheBytes: 300 * KIB });
    using file = pool.open(made.path, made.table);
    using target = host.createBuffer(made.bytes.length);
    const each = (part: number) =>
      evenly(20).map((_, i) => range(file, target, i * 60_000, i * 60_000 + part));
    expect(await run(pool, ...each(100))).toBe(20 * 60_000);
    expect(pool.cachedBytes).toBeLessThanOrEqual(300 * KIB);
    const again = await run(pool, ...each(200));
    expect(again).toBeLessThan(20 * 60_000);
    expect(again).toBeGreaterThanOrEqual(15 * 60_000);
    for (let i = 0; i < 20; i++) {
      const at = i * 60_000;
      expect(bytesOf(target, at, at + 200).equals(made.bytes.subarray(at, at + 200))).toBe(true);
    }
  });

  test("what is kept does not make room for other chunks that are wanted with it", async () => {
    const made = make(evenly(8, 60_000, "lz4Frame"));
    await using pool = openPool({ cacheBytes: 4 * 61_440 });
    using file = pool.open(made.path, made.table);
    using target = host.createBuffer(made.bytes.length);
    const parts = evenly(8).map((_, i) => range(file, target, i * 60_000, i * 60_000 + 100));
    expect(await run(pool, ...parts.slice(4))).toBe(4 * 60_000);
    expect(await run(pool, ...parts)).toBe(4 * 60_000);
  });

  test("what a decoding does not allow to be kept is not, and what was goes", async () => {
    const made = make(evenly(6));
    await using pool = openPool();
    using file = pool.open(made.path, made.table);
    using target = host.createBuffer(made.bytes.length);
    const parts = evenly(6).map((_, i) => range(file, target, i * 50_000, i * 50_000 + 100));
    const kept = async (keepBytes?: number) => {
      expect((await pool.start(parts, { keepBytes }).ended).error).toBeUndefined();
      return pool.cachedBytes;
    };
    expect(await kept()).toBe(6 * 53_248);
    expect(await kept(2 * KEPT)).toBe(2 * KEPT);
    expect(await kept(0)).toBe(0);
  });
});
