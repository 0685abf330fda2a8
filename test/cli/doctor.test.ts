import { describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Machine, parseCpuinfo, parseLimit, parseSysctl, publishedRate } from "../../src/cli/machine.ts";
import { labelOf, measureMemory, summarize } from "../../src/cli/rates.ts";
import { remediesFor } from "../../src/cli/remedies.ts";
import { HeadraceError, openDevice } from "../../src/index.ts";
import { double } from "../loader/doubles.ts";
import { headrace, MAIN, ROOT, scratch, spawn, start, waitFor } from "./process.ts";

const folder = scratch();
const SMALL = ["--size", "3MiB", "--memory", "2MiB"];

async function doctor(...args: string[]) {
  const { code, out, err } = await headrace("doctor", "--json", ...args);
  return { code, err, report: JSON.parse(out) };
}

describe("the command", () => {
  test("one JSON object: machine, devices, rates with their spread, what is missing", async () => {
    const { code, err, report } = await doctor(...SMALL, "--folder", folder, "--device", "host");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(report).toMatchObject({
      headrace: "0.1.0",
      machine: { arch: process.arch, bun: Bun.version, memoryBytes: expect.any(Number) },
      rates: { device: "host", disk: { folder, fileBytes: 3 * 2 ** 20, rounds: 5 } },
      missing: expect.any(Array),
    });
    expect(report.devices.map((device: { name: string }) => device.name)).toEqual(["host", "metal", "cuda"]);
    expect(report.devices[0]).toMatchObject({ works: true, capabilities: { name: "host", canMap: true } });
    expect(Object.keys(report.cuda)).toEqual(["driver", "gpus", "nvrtc", "gds"]);
    // One of the two: the part, or why it is not there.
    for (const part of Object.values(report.cuda) as { found: boolean; reason?: string }[]) {
      expect(typeof part.reason).toBe(part.found ? "undefined" : "string");
    }
    const { memory, disk, ratio } = report.rates;
    for (const rate of [memory, disk]) {
      expect(rate.least).toBeGreaterThan(0);
      expect(rate.median).toBeGreaterThanOrEqual(rate.least);
      expect(rate.most).toBeGreaterThanOrEqual(rate.median);
    }
    expect(ratio).toBeCloseTo(memory.median / disk.median, 6);
    if (keepsNothing(folder)) expect(disk).toMatchObject({ label: "cold", residentBefore: 0 });
    else expect(["cold", "may be warm", "warm"]).toContain(disk.label);
    expect(readdirSync(folder)).toEqual([]);
  });

  test("tables for people, with units, and no control characters", async () => {
    const { code, out, err } = await headrace("doctor", ...SMALL, "--device", "host", "--folder", folder);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^ {2}chip +\S/m);
    expect(out).toMatch(/^device host\n {2}works +yes$/m);
    expect(out).toMatch(/^ {2}page size +[\d.]+ kB$/m);
    expect(out).toMatch(/^ {2}memory +[\d.]+ [MGT]B\/s \([\d.]+ [MGT]B to [\d.]+ [MGT]B, 9 rounds\)/m);
    expect(out).toMatch(/^ {2}disk +[\d.]+ [MGT]B\/s .*3\.15 MB in /m);
    expect(out).toMatch(/^ {2}ratio +memory moves [\d.e+]+ bytes for each of the disk's$/m);
    expect(out).not.toContain("\u001b");
  });

  test("--no-rates measures nothing", async () => {
    const { code, report } = await doctor("--no-rates", "--folder", join(folder, "no-such"));
    expect(code).toBe(0);
    expect(report).not.toHaveProperty("rates");
    expect(report.devices[0].works).toBe(true);
  });

  test("a device that does not work here ends with 1 and its reason", async () => {
    const command = [process.execPath, MAIN, "doctor", ...SMALL, "--device", "cuda", "--json"];
    const { code, out } = await spawn(command, ROOT, { HEADRACE_CUDA_LIBRARY: "/nowhere" }).ended;
    expect(code).toBe(1);
    expect(JSON.parse(out)).not.toHaveProperty("rates");
    const { code: usage, err } = await headrace("doctor", "--device", "null");
    expect({ usage, err }).toEqual({ usage: 2, err: expect.stringContaining("Allowed choices are auto") });
  });

  test.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("%s ends it with %d, and no file stays", async (signal, wanted) => {
    const own = mkdtempSync(join(folder, "signal-"));
    const { child, ended } = start(["doctor", "--size", "2GiB", "--memory", "2MiB", "--folder", own]);
    await waitFor("the measurement", () => openFilesOf(child.pid).some((path) => path.startsWith(own)));
    // The file has no name even now, so that not even a kill could leave it behind.
    expect(readdirSync(own)).toEqual([]);
    child.kill(signal);
    const { code, out, err } = await ended;
    expect({ code, out }).toEqual({ code: wanted, out: "" });
    expect(err).toBe("headrace: interrupted; nothing that was measured stays on the disk\n");
    rmSync(own, { recursive: true });
  });

  test("says so where the file system keeps everything in memory", async () => {
    if (process.platform !== "linux" || !existsSync("/dev/shm")) {
      console.log("skipped: no /dev/shm here");
      return;
    }
    const shm = mkdtempSync("/dev/shm/headrace-doctor-test-");
    try {
      const { report } = await doctor(...SMALL, "--device", "host", "--folder", shm);
      expect(report.rates.disk).toMatchObject({ label: "warm", residentBefore: 1 });
      const { out } = await headrace("doctor", ...SMALL, "--device", "host", "--folder", shm);
      expect(out).toContain("NOT measured: the file stayed in memory (100%)");
    } finally {
      rmSync(shm, { recursive: true });
    }
  });
});

/** Whether a file system is known to let the system forget its files. */
function keepsNothing(path: string): boolean {
  if (process.platform !== "linux") return false;
  const type = Bun.spawnSync(["stat", "-f", "-c", "%T", path]).stdout.toString();
  return /^(?:ext2\/ext3|xfs|btrfs)$/.test(type.trim());
}

/** Paths of what a process has open, deleted files too. */
function openFilesOf(pid: number): string[] {
  const { stdout } =
    process.platform === "linux"
      ? Bun.spawnSync(["sh", "-c", `readlink /proc/${pid}/fd/*`])
      : Bun.spawnSync(["lsof", "-Fn", "-p", String(pid)]);
  const lines = stdout.toString().split("\n");
  return lines.map((line) => line.replace(/^n/, ""));
}

const MAC: Machine = {
  system: "macOS 15.1",
  kernel: "24.1.0",
  arch: "arm64",
  chip: "Apple M3 Max",
  cores: 14,
  performanceCores: 10,
  memoryBytes: 36e9,
  bun: "1.4.5",
  openFiles: 10_240,
  translated: false,
  nvidia: false,
};

describe("what is missing", () => {
  const failure = new HeadraceError("DEVICE_UNAVAILABLE", "no libHeadraceMetal.dylib in /a/b");
  const mended = (
    machine: Partial<Machine>,
    metal: unknown = undefined,
    swift = true,
    libraryNamed = false,
  ) =>
    remediesFor({ machine: { ...MAC, ...machine }, metal, libraryNamed, swift, leastBun: "1.4.5" }).map(
      ({ problem, command }) => `${problem} => ${command}`,
    );

  test("nothing on a machine that has all", () => {
    expect(mended({})).toEqual([]);
    expect(mended({ system: "Debian GNU/Linux 12", arch: "x64" }, failure, false)).toEqual([]);
    expect(mended({ openFiles: undefined, bun: "1.10.0" })).toEqual([]);
  });

  test("each thing with the command that mends it", () => {
    expect(mended({}, failure)).toEqual([
      "device metal did not open: no libHeadraceMetal.dylib in /a/b [DEVICE_UNAVAILABLE] => bun run native",
    ]);
    expect(mended({ system: "Debian GNU/Linux 12", arch: "x64" }, failure, true, true)).toHaveLength(1);
    const named = new HeadraceError("DEVICE_UNAVAILABLE", "/a/b is not there; correct it");
    expect(mended({}, named, false, true)).toEqual([
      "device metal did not open: /a/b is not there; correct it [DEVICE_UNAVAILABLE] => unset HEADRACE_METAL_LIBRARY",
    ]);
    const swift = new HeadraceError("DEVICE_UNAVAILABLE", "no libswiftCore: `scripts/linux-swift`");
    expect(mended({ system: "Debian" }, swift, true, true)[0]).toEndWith(
      "=> scripts/linux-swift npx bun run doctor",
    );
    expect(mended({}, failure, false)[0]).toBe("there is no Swift compiler => xcode-select --install");
    expect(mended({ system: "macOS 13.6.1" }, failure)).toEqual([
      "device metal needs macOS 14 or later, and this is macOS 13.6.1 => softwareupdate --list",
    ]);
    expect(mended({ arch: "x64" }, failure)[0]).toMatch(/needs a Mac with Apple silicon.* => undefined$/);
    expect(mended({ arch: "x64", translated: true }, failure)[0]).toContain("arch -arm64 npm install");
    expect(mended({ bun: "1.4.4" })).toEqual(["Bun is 1.4.4, and 1.4.5 is needed => npm install"]);
    expect(mended({ openFiles: 256 })[0]).toMatch(/may open 256 files.* => ulimit -n 4096$/);
  });
});

describe("what the system says", () => {
  test("sysctl, cpuinfo and ulimit", () => {
    const map = parseSysctl("machdep.cpu.brand_string: Apple M4 Pro\nkern.osproductversion: 15.1\n\n");
    expect([...map]).toEqual([
      ["machdep.cpu.brand_string", "Apple M4 Pro"],
      ["kern.osproductversion", "15.1"],
    ]);
    expect(parseSysctl("").size).toBe(0);
    expect(parseCpuinfo("processor\t: 0\nmodel name\t: Xeon (R)\nmodel name\t: other\n")).toBe("Xeon (R)");
    expect(parseCpuinfo("processor : 0\nBogoMIPS : 48\n")).toBeUndefined();
    expect([parseLimit("256\n"), parseLimit("unlimited\n"), parseLimit("")]).toEqual([
      256,
      undefined,
      undefined,
    ]);
  });

  test("published rates are those of the very chip", () => {
    expect(publishedRate("Apple M1")).toEqual({ least: 68.25e9, most: 68.25e9 });
    expect(publishedRate("Apple M4 Max")).toEqual({ least: 410e9, most: 546e9 });
    expect([publishedRate("Apple M99"), publishedRate("Intel"), publishedRate(undefined)]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
  });
});

describe("rates", () => {
  test("median, least and most of an odd and an even number", () => {
    expect(summarize([3, 1, 2])).toEqual({ median: 2, least: 1, most: 3, rounds: 3 });
    expect(summarize([4, 1, 2, 3])).toEqual({ median: 2.5, least: 1, most: 4, rounds: 4 });
  });

  test("a copied byte counts twice, once read and once written", async () => {
    await using host = openDevice("host");
    const { device } = double(host, {});
    device.createQueue = () => {
      const queue = host.createQueue();
      const completion = queue.completion.bind(queue);
      queue.completion = async (ticket) => {
        await Bun.sleep(20);
        return completion(ticket);
      };
      return queue;
    };
    const { median, rounds } = await measureMemory(device, 2 ** 20, new AbortController().signal);
    expect(rounds).toBe(9);
    expect(median).toBeLessThan((2 * 2 ** 20) / 0.019);
    expect(median).toBeGreaterThan((1.2 * 2 ** 20) / 0.02);
    expect(host.openResources).toBe(0);
    const stopped = AbortSignal.abort("SIGINT");
    await expect(measureMemory(device, 2 ** 20, stopped)).rejects.toBe("SIGINT");
    expect(host.openResources).toBe(0);
  });

  test("a disk is cold only where every round was seen to be", () => {
    expect(labelOf([0, 0.01])).toEqual({ label: "cold", residentBefore: 0.01 });
    expect(labelOf([0, 0.3])).toEqual({ label: "may be warm", residentBefore: 0.3 });
    expect(labelOf([0, 1])).toEqual({ label: "warm", residentBefore: 1 });
    expect(labelOf([0, undefined])).toEqual({ label: "may be warm", residentBefore: undefined });
  });
});
