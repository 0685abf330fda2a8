import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tableFromIPC, type Vector } from "apache-arrow";
import { describeSafetensors, findTensor } from "../../src/format/safetensors.ts";

const datasets = join(import.meta.dir, "..", "..", "datasets");
let scratch: string;

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "headrace-datasets-"));
});

afterAll(() => {
  rmSync(scratch, { recursive: true, force: true });
});

function make(script: string, ...args: string[]): { exitCode: number; errors: string } {
  const command = [process.execPath, join(datasets, script), ...args];
  const { exitCode, stderr } = Bun.spawnSync(command, { stdout: "ignore", stderr: "pipe" });
  return { exitCode, errors: stderr.toString() };
}

function shardsOf(folder: string, extension: string): string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(extension))
    .sort();
}

describe("prose", () => {
  test("is what its script makes of its source", () => {
    const folder = join(scratch, "prose");
    expect(make("make-prose.ts", folder)).toEqual({ exitCode: 0, errors: "" });
    const names = shardsOf(folder, ".arrow");
    expect(names).toHaveLength(4);
    expect(readdirSync(folder).sort()).toEqual(["dataset.json", ...names]);
    const manifest = "dataset.json";
    expect(readFileSync(join(folder, manifest), "utf8")).toBe(
      readFileSync(join(datasets, "prose", manifest), "utf8"),
    );
    expect(shardsOf(join(datasets, "prose"), ".arrow")).toEqual(names);
    for (const name of names)
      expect(Bun.hash(readFileSync(join(folder, name)))).toBe(
        Bun.hash(readFileSync(join(datasets, "prose", name))),
      );
  });

  test("has every paragraph once, with the tokens of its text", () => {
    const packed = readFileSync(join(datasets, "sources", "prose.jsonl.gz"));
    const lines = new TextDecoder().decode(Bun.gunzipSync(packed)).trimEnd().split("\n");
    let next = 0;
    for (const name of shardsOf(join(datasets, "prose"), ".arrow")) {
      const table = tableFromIPC(readFileSync(join(datasets, "prose", name)));
      expect(table.schema.fields.map(({ name, type, nullable }) => `${name} ${type} ${nullable}`)).toEqual([
        "id Int32 false",
        "source Dictionary<Int32, Utf8> false",
        "text Utf8 false",
        "tokens List<Int32> false",
        "length Int32 false",
      ]);
      expect(table.batches).toHaveLength(3);
      for (const row of table) {
        const { tokens, length, ...rest } = row.toJSON();
        expect(rest).toEqual(JSON.parse(lines[next++]!));
        const bytes = new TextEncoder().encode(rest.text);
        expect([...(tokens as Vector)]).toEqual([256, ...bytes, 257]);
        expect(length).toBe(bytes.length + 2);
      }
    }
    expect(next).toBe(lines.length);
  });
});

test("digits has 200 different images of each digit, on a 16 KiB boundary", () => {
  const times = new Array(10).fill(0);
  const images = new Set<number | bigint>();
  for (const name of shardsOf(join(datasets, "digits"), ".safetensors")) {
    const file = readFileSync(join(datasets, "digits", name));
    const description = describeSafetensors((at, length) => file.subarray(at, at + length), file.length);
    const labels = findTensor(description, "labels");
    const pixels = findTensor(description, "images");
    expect([labels.dtype, labels.shape, pixels.dtype, pixels.shape]).toEqual([
      "I64",
      [500],
      "U8",
      [500, 28, 28],
    ]);
    expect(description.rows?.numRows).toBe(500);
    expect(Math.min(labels.range.start, pixels.range.start) % 16_384).toBe(0);
    for (let i = 0; i < 500; i++) {
      times[Number(file.readBigInt64LE(labels.range.start + 8 * i))]++;
      const start = pixels.range.start + 784 * i;
      images.add(Bun.hash(file.subarray(start, start + 784)));
    }
  }
  expect(times).toEqual(new Array(10).fill(200));
  expect(images.size).toBe(2000);
});

describe("tiny-llama", () => {
  const model = join(datasets, "tiny-llama");

  test("passes the checks of its script, and is copied as it is", () => {
    const folder = join(scratch, "tiny-llama");
    expect(make("make-tiny-llama.ts", model, folder)).toEqual({ exitCode: 0, errors: "" });
    for (const name of ["config.json", "generation_config.json", "model.safetensors"])
      expect(readFileSync(join(folder, name)).equals(readFileSync(join(model, name)))).toBe(true);
  });

  test("is refused where its configuration says otherwise, and nothing is written", () => {
    const other = join(scratch, "other");
    cpSync(model, other, { recursive: true });
    const config = JSON.parse(readFileSync(join(model, "config.json"), "utf8"));
    writeFileSync(join(other, "config.json"), JSON.stringify({ ...config, num_key_value_heads: 2 }));
    const target = join(scratch, "refused");
    const { exitCode, errors } = make("make-tiny-llama.ts", other, target);
    expect(exitCode).toBe(1);
    expect(errors).toContain("k_proj.weight is BF16 [96,192], not BF16 [64,192]");
    expect(() => readdirSync(target)).toThrow();
  });
});
