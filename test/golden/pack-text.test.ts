/** JSONL and CSV as pyarrow reads them, against what is packed of them as pyarrow reads that. */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { type PackOptions, pack } from "../../src/index.ts";
import { useTempDir } from "../loader/helpers.ts";
import { textFile } from "../pack/text.ts";

const PYTHON = process.env.HEADRACE_PYTHON ?? "python3";
const SCRIPT = join(import.meta.dir, "read_text.py");
const PROSE = join(import.meta.dir, "../../datasets/sources/prose.jsonl.gz");
const temp = useTempDir();

function hasReader(): boolean {
  const probe = Bun.spawnSync([PYTHON, "-c", "import pyarrow.json, pyarrow.csv"], { stderr: "ignore" });
  if (probe.exitCode === 0) return true;
  console.log(`skipped: ${PYTHON} cannot import pyarrow; HEADRACE_PYTHON may name one that can`);
  return false;
}

interface Compared {
  readonly names: boolean;
  readonly types: [string[], string[]];
  readonly rows: [number, number];
  readonly differ: string[];
}

async function compare(path: string, options: Partial<PackOptions> = {}): Promise<Compared> {
  const out = `${path}-out`;
  const { shards } = await pack(path, { out, overwrite: true, ...options });
  const { stdout, stderr, exitCode } = Bun.spawnSync([
    PYTHON,
    SCRIPT,
    path,
    ...shards.map((shard) => join(out, shard.path)),
  ]);
  if (exitCode !== 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString());
}

/** Numbers of many lengths, by a fixed rule. */
function numbers(count: number): number[] {
  let state = 88_172_645_463_325n;
  return Array.from({ length: count }, () => {
    state = BigInt.asUintN(64, state ^ (state << 13n));
    state ^= state >> 7n;
    state = BigInt.asUintN(64, state ^ (state << 17n));
    return new Float64Array(new BigUint64Array([state]).buffer)[0]!;
  }).filter(Number.isFinite);
}

describe.skipIf(!hasReader())("pyarrow has the same rows", () => {
  test.each([["none"], ["zstd-body"], ["lz4-body"]] as const)("of prose, codec %s", async (codec) => {
    const path = textFile(temp("prose"), "prose.jsonl", gunzipSync(readFileSync(PROSE)));
    const { names, types, rows, differ } = await compare(path, { codec, shardBytes: 2 ** 20 });
    expect({ names, differ }).toEqual({ names: true, differ: [] });
    expect(rows[0]).toBe(rows[1]);
    expect(types[0]).toEqual(types[1]);
  });

  test("of numbers, nulls, lists and escapes", async () => {
    const rows = numbers(5000).map((f, i) => ({
      f,
      i: Math.trunc(f * 1e3) % 2 ** 53 || 0,
      t: i % 5 === 0 ? null : `é"\\${i}\n😀\u0001`,
      l: Array.from({ length: i % 7 }, (_, k) => k * i),
      b: i % 3 === 0,
      d: Number((i / 7).toFixed(i % 9)),
    }));
    const path = textFile(temp("numbers"), "a.jsonl", rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    const { rows: counts, differ, types } = await compare(path, { schema: { i: "i64" } });
    expect({ counts, differ }).toEqual({ counts: [rows.length, rows.length], differ: [] });
    // Elements of lists are never null here, and the type says so.
    expect(types[0].map((type) => type.replace(" not null", ""))).toEqual(types[1]);
  });

  test("of CSV", async () => {
    const path = join(temp("csv.csv"));
    const lines = numbers(3000).map(
      (f, i) => `${i},${f},"a ""b"", ${i}",${i % 2 === 0},${i % 4 === 0 ? "" : i * 1000}`,
    );
    writeFileSync(path, `id,f,t,b,n\n${lines.join("\r\n")}\r\n`);
    const { names, rows, differ } = await compare(path);
    expect({ names, rows, differ }).toEqual({ names: true, rows: [lines.length, lines.length], differ: [] });
  });
});
