import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type LoaderState, openLoader } from "../../src/index.ts";
import { DATASETS, type Ended, headrace, report, scratch, start, waitFor } from "./process.ts";

const folder = scratch();
const DIGITS = join(DATASETS, "digits");
const ENDLESS = ["load", DIGITS, "--shuffle", "3", "--epochs", "1000000000"];

function stateIn(file: string): LoaderState {
  return JSON.parse(readFileSync(file, "utf8"));
}

/** Starts an endless load, sends `signals` once it is under way, and waits for its end. */
async function interrupt(file: string, args: string[], ...signals: NodeJS.Signals[]): Promise<Ended> {
  const { child, ended } = start([...ENDLESS, "--state", file, ...args]);
  await waitFor("the first state", () => existsSync(file));
  await Bun.sleep(200);
  for (const signal of signals) {
    child.kill(signal);
    await Bun.sleep(1);
  }
  return ended;
}

/** The labels that come in `epoch` after `position`, by the library. */
async function restOf({ epoch, position }: LoaderState): Promise<string> {
  const start = stateIn(join(folder, "0.json"));
  const hash = createHash("sha256");
  const options = { shuffle: true, seed: 3, epochs: epoch + 1, batchSize: 1, columns: ["labels"] };
  await using loader = await openLoader(DIGITS, { ...options, resume: { ...start, epoch, position: 0 } });
  let before = position;
  for await (using batch of loader) if (before-- <= 0) hash.update(batch.column("labels").view);
  return hash.digest("hex");
}

describe.each([["map"], ["read"]])("Ctrl-C while it goes by %s", (strategy) => {
  test("ends with 130 and a state from which the rest is exact", async () => {
    const file = join(folder, `${strategy}.json`);
    await report("load", DIGITS, "--shuffle", "3", "--limit", "0", "--state", join(folder, "0.json"));
    const { code, out, err } = await interrupt(file, ["--strategy", strategy, "--json"], "SIGINT");
    expect(code).toBe(130);
    const state = stateIn(file);
    const result = JSON.parse(out);
    expect(result).toMatchObject({ interrupted: true, strategy, state, epochs: state.epoch });
    expect(result.samples).toBe(state.epoch * 2000 + state.position);
    expect(result.samples).toBeGreaterThan(0);
    const count = result.samples.toLocaleString("en-US");
    expect(err).toBe(`headrace: interrupted after ${count} samples; go on with --resume ${file}\n`);

    const again = join(folder, `${strategy}-again.json`);
    const epochs = ["--epochs", String(state.epoch + 1)];
    const args = [DIGITS, "--shuffle", "3", "--columns", "labels", "--digest", ...epochs, "--resume", file];
    const rest = await report("load", ...args, "--state", again);
    expect(rest.samples).toBe(2000 - state.position);
    expect(rest.digests.labels).toBe(await restOf(state));
    expect(stateIn(again)).toEqual({ ...state, epoch: state.epoch + 1, position: 0 });
  });
});

test("Ctrl-C without --state says how to be able to go on", async () => {
  const { child, ended } = start(ENDLESS);
  await Bun.sleep(400);
  child.kill("SIGINT");
  const { code, out, err } = await ended;
  expect(code).toBe(130);
  expect(out).toMatch(/^samples +[\d,]+ in/m);
  expect(err).toContain("with --state FILE it could be resumed");
});

test("Ctrl-C is heard between mapped batches, which come without any wait", async () => {
  const file = join(folder, "mapped.json");
  const { child, ended } = start(["load", "--columns", "id", "--epochs", "1000000000", "--state", file]);
  await waitFor("the first state", () => existsSync(file));
  await Bun.sleep(600);
  const sent = performance.now();
  child.kill("SIGINT");
  await waitFor("the last state", () => stateIn(file).epoch > 0, 2000);
  expect(performance.now() - sent).toBeLessThan(2000);
  expect((await ended).code).toBe(130);
});

// A terminal signals the whole group, and `bun run` passes its own on: one key press came twice, and the second
// ended the process before the state was saved.
test("a Ctrl-C that arrives twice is one, and the state is saved", async () => {
  for (let i = 0; i < 3; i++) {
    const file = join(folder, `twice-${i}.json`);
    const { code, err } = await interrupt(file, ["--json"], "SIGINT", "SIGINT");
    expect({ code, err }).toEqual({ code: 130, err: expect.stringContaining(`--resume ${file}`) });
    const { epoch, position } = stateIn(file);
    expect(epoch + position).toBeGreaterThan(0);
  }
});

test("SIGTERM saves the state too, and ends with 143", async () => {
  const file = join(folder, "term.json");
  const { code, err } = await interrupt(file, ["--json"], "SIGTERM");
  expect({ code, err }).toEqual({ code: 143, err: expect.stringContaining(`--resume ${file}`) });
  const { epoch } = stateIn(file);
  const next = ["--epochs", String(epoch), "--resume", file];
  expect(await headrace("load", DIGITS, "--shuffle", "3", ...next)).toMatchObject({ code: 0 });
});
