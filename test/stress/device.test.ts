import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Completion } from "../../src/device/device.ts";
import { openHost } from "../../src/device/host/device.ts";
import { RequestList } from "../../src/device/requests.ts";
import { bytesOf, expectBytes, expectMapped, pattern, patternFile, tempDir } from "../conformance/harness.ts";
import { collect, openDescriptors, openMappings, virtualKilobytes } from "../conformance/process.ts";

let dir: ReturnType<typeof tempDir>;
beforeAll(() => {
  dir = tempDir();
});
afterAll(() => dir[Symbol.dispose]());

test("10,000 files, mappings and buffers leave nothing behind", async () => {
  const path = patternFile(dir.path, "cycles", 50_000);
  const device = openHost();
  const before = { descriptors: openDescriptors(), mappings: openMappings(dir.path) };
  const memory = virtualKilobytes();
  for (let cycle = 0; cycle < 10_000; cycle++) {
    using file = device.openFile(path);
    using mapping = expectMapped(device.map(file, cycle, 10_000));
    using buffer = device.createBuffer(2 ** 30);
    for (let i = 0; i < 5; i++) mapping.view(i, 10);
    new Uint8Array(buffer.view(2 ** 29, 10))[0] = 1;
  }
  expect({ descriptors: openDescriptors(), mappings: openMappings(dir.path) }).toEqual(before);
  expect(virtualKilobytes() - memory).toBeLessThan(2 ** 20);
  expect(device.openResources).toBe(0);
  await device.close();
});

test("10,000 devices opened and closed, 100 of them after work", async () => {
  const path = patternFile(dir.path, "devices", 100_000);
  const work = async () => {
    const device = openHost();
    const queue = device.createQueue();
    const buffer = device.createBuffer(100_000);
    const list = new RequestList().read(device.openFile(path), 0, buffer, 0, 100_000);
    expect((await queue.completion(queue.submit(list))).error).toBeUndefined();
    await device.close();
  };
  await work();
  const before = openDescriptors();
  for (let cycle = 0; cycle < 10_000; cycle++) {
    if (cycle % 100 === 0) await work();
    else await openHost().close();
  }
  await collect(() => openDescriptors() <= before);
  expect(openDescriptors()).toBeLessThanOrEqual(before);
});

test("random work under garbage collection, cancels and deadlines: each ticket ends once, good ones with their bytes", async () => {
  const size = 2 * 2 ** 20;
  const path = patternFile(dir.path, "random", size);
  const bytes = pattern(size);
  const device = openHost({ lanes: 3, ringEntries: 32, pieceBytes: 65_536, inlineCopyBytes: 4096 });
  const queue = device.createQueue();
  const seed = Date.now() % 2 ** 31;
  let state = seed;
  const random = (bound: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return (state >>> 8) % bound;
  };
  let ended = 0;
  const check = async (ticket: number, done: Promise<Completion>, verify: () => void) => {
    const { error } = await done;
    ended++;
    if (error === undefined) verify();
    else expect(["CANCELLED", "TIMED_OUT"]).toContain(error.code);
    await queue.quiesced(ticket);
  };
  const checks: Promise<void>[] = [];
  for (let round = 0; round < 4000; round++) {
    const file = device.openFile(path);
    const mapping = expectMapped(device.map(file, 0, size));
    const offset = random(size);
    const length = random(size - offset);
    const target = device.createBuffer(length + 1);
    const list = new RequestList();
    if (round % 2 === 0) list.read(file, offset, target, 0, length);
    else list.copy(mapping, offset, target, 0, length);
    const ticket = queue.submit(list, random(4) === 0 ? { timeoutMs: random(5) } : {});
    file.close();
    mapping.close();
    if (random(5) === 0) queue.cancel(ticket);
    checks.push(
      check(ticket, queue.completion(ticket), () => {
        expectBytes(bytesOf(target, 0, length), bytes.subarray(offset, offset + length));
        target.close();
      }),
    );
    if (round % 50 === 49) Bun.gc(round % 200 === 199);
    if (checks.length >= 20) await checks.shift();
  }
  await Promise.all(checks).catch((error: unknown) => {
    throw new Error(`seed ${seed}`, { cause: error });
  });
  expect(ended).toBe(4000);
  await device.close();
  expect(device.openResources).toBe(0);
  expect(openMappings(dir.path)).toBe(0);
});
