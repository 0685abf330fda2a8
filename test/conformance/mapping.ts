/** Mappings: the same bytes as a read, without a copy, at any offset. */
import { expect, test } from "bun:test";
import { truncateSync } from "node:fs";
import { type Device, type DeviceQueue, isDeclined } from "../../src/device/device.ts";
import {
  bytesOf,
  expectBytes,
  expectCode,
  expectMapped,
  listOf,
  pattern,
  patternFile,
  runWell,
  type Subject,
  sparseFile,
  type TempDir,
  useRig,
} from "./harness.ts";

export function mappingCases(subject: Subject): void {
  let dir: TempDir;
  let device: Device;
  let queue: DeviceQueue;
  useRig(subject, (rig) => {
    ({ dir, device, queue } = rig);
  });

  test("any offset and length shows the file's bytes", () => {
    const { pageSize } = device.capabilities;
    const bytes = pattern(4 * pageSize + 100);
    using file = device.openFile(patternFile(dir.path, "any", bytes.length));
    for (const length of [1, pageSize - 1, pageSize, pageSize + 1]) {
      for (const offset of [0, 1, 8, pageSize - 1, pageSize, pageSize + 1, 3 * pageSize + 99]) {
        using mapping = expectMapped(device.map(file, offset, length));
        expect(mapping.byteLength).toBe(length);
        expect(mapping.hostAddress % pageSize).toBe(offset % pageSize);
        expectBytes(bytesOf(mapping), bytes.subarray(offset, offset + length));
      }
    }
  });

  test("bytes past 2 GiB and 4 GiB are seen through one mapping", () => {
    const known = pattern(5000, 3);
    for (const offset of [2 ** 31 - 2500, 2 ** 32 - 2500, 5 * 2 ** 30 + 1]) {
      using file = device.openFile(sparseFile(dir.path, `sparse-${offset}`, 6 * 2 ** 30, offset, known));
      const answer = device.map(file, 1, file.byteLength - 1);
      if (isDeclined(answer) && file.byteLength > device.capabilities.maxMapLength) {
        // A small machine says so, and shows a part of the file.
        using part = expectMapped(device.map(file, offset - 1, 6000));
        expectBytes(bytesOf(part, 1, 5000), known);
        continue;
      }
      using mapping = expectMapped(answer);
      expectBytes(bytesOf(mapping, offset - 1, 5000), known);
      expect(mapping.view(7, 2 ** 32).byteLength).toBe(2 ** 32);
      expectCode("UNSUPPORTED", () => mapping.view(7, 2 ** 32 + 1));
    }
  });

  test("outlives its file, and can be asked for hints", () => {
    const file = device.openFile(patternFile(dir.path, "outlives", 100_000));
    const mapping = expectMapped(device.map(file, 10, 90_000));
    file.close();
    for (const advice of ["sequential", "random", "will-need", "dont-need"] as const) {
      mapping.advise(advice, 5, 80_000);
      mapping.advise(advice, 0, 10 ** 15);
      mapping.advise(advice, 200_000, 5);
    }
    expectBytes(bytesOf(mapping), pattern(100_000).subarray(10, 90_010));
    mapping.close();
  });

  test("hints leave memory of its own as it is", () => {
    using buffer = device.createBuffer(50_000);
    new Uint8Array(buffer.view(0, 50_000)).fill(7);
    buffer.advise("dont-need", 0, 50_000);
    buffer.advise("will-need", 0, 50_000);
    expect(bytesOf(buffer).every((byte) => byte === 7)).toBe(true);
  });

  test("declines 0 bytes", () => {
    using file = device.openFile(patternFile(dir.path, "zero", 100));
    expect(isDeclined(device.map(file, 50, 0))).toBe(true);
    using empty = device.openFile(patternFile(dir.path, "empty", 0));
    expect(isDeclined(device.map(empty, 0, 0))).toBe(true);
  });

  test("refuses what is outside the file", () => {
    using file = device.openFile(patternFile(dir.path, "outside", 100));
    const error = expectCode("OUT_OF_RANGE", () => device.map(file, 50, 51));
    expect(error.message).toContain("[50, 101)");
    for (const [offset, length] of [
      [101, 0],
      [-1, 5],
      [0.5, 5],
      [0, Number.NaN],
      [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
    ] as const) {
      expectCode("OUT_OF_RANGE", () => device.map(file, offset, length));
    }
  });

  test("cannot be written to", () => {
    using file = device.openFile(patternFile(dir.path, "read-only", 100));
    using mapping = expectMapped(device.map(file, 0, 100));
    using buffer = device.createBuffer(100);
    const reads = listOf((list) => list.read(file, 0, mapping, 0, 10));
    expect(expectCode("BAD_OPTION", () => queue.submit(reads)).message).toContain("read-only");
    const copies = listOf((list) => list.copy(buffer, 0, mapping, 0, 10));
    expect(expectCode("BAD_OPTION", () => queue.submit(copies)).message).toContain("read-only");
  });

  test("a file that shrank gives an error and not a fault", () => {
    const path = patternFile(dir.path, "shrinks", 50_000);
    using file = device.openFile(path);
    using mapping = expectMapped(device.map(file, 0, 50_000));
    using buffer = device.createBuffer(50_000);
    expect(mapping.view(0, 50_000).byteLength).toBe(50_000);
    truncateSync(path, 10_000);
    const error = expectCode("FILE_CHANGED", () => mapping.view(0, 10));
    expect(error.message).toContain("10000");
    expect(error.message).toContain("50000");
    expectCode("FILE_CHANGED", () =>
      queue.submit(listOf((list) => list.copy(mapping, 0, buffer, 0, 50_000))),
    );
    expectCode("FILE_CHANGED", () => device.map(file, 0, 50_000));
    expectCode("FILE_CHANGED", () => file.checkLength());
    file.close();
    expectCode("FILE_CHANGED", () => mapping.view(0, 10));
  });

  if (!subject.movesData) return;

  test("copies out of a mapping are the file's bytes", async () => {
    const length = 5 * 2 ** 20 + 3;
    using file = device.openFile(patternFile(dir.path, "copied", length + 11, 6));
    using mapping = expectMapped(device.map(file, 11, length));
    using buffer = device.createBuffer(length);
    await runWell(queue, (list) => list.copy(mapping, 0, buffer, 0, length));
    expectBytes(bytesOf(buffer), pattern(length + 11, 6).subarray(11));
  });

  test("a mapping is written to a file", async () => {
    using file = device.openFile(patternFile(dir.path, "origin", 70_000, 8));
    using mapping = expectMapped(device.map(file, 3, 60_000));
    using target = device.openFile(`${dir.path}/duplicate`, "write");
    await runWell(queue, (list) => list.write(mapping, 0, target, 0, 60_000));
    expectBytes(target.readSync(0, 60_000), pattern(70_000, 8).subarray(3, 60_003));
  });

  test("a file that shrinks while a copy waits fails that copy", async () => {
    const path = patternFile(dir.path, "shrinks-later", 50_000);
    using file = device.openFile(path);
    using mapping = expectMapped(device.map(file, 0, 50_000));
    using buffer = device.createBuffer(50_000);
    using event = device.createEvent();
    const ticket = queue.submit(listOf((list) => list.wait(event, 1).copy(mapping, 0, buffer, 0, 50_000)));
    truncateSync(path, 100);
    event.signal(1);
    const { error } = await queue.completion(ticket);
    expect(error?.code).toBe("FILE_CHANGED");
  });
}
