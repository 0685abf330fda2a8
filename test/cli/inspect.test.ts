import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type DType, type Manifest, saveSafetensors, type TensorData } from "../../src/index.ts";
import { proseRows, tensorsOf } from "./expected.ts";
import { DATASETS, headrace, report, scratch } from "./process.ts";

const folder = scratch();
const LLAMA = join(DATASETS, "tiny-llama");

interface InspectReport {
  readonly [key: string]: unknown;
  readonly shards: readonly Record<string, unknown>[];
  readonly rows: readonly { readonly sample: number; readonly values: Record<string, unknown> }[];
  readonly cut: readonly string[];
}

async function inspect(...args: string[]): Promise<InspectReport> {
  const { code, out, err } = await headrace("inspect", ...args, "--json");
  expect({ code, err, lines: out.split("\n").length }).toEqual({ code: 0, err: "", lines: 2 });
  return JSON.parse(out);
}

async function text(...args: string[]): Promise<string> {
  const { code, out, err } = await headrace("inspect", ...args);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  return out;
}

describe("tables", () => {
  test("prose: summary, shards, columns and decoded rows", async () => {
    const out = await text("datasets/prose", "--rows", "2");
    expect(out).toMatch(/^view +rows$/m);
    expect(out).toMatch(/^dtypes +I32 × 4, U8 × 1$/m);
    expect(out).toMatch(/^datasets\/prose\/prose-00003\.arrow +arrow-file +750 +1\.\d\d MB +3 +8 B$/m);
    expect(out).toMatch(/^source +I32 \(dictionary<utf8>\) +no +357 × ragged U8 \(utf8\)$/m);
    const [, row] = proseRows();
    const start = `"${row!.text.slice(0, 40)}`;
    const line = out.split("\n").find((one) => one.startsWith("1 "));
    expect(line).toContain(start);
    expect(line).toContain(`"${row!.source}"`);
    expect(line).toContain(`[256, ${row!.tokens[1]}, `);
    expect(line).toContain(`(${row!.length})`);
    expect(out).not.toContain("\u001b");
    expect(out.split("\n").filter((one) => /^\d+ {2}/.test(one))).toHaveLength(2);
  });

  test("--shards, --tensors and --rows say what is left out", async () => {
    const out = await text("datasets/digits", "--shards", "1", "--rows", "0");
    expect(out).toContain("digits-00000.safetensors");
    expect(out).not.toContain("digits-00001.safetensors");
    expect(out).toContain("… and 3 more (--shards)");
    expect(out).not.toMatch(/^# /m);
    const tensors = await text(LLAMA, "--tensors", "3", "--shards", "0");
    expect(tensors).toContain("… and 53 more (--tensors)");
    expect(tensors).toContain("… and 1 more (--shards)");
    expect(tensors).toMatch(/^model\.embed_tokens\.weight +BF16 +\[264, 192\] +101 kB +6000$/m);
    expect(tensors).toMatch(/^metadata format +pt$/m);
  });

  test("--columns and --view", async () => {
    const out = await text("datasets/prose", "--columns", "id,length");
    expect(out).toMatch(/^dtypes +I32 × 2$/m);
    expect(out).toMatch(/^# +id +length$/m);
    const shard = join(DATASETS, "digits/digits-00000.safetensors");
    expect(await text(shard, "--view", "tensors")).toMatch(/^images +U8 +\[500, 28, 28\] +392 kB/m);
  });
});

describe("--json", () => {
  test("prose: all facts, and rows as values", async () => {
    const result = await inspect("datasets/prose", "--rows", "3", "--shards", "1");
    const rows = proseRows().slice(0, 3);
    expect(result).toMatchObject({ dataset: "datasets/prose", view: "rows", samples: 3000 });
    expect(result).toMatchObject({ dictionaries: { source: 357 }, dtypes: { I32: 4, U8: 1 } });
    expect(result.fingerprint).toMatch(/^[0-9a-f]{64}$/);
    expect(result.shards).toHaveLength(4);
    const sizes = result.shards.map(({ path }) => readFileSync(join(DATASETS, "..", String(path))).length);
    expect(result.shards.map(({ bytes }) => bytes)).toEqual(sizes);
    expect(result.bytes).toBe(sizes.reduce((a, b) => a + b));
    expect(result.shards[0]).toMatchObject({ format: "arrow-file", samples: 750, groups: 3, alignment: 8 });
    expect<unknown>(result.rows).toEqual(
      rows.map(({ tokens, ...row }) => ({ sample: row.id, values: { ...row, tokens: [...tokens] } })),
    );
    expect(result.cut).toEqual([]);
  });

  test("tiny-llama: every tensor, where it lies", async () => {
    const result = await inspect(LLAMA, "--tensors", "1");
    const file = readFileSync(join(LLAMA, "model.safetensors"));
    const tensors = result.tensors as { name: string; range: { start: number; end: number } }[];
    const found = tensors.map(({ name, range }) => ({
      name,
      bytes: file.subarray(range.start, range.end),
    }));
    expect<unknown>(found).toEqual(tensorsOf(join(LLAMA, "model.safetensors")));
    expect(result.shards[0]).toMatchObject({ numTensors: 56, metadata: { format: "pt" } });
    expect(result.rows).toEqual([]);
  });

  test("values that JavaScript or JSON lack, and long ones", async () => {
    const shard = join(folder, "values.safetensors");
    const column = (name: string, dtype: DType, shape: number[], data: ArrayBufferView): TensorData => ({
      name,
      dtype,
      shape,
      data,
    });
    saveSafetensors(shard, [
      column("bf16", "BF16", [2], new Uint16Array([0x3f80, 0xc020])),
      column("bool", "BOOL", [2], new Uint8Array([0, 1])),
      column("f32", "F32", [2], new Float32Array([Number.NaN, 0.5])),
      column("f4", "F4", [2, 2], new Uint8Array([0x12, 0x34])),
      column("i64", "I64", [2], new BigInt64Array([2n ** 60n, -5n])),
      column("long", "U8", [2, 2000], new Uint8Array(4000).fill(7)),
      column("none", "I32", [2, 0], new Int32Array()),
    ]);
    const result = await inspect(shard);
    expect<unknown>(
      result.rows.map(({ values }) => ({ ...values, long: (values.long as []).length })),
    ).toEqual([
      { bf16: 1, bool: false, f32: "NaN", f4: [0x12], i64: String(2n ** 60n), long: 1024, none: [] },
      { bf16: -2.5, bool: true, f32: 0.5, f4: [0x34], i64: -5, long: 1024, none: [] },
    ]);
    expect(result.cut).toEqual(["long"]);
    expect(await text(shard)).toMatch(/, 7… \(2000\)/);
  });
});

describe("--manifest", () => {
  function copyOf(dataset: string): string {
    const copy = join(folder, `${dataset}-${readdirSync(folder).length}`);
    cpSync(join(DATASETS, dataset), copy, { recursive: true });
    rmSync(join(copy, "dataset.json"));
    return copy;
  }

  test.each([["prose"], ["digits"], ["tiny-llama"]])("of %s is the one that comes along", async (dataset) => {
    const copy = copyOf(dataset);
    const file = join(copy, "dataset.json");
    const { code, err } = await headrace("inspect", copy, "--rows", "0", "--manifest", file);
    expect(code).toBe(0);
    expect(err).toMatch(/^headrace: wrote .*dataset\.json: \d shards?\n$/);
    expect(readFileSync(file, "utf8")).toBe(readFileSync(join(DATASETS, dataset, "dataset.json"), "utf8"));
  });

  test("has the sha256 of each shard, also further up, and opens", async () => {
    const copy = copyOf("digits");
    const above = join(folder, "above");
    mkdirSync(above);
    cpSync(copy, join(above, "deep", "er"), { recursive: true });
    const { code } = await headrace("inspect", join(above, "deep/er/*.safetensors"), "--manifest", above);
    expect(code).toBe(0);
    const manifest: Manifest = JSON.parse(readFileSync(join(above, "dataset.json"), "utf8"));
    expect(manifest.shards).toHaveLength(4);
    for (const { path, sha256 } of manifest.shards) {
      expect(path).toStartWith("deep/er/digits-");
      const bytes = readFileSync(join(above, path));
      expect(sha256).toBe(createHash("sha256").update(bytes).digest("hex"));
    }
    expect(await report("load", above)).toMatchObject({ samples: 2000 });
  });

  test("is refused where a shard is not below it, under another name, and with --columns", async () => {
    const copy = copyOf("digits");
    const elsewhere = join(folder, "elsewhere");
    mkdirSync(elsewhere);
    const refused = async (code: number, message: string, ...args: string[]) => {
      const ended = await headrace("inspect", copy, ...args);
      expect(ended).toEqual({ code, out: "", err: expect.stringMatching(/^headrace: .*\n$/) });
      expect(ended.err).toContain(message);
    };
    await refused(1, "does not lie below", "--manifest", elsewhere);
    await refused(1, "UNSAFE_PATH", "--manifest", join(folder, "missing", "dataset.json"));
    await refused(2, "dataset.json [BAD_OPTION]", "--manifest", join(copy, "manifest.json"));
    await refused(2, "all columns", "--columns", "labels", "--manifest", copy);
    expect(existsSync(join(copy, "dataset.json"))).toBe(false);
    expect(readdirSync(elsewhere)).toEqual([]);
  });

  test("goes with --json, whose stdout stays one object", async () => {
    const copy = copyOf("digits");
    const { code, out } = await headrace("inspect", copy, "--json", "--manifest", copy);
    expect({ code, samples: JSON.parse(out).samples }).toEqual({ code: 0, samples: 2000 });
    expect(existsSync(join(copy, "dataset.json"))).toBe(true);
  });
});
