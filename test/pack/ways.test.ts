/** What becomes of sources on the whole way: packed by the public API, and read back by the loader. */
import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type PackOptions, pack } from "../../src/index.ts";
import type { RowSource } from "../../src/pack/rows.ts";
import { openShards } from "../../src/pack/sources/shards.ts";
import { type Values, valuesOf } from "../golden/pack-rows.ts";
import { useTempDir } from "../loader/helpers.ts";

const temp = useTempDir();
const FILES = join(import.meta.dir, "../golden/files");

async function packed(source: string | string[], options: Omit<PackOptions, "out">): Promise<Values> {
  const out = temp("out");
  await pack(source, { out, overwrite: true, ...options });
  const rows = (await openShards(out)) as RowSource;
  const values = await valuesOf(rows);
  await rows.close();
  return values;
}

test.each(["snappy.parquet", "stored.npz", "cube.npy", "gnu.tar.gz"])(
  "%s comes back from Arrow and from compressed Arrow",
  async (name) => {
    const expected: Values = JSON.parse(readFileSync(join(FILES, "pack", `${name}.json`), "utf8"));
    for (const codec of ["none", "zstd", "lz4-body"] as const) {
      expect(await packed(join(FILES, "pack", name), { codec })).toEqual(expected);
    }
  },
);

test("files are taken in the order of their names, whatever the order of a folder", async () => {
  const folder = temp("x-*.npy");
  for (const i of [10, 9, 1]) writeFileSync(temp(`x-${i}.npy`), npy(i));
  expect(await packed(folder, { to: "safetensors" })).toEqual({ data: [1, 10, 9] });
});

test("casts, tokens without special ids, and saturation are options", async () => {
  const path = temp("rows.jsonl");
  writeFileSync(path, '{"n":300,"text":"Call me Ishmael."}\n{"n":-1,"text":""}\n');
  const tokenizer = join(FILES, "tokenizers/byte-level");
  const options = { casts: { n: "U8" }, saturate: true, tokenizer, codec: "zstd" } as const;
  const ids = [36, 461, 447, 329, 84, 73, 78, 66, 70, 77, 15];
  expect(await packed(path, options)).toEqual({ n: [255, 0], tokens: [[0, ...ids], [0]] });
  expect(await packed(path, { ...options, addSpecial: false })).toEqual({ n: [255, 0], tokens: [ids, []] });
  const failing = packed(path, { ...options, saturate: false });
  expect(failing).rejects.toMatchObject({
    code: "BAD_INPUT",
    message: expect.stringMatching(/row 0: column "n" has 300/),
  });
  await failing.catch(() => {});
});

/** One I8. */
function npy(value: number): Uint8Array {
  const text = "{'descr': '|i1', 'fortran_order': False, 'shape': (1,), }\n";
  return Buffer.concat([
    Buffer.from("\x93NUMPY\x01\x00", "latin1"),
    Uint8Array.of(text.length, 0),
    Buffer.from(text),
    Uint8Array.of(value),
  ]);
}
