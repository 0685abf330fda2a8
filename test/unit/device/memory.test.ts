import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Device, DeviceBuffer } from "../../../src/device/device.ts";
import { isDeclined } from "../../../src/device/device.ts";
import { openHost } from "../../../src/device/host/device.ts";
import { Syscalls } from "../../../src/device/host/syscalls.ts";
import { collect, openMappings, virtualKilobytes } from "../../conformance/process.ts";

let dir: string;
let path: string;
let device: Device;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "headrace-memory-"));
  path = join(dir, "file");
  writeFileSync(path, new Uint8Array(4 * 2 ** 20).fill(9));
  device = openHost();
});
afterAll(async () => {
  await device.close();
  rmSync(dir, { recursive: true, force: true });
});

function mapped(length: number): DeviceBuffer {
  using file = device.openFile(path);
  const mapping = device.map(file, 0, length);
  if (isDeclined(mapping)) throw new Error(mapping.declined);
  return mapping;
}

test.skipIf(process.platform !== "linux")("buffers that were forgotten give their memory back", async () => {
  const before = virtualKilobytes();
  const forget = () => {
    for (let i = 0; i < 20; i++) device.createBuffer(2 ** 30).view(0, 10);
  };
  forget();
  expect(virtualKilobytes() - before).toBeGreaterThan(19 * 2 ** 20);
  await collect(() => virtualKilobytes() - before < 2 ** 20);
  expect(virtualKilobytes() - before).toBeLessThan(2 ** 20);
  expect(device.openResources).toBe(0);
});

test.skipIf(process.platform !== "linux")(
  "a subarray alone keeps a mapping, and its end lets it go",
  async () => {
    const holder: { part: Uint8Array | undefined } = { part: undefined };
    const take = () => {
      holder.part = new Uint8Array(mapped(100_000).view(0, 100_000)).subarray(50_000, 50_010);
    };
    take();
    Bun.gc(true);
    await Bun.sleep(20);
    Bun.gc(true);
    expect(openMappings(dir)).toBe(1);
    expect(holder.part?.[0]).toBe(9);
    holder.part = undefined;
    await collect(() => openMappings(dir) === 0);
    expect(openMappings(dir)).toBe(0);
  },
);

test("a hundred thousand views cost no more than the live ones", async () => {
  using mapping = mapped(100_000);
  const kept = new Uint8Array(mapping.view(5, 10));
  const started = performance.now();
  for (let i = 0; i < 100_000; i++) mapping.view(i % 1000, 100).transfer(0);
  expect(performance.now() - started).toBeLessThan(5000);
  mapping.close();
  expect(kept.length).toBe(0);
});

test("will-need brings pages in without being waited for, and close may come first", async () => {
  const syscalls = new Syscalls();
  const length = 4 * 2 ** 20;
  using mapping = mapped(length);
  mapping.advise("will-need", 0, length);
  const pages = length / syscalls.pageSize;
  for (let round = 0; round < 200 && syscalls.residentPages(mapping.hostAddress, length) < pages; round++) {
    await Bun.sleep(5);
  }
  expect(syscalls.residentPages(mapping.hostAddress, length)).toBe(pages);
  for (let round = 0; round < 20; round++) {
    const other = mapped(length);
    other.advise("will-need", 0, length);
    other.close();
  }
});

test("a mapping that the system refuses is declined with the reason", async () => {
  const failing = openHost({ faults: [{ call: "mmap", nth: 1, errno: "ENODEV" }] });
  using file = failing.openFile(path);
  const answer = failing.map(file, 0, 100);
  expect(isDeclined(answer) && answer.declined).toContain("ENODEV");
  expect(isDeclined(failing.map(file, 0, 100))).toBe(false);
  await failing.close();
  expect(failing.openResources).toBe(0);
});

test("an empty buffer is a buffer", () => {
  using buffer = device.createBuffer(0);
  expect(buffer.view(0, 0).byteLength).toBe(0);
  expect(buffer.byteLength).toBe(0);
});
