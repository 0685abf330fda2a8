/** What `doctor` refuses before it measures, and what it lists as missing. */
import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { checkMemory } from "../../src/cli/doctor-checks.ts";
import { HeadraceError, openDevice } from "../../src/index.ts";
import { headrace, ROOT, scratch } from "./process.ts";

const folder = scratch();
const SMALL = ["--size", "3MiB", "--memory", "2MiB"];

/** `doctor` where the environment names a library for Metal, or none, and one for CUDA that is not there. */
async function withLibrary(path: string, ...args: string[]) {
  const command = [process.execPath, join(ROOT, "src/cli/main.ts"), "doctor", ...args];
  const env = { ...process.env, HEADRACE_METAL_LIBRARY: path, HEADRACE_CUDA_LIBRARY: "/nowhere" };
  const child = Bun.spawn(command, { cwd: ROOT, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const out = await new Response(child.stdout).text();
  return { code: await child.exited, out };
}

describe("bad usage, and what is missing", () => {
  test.each(["metal", "cuda"])(
    "why device %s does not work is in the list of what is missing",
    async (name) => {
      if (name === "metal" && process.platform === "darwin") return;
      const { code, out } = await withLibrary("", "--device", name, "--no-rates", "--json");
      expect(code).toBe(1);
      const problems: string[] = JSON.parse(out).missing.map((one: { problem: string }) => one.problem);
      expect(problems.join("\n")).toMatch(
        /^device \w+ was asked for, and does not work: .*\[DEVICE_UNAVAILABLE\]$/m,
      );
      const { out: text } = await withLibrary("", "--device", name, "--no-rates");
      expect(text).not.toContain("nothing is missing");
    },
  );

  test("a named library that is not there is mended by its name, not by building", async () => {
    const path = join(folder, "no-library");
    const { out } = await withLibrary(path, "--device", "metal", "--no-rates", "--json");
    const { missing } = JSON.parse(out);
    expect(missing).toHaveLength(1);
    expect(missing[0].command).toBe("unset HEADRACE_METAL_LIBRARY");
    expect(missing[0].problem).toContain(`${path} is not there`);
    expect(out).not.toContain("bun run native");
  });

  test.each([
    ["--folder", "", "--folder is empty"],
    ["--folder", join(folder, "no-such"), `--folder ${join(folder, "no-such")} is not there`],
    ["--folder", import.meta.path, `--folder ${import.meta.path} is not a folder`],
    ["--size", "9000TB", " free, and the measurement writes 9.00 PB"],
    ["--memory", "9000TB", "--memory: 9.00 PB"],
  ])("%s %j is bad usage", async (option, value, text) => {
    const args = [
      "--device",
      "host",
      "--folder",
      folder,
      "--memory",
      "2MiB",
      "--size",
      "3MiB",
      option,
      value,
    ];
    const { code, out, err } = await headrace("doctor", "--json", ...args);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toContain(text);
    expect(err).toContain(option);
    expect(err).toEndWith("[BAD_OPTION]\n");
    expect(readdirSync(folder)).toEqual([]);
  });

  test.each(["--size", "--memory"])("%s has a least, and is rounded up to whole pages", async (option) => {
    for (const value of ["1", "1048575"]) {
      const { code, err } = await headrace("doctor", "--device", "host", option, value);
      expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining("must be at least 1MiB") });
      expect(err).toContain(option);
    }
    const args = [...SMALL, "--device", "host", "--folder", folder, option, "1048577"];
    const { code, out } = await headrace("doctor", "--json", ...args);
    expect(code).toBe(0);
    if (option === "--size") expect(JSON.parse(out).rates.disk.fileBytes).toBe(2 ** 20 + 2 ** 16);
  });

  test("what cannot be known beforehand is missing, with its reason", async () => {
    const lost = join(folder, "no-such");
    const env = { ...process.env, TMPDIR: lost };
    const command = [process.execPath, join(ROOT, "src/cli/main.ts"), "doctor", ...SMALL, "--device", "host"];
    const { exitCode, stdout } = Bun.spawnSync(command, { env, cwd: ROOT });
    expect(exitCode).toBe(1);
    const reason = `${lost}: no file can be made there (ENOENT); use --folder [IO_ERROR]`;
    expect(stdout.toString()).toContain(`not measured  ${reason}\n`);
    expect(stdout.toString()).toContain("  rates were not measured: see 'rates' above\n");
    expect(stdout.toString()).not.toContain("nothing is missing");
  });

  test("memory is held against the device's longest buffer and half of the machine's", async () => {
    await using host = openDevice("host");
    const { maxBufferLength } = host.capabilities;
    const check = (memory: number, machineBytes: number, typed: string[]) => () =>
      checkMemory({ folder, size: 2 ** 20, memory, typed: new Set(typed) }, host, machineBytes);
    expect(check(2 ** 30, 2 ** 31, ["memory"])).not.toThrow();
    const half = "--memory: 1.07 GB is copied to as much again, and this machine has 2.15 GB";
    expect(check(2 ** 30 + 1, 2 ** 31, ["memory"])).toThrow(half);
    expect(check(maxBufferLength + 1, Infinity, ["memory"])).toThrow(
      "more than the longest buffer of device host",
    );
    expect(check(2 ** 30 + 1, 2 ** 31, ["memory"])).toThrow(HeadraceError);
    // A default that does not fit is no bad usage.
    expect(check(2 ** 30 + 1, 2 ** 31, [])).not.toThrow();
  });
});
