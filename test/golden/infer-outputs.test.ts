/** Outputs of inference as pyarrow reads them. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { infer, openDevice } from "../../src/index.ts";
import { echoEngine, echoLogprob, echoOf } from "../infer/echo-engine.ts";
import { writeTokens } from "../infer/prompt-files.ts";

const PYTHON = process.env.HEADRACE_PYTHON ?? "python3";
const scratch = mkdtempSync(join(tmpdir(), "headrace-infer-pyarrow-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const found = Bun.spawnSync([PYTHON, "-c", "import pyarrow"], { stderr: "ignore" }).exitCode === 0;
if (!found) console.log(`skipped: ${PYTHON} cannot import pyarrow; HEADRACE_PYTHON may name one that can`);

test.skipIf(!found)("every row and type is what was written", async () => {
  const prompts = Array.from({ length: 40 }, (_, row) => (row === 7 ? [] : [row, 2, 3]));
  const source = writeTokens(join(scratch, "source"), [prompts.slice(0, 25), prompts.slice(25)]);
  const out = join(scratch, "out");
  await using device = openDevice("host");
  const model = join(import.meta.dir, "../../datasets/tiny-llama");
  const own = { engine: echoEngine(), name: "echo" };
  await infer({ source, out, device, model, engine: own, maxNewTokens: 4, logprobs: true });
  const { stdout, stderr, exitCode } = Bun.spawnSync([
    PYTHON,
    join(import.meta.dir, "read_back_infer.py"),
    out,
  ]);
  expect({ exitCode, errors: stderr.toString() }).toEqual({ exitCode: 0, errors: "" });
  const { types, rows } = JSON.parse(stdout.toString());
  expect(types).toEqual({
    row: "int64",
    shard: "dictionary<values=string, indices=int32, ordered=0>",
    tokens: "list<item: int32 not null>",
    text: "string",
    finish: "string",
    error: "string",
    logprobs: "list<item: float not null>",
  });
  const tokensOf = (row: number) => (row === 7 ? [] : echoOf(row, prompts[row]!, 4));
  expect(rows).toEqual(
    prompts.map((_, row) => ({
      row,
      shard: row < 25 ? "part-0.arrow" : "part-1.arrow",
      tokens: tokensOf(row),
      text: String.fromCharCode(...tokensOf(row)),
      finish: row === 7 ? "error" : "length",
      error: row === 7 ? "the prompt is empty" : null,
      logprobs: tokensOf(row).map((_token, i) => echoLogprob(i)),
    })),
  );
});
