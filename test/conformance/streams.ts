/** Files read through the device's own file queue: the same bytes as by lanes, compressed or not. */
import { expect, test } from "bun:test";
import { truncateSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Device, DeviceQueue } from "../../src/device/device.ts";
import {
  bytesOf,
  expectBytes,
  expectCode,
  expectFailed,
  listOf,
  pattern,
  patternFile,
  run,
  runWell,
  type Subject,
  type TempDir,
  testWhere,
  useRig,
  withDevice,
} from "./harness.ts";
import { ADD, addConstants } from "./kernels.ts";

export function streamCases(subject: Subject): void {
  let dir: TempDir;
  let device: Device;
  let queue: DeviceQueue;
  useRig(subject, (rig) => {
    ({ dir, device, queue } = rig);
  });

  const canStream = subject.openStreaming !== undefined;
  const streaming = testWhere(canStream, "it has no file queues");

  testWhere(!canStream, "it streams")("a device without file queues says so", () => {
    expect(device.capabilities.canStream).toBe(false);
    expect(device.prepareStream).toBeUndefined();
    const path = patternFile(dir.path, "plain", 100);
    expect(expectCode("UNSUPPORTED", () => device.openFile(path, "stream")).message).toContain(path);
  });

  streaming("reads any range, next to lanes, into shared and private memory", async () => {
    expect(device.capabilities.canStream).toBe(true);
    const size = 3 * 2 ** 20 + 11;
    const path = patternFile(dir.path, "any", size, 4);
    const bytes = pattern(size, 4);
    using stream = device.openFile(path, "stream");
    using file = device.openFile(path);
    expect(stream.byteLength).toBe(size);
    expectBytes(stream.readSync(17, 1000), bytes.subarray(17, 1017));
    using shared = device.createBuffer(size);
    using hidden = device.createBuffer(size, "private");
    using out = device.createBuffer(size);
    const half = 2 ** 20 + 5;
    const completion = await runWell(queue, (list) =>
      list
        .read(stream, 0, shared, 0, half)
        .read(file, half, shared, half, size - half)
        .read(stream, 3, hidden, 1, size - 3)
        .barrier()
        .copy(hidden, 1, out, 0, size - 3),
    );
    expect(completion.bytesDone).toBe(size + 2 * (size - 3));
    expectBytes(bytesOf(shared), bytes);
    expectBytes(bytesOf(out, 0, size - 3), bytes.subarray(3));
  });

  streaming("barriers between streamed reads, and a kernel behind them, keep their order", async () => {
    const size = 200_000;
    using first = device.openFile(patternFile(dir.path, "order-1", size, 5), "stream");
    using second = device.openFile(patternFile(dir.path, "order-2", size, 6), "stream");
    using target = device.createBuffer(size);
    using add = device.createPipeline(ADD);
    const call = {
      pipeline: add,
      buffers: [{ buffer: target, offset: 0 }],
      constants: addConstants(3),
      threads: size,
    };
    const expected = pattern(size, 5);
    expected.set(pattern(size, 6).subarray(0, size / 2));
    expected.set(pattern(size, 5).subarray(100, 200));
    for (let i = 0; i < size; i++) expected[i]! += 3;
    for (let round = 0; round < 20; round++) {
      await runWell(queue, (list) => {
        list
          .read(first, 0, target, 0, size)
          .barrier()
          .read(second, 0, target, 0, size / 2);
        list.barrier().read(first, 100, target, 0, 100).dispatch(call);
      });
      expectBytes(bytesOf(target), expected);
    }
  });

  streaming("thousands of small reads land where they should", async () => {
    const rows = 5000;
    const rowBytes = 61;
    using stream = device.openFile(patternFile(dir.path, "rows", rows * rowBytes, 2), "stream");
    using target = device.createBuffer(rows * rowBytes);
    const bytes = pattern(rows * rowBytes, 2);
    const expected = new Uint8Array(bytes.length);
    await runWell(queue, (list) => {
      for (let row = 0; row < rows; row++) {
        const from = ((row * 2741) % rows) * rowBytes;
        list.read(stream, from, target, row * rowBytes, rowBytes);
        expected.set(bytes.subarray(from, from + rowBytes), row * rowBytes);
      }
    });
    expectBytes(bytesOf(target), expected);
  });

  streaming("is refused what a file is refused", async () => {
    const path = patternFile(dir.path, "refused", 1000);
    using stream = device.openFile(path, "stream");
    using buffer = device.createBuffer(1000);
    expectCode("SOURCE_NOT_FOUND", () => device.openFile(join(dir.path, "gone"), "stream"));
    expectCode("SOURCE_UNREADABLE", () => device.openFile(dir.path, "stream"));
    expectCode("OUT_OF_RANGE", () => queue.submit(listOf((list) => list.read(stream, 1, buffer, 0, 1000))));
    expectCode("BAD_OPTION", () => queue.submit(listOf((list) => list.write(buffer, 0, stream, 0, 10))));
    truncateSync(path, 500);
    expectCode("FILE_CHANGED", () => stream.checkLength());
    const failure = expectFailed(
      await run(queue, (list) => list.read(stream, 400, buffer, 0, 600)),
      "SHORT_READ",
    );
    expect(failure.message).toContain(path);
    stream.close();
    expectCode("CLOSED", () => queue.submit(listOf((list) => list.read(stream, 0, buffer, 0, 10))));
  });

  const open = subject.openStreaming?.bind(subject);
  if (open === undefined) return;

  for (const codec of ["lz4", "lzfse", "zlib", "lzma"]) {
    test(`${codec}: the compressed form is made once, and read as the file itself`, () => {
      if (!device.capabilities.codecs.includes(codec)) {
        console.warn(`left out: ${subject.name} has no ${codec}`);
        return Promise.resolve();
      }
      const cacheFolder = join(dir.path, `cache-${codec}`);
      return withDevice(open({ codec, cacheFolder }), async (device) => {
        const size = 700_001;
        const path = join(dir.path, `source-${codec}`);
        const bytes = pattern(size).fill(7, 1000, 500_000);
        writeFileSync(path, bytes);
        const progress: number[] = [];
        const onProgress = (done: number) => progress.push(done);
        const made = await device.prepareStream!(path, { onProgress });
        expect([progress[0], progress.at(-1)]).toEqual([0, size]);
        expect(progress.toSorted((a, b) => a - b)).toEqual(progress);
        expect(made).toMatchObject({ codec, made: true });
        expect(made.path).toStartWith(cacheFolder);
        expect(made.byteLength).toBe(Bun.file(made.path).size);
        expect(made.byteLength).toBeLessThan(size * 0.8);
        expect(await device.prepareStream!(path)).toEqual({ ...made, made: false });
        using stream = device.openFile(path, "stream");
        using buffer = device.createBuffer(size);
        const own = device.createQueue();
        const ranges = [
          [0, size],
          [65_535, 3],
          [499_999, 131_073],
          [size - 1, 1],
        ] as const;
        for (const [offset, length] of ranges) {
          await runWell(own, (list) => list.read(stream, offset, buffer, 0, length));
          expectBytes(bytesOf(buffer, 0, length), bytes.subarray(offset, offset + length));
        }
        expectBytes(stream.readSync(5, 100), bytes.subarray(5, 105));
      });
    });
  }

  test("a changed source is not read from its old compressed form", () =>
    withDevice(open({ codec: "lz4", cacheFolder: join(dir.path, "cache-stale") }), async (device) => {
      const path = patternFile(dir.path, "stale", 200_000, 1);
      await device.prepareStream!(path);
      const changed = pattern(200_000, 9);
      writeFileSync(path, changed);
      utimesSync(path, new Date(), new Date(Date.now() + 10_000));
      using stream = device.openFile(path, "stream");
      using buffer = device.createBuffer(200_000);
      const own = device.createQueue();
      await runWell(own, (list) => list.read(stream, 0, buffer, 0, 200_000));
      expectBytes(bytesOf(buffer), changed);
      expect(await device.prepareStream!(path)).toMatchObject({ made: true });
    }));

  test("preparing can be stopped, and leaves nothing half made", () =>
    withDevice(open({ codec: "lz4", cacheFolder: join(dir.path, "cache-stopped") }), async (device) => {
      const path = patternFile(dir.path, "stopped", 4 * 2 ** 20);
      const stop = AbortSignal.abort();
      const failure = await device.prepareStream!(path, { signal: stop }).catch((error: unknown) => error);
      expect(failure).toMatchObject({ code: "CANCELLED" });
      const seen: number[] = [];
      const made = await device.prepareStream!(path, { onProgress: (done) => seen.push(done) });
      expect(made.made).toBe(true);
      expect(seen.at(-1)).toBe(4 * 2 ** 20);
      expect(seen).toEqual(seen.toSorted((a, b) => a - b));
    }));
}
