/** Output folders on disks that fill up, or that take no writes: small ones in memory, which root alone may mount. */
import { afterAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HeadraceError, infer, openDevice } from "../../src/index.ts";
import { echoEngine, echoOf } from "./echo-engine.ts";
import { writeTokens } from "./prompt-files.ts";
import { readOutputs } from "./read-outputs.ts";

const scratch = mkdtempSync(join(tmpdir(), "headrace-infer-disk-"));
const mounted: string[] = [];
const device = openDevice("host");
afterAll(async () => {
  await device.close();
  for (const folder of mounted) spawnSync("umount", [folder]);
  rmSync(scratch, { recursive: true, force: true });
});

const PROMPTS = Array.from({ length: 900 }, (_, row) => [row % 250, 3]);
const source = writeTokens(join(scratch, "source"), [
  PROMPTS.slice(0, 300),
  PROMPTS.slice(300, 600),
  PROMPTS.slice(600),
]);

/** A folder with a file system of its own; undefined where the system does not let us have one. */
function mount(name: string, size: string): string | undefined {
  const folder = join(scratch, name);
  mkdirSync(folder);
  const { status } = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "none", folder]);
  if (status !== 0) return undefined;
  mounted.push(folder);
  return folder;
}

function run(out: string) {
  const engine = { engine: echoEngine({ slots: 8 }), name: "echo" };
  return infer({ source, out, device, engine, maxNewTokens: 8 });
}

const probe = mount("probe", "64k");
if (probe === undefined) console.log("skipped: mount is for root, where the system allows it at all");

describe.skipIf(probe === undefined)("a disk", () => {
  test("that is full ends the job with DISK_FULL; with more room it goes on", async () => {
    const disk = mount("full", "96k")!;
    const out = join(disk, "out");
    const error = await run(out).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(HeadraceError);
    expect([(error as HeadraceError).code, (error as HeadraceError).message]).toEqual([
      "DISK_FULL",
      expect.stringContaining(out),
    ]);
    expect(spawnSync("mount", ["-o", "remount,size=16m", disk]).status).toBe(0);
    const report = await run(out);
    expect(report.resumedRows).toBeGreaterThan(300);
    expect(report.rows + report.resumedRows).toBe(900);
    expect(readOutputs(out).map(({ row, tokens }) => [row, tokens])).toEqual(
      PROMPTS.map((prompt, row) => [row, echoOf(row, prompt, 8)]),
    );
  });

  test("that is read-only ends the job before it runs anything", async () => {
    const disk = mount("frozen", "1m")!;
    expect(spawnSync("mount", ["-o", "remount,ro", disk]).status).toBe(0);
    const error = await run(join(disk, "out")).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(HeadraceError);
    expect([(error as HeadraceError).code, (error as HeadraceError).message]).toEqual([
      "IO_ERROR",
      expect.stringMatching(/frozen.*EROFS/),
    ]);
  });
});
