import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Capabilities, DeviceFile } from "../../src/device/device.ts";
import { openDevice } from "../../src/device/open.ts";
import { openDataset } from "../../src/loader/open.ts";
import { choosePath, mayPass } from "../../src/loader/path.ts";
import {
  foreignReason,
  machineHere,
  parseRecommended,
  type Recommended,
} from "../../src/loader/recommended.ts";
import { saveSafetensors } from "../../src/loader/save.ts";
import { failureOf } from "../unit/failure.ts";

const folder = mkdtempSync(join(tmpdir(), "headrace-recommended-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const here = machineHere();
const FIGURES: Recommended = {
  version: 1,
  date: "2026-11-22T12:00:00.000Z",
  device: "host",
  disk: "ext4 on /dev/vda",
  machine: here,
  cold: { strategy: "map", gigabytesPerSecond: 2.5, otherGigabytesPerSecond: 1.25 },
  warm: { strategy: "read", gigabytesPerSecond: 30, otherGigabytesPerSecond: 20 },
};

const device = { name: "host", canMap: true, unifiedMemory: true, workingSet: 1000 } as Capabilities;
const file = (residentPart?: number, byteLength = 100) =>
  ({ byteLength, residentPart: residentPart === undefined ? undefined : () => residentPart }) as DeviceFile;

describe("auto", () => {
  test("goes by what was measured, and says the figures", () => {
    expect(choosePath("auto", device, file(0), FIGURES)).toEqual({
      strategy: "map",
      reason: "most of it is not in memory: measured here, map 2.50 GB/s, read 1.25",
    });
    expect(choosePath("auto", device, file(1), FIGURES)).toEqual({
      strategy: "read",
      reason: "it is in memory already: measured here, read 30.0 GB/s, map 20.0",
    });
  });

  test("goes by its rule where nothing was", () => {
    expect(choosePath("auto", device, file(0), {}).strategy).toBe("read");
    expect(choosePath("auto", device, file(1), { cold: FIGURES.cold }).strategy).toBe("map");
  });

  test("keeps to what the device can, and to what was asked for", () => {
    expect(choosePath("auto", { ...device, canMap: false }, file(0), FIGURES).strategy).toBe("read");
    expect(choosePath("auto", device, file(0, 2000), FIGURES).strategy).toBe("read");
    expect(choosePath("auto", device, file(), FIGURES).reason).toBe("the device maps it");
    expect(choosePath("read", device, file(0), FIGURES).reason).toBe("asked for");
  });

  test("looks again only at what is read for being cold", () => {
    const cold = { cold: { strategy: "read", gigabytesPerSecond: 2, otherGigabytesPerSecond: 1 } } as const;
    expect(mayPass(choosePath("auto", device, file(0)))).toBe(true);
    expect(mayPass(choosePath("auto", device, file(0), cold))).toBe(true);
    expect(mayPass(choosePath("auto", device, file(0), FIGURES))).toBe(false);
    expect(mayPass(choosePath("auto", device, file(1), FIGURES))).toBe(false);
    expect(mayPass(choosePath("auto", device, file(0, 2000)))).toBe(false);
  });
});

describe("figures", () => {
  test.each([
    ["another device", { device: "metal" }, /^they are of device metal, and this is host$/],
    ["another processor", { machine: { ...here, cpu: "Apple M3 Max" } }, /processor Apple M3 Max, here /],
    ["more cores", { machine: { ...here, cores: here.cores + 1 } }, /cores/],
    ["more memory", { machine: { ...here, memoryBytes: here.memoryBytes * 2 } }, /bytes of memory/],
    ["another architecture", { machine: { ...here, arch: "riscv64" } }, /architecture riscv64/],
  ])("of %s do not hold", (_, change, reason) => {
    expect(foreignReason({ ...FIGURES, ...change }, here, "host")).toMatch(reason);
  });

  test("hold here, also with a little more memory or a processor without a name", () => {
    expect(foreignReason(FIGURES, here, "host")).toBeUndefined();
    const more = { ...here, memoryBytes: Math.round(here.memoryBytes * 1.01), cpu: "unknown" };
    expect(foreignReason({ ...FIGURES, machine: more }, here, "host")).toBeUndefined();
  });

  test("of a GPU hold for a device with its name", () => {
    const gpu: Recommended = { ...FIGURES, device: "cuda", machine: { ...here, gpu: "NVIDIA H100" } };
    expect(foreignReason(gpu, here, "NVIDIA H100")).toBeUndefined();
    expect(foreignReason(gpu, here, "NVIDIA H200")).toMatch(/of device NVIDIA H100, and this is NVIDIA H200/);
  });

  test.each([
    ["no JSON", "{", /^no JSON: /],
    ["another version", JSON.stringify({ ...FIGURES, version: 2 }), /^version: /],
    [
      "an unknown strategy",
      JSON.stringify({ ...FIGURES, cold: { ...FIGURES.cold, strategy: "stream" } }),
      /^cold\.strategy: /,
    ],
    [
      "a rate of nothing",
      JSON.stringify({ ...FIGURES, warm: { ...FIGURES.warm, gigabytesPerSecond: 0 } }),
      /^warm\.giga/,
    ],
    ["nothing", "null", /^the whole: /],
  ])("with %s are refused", (_, text, message) => {
    const failure = failureOf(() => parseRecommended(text));
    expect(failure.code).toBe("BAD_RESULTS");
    expect(failure.message).toMatch(message);
    expect(failure.message).toEndWith("make it again by 'headrace bench recommend RESULTS --save FILE'");
  });

  test("come through a file as they are", () => {
    expect(parseRecommended(JSON.stringify(FIGURES))).toEqual(FIGURES);
  });
});

test("a dataset opens its shards by figures of this machine, and not by others", async () => {
  const path = join(folder, "a.safetensors");
  saveSafetensors(path, [{ name: "a", dtype: "F32", shape: [1024], data: new Uint8Array(4096) }]);
  await using host = openDevice("host");
  const open = (recommended: Recommended, strategy: "auto" | "map" = "auto") => {
    using dataset = openDataset(path, host, { recommended, strategy });
    dataset.describe(0);
    return { measured: dataset.measured, path: [...dataset.paths.values()][0]! };
  };
  const used = open(FIGURES);
  expect(used.measured).toEqual({
    used: true,
    reason: "measured on 2026-11-22T12:00:00.000Z on ext4 on /dev/vda",
  });
  expect(used.path).toMatchObject({ strategy: "read", reason: expect.stringContaining("measured here") });
  const foreign = open({ ...FIGURES, device: "metal" });
  expect(foreign.measured).toEqual({ used: false, reason: "they are of device metal, and this is host" });
  expect(foreign.path).toEqual({ strategy: "map", reason: "it is in memory already" });
  expect(open(FIGURES, "map")).toEqual({
    measured: undefined,
    path: { strategy: "map", reason: "asked for" },
  });
});
