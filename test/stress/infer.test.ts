/** A job that is killed again and again, and one that runs long. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, watch } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { infer, openDevice } from "../../src/index.ts";
import { echoEngine, echoOf } from "../infer/echo-engine.ts";
import { writeTokens } from "../infer/prompt-files.ts";
import { readOutputs } from "../infer/read-outputs.ts";

const CHILD = join(import.meta.dir, "infer-child.ts");
const KILLS = 200;
const ROWS = 10_000;
/** So few that their names sort by their numbers. */
const SHARDS = 10;

const scratch = mkdtempSync(join(tmpdir(), "headrace-stress-infer-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const PROMPTS = Array.from({ length: ROWS }, (_, row) => [row % 251, 7, row % 13]);
const source = writeTokens(
  join(scratch, "source"),
  Array.from({ length: SHARDS }, (_, i) => PROMPTS.slice((i * ROWS) / SHARDS, ((i + 1) * ROWS) / SHARDS)),
);

/** Every file below `folder` by its name, as text. */
function contents(folder: string): Record<string, string> {
  const names = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((one) => one.isFile());
  return Object.fromEntries(
    names.map(({ parentPath, name }) => [
      join(parentPath, name).slice(folder.length + 1),
      new Bun.CryptoHasher("sha256").update(readFileSync(join(parentPath, name))).digest("hex"),
    ]),
  );
}

/** Runs the job to its end, or kills it: `whenBegun` asks for a moment after its first row, in ms; `onRename` for the
 * moment of a rename in the folder of outputs. */
async function run(
  out: string,
  kill?: { readonly afterMs: number; readonly when: "begun" | "started" | "rename" },
) {
  const child = Bun.spawn([process.execPath, CHILD, source, out], { stdout: "pipe", stderr: "pipe" });
  const watcher =
    kill?.when === "rename" && existsSync(out)
      ? watch(out, (event) => {
          if (event === "rename") child.kill("SIGKILL");
        })
      : undefined;
  if (kill?.when === "begun") {
    for await (const _ of child.stdout) break;
  }
  const timer =
    kill === undefined
      ? undefined
      : setTimeout(() => child.kill("SIGKILL"), kill.afterMs + (watcher ? 400 : 0));
  const errors = await new Response(child.stderr).text();
  await child.exited;
  clearTimeout(timer);
  watcher?.close();
  return { done: child.exitCode === 0, killed: child.signalCode === "SIGKILL", errors };
}

test(`killed at ${KILLS} random moments, a job gives the bytes of one that ran undisturbed`, async () => {
  const whole = join(scratch, "whole");
  expect(await run(whole)).toMatchObject({ done: true, errors: "" });
  const expected = contents(whole);
  expect(Object.keys(expected)).toHaveLength(SHARDS + 2);
  expect(readOutputs(whole).map(({ row, tokens }) => [row, tokens])).toEqual(
    PROMPTS.map((prompt, row) => [row, [17, 801, 2002].includes(row) ? [] : echoOf(row, prompt, 5)]),
  );

  let seed = Date.now() >>> 0;
  console.log(`seed ${seed}`);
  const random = (below: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed / 2 ** 32) * below;
  };
  let kills = 0;
  let jobs = 0;
  let renames = 0;
  while (kills < KILLS) {
    // A job that has come to its end is begun anew in another folder: all of them must come to the same.
    const out = join(scratch, `killed-${jobs++}`);
    for (;;) {
      const when = (["begun", "started", "rename"] as const)[Math.floor(random(3))]!;
      const enough = kills >= KILLS;
      const { done, killed, errors } = await run(out, enough ? undefined : { when, afterMs: random(120) });
      if (killed) {
        kills++;
        if (when === "rename") renames++;
        continue;
      }
      expect({ done, errors }).toEqual({ done: true, errors: "" });
      break;
    }
    expect(contents(out)).toEqual(expected);
    rmSync(out, { recursive: true, force: true });
  }
  console.log(`${kills} kills, ${renames} of them on a rename, over ${jobs} jobs`);
  expect(renames).toBeGreaterThan(10);
});

describe("100,000 rows", () => {
  test("take no more memory than 10,000", async () => {
    const rows = 100_000;
    const long = writeTokens(join(scratch, "long"), [
      Array.from({ length: rows / 2 }, (_, row) => [row % 250, 1, 2]),
      Array.from({ length: rows / 2 }, (_, row) => [row % 250, 3]),
    ]);
    await using device = openDevice("host");
    const sizes: number[] = [];
    let started = 0;
    const engine = echoEngine({
      slots: 64,
      onStart() {
        if (++started % 10_000 !== 0) return;
        Bun.gc(true);
        sizes.push(process.memoryUsage.rss());
      },
    });
    const out = join(scratch, "long-out");
    const report = await infer({
      source: long,
      out,
      device,
      engine: { engine, name: "echo" },
      maxNewTokens: 4,
    });
    expect(report).toMatchObject({ rows, failedRows: 0 });
    expect(report.dataWaitShare).toBeLessThan(0.05);
    const grown = sizes.at(-1)! - sizes[1]!;
    console.log(`resident: ${sizes.map((size) => Math.round(size / 2 ** 20)).join(", ")} MiB`);
    expect(grown).toBeLessThan(48 * 2 ** 20);
  });
});
