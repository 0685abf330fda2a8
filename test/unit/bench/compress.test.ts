/** Compressed forms of shards have as many shards, so that trials of both read alike. */
import { expect, test } from "bun:test";
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { compressForm } from "../../../src/bench/data/compress.ts";
import { parseFormat } from "../../../src/bench/formats.ts";
import { pack } from "../../../src/index.ts";
import { useTempDir } from "../../loader/helpers.ts";

const temp = useTempDir();

test("equal shards become as many", async () => {
  const folder = temp("forms");
  mkdirSync(folder, { recursive: true });
  const source = join(folder, "a.jsonl");
  const rows = Array.from({ length: 80_000 }, (_, i) =>
    JSON.stringify({ t: [i, i + 1, i + 2].slice(i % 3) }),
  );
  writeFileSync(source, `${rows.join("\n")}\n`);
  // In one batch, which takes less than the same rows in several.
  await pack(source, { out: join(folder, "plain"), rowsPerBatch: 1_000_000 });
  const first = join(folder, "plain", "a-00000.arrow");
  const paths = [0, 1, 2, 3].map((i) => join(folder, `${i}.arrow`));
  for (const path of paths) copyFileSync(first, path);
  const out = join(folder, "form");
  expect(await compressForm(paths, out, parseFormat("arrow.lz4-1"), undefined)).toBeUndefined();
  expect(readdirSync(out).filter((name) => name.endsWith(".lz4"))).toHaveLength(4);
});
