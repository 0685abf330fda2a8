/** Outputs as other implementations read them: pyarrow, Python's safetensors, and apache-arrow. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { tableFromIPC } from "apache-arrow";
import { openWriter, type WriterOptions } from "../../src/index.ts";
import { useTempDir } from "../loader/helpers.ts";
import { knownRow, optionsOf, outputOf } from "../loader/writeback-job.ts";

const PYTHON = process.env.HEADRACE_PYTHON ?? "python3";
const SCRIPT = join(import.meta.dir, "read_back_outputs.py");
const temp = useTempDir();
const COUNTS = [5, 0, 40];
const ROWS = Array.from({ length: 45 }, (_, i) => i);

async function write(more: Partial<WriterOptions>): Promise<string> {
  const folder = temp("out");
  const writer = await openWriter(folder, optionsOf(COUNTS, more));
  for (const row of ROWS.toReversed()) await writer.add(outputOf(row));
  await writer.close();
  return folder;
}

function hasReaders(): boolean {
  const probe = Bun.spawnSync([PYTHON, "-c", "import pyarrow, safetensors, numpy"], { stderr: "ignore" });
  if (probe.exitCode === 0) return true;
  console.log(
    `skipped: ${PYTHON} cannot import pyarrow and safetensors; HEADRACE_PYTHON may name one that can`,
  );
  return false;
}

function readByPython(folder: string): {
  rows: Record<string, unknown>[];
  schema: string[];
  batches: number[];
} {
  const { stdout, stderr, exitCode } = Bun.spawnSync([PYTHON, SCRIPT, folder]);
  if (exitCode !== 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString());
}

const shardOf = (row: number) => (row < 5 ? 0 : 2);
const arrowRows = ROWS.map((row) => ({ row, shard: `part-${shardOf(row)}.arrow`, ...knownRow(row) }));

describe.skipIf(!hasReaders())("Python reads what was written", () => {
  test("Arrow", async () => {
    const { rows, schema, batches } = readByPython(await write({}));
    expect(rows).toEqual(arrowRows);
    expect(batches).toEqual([1, 0, 1]);
    expect(schema.map((field) => field.replace("pyarrow.Field<", "").replace(/>$/, ""))).toEqual([
      "row: int64 not null",
      "shard: dictionary<values=string, indices=int32, ordered=0> not null",
      "embedding: fixed_size_list<item: float not null>[5]",
      "score: int16 not null",
      "tokens: list<item: int32 not null> not null",
      "text: string not null",
      "finish: string not null",
      "error: string",
      "logprobs: list<item: float not null>",
    ]);
  });

  test("Arrow, in several batches and stretches", async () => {
    const { rows, batches } = readByPython(await write({ maxBatchBytes: 1000, mergeBytes: 200 }));
    expect(rows).toEqual(arrowRows);
    expect(batches[2]).toBeGreaterThan(2);
  });

  test("Arrow, in order of completion", async () => {
    const { rows } = readByPython(await write({ order: "completion" }));
    const byShard = [...arrowRows].reverse().sort((a, b) => shardOf(a.row) - shardOf(b.row));
    expect(rows).toEqual(byShard);
  });

  test("safetensors", async () => {
    const { rows } = readByPython(await write({ format: "safetensors", mergeBytes: 200 }));
    const bytes = (text: string | null) => [...Buffer.from(text ?? "")];
    expect(rows).toEqual(
      ROWS.map((row) => {
        const { tokens, text, finish, error, logprobs, embedding, score } = knownRow(row);
        return {
          row,
          shard: shardOf(row),
          tokens: [...tokens],
          text: bytes(text),
          finish: bytes(finish),
          error: bytes(error),
          logprobs: [...(logprobs ?? [])],
          embedding: [...(embedding ?? [0, 0, 0, 0, 0])],
          score,
        };
      }),
    );
  });
});

test("apache-arrow reads what was written", async () => {
  const folder = await write({ maxBatchBytes: 1000 });
  for (const [shard, first] of [
    [0, 0],
    [2, 5],
  ] as const) {
    const table = tableFromIPC(readFileSync(join(folder, `part-${shard}-01234567.arrow`)));
    for (let i = 0; i < table.numRows; i++) {
      const known = knownRow(first + i);
      const cells = table.get(i)!.toJSON();
      expect(Number(cells.row)).toBe(first + i);
      expect(cells.shard).toBe(`part-${shard}.arrow`);
      expect([...cells.tokens].map(Number)).toEqual([...known.tokens]);
      expect({ text: cells.text, error: cells.error, score: cells.score }).toEqual({
        text: known.text,
        error: known.error,
        score: known.score,
      });
      expect(cells.logprobs === null ? null : [...cells.logprobs]).toEqual(
        known.logprobs && [...known.logprobs],
      );
      expect(cells.embedding === null ? null : [...cells.embedding]).toEqual(
        known.embedding && [...known.embedding],
      );
    }
  }
});
