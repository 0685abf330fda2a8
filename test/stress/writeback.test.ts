/** A job of outputs in a process of its own, killed at random moments until it is done all the same. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { knownLetters, randomOf } from "../loader/writeback-job.ts";
import { KILL_COUNTS } from "./writeback-counts.ts";

const CHILD = join(import.meta.dir, "writeback-child.ts");
const KILLS = 200;
/** Rows a ms of a child that is to be killed, and of one that is not. */
const SLOW = 8;
const FAST = 1_000_000;

let dir = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "headrace-writeback-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function start(folder: string, seed: number, pace: number) {
  return Bun.spawn(["bun", CHILD, folder, String(seed), String(pace)], { stdout: "pipe", stderr: "pipe" });
}

/** Runs a child to its end, which must be a good one. */
async function finish(folder: string, seed: number): Promise<void> {
  const child = start(folder, seed, FAST);
  const [code, errors] = await Promise.all([child.exited, new Response(child.stderr).text()]);
  expect({ code, errors }).toEqual({ code: 0, errors: "" });
}

/** Lets a child live for `liveMs` from when it has the folder, or, where that is negative, from its start. Returns whether
 * it was killed. */
async function kill(folder: string, seed: number, liveMs: number): Promise<boolean> {
  const child = start(folder, seed, SLOW);
  const reader = child.stdout.getReader();
  if (liveMs >= 0) await reader.read();
  await Bun.sleep(Math.abs(liveMs));
  child.kill("SIGKILL");
  await child.exited;
  return child.signalCode === "SIGKILL";
}

/** What the manifest lists is there and whole. */
function expectListedThere(folder: string): number {
  const path = join(folder, "dataset.json");
  if (!existsSync(path)) return 0;
  const { shards, samples } = JSON.parse(readFileSync(path, "utf8"));
  for (const shard of shards) expect(statSync(join(folder, shard.path)).size).toBe(shard.bytes);
  return samples;
}

test(`${KILLS} kills, and each row once`, async () => {
  const whole = join(dir, "whole");
  await finish(whole, 1);
  const folder = join(dir, "killed");
  const seed = Date.now() % 2 ** 31;
  console.log(`seed ${seed}`);
  const random = randomOf(seed);
  let before = 0;
  let grew = 0;
  for (let i = 0; i < KILLS; i++) {
    // One in eight dies before it has the folder, or while it looks at what is there.
    const liveMs = random(8) === 0 ? -random(150) : random(100);
    expect(await kill(folder, random(2 ** 30), liveMs)).toBe(true);
    const samples = expectListedThere(folder);
    expect(samples).toBeGreaterThanOrEqual(before);
    if (samples > before) grew++;
    before = samples;
  }
  const total = KILL_COUNTS.reduce((sum, count) => sum + count, 0);
  console.log(`${before} of ${total} rows were whole after ${KILLS} kills; ${grew} lives added to them`);
  expect(grew).toBeGreaterThan(10);
  await finish(folder, 2);
  const names = readdirSync(whole).sort();
  expect(readdirSync(folder).sort()).toEqual(names);
  for (const name of names) {
    const same = Buffer.compare(readFileSync(join(folder, name)), readFileSync(join(whole, name))) === 0;
    expect({ name, same }).toEqual({ name, same: true });
  }
  expect(readFileSync(join(folder, "errors.jsonl"), "utf8")).toBe(knownLetters(KILL_COUNTS));
}, 600_000);
