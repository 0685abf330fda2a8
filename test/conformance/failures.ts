/** Bad requests, bad files and failing disks: a code and numbers each, and nothing else. */
import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Device, DeviceBuffer, DeviceQueue } from "../../src/device/device.ts";
import { diskFaultCases } from "./disk-faults.ts";
import {
  expectCode,
  expectFailed,
  listOf,
  patternFile,
  run,
  runWell,
  type Subject,
  type TempDir,
  useRig,
} from "./harness.ts";

/** Whether `create` gives a buffer, which is closed at once. */
function canAllocate(create: () => DeviceBuffer): boolean {
  try {
    create().close();
    return true;
  } catch {
    return false;
  }
}

export function failureCases(subject: Subject): void {
  let dir: TempDir;
  let device: Device;
  let queue: DeviceQueue;
  useRig(subject, (rig) => {
    ({ dir, device, queue } = rig);
  });

  test("files that are not there or no files", () => {
    const missing = join(dir.path, "missing");
    expect(expectCode("SOURCE_NOT_FOUND", () => device.openFile(missing)).message).toContain(missing);
    const inside = join(patternFile(dir.path, "plain", 10), "inside");
    expectCode("SOURCE_NOT_FOUND", () => device.openFile(inside));
    expectCode("SOURCE_NOT_FOUND", () => device.openFile(join(dir.path, "no", "dir"), "write"));
    mkdirSync(join(dir.path, "directory"));
    const directory = join(dir.path, "directory");
    expect(expectCode("SOURCE_UNREADABLE", () => device.openFile(directory)).message).toContain("directory");
    expectCode("SOURCE_UNREADABLE", () => device.openFile(directory, "write"));
    expectCode("SOURCE_UNREADABLE", () => device.openFile("/dev/zero"));
    expectCode("SOURCE_UNREADABLE", () => device.openFile(join(dir.path, "x".repeat(300))));
    expectCode("BAD_OPTION", () => device.openFile(""));
    expectCode("BAD_OPTION", () => device.openFile("a\0b"));
    expectCode("BAD_OPTION", () => device.openFile(missing, "append" as "write"));
  });

  test("a pipe is refused without waiting for its other end", () => {
    const pipe = join(dir.path, "pipe");
    expect(Bun.spawnSync(["mkfifo", pipe]).exitCode).toBe(0);
    const started = performance.now();
    expect(expectCode("SOURCE_UNREADABLE", () => device.openFile(pipe)).message).toContain("pipe");
    expectCode("SOURCE_UNREADABLE", () => device.openFile(pipe, "write"));
    expect(performance.now() - started).toBeLessThan(1000);
  });

  // Modes mean nothing to root.
  test.skipIf(process.getuid?.() === 0)("a file without permission", () => {
    const path = patternFile(dir.path, "secret", 10);
    chmodSync(path, 0);
    expectCode("SOURCE_UNREADABLE", () => device.openFile(path));
  });

  test("ranges outside files and buffers, and none of the submission runs", () => {
    using file = device.openFile(patternFile(dir.path, "ranges", 1000));
    using buffer = device.createBuffer(1000);
    using event = device.createEvent();
    const max = Number.MAX_SAFE_INTEGER;
    const bad = [
      [0, 0, 1001],
      [1, 0, 1000],
      [0, 1, 1000],
      [1001, 0, 0],
      [-1, 0, 1],
      [0, -1, 1],
      [0, 0, -1],
      [0.5, 0, 1],
      [0, 0, 1.5],
      [Number.NaN, 0, 1],
      [0, 0, Number.POSITIVE_INFINITY],
      [max, 0, max],
      [0, max, 10],
    ] as const;
    for (const [from, to, length] of bad) {
      const code = "OUT_OF_RANGE";
      expectCode(code, () =>
        queue.submit(listOf((list) => list.signal(event, 1).read(file, from, buffer, to, length))),
      );
      expectCode(code, () => queue.submit(listOf((list) => list.copy(buffer, from, buffer, to, length))));
    }
    expect(event.value).toBe(0);
    expect(queue.inFlight).toBe(0);
    expectCode("OUT_OF_RANGE", () => buffer.view(1, 1000));
    expectCode("OUT_OF_RANGE", () => buffer.view(0, -1));
    expectCode("OUT_OF_RANGE", () => device.createBuffer(-1));
    expectCode("OUT_OF_RANGE", () => device.createBuffer(1.5));
    expectCode("OUT_OF_RANGE", () => device.createBuffer(device.capabilities.maxBufferLength + 1));
    // A device may have as much memory, and a system may promise more than it has.
    const most = () => device.createBuffer(device.capabilities.maxBufferLength);
    if (!canAllocate(most)) expectCode("OUT_OF_MEMORY", most);
    expectCode("BAD_OPTION", () => device.createBuffer(1, "public" as "shared"));
  });

  test("requests of the wrong kind", () => {
    using file = device.openFile(patternFile(dir.path, "kinds", 1000));
    using buffer = device.createBuffer(1000);
    using event = device.createEvent();
    const lists = [
      listOf((list) => list.read(buffer as never, 0, buffer, 0, 1)),
      listOf((list) => list.read(file, 0, file as never, 0, 1)),
      listOf((list) => list.copy(file as never, 0, buffer, 0, 1)),
      listOf((list) => list.copy(event as never, 0, buffer, 0, 1)),
      listOf((list) => list.signal(buffer as never, 1)),
      listOf((list) => list.write(buffer, 0, file, 0, 1)),
      listOf((list) => list.copy(buffer, 0, buffer, 10, 20)),
      listOf((list) => list.copy({} as never, 0, buffer, 0, 1)),
      listOf((list) => list.copy(undefined as never, 0, buffer, 0, 1)),
    ];
    const unknown = listOf((list) => list.copy(buffer, 0, buffer, 500, 20));
    unknown.numbers[0] = 99;
    for (const list of [...lists, unknown]) expectCode("BAD_OPTION", () => queue.submit(list));
  });

  test("small reads of metadata", () => {
    using file = device.openFile(patternFile(dir.path, "sync", 1000));
    expect(file.readSync(1000, 0).length).toBe(0);
    expect(file.readSync(10, 100).length).toBe(100);
    const error = expectCode("SHORT_READ", () => file.readSync(990, 20));
    expect(error.message).toContain("10 of 20");
    expectCode("SHORT_READ", () => file.readSync(5000, 2 ** 50));
    expectCode("OUT_OF_RANGE", () => file.readSync(-1, 1));
    expectCode("OUT_OF_RANGE", () => file.readSync(0, Number.NaN));
  });

  if (!subject.movesData) return;

  test("a kernel without a form for this device", () => {
    const error = expectCode("UNSUPPORTED", () => device.createPipeline({ name: "formless" }));
    expect(error.message).toContain("formless");
  });

  test("a file that shrank gives SHORT_READ with the numbers", async () => {
    const path = patternFile(dir.path, "shrinks", 100_000);
    using file = device.openFile(path);
    using buffer = device.createBuffer(100_000);
    truncateSync(path, 60_000);
    const error = expectFailed(
      await run(queue, (list) => list.read(file, 50_000, buffer, 0, 40_000)),
      "SHORT_READ",
    );
    expect(error.message).toContain("[50000, 90000)");
    expect(error.message).toContain("10000 of 40000");
    expectCode("FILE_CHANGED", () => file.checkLength());
    await runWell(queue, (list) => list.read(file, 0, buffer, 0, 60_000));
  });

  test("the first failure wins, and the ticket fails as a whole", async () => {
    const path = patternFile(dir.path, "first", 1000);
    using file = device.openFile(path);
    using buffer = device.createBuffer(200_000);
    using event = device.createEvent();
    truncateSync(path, 10);
    const completion = await run(queue, (list) => {
      for (let i = 0; i < 200; i++) list.read(file, 0, buffer, i * 1000, 1000);
      list.signal(event, 1);
    });
    expectFailed(completion, "SHORT_READ");
    expect(event.value).toBe(0);
    writeFileSync(path, new Uint8Array(1000));
    await runWell(queue, (list) => list.read(file, 0, buffer, 0, 1000));
  });

  if (subject.openWithFaults !== undefined) {
    const open = subject.openWithFaults.bind(subject);
    describe("of a failing disk", () => diskFaultCases(open));
  }
}
