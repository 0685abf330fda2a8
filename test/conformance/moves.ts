/** Reads, writes and copies: every byte, and no other. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import type { Device, DeviceQueue } from "../../src/device/device.ts";
import { RequestList } from "../../src/device/requests.ts";
import {
  bytesOf,
  expectBytes,
  pattern,
  patternFile,
  runWell,
  type Subject,
  sparseFile,
  type TempDir,
  useRig,
} from "./harness.ts";

const GUARD = 0xa5;

export function moveCases(subject: Subject): void {
  let dir: TempDir;
  let device: Device;
  let queue: DeviceQueue;
  useRig(subject, (rig) => {
    ({ dir, device, queue } = rig);
  });

  test("new memory is zeroed and page-aligned", () => {
    using buffer = device.createBuffer(100_000);
    expect(buffer.hostAddress % device.capabilities.pageSize).toBe(0);
    expectBytes(bytesOf(buffer), new Uint8Array(100_000));
  });

  test("an empty submission ends well, with 0 bytes", async () => {
    const completion = await runWell(queue, () => {});
    expect(completion.bytesDone).toBe(0);
    expect(completion.completedMs).toBeGreaterThanOrEqual(completion.submittedMs);
  });

  test("counts the bytes of all requests", async () => {
    using file = device.openFile(patternFile(dir.path, "count", 50_000));
    using buffer = device.createBuffer(100_000);
    const completion = await runWell(queue, (list) =>
      list.read(file, 0, buffer, 0, 50_000).copy(buffer, 0, buffer, 60_000, 0),
    );
    expect(completion.bytesDone).toBe(50_000);
  });

  if (!subject.movesData) return;

  test("reads of 0, 1, page-1, page, page+1 bytes touch nothing else", async () => {
    const { pageSize } = device.capabilities;
    using file = device.openFile(patternFile(dir.path, "sizes", 4 * pageSize));
    const expected = pattern(4 * pageSize);
    using buffer = device.createBuffer(4 * pageSize);
    for (const size of [0, 1, pageSize - 1, pageSize, pageSize + 1]) {
      for (const offset of [0, 1, pageSize - 1, pageSize]) {
        new Uint8Array(buffer.view(0, buffer.byteLength)).fill(GUARD);
        await runWell(queue, (list) => list.read(file, offset, buffer, 100, size));
        const after = bytesOf(buffer);
        expectBytes(after.subarray(100, 100 + size), expected.subarray(offset, offset + size));
        expect(after.subarray(0, 100).every((byte) => byte === GUARD)).toBe(true);
        expect(after.subarray(100 + size).every((byte) => byte === GUARD)).toBe(true);
      }
    }
  });

  test("reads past 2 GiB and 4 GiB of a file", async () => {
    const known = pattern(5000, 3);
    for (const offset of [2 ** 31 - 2500, 2 ** 32 - 2500, 5 * 2 ** 30 + 1]) {
      using file = device.openFile(sparseFile(dir.path, `sparse-${offset}`, 6 * 2 ** 30, offset, known));
      using buffer = device.createBuffer(6000);
      await runWell(queue, (list) => list.read(file, offset - 500, buffer, 0, 6000));
      expectBytes(bytesOf(buffer, 500, 5000), known);
      expect(bytesOf(buffer, 0, 500).every((byte) => byte === 0)).toBe(true);
      expectBytes(file.readSync(offset, 5000), known);
    }
  });

  test("a read longer than a piece is whole", async () => {
    const length = 9 * 2 ** 20 + 17;
    using file = device.openFile(patternFile(dir.path, "long", length));
    using buffer = device.createBuffer(length);
    const completion = await runWell(queue, (list) => list.read(file, 0, buffer, 0, length));
    expect(completion.bytesDone).toBe(length);
    expectBytes(bytesOf(buffer), pattern(length));
  });

  test("written bytes are read back, by the device and by others", async () => {
    const path = join(dir.path, "written");
    const bytes = pattern(3 * 2 ** 20 + 5, 9);
    using source = device.createBuffer(bytes.length);
    using target = device.createBuffer(bytes.length);
    new Uint8Array(source.view(0, bytes.length)).set(bytes);
    using file = device.openFile(path, "write");
    await runWell(queue, (list) =>
      list
        .write(source, 0, file, 10, bytes.length)
        .barrier()
        .sync(file)
        .barrier()
        .read(file, 10, target, 0, bytes.length),
    );
    expectBytes(bytesOf(target), bytes);
    const onDisk = new Uint8Array(readFileSync(path));
    expectBytes(onDisk.subarray(10), bytes);
    expect(onDisk.subarray(0, 10).every((byte) => byte === 0)).toBe(true);
  });

  test("many small copies land where they should", async () => {
    const rows = 5000;
    const rowBytes = 37;
    using source = device.createBuffer(rows * rowBytes);
    using target = device.createBuffer(rows * rowBytes);
    const bytes = pattern(rows * rowBytes, 5);
    new Uint8Array(source.view(0, bytes.length)).set(bytes);
    const expected = new Uint8Array(bytes.length);
    await runWell(queue, (list) => {
      for (let row = 0; row < rows; row++) {
        const from = ((row * 2741) % rows) * rowBytes;
        list.copy(source, from, target, row * rowBytes, rowBytes);
        expected.set(bytes.subarray(from, from + rowBytes), row * rowBytes);
      }
    });
    expectBytes(bytesOf(target), expected);
  });

  test("any mix of reads and copies gives what a plain loop gives", async () => {
    const size = 60_000;
    using file = device.openFile(patternFile(dir.path, "mix", size, 2));
    const bytes = pattern(size, 2);
    const request = fc.record({
      copy: fc.boolean(),
      offset: fc.nat(size),
      length: fc.oneof(fc.nat(64), fc.nat(20_000)),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(request, { maxLength: 40 }), async (requests) => {
        using source = device.createBuffer(size);
        new Uint8Array(source.view(0, size)).set(bytes);
        const fitting = requests.map((r) => ({ ...r, length: Math.min(r.length, size - r.offset) }));
        const total = fitting.reduce((sum, r) => sum + r.length, 0);
        using target = device.createBuffer(total);
        const expected = new Uint8Array(total);
        const list = new RequestList();
        let at = 0;
        for (const { copy, offset, length } of fitting) {
          if (copy) list.copy(source, offset, target, at, length);
          else list.read(file, offset, target, at, length);
          expected.set(bytes.subarray(offset, offset + length), at);
          at += length;
        }
        const completion = await queue.completion(queue.submit(list));
        expect(completion.error).toBeUndefined();
        expect(completion.bytesDone).toBe(total);
        expectBytes(bytesOf(target), expected);
      }),
      { numRuns: 40 },
    );
  });

  test("100,000 requests of one submission", async () => {
    const count = 100_000;
    using file = device.openFile(patternFile(dir.path, "hundred-thousand", 4 * count, 7));
    using source = device.createBuffer(4 * count);
    using target = device.createBuffer(4 * count);
    const bytes = pattern(4 * count, 7);
    new Uint8Array(source.view(0, bytes.length)).set(bytes);
    const completion = await runWell(queue, (list) => {
      for (let i = 0; i < count; i++) {
        const at = 4 * ((i * 7919) % count);
        if (i % 10 === 0) list.read(file, at, target, at, 4);
        else list.copy(source, at, target, at, 4);
      }
    });
    expect(completion.bytesDone).toBe(4 * count);
    expectBytes(bytesOf(target), bytes);
  });

  test("bytes of any offset and length go into private memory and come back", async () => {
    const size = 300_000;
    using shared = device.createBuffer(size);
    using hidden = device.createBuffer(size, "private");
    using out = device.createBuffer(size);
    const bytes = pattern(size, 3);
    new Uint8Array(shared.view(0, size)).set(bytes);
    for (const [offset, length] of [
      [0, size],
      [4, 8],
      [1, 3],
      [4097, 65_537],
      [size - 1, 1],
    ] as const) {
      new Uint8Array(out.view(0, size)).fill(GUARD);
      await runWell(queue, (list) =>
        list.copy(shared, offset, hidden, offset, length).barrier().copy(hidden, offset, out, offset, length),
      );
      const after = bytesOf(out);
      expectBytes(after.subarray(offset, offset + length), bytes.subarray(offset, offset + length));
      expect(after.subarray(0, offset).every((byte) => byte === GUARD)).toBe(true);
      expect(after.subarray(offset + length).every((byte) => byte === GUARD)).toBe(true);
    }
    await runWell(queue, (list) =>
      list.copy(shared, 0, hidden, 200_001, 999).barrier().copy(hidden, 200_001, out, 7, 999),
    );
    expectBytes(bytesOf(out, 7, 999), bytes.subarray(0, 999));
  });

  test("new private memory is zeroed, and is written to files", async () => {
    using hidden = device.createBuffer(70_000, "private");
    using out = device.createBuffer(70_000);
    new Uint8Array(out.view(0, 70_000)).fill(GUARD);
    using file = device.openFile(join(dir.path, "from-private"), "write");
    await runWell(queue, (list) =>
      list.copy(hidden, 0, out, 0, 70_000).write(hidden, 5, file, 0, 60_000).barrier().sync(file),
    );
    expectBytes(bytesOf(out), new Uint8Array(70_000));
    expectBytes(file.readSync(0, 60_000), new Uint8Array(60_000));
  });

  test("private memory moves like any other and cannot be seen", async () => {
    using hidden = device.createBuffer(10_000, "private");
    using file = device.openFile(patternFile(dir.path, "private", 10_000, 4));
    using out = device.createBuffer(10_000);
    await runWell(queue, (list) =>
      list.read(file, 0, hidden, 0, 10_000).barrier().copy(hidden, 0, out, 0, 10_000),
    );
    expectBytes(bytesOf(out), pattern(10_000, 4));
    expect(() => hidden.view(0, 10)).toThrow("private");
    expect(hidden.hostAddress).toBe(0);
  });
}
