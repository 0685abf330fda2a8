/** Chunks into memory: what is written, and what happens when it fails or ends early. */
import { describe, expect, test } from "bun:test";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import type { DecodeRequest } from "../../../src/device/decode.ts";
import { openHost } from "../../../src/device/host/device.ts";
import type { Fault } from "../../../src/device/host/faults.ts";
import { expectCode } from "../../loader/helpers.ts";
import type { MadeChunk, MadeFile } from "./chunk-files.ts";
import { bytesOf, evenly, KIB, range, run, useDecodeRig } from "./decode-rig.ts";

const { make, host, openPool } = useDecodeRig();

const chunkArb = fc.record({
  codec: fc.constantFrom<MadeChunk["codec"]>("zstd", "lz4Frame", "stored"),
  byteLength: fc.integer({ min: 1, max: 30_000 }),
});

describe("any ranges of any chunks", () => {
  test("give the file's bytes, and nothing else is written", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(chunkArb, { minLength: 1, maxLength: 12 }),
        fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 0, max: 60_000 })), {
          minLength: 1,
          maxLength: 20,
        }),
        fc.constantFrom(0, 70 * KIB, 2 ** 20),
        async (chunks, wanted, cacheBytes) => {
          const made = make(chunks);
          await using pool = openPool({ cacheBytes });
          using file = pool.open(made.path, made.table);
          let at = 16;
          const requests = wanted.map(([part, length]) => {
            const byteOffset = Math.floor(part * made.bytes.length);
            const byteLength = Math.min(length, made.bytes.length - byteOffset);
            const request = { file, byteOffset, byteLength, targetOffset: at };
            at += byteLength + 16;
            return request;
          });
          using target = host.createBuffer(at);
          const expected = Buffer.alloc(at, 0x5a);
          new Uint8Array(target.view(0, at)).fill(0x5a);
          for (const { byteOffset, byteLength, targetOffset } of requests) {
            expected.set(made.bytes.subarray(byteOffset, byteOffset + byteLength), targetOffset);
          }
          await run(pool, ...requests.map((request) => ({ ...request, target })));
          expect(bytesOf(target, 0, at).equals(expected)).toBe(true);
          expect(pool.cachedBytes).toBeLessThanOrEqual(cacheBytes);
          const { byteOffset, byteLength } = requests[0]!;
          const small = made.bytes.subarray(byteOffset, byteOffset + byteLength);
          expect(Buffer.from(file.readSync(byteOffset, byteLength)).equals(small)).toBe(true);
        },
      ),
      { numRuns: 40 },
    );
  });
});

describe("what is decoded", () => {
  test("whole chunks in place, without the cache", async () => {
    const made = make(evenly(6));
    await using pool = openPool();
    using file = pool.open(made.path, made.table);
    using target = host.createBuffer(made.bytes.length);
    expect(await run(pool, range(file, target, 0, made.bytes.length))).toBe(made.bytes.length);
    expect(pool.cachedBytes).toBe(0);
    expect(bytesOf(target, 0, made.bytes.length).equals(made.bytes)).toBe(true);
  });

  test("a chunk once for many small requests, and not at all for later ones", async () => {
    const made = make(evenly(4));
    await using pool = openPool();
    using file = pool.open(made.path, made.table);
    using target = host.createBuffer(made.bytes.length);
    const small = Array.from({ length: 1000 }, (_, i) =>
      range(file, target, 50_000 + i * 20, 50_004 + i * 20),
    );
    expect(await run(pool, ...small)).toBe(50_000);
    expect(await run(pool, range(file, target, 60_000, 80_000))).toBe(0);
    expect(await run(pool, range(file, target, 50_000, 100_000))).toBe(0);
    expect(bytesOf(target, 50_000, 100_000).equals(made.bytes.subarray(50_000, 100_000))).toBe(true);
    file.readSync(150_001, 5);
    // The next one to begin tells of what was decoded at once.
    expect(await run(pool, range(file, target, 150_000, 150_100))).toBe(50_000);
    expect(await run(pool, range(file, target, 150_000, 150_100))).toBe(0);
  });

  test("a chunk once for two decodings that want it at once", async () => {
    const made = make(evenly(2, 400_000));
    // Without a look at what is in memory lanes read, and the first read takes a while.
    const faults: Fault[] = [
      { call: "mmap", nth: 2, errno: "ENOMEM" },
      { call: "pread", nth: 1, delayMs: 700 },
    ];
    await using pool = openPool({}, faults);
    using file = pool.open(made.path, made.table);
    using target = host.createBuffer(made.bytes.length);
    const both = [range(file, target, 10, 200_000), range(file, target, 200_000, 399_000)];
    const decoded = await Promise.all(both.map((one) => run(pool, one)));
    expect(decoded.toSorted((a, b) => a - b)).toEqual([0, 400_000]);
    expect(bytesOf(target, 10, 399_000).equals(made.bytes.subarray(10, 399_000))).toBe(true);
  });

  test("long chunks through one scratch where none fits the cache", async () => {
    const made = make(evenly(3, 17 * 2 ** 20, "lz4Frame"));
    await using pool = openPool({ cacheBytes: 2 ** 20 });
    using file = pool.open(made.path, made.table);
    using target = host.createBuffer(made.bytes.length);
    const parts = [0, 1, 2].map((i) => range(file, target, i * 17 * 2 ** 20 + 5, i * 17 * 2 ** 20 + 5000));
    expect(await run(pool, ...parts)).toBe(made.bytes.length);
    expect(pool.cachedBytes).toBe(0);
    for (const { byteOffset, byteLength } of parts) {
      const end = byteOffset + byteLength;
      expect(bytesOf(target, byteOffset, end).equals(made.bytes.subarray(byteOffset, end))).toBe(true);
    }
  });

  test("of many files at once", async () => {
    const files = Array.from({ length: 60 }, (_, i) => make(evenly(2, 3000), `${i}.bin`, i));
    await using pool = openPool();
    const opened = files.map((made) => pool.open(made.path, made.table));
    using target = host.createBuffer(60 * 6000);
    await run(
      pool,
      ...opened.map((file, i) => ({ file, byteOffset: 7, byteLength: 5000, target, targetOffset: i * 6000 })),
    );
    files.forEach((made, i) => {
      expect(bytesOf(target, i * 6000, i * 6000 + 5000).equals(made.bytes.subarray(7, 5007))).toBe(true);
    });
    for (const file of opened) file.close();
    expect(pool.openResources).toBe(0);
  });
});

describe("failures", () => {
  /** A file whose chunk 2 is corrupt. */
  function corrupt(codec: MadeChunk["codec"]): MadeFile {
    const made = make(evenly(4, 50_000, codec));
    const bytes = readFileSync(made.path);
    const at = made.table.fileOffset[2]! + Math.floor(made.table.fileLength[2]! / 2);
    bytes[at]! ^= 0x55;
    writeFileSync(made.path, bytes);
    return made;
  }

  test.each(["zstd", "lz4Frame"] as const)(
    "a corrupt chunk of %s fails what wants it alone",
    async (codec) => {
      const made = corrupt(codec);
      await using pool = openPool();
      using file = pool.open(made.path, made.table);
      using target = host.createBuffer(made.bytes.length);
      const good = run(pool, range(file, target, 0, 100_000));
      const bad = () => run(pool, range(file, target, 90_000, 120_000));
      await expectCode("BAD_CHUNK", bad, made.path, "chunk 2 of 4", made.table.fileOffset[2]!);
      await expectCode("BAD_CHUNK", bad, "chunk 2 of 4");
      await good;
      await run(pool, range(file, target, 150_000, 200_000));
      expect(bytesOf(target, 150_000, 200_000).equals(made.bytes.subarray(150_000))).toBe(true);
      await expectCode("BAD_CHUNK", () => file.readSync(100_000, 1), "chunk 2 of 4");
      expect(Buffer.from(file.readSync(99_000, 900)).equals(made.bytes.subarray(99_000, 99_900))).toBe(true);
    },
  );

  test("a checksum that is wrong, unless nobody asks", async () => {
    const made = make(evenly(1));
    const bytes = readFileSync(made.path);
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(made.path, bytes);
    await using pool = openPool();
    using target = host.createBuffer(made.bytes.length);
    using file = pool.open(made.path, made.table);
    await expectCode("BAD_CHUNK", () => run(pool, range(file, target, 0, 50_000)), "chunk 0 of 1");
    using trusting = pool.open(made.path, made.table, { checksums: false });
    await run(pool, range(trusting, target, 0, 50_000));
    expect(bytesOf(target, 0, 50_000).equals(made.bytes)).toBe(true);
  });

  test("a file that has shrunk: warm ones are looked at before each chunk, cold ones end early", async () => {
    const made = make(evenly(4));
    await using pool = openPool();
    using target = host.createBuffer(made.bytes.length);
    using warm = pool.open(made.path, made.table);
    await run(pool, range(warm, target, 0, 10));
    const cut = made.table.fileOffset[3]! + 10;
    truncateSync(made.path, cut);
    const last = range(warm, target, 150_000, 200_000);
    await expectCode("FILE_CHANGED", () => run(pool, last), made.path, cut);
    await expectCode("SHORT_READ", () => warm.readSync(150_000, 10), made.path);
    await expectCode("FILE_CHANGED", () => pool.open(made.path, made.table), made.path);
    await run(pool, range(warm, target, 0, 150_000));
  });

  test("reads that fail, by the system's word", async () => {
    const made = make(evenly(3));
    // The first mapping is a look at what is in memory: without it lanes read.
    const faults: Fault[] = [
      { call: "mmap", nth: 1, errno: "ENOMEM" },
      { call: "pread", nth: 2, errno: "EIO" },
    ];
    await using pool = openPool({}, faults);
    using file = pool.open(made.path, made.table);
    using target = host.createBuffer(made.bytes.length);
    await expectCode("IO_ERROR", () => run(pool, range(file, target, 0, 150_000)), made.path, "EIO");
  });

  test("requests that cannot be", async () => {
    const made = make([...evenly(1), { codec: "stored", byteLength: 10 }]);
    await using pool = openPool();
    await using other = openPool();
    using file = pool.open(made.path, made.table);
    using foreign = other.open(made.path, made.table);
    using target = host.createBuffer(100);
    using apart = host.createBuffer(100, "private");
    const start = (request: Partial<DecodeRequest>) => () =>
      pool.start([{ file, byteOffset: 0, byteLength: 10, target, targetOffset: 0, ...request }]);
    await expectCode("OUT_OF_RANGE", start({ byteOffset: 50_001, byteLength: 10 }), made.path);
    await expectCode("OUT_OF_RANGE", start({ targetOffset: 91 }));
    await expectCode("OUT_OF_RANGE", start({ byteLength: -1 }));
    await expectCode("UNSUPPORTED", start({ target: apart }), "host sees");
    await expectCode("BAD_OPTION", start({ file: foreign }), made.path);
    const closed = pool.open(made.path, made.table);
    closed.close();
    await expectCode("CLOSED", start({ file: closed }), made.path);
    await expectCode("CLOSED", () => closed.readSync(0, 1), made.path);
    const codec = Uint8Array.from([9, 0]);
    await expectCode(
      "UNSUPPORTED",
      () => pool.open(made.path, { ...made.table, codec }),
      "chunk 0",
      "codec 9",
    );
    expect(await run(pool)).toBe(0);
  });

  test("buffers of another device, or closed ones, are refused by a device's decoders", async () => {
    const made = make(evenly(1));
    await using device = openHost();
    using file = device.decoders!().open(made.path, made.table);
    using target = host.createBuffer(100);
    await expectCode("BAD_OPTION", () => device.decoders!().start([range(file, target, 0, 10)]));
    const closed = device.createBuffer(100);
    closed.close();
    await expectCode("CLOSED", () => device.decoders!().start([range(file, closed, 0, 10)]));
  });
});

describe("early ends", () => {
  test("cancelled: the rest is not decoded, and memory is quiet", async () => {
    const made = make(evenly(200, 200_000));
    await using pool = openPool();
    using file = pool.open(made.path, made.table);
    using target = host.createBuffer(made.bytes.length);
    const decoding = pool.start([range(file, target, 0, made.bytes.length)]);
    decoding.cancel();
    expect((await decoding.ended).error?.code).toBe("CANCELLED");
    await decoding.quiet;
    const view = new Uint8Array(target.view(0, made.bytes.length));
    expect(view.subarray(-200_000).every((byte) => byte === 0)).toBe(true);
    decoding.cancel();
    await run(pool, range(file, target, 0, 200_000));
  });

  test("too late", async () => {
    const made = make(evenly(400, 200_000));
    await using pool = openPool();
    using file = pool.open(made.path, made.table);
    using target = host.createBuffer(made.bytes.length);
    const decoding = pool.start([range(file, target, 0, made.bytes.length)], { timeoutMs: 1 });
    const { error } = await decoding.ended;
    expect(error?.code).toBe("TIMED_OUT");
    expect(error?.message).toContain("400 chunks");
    await decoding.quiet;
  });

  test("a read that hangs: the end comes in time, and memory is quiet when the read has ended", async () => {
    const made = make(evenly(2));
    // Without a look at what is in memory lanes read; the second read hangs.
    const faults: Fault[] = [
      { call: "mmap", nth: 1, errno: "ENOMEM" },
      { call: "pread", nth: 2, delayMs: 1200 },
    ];
    await using pool = openPool({}, faults);
    using file = pool.open(made.path, made.table);
    using target = host.createBuffer(made.bytes.length);
    await run(pool, range(file, target, 0, 50_000));
    const decoding = pool.start([range(file, target, 50_000, 100_000)], { timeoutMs: 300 });
    let isQuiet = false;
    void decoding.quiet.then(() => {
      isQuiet = true;
    });
    expect((await decoding.ended).error?.code).toBe("TIMED_OUT");
    expect(isQuiet).toBe(false);
    await decoding.quiet;
  });

  test("one is cancelled, and another that wants the same chunk gets it", async () => {
    const made = make(evenly(40, 400_000));
    await using pool = openPool({ lanes: 1 });
    using file = pool.open(made.path, made.table);
    using target = host.createBuffer(made.bytes.length);
    const first = pool.start([range(file, target, 10, made.bytes.length - 10)]);
    const second = pool.start([range(file, target, made.bytes.length - 100, made.bytes.length - 50)]);
    first.cancel();
    expect((await second.ended).error).toBeUndefined();
    const end = made.bytes.length - 50;
    expect(bytesOf(target, end - 50, end).equals(made.bytes.subarray(end - 50, end))).toBe(true);
  });

  test("file, buffer and device are closed while it decodes", async () => {
    const made = make(evenly(100, 200_000));
    const device = openHost();
    const file = device.decoders!().open(made.path, made.table);
    const target = device.createBuffer(made.bytes.length);
    const decoding = device.decoders!().start([range(file, target, 0, made.bytes.length)]);
    file.close();
    target.close();
    await device.close();
    expect((await decoding.ended).error?.code).toBe("CLOSED");
    await decoding.quiet;
    expect(device.openResources).toBe(0);
    expect(() => device.decoders!()).toThrow("closed");
  });

  test("a file that is closed is decoded to the end", async () => {
    const made = make(evenly(50));
    await using pool = openPool();
    const file = pool.open(made.path, made.table);
    using target = host.createBuffer(made.bytes.length);
    const decoding = pool.start([range(file, target, 3, made.bytes.length)]);
    file.close();
    expect((await decoding.ended).error).toBeUndefined();
    expect(bytesOf(target, 3, made.bytes.length).equals(made.bytes.subarray(3))).toBe(true);
    expect(pool.openResources).toBe(0);
  });
});
