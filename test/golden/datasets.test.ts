/** The committed datasets through the loader, against what other implementations read from them. */
import { describe, expect, test } from "bun:test";
import { createHash, type Hash } from "node:crypto";
import { join } from "node:path";
import { openLoader, type Strategy } from "../../src/index.ts";

const DATASETS = join(import.meta.dir, "../../datasets");
const PYTHON = process.env.HEADRACE_PYTHON ?? "python3";

function readByPython(): Record<string, Record<string, string>> | undefined {
  const probe = Bun.spawnSync([PYTHON, "-c", "import pyarrow, safetensors, numpy"], { stderr: "ignore" });
  if (probe.exitCode !== 0) {
    console.log(
      `skipped: ${PYTHON} cannot import pyarrow and safetensors; HEADRACE_PYTHON may name one that can`,
    );
    return undefined;
  }
  const script = join(import.meta.dir, "read_back_datasets.py");
  const { stdout, stderr, exitCode } = Bun.spawnSync([PYTHON, script, DATASETS]);
  if (exitCode !== 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString());
}

async function digests(
  dataset: string,
  strategy: Strategy,
  batchSize: number,
): Promise<Record<string, string>> {
  const hashes: Record<string, Hash> = {};
  await using loader = await openLoader(join(DATASETS, dataset), { strategy, batchSize });
  for await (using batch of loader) {
    for (const { name, view } of batch.columns.values()) {
      hashes[name] ??= createHash("sha256");
      hashes[name].update(view);
    }
  }
  return Object.fromEntries(Object.entries(hashes).map(([name, hash]) => [name, hash.digest("hex")]));
}

const expected = readByPython();

describe.skipIf(expected === undefined)("pyarrow and Python's safetensors read the same bytes", () => {
  for (const dataset of ["prose", "digits"]) {
    for (const strategy of ["map", "read"] as const) {
      for (const batchSize of [1, 64, 613, 5000]) {
        test(`${dataset}, ${strategy}, batches of ${batchSize}`, async () => {
          expect(await digests(dataset, strategy, batchSize)).toEqual(expected![dataset]!);
        });
      }
    }
  }
});
