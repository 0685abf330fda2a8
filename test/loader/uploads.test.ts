/** What goes to a device with memory of its own: all bytes once, of the host's memory only what the host computes. */
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, truncateSync, writeSync } from "node:fs";
import {
  type Batch,
  HostReader,
  Loader,
  type OpenOptions,
  openDataset,
  openDevice,
} from "../../src/index.ts";
import { KINDS, writeArrow } from "./arrow-files.ts";
import { openTestDevice } from "./device.ts";
import { discrete, type Traffic } from "./discrete.ts";
import { bytesOf, expectCode, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset, writePlain } from "./safetensors-files.ts";

const temp = useTempDir();
const MIB = 2 ** 20;
/** Sections begin on multiples of this. */
const GAP = 64;

/** Runs through `source`; `each` sees every batch. */
async function run(
  source: string,
  options: OpenOptions,
  each: (batch: Batch, reader: HostReader, loader: Loader) => unknown = () => {},
): Promise<Traffic> {
  await using host = openTestDevice();
  const { device, traffic } = discrete(host);
  using dataset = openDataset(source, device, options);
  await using loader = new Loader(dataset, device, options);
  await using reader = new HostReader(device, { chunkBytes: 4096 });
  for await (using batch of loader) await each(batch, reader, loader);
  expect(traffic.peeks).toBe(0);
  return traffic;
}

const uploaded = ({ uploads }: Traffic) => uploads.reduce((total, { byteLength }) => total + byteLength, 0);

describe("host memory", () => {
  for (const options of [
    { view: "tensors" },
    { batchSize: 7 },
    { batchSize: 7, seed: 1 },
    { batchSize: 64, epochs: 3 },
  ] as const) {
    test(`fixed rows and tensors need none: ${JSON.stringify(options)}`, async () => {
      writePlain(temp("a.safetensors"), 64, 300);
      const total = 64 * 300 * ("epochs" in options ? 3 : 1);
      const map = await run(temp(), { ...options, strategy: "map" });
      expect([map.mapped, map.mostShared, map.uploads.length, map.barriers]).toEqual([total, 0, 0, 0]);
      const read = await run(temp(), { ...options, strategy: "read" });
      expect([read.mapped, read.read + read.onward, read.uploads.length]).toEqual([0, total, 0]);
      expect(read.barriers > 0).toBe(read.onward > 0);
      expect(read.barriers).toBeLessThanOrEqual(read.submissions);
      expect(read.mostShared > 0).toBe(read.onward > 0);
    });
  }

  test("reads without gaps go straight to the device", async () => {
    writePlain(temp("a.safetensors"), 64, 300);
    const { read, staged, mostShared } = await run(temp(), { batchSize: 16, strategy: "read" });
    expect([read, staged, mostShared]).toEqual([64 * 300, 0, 0]);
  });

  test("shuffled rows go side by side, and on by one copy a batch", async () => {
    const [rows, rowBytes, batchSize] = [600, 20_000, 60];
    writePlain(temp("a.safetensors"), rows, rowBytes);
    const options = { batchSize, seed: 3, strategy: "read" } as const;
    const { read, staged, onward, onwardCopies, barriers } = await run(temp(), options);
    expect(read + staged).toBeGreaterThanOrEqual(rows * rowBytes);
    expect(read + onward).toBe(rows * rowBytes);
    // Neighbours that are read together are copied one by one.
    expect(read).toBe(0);
    expect(onwardCopies).toBeLessThan(rows / 2);
    expect(barriers).toBe(rows / batchSize);
  });

  test("few shuffled rows, and long ones, go straight to the device", async () => {
    writePlain(temp("few.safetensors"), 100, 40_000);
    const few = await run(temp("few.safetensors"), { batchSize: 10, seed: 3, strategy: "read" });
    expect([few.read, few.staged, few.barriers]).toEqual([100 * 40_000, 0, 0]);
    writePlain(temp("long.safetensors"), 40, 200_000);
    const long = await run(temp("long.safetensors"), { batchSize: 20, seed: 3, strategy: "read" });
    expect([long.read, long.staged, long.barriers]).toEqual([40 * 200_000, 0, 0]);
  });

  test("rows that fit straight into the device are not refused for want of room beside them", async () => {
    writePlain(temp("a.safetensors"), 1000, 64 * 1024);
    const options = { batchSize: 160, seed: 1, strategy: "read", memoryBytes: 42 * MIB } as const;
    const tight = await run(temp(), options);
    expect([tight.read, tight.staged]).toEqual([1000 * 64 * 1024, 0]);
    const roomy = await run(temp(), { ...options, memoryBytes: 130 * MIB });
    expect(roomy.read).toBe(0);
  });

  test("is as large as the computed parts, however large the others are", async () => {
    const rowBytes = 100_000;
    writePlain(temp("a.safetensors"), 100, rowBytes);
    const options = { batchSize: 64, lastBatch: "pad", strategy: "map", prefetch: 0 } as const;
    const traffic = await run(temp(), options, (_batch, _reader, loader) => {
      const device = Math.ceil((64 * rowBytes + GAP) / MIB) * MIB;
      expect(loader.stats.arenaBytes).toBeLessThanOrEqual(device + MIB);
    });
    expect(traffic.mostShared).toBe(MIB);
    // The last batch has 36 rows: the others are zero, and the mask tells.
    expect(uploaded(traffic)).toBe((2 * 64 - 100) * rowBytes + 64);
  });
});

describe("uploads", () => {
  /** Bytes of a batch that the host makes, and the number of parts they are in. */
  const computedOf = (batch: Batch) => {
    const parts = [batch.rowMask];
    for (const column of batch.columns.values()) {
      parts.push(column.offsets, column.mask, column.validity);
      const isBits = column.dtype === "BOOL";
      if (isBits || column.dictionary !== undefined) parts.push(column);
    }
    const there = parts.filter((part) => part !== undefined);
    return { bytes: there.reduce((total, part) => total + part.byteLength, 0), count: there.length };
  };

  for (const strategy of ["map", "read"] as const) {
    for (const options of [{}, { seed: 5 }, { lastBatch: "pad" }] as const) {
      test(`are one copy a batch, of offsets, masks, bits and codes: ${strategy}, ${JSON.stringify(options)}`, async () => {
        writeArrow(temp("a.arrow"), { batches: [9, 4, 8], isNull: (s, c) => (s + c) % 5 === 0 });
        let least = 0;
        let most = 0;
        let padded = 0;
        const traffic = await run(temp(), { strategy, batchSize: 8, ...options }, (batch) => {
          const { bytes, count } = computedOf(batch);
          least += bytes;
          most += bytes + count * (GAP - 1);
          const missing = batch.size - batch.numSamples;
          for (const { dtype, dictionary, offsets, byteLength } of batch.columns.values()) {
            const moved = dtype !== "BOOL" && dictionary === undefined && offsets === undefined;
            if (moved) padded += (byteLength / batch.size) * missing;
          }
        });
        const whole = traffic.uploads.filter(({ from, to }) => from === 0 && to === 0);
        expect(whole.length).toBe(3);
        expect(traffic.submissions).toBe(3);
        const bytes = uploaded({ ...traffic, uploads: whole });
        expect(bytes).toBeGreaterThanOrEqual(least);
        expect(bytes).toBeLessThanOrEqual(most);
        expect(uploaded(traffic) - bytes).toBe(padded);
        expect(traffic.barriers).toBeLessThanOrEqual(traffic.onward > 0 ? 3 : 0);
      });
    }

    test(`of a padded column are its padding and masks alone: ${strategy}`, async () => {
      const kinds = KINDS.filter(({ name }) => ["tokens", "points"].includes(name));
      writeArrow(temp("a.arrow"), { batches: [9, 8], kinds });
      let padding = 0;
      let masks = 0;
      const options = { strategy, batchSize: 5, padTo: 4, padValue: 9, lastBatch: "pad" } as const;
      const traffic = await run(temp(), options, async (batch, reader) => {
        for (const column of batch.columns.values()) {
          const mask = bytesOf(await reader.read(column.mask!));
          const gaps = mask.reduce((count, real) => count + (1 - real), 0);
          padding += (gaps * column.byteLength) / mask.length;
        }
        // Both masks and the mask of rows stand one behind the other.
        const own = [...batch.columns.values()].map((column) => column.mask!);
        if (batch.rowMask !== undefined) own.push(batch.rowMask);
        masks += own.at(-1)!.byteOffset + own.at(-1)!.byteLength;
      });
      expect(uploaded(traffic)).toBe(padding + masks);
      expect(traffic.barriers).toBeLessThanOrEqual(traffic.onward > 0 ? traffic.submissions : 0);
    });
  }
});

describe("the limit", () => {
  test("counts what is there: a batch needs its bytes once", async () => {
    writePlain(temp("a.safetensors"), 64, 2 ** 16);
    const options = { batchSize: 64, strategy: "map", prefetch: 0 } as const;
    let arena = 0;
    const each = (_batch: Batch, _reader: HostReader, loader: Loader) => {
      arena = loader.stats.arenaBytes;
    };
    await run(temp(), { ...options, memoryBytes: 4 * MIB }, each);
    expect(arena).toBe(4 * MIB);
    const tooSmall = () => run(temp(), { ...options, memoryBytes: 4 * MIB - 1 });
    await expectCode("BATCH_TOO_LARGE", tooSmall, 4 * MIB, 4 * MIB - 1, "memoryBytes");
  });

  test("counts both kinds of memory", async () => {
    writeDataset(temp, [30], SMALL_SPECS);
    const options = { batchSize: 10, strategy: "map", prefetch: 0 } as const;
    await run(temp(), { ...options, memoryBytes: 2 * MIB });
    const tooSmall = () => run(temp(), { ...options, memoryBytes: 2 * MIB - 1 });
    const message = await expectCode("BATCH_TOO_LARGE", tooSmall, 2 * MIB, 2 * MIB - 1);
    expect(message).toEndWith(`use a memoryBytes of at least ${2 * MIB}`);
    const small = () => run(temp(), { ...options, prefetch: 2, memoryBytes: 2 * MIB });
    await expectCode(
      "BATCH_TOO_LARGE",
      small,
      `use a lower prefetch or a memoryBytes of at least ${6 * MIB}`,
    );
  });
});

test("a tensor and rows of over 4 GiB are asked for whole, without host memory", async () => {
  const rows = 5;
  const rowBytes = 2 ** 30;
  const header = JSON.stringify({
    x: { dtype: "U8", shape: [rows, rowBytes], data_offsets: [0, rows * rowBytes] },
  });
  const path = temp("large.safetensors");
  const fd = openSync(path, "w");
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(header.length));
  writeSync(fd, Buffer.concat([prefix, Buffer.from(header)]));
  closeSync(fd);
  truncateSync(path, 8 + header.length + rows * rowBytes);
  await using host = openDevice("host");
  const { device, traffic } = discrete(host);
  // Nothing is moved: this is about what is asked for.
  const { createQueue } = device;
  const asked: number[] = [];
  device.createQueue = () => {
    const queue = createQueue();
    queue.submit = (list) => {
      for (let i = 0; i < list.length; i++) asked.push(list.numbers[i * 6 + 5]!);
      throw new Error("asked");
    };
    return queue;
  };
  for (const options of [
    { view: "tensors", strategy: "map" },
    { view: "tensors", strategy: "read" },
    { view: "rows", strategy: "map", batchSize: 8, lastBatch: "pad" },
  ] as const) {
    asked.length = 0;
    using dataset = openDataset(path, device, options);
    await using loader = new Loader(dataset, device, { ...options, prefetch: 0, memoryBytes: 2 ** 36 });
    await expect(loader[Symbol.asyncIterator]().next()).rejects.toThrow("asked");
    const padded = options.view === "rows" ? 3 * rowBytes + 8 : 0;
    expect(asked.reduce((a, b) => a + b)).toBe(rows * rowBytes + padded);
    expect(traffic.sharedBytes).toBe(options.view === "rows" ? MIB : 0);
  }
});
