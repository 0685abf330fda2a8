/** Runs jobs over one small dataset with an engine that follows from nothing but the prompt. */
import { afterAll, expect } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Engine,
  encodeManifest,
  HeadraceError,
  type InferOptions,
  type InferReport,
  infer,
  makeManifest,
  openDataset,
  openDevice,
} from "../../src/index.ts";
import { echoEngine, echoOf } from "./echo-engine.ts";
import { writeTokens } from "./prompt-files.ts";

const TINY_LLAMA = join(import.meta.dir, "../../datasets/tiny-llama");

/** 60 prompts in shards of 25, 0, 20 and 15. */
export const PROMPTS = Array.from({ length: 60 }, (_, row) =>
  Array.from({ length: 1 + ((row * 5) % 9) }, (_, i) => (row * 13 + i) % 250),
);
const CUTS = [0, 25, 25, 45, 60];

/** What is read back of every row. */
export const ALL = PROMPTS.map((prompt, row) => {
  const tokens = echoOf(row, prompt, 6);
  return {
    row,
    shard: `part-${CUTS.findLastIndex((start) => start <= row)}.arrow`,
    tokens,
    text: String.fromCharCode(...tokens),
    finish: "length",
    error: null,
  };
});

export type Changes = Omit<Partial<InferOptions>, "engine"> & {
  readonly engine?: Engine;
  readonly name?: string;
};

/** A device and a folder that go when the file's tests are over. */
export function jobRig() {
  const scratch = mkdtempSync(join(tmpdir(), "headrace-job-"));
  const device = openDevice("host");
  afterAll(async () => {
    await device.close();
    rmSync(scratch, { recursive: true, force: true });
  });
  let numbers = 0;
  const fresh = (name: string) => join(scratch, `${name}-${numbers++}`);
  const source = writeTokens(
    fresh("source"),
    CUTS.slice(1).map((end, i) => PROMPTS.slice(CUTS[i], end)),
  );
  /** Runs the job into a new folder where none is given. */
  const run = ({ engine = echoEngine(), name = "echo", ...changes }: Changes = {}): Promise<InferReport> =>
    infer({
      source,
      out: fresh("out"),
      device,
      maxNewTokens: 6,
      model: TINY_LLAMA,
      ...changes,
      engine: { engine, name },
    });
  /** The `dataset.json` of the shards in `folder`. */
  const manifestText = async (folder: string): Promise<string> => {
    using dataset = openDataset(join(folder, "*.arrow"), device);
    return encodeManifest(await makeManifest(dataset, { folder }));
  };
  return { device, fresh, source, run, manifestText };
}

/** Expects a failure of this code, whose message is one line with these texts. */
export async function refused(running: Promise<unknown>, code: string, ...texts: string[]): Promise<void> {
  const error = await running.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(HeadraceError);
  const { code: found, message } = error as HeadraceError;
  expect([found as string, message.includes("\n")]).toEqual([code, false]);
  for (const text of texts) expect(message).toContain(text);
}
