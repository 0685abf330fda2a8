/** How completions come to JavaScript: the try at the start, the fallback, and what an idle device costs. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, constants, openSync } from "node:fs";
import { join } from "node:path";
import type { Device } from "../../src/device/device.ts";
import { MetalDevice } from "../../src/device/metal/device.ts";
import { readDeviceInfo } from "../../src/device/metal/info.ts";
import { loadLibrary } from "../../src/device/metal/library.ts";
import { encodeOptions } from "../../src/device/metal/options.ts";
import { openDevice } from "../../src/device/open.ts";
import { listOf, patternFile, run, runWell, tempDir } from "./harness.ts";
import { metalLibrary } from "./metal-subjects.ts";

const library = metalLibrary();
const reason = "missing" in library ? ` (left out: ${library.missing})` : "";
let dir: ReturnType<typeof tempDir>;
beforeAll(() => {
  dir = tempDir();
});
afterAll(() => dir[Symbol.dispose]());

async function wayOf(device: Device): Promise<unknown> {
  for (let wait = 0; wait < 400 && device.facts.completions === "testing"; wait++) await Bun.sleep(5);
  return device.facts.completions;
}

/** A device whose wake-up descriptor is one that never becomes readable. */
function openDeaf(fd: number): Device {
  const loaded = loadLibrary(undefined);
  const handle = new Uint32Array(new ArrayBuffer(8));
  const status = loaded.symbols.hr_device_open(
    0,
    encodeOptions({}),
    handle,
    new Int32Array(new ArrayBuffer(8)),
    null,
  );
  expect(status).toBe(0);
  const info = readDeviceInfo(loaded.symbols, handle[0]!);
  return new MetalDevice({ library: loaded, handle: handle[0]!, wakeFd: fd, info }, {});
}

describe.skipIf("missing" in library)(`completions of metal${reason}`, () => {
  test("by the socket, where its wake-up is seen", async () => {
    const device = openDevice("metal");
    expect(await wayOf(device)).toBe("wake");
    await device.close();
    expect(device.facts.completions).toBe("wake");
  });

  test("a program that is busy when it opens the device is not taken for one that is deaf", async () => {
    const device = openDevice("metal");
    const until = performance.now() + 700;
    while (performance.now() < until);
    expect(await wayOf(device)).toBe("wake");
    await device.close();
  });

  test("by a Worker where no wake-up comes, with work done meanwhile and after", async () => {
    const pipe = join(dir.path, "deaf");
    expect(Bun.spawnSync(["mkfifo", pipe]).exitCode).toBe(0);
    const fd = openSync(pipe, constants.O_RDWR | constants.O_NONBLOCK);
    const device = openDeaf(fd);
    const queue = device.createQueue();
    const path = patternFile(dir.path, "read-deaf", 100_000);
    using file = device.openFile(path);
    using buffer = device.createBuffer(100_000);
    const read = () => runWell(queue, (list) => list.read(file, 0, buffer, 0, 100_000));
    const started = performance.now();
    await read();
    expect(performance.now() - started).toBeLessThan(200);
    expect(device.facts.completions).toBe("testing");
    expect(await wayOf(device)).toBe("worker");
    for (let i = 0; i < 100; i++) await read();
    await device.close();
    closeSync(fd);
  });

  test("what ends within the call is done when it returns, and times tell so", async () => {
    const device = openDevice("metal");
    const queue = device.createQueue();
    using buffer = device.createBuffer(8192);
    const list = listOf((requests) => requests.copy(buffer, 0, buffer, 4096, 4096));
    const before = performance.now();
    for (let i = 0; i < 1000; i++) queue.submit(list);
    expect(queue.inFlight).toBe(0);
    const { submittedMs, completedMs, stages } = await queue.completion(1000);
    const after = performance.now();
    for (const ms of [submittedMs, completedMs, stages!.seenMs]) {
      expect(ms).toBeGreaterThan(before - 1);
      expect(ms).toBeLessThan(after + 1);
    }
    expect(completedMs).toBeGreaterThanOrEqual(submittedMs);
    await device.close();
  });

  test("a read tells its stages in order, on the clock of performance.now()", async () => {
    const device = openDevice("metal");
    using file = device.openFile(patternFile(dir.path, "stages", 100_000));
    using buffer = device.createBuffer(100_000);
    const before = performance.now();
    const { stages } = await run(device.createQueue(), (list) => list.read(file, 0, buffer, 0, 100_000));
    const moments = [
      before,
      stages!.submittedMs,
      stages!.startedMs!,
      stages!.endedMs,
      stages!.seenMs,
      performance.now(),
    ];
    // The two clocks are read apart, by less than this.
    for (let i = 1; i < moments.length; i++) expect(moments[i]! - moments[i - 1]!).toBeGreaterThan(-0.2);
    expect(stages!.gpuStartMs).toBeUndefined();
    await device.close();
  });

  test.each([["wake"], ["worker"]] as const)("an idle device costs nothing (%s)", async (completions) => {
    const device = openDevice("metal", { completions });
    const queue = device.createQueue();
    using event = device.createEvent();
    const waiting = queue.submit(listOf((list) => list.wait(event, 1)));
    await runWell(queue, () => {});
    await Bun.sleep(300);
    // The engine's own collecting and compiling comes in between now and then; a device that polls costs every time.
    let least = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 3 && least >= 20_000; round++) {
      const before = process.cpuUsage();
      await Bun.sleep(1000);
      const { user, system } = process.cpuUsage(before);
      least = Math.min(least, user + system);
    }
    expect(least / 1000).toBeLessThan(20);
    event.signal(1);
    expect((await queue.completion(waiting)).error).toBeUndefined();
    await device.close();
  });
});
