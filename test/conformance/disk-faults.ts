/** What disks do once in years, by injected faults. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import type { Device } from "../../src/device/device.ts";
import {
  bytesOf,
  expectBytes,
  expectCode,
  expectFailed,
  expectMapped,
  type InjectedFault,
  listOf,
  pattern,
  patternFile,
  run,
  runWell,
  tempDir,
  withDevice,
} from "./harness.ts";
import { openMappings } from "./process.ts";

export function diskFaultCases(open: (faults: readonly InjectedFault[]) => Device): void {
  let dir: ReturnType<typeof tempDir>;
  let source: string;
  const size = 100_000;
  beforeAll(() => {
    dir = tempDir();
    source = patternFile(dir.path, "source", size);
  });
  afterAll(() => dir[Symbol.dispose]());

  test("interrupted and short reads are carried on with", () =>
    withDevice(
      open([
        { call: "pread", nth: 1, times: 3, errno: "EINTR" },
        { call: "pread", nth: 4, times: 20, short: 1000 },
      ]),
      async (device) => {
        using file = device.openFile(source);
        using buffer = device.createBuffer(size);
        const completion = await runWell(device.createQueue(), (list) => list.read(file, 0, buffer, 0, size));
        expect(completion.bytesDone).toBe(size);
        expectBytes(bytesOf(buffer), pattern(size));
        expectBytes(file.readSync(5, 50), pattern(size).subarray(5, 55));
      },
    ));

  test("interrupted and short writes are carried on with", () =>
    withDevice(
      open([
        { call: "pwrite", nth: 1, times: 3, errno: "EINTR" },
        { call: "pwrite", nth: 4, times: 20, short: 1000 },
        { call: "sync", nth: 1, times: 2, errno: "EINTR" },
      ]),
      async (device) => {
        using file = device.openFile(join(dir.path, "short-writes"), "write");
        using buffer = device.createBuffer(size);
        new Uint8Array(buffer.view(0, size)).set(pattern(size));
        await runWell(device.createQueue(), (list) =>
          list.write(buffer, 0, file, 0, size).barrier().sync(file),
        );
        expectBytes(file.readSync(0, size), pattern(size));
      },
    ));

  test("a read error names the file, the range and the error", () =>
    withDevice(open([{ call: "pread", nth: 2, errno: "EIO" }]), async (device) => {
      using file = device.openFile(source);
      using buffer = device.createBuffer(size);
      const queue = device.createQueue();
      await runWell(queue, (list) => list.read(file, 0, buffer, 0, 10));
      const error = expectFailed(
        await run(queue, (list) => list.read(file, 100, buffer, 0, 500)),
        "IO_ERROR",
      );
      for (const part of [source, "[100, 600)", "EIO"]) expect(error.message).toContain(part);
      await runWell(queue, (list) => list.read(file, 0, buffer, 0, size));
      expectBytes(bytesOf(buffer), pattern(size));
    }));

  test("a synchronous read meets errors and early ends too", () =>
    withDevice(
      open([
        { call: "pread", nth: 1, errno: "EIO" },
        { call: "pread", nth: 2, short: 0 },
      ]),
      async (device) => {
        using file = device.openFile(source);
        expectCode("IO_ERROR", () => file.readSync(0, 10));
        expectCode("SHORT_READ", () => file.readSync(0, 10));
        expect(file.readSync(0, 10).length).toBe(10);
      },
    ));

  test("a full disk, a failed sync, and no memory", () =>
    withDevice(
      open([
        { call: "pwrite", nth: 1, errno: "ENOSPC" },
        { call: "sync", nth: 1, errno: "EIO" },
        { call: "pread", nth: 1, errno: "ENOMEM" },
        { call: "pwrite", nth: 2, short: 0 },
      ]),
      async (device) => {
        using file = device.openFile(join(dir.path, "full"), "write");
        using buffer = device.createBuffer(1000);
        const queue = device.createQueue();
        const write = () => run(queue, (list) => list.write(buffer, 0, file, 0, 1000));
        expect(expectFailed(await write(), "DISK_FULL").message).toContain("ENOSPC");
        expectFailed(await run(queue, (list) => list.sync(file)), "IO_ERROR");
        expectFailed(await write(), "IO_ERROR");
        expect((await write()).error).toBeUndefined();
        expectFailed(await run(queue, (list) => list.read(file, 0, buffer, 0, 1000)), "OUT_OF_MEMORY");
      },
    ));

  test("a hanging disk does not hold up the deadline, and memory stays until it answers", () =>
    withDevice(open([{ call: "pread", nth: 2, delayMs: 300 }]), async (device) => {
      using file = device.openFile(source);
      const mapping = expectMapped(device.map(file, 0, size));
      const buffer = device.createBuffer(size);
      const queue = device.createQueue();
      // A lane that still starts would meet the deadline before the disk.
      await run(queue, (list) => list.read(file, 0, buffer, 0, 1));
      const completion = await run(
        queue,
        (list) =>
          list.read(file, 0, buffer, 0, size).wait(device.createEvent(), 1).copy(mapping, 0, buffer, 0, 1),
        { timeoutMs: 50 },
      );
      expectFailed(completion, "TIMED_OUT");
      expect(completion.completedMs - completion.submittedMs).toBeLessThan(250);
      expect(queue.inFlight).toBe(0);
      let quiet = false;
      const quiesced = queue.quiesced(completion.ticket).then(() => {
        quiet = true;
      });
      buffer.close();
      mapping.close();
      await Bun.sleep(1);
      expect(quiet).toBe(false);
      const stillMapped = openMappings(dir.path);
      await quiesced;
      expect(performance.now() - completion.submittedMs).toBeGreaterThan(280);
      if (process.platform === "linux") expect([stillMapped, openMappings(dir.path)]).toEqual([1, 0]);
    }));

  test("cancel and close let a hanging read go, and skip what has not started", () =>
    withDevice(open([{ call: "pread", nth: 1, times: 64, delayMs: 60 }]), async (device) => {
      using file = device.openFile(source);
      using buffer = device.createBuffer(size);
      const queue = device.createQueue();
      const list = listOf((requests) => {
        for (let i = 0; i < 90; i++) requests.read(file, i * 1000, buffer, i * 1000, 1000);
      });
      const started = performance.now();
      const first = queue.submit(list);
      const second = queue.submit(list);
      await Bun.sleep(20);
      queue.cancel(first);
      expectFailed(await queue.completion(first), "CANCELLED");
      await queue.close();
      expectFailed(await queue.completion(second), "CANCELLED");
      await queue.quiesced(first);
      // All reads would take 64 delays of 60 ms, by four lanes at best.
      expect(performance.now() - started).toBeLessThan(700);
    }));
}
