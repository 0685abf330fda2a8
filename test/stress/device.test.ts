import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { openHost } from "../../src/device/host/device.ts";
import { RequestList } from "../../src/device/requests.ts";
import { expectMapped, patternFile, tempDir } from "../conformance/harness.ts";
import { collect, openDescriptors, openMappings, virtualKilobytes } from "../conformance/process.ts";
import { EXITS, expectExit, workAtRandom } from "./work.ts";

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
  // Fewer where pipes of processes that a test before this one started were still open.
  expect(openDescriptors()).toBeLessThanOrEqual(before.descriptors);
  expect(openMappings(dir.path)).toBe(before.mappings);
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
  const device = openHost({ lanes: 3, ringEntries: 32, pieceBytes: 65_536, inlineCopyBytes: 4096 });
  await workAtRandom(device, { folder: dir.path, byteLength: 2 * 2 ** 20, rounds: 4000 });
  await device.close();
  expect(device.openResources).toBe(0);
  expect(openMappings(dir.path)).toBe(0);
});

describe("processes that end with host open", () => {
  for (const exit of EXITS) test(exit[0], () => expectExit(exit, dir.path, "host"));
});
