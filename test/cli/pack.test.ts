/** `pack` and `verify` as commands: what they print, how they end, what a signal leaves. */
import { describe, expect, test } from "bun:test";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { DATASETS, headrace, ROOT, report, scratch, start, waitFor } from "./process.ts";

const folder = scratch();
const SOURCE = join(folder, "rows.jsonl");
writeFileSync(
  SOURCE,
  Array.from({ length: 500 }, (_, i) => `{"id":${i},"text":"row ${i}","tags":[${i},1]}\n`).join(""),
);
const FULL = join(folder, "full");
mkdirSync(FULL);
writeFileSync(join(FULL, "notes.txt"), "mine");

describe("pack", () => {
  test("a table of what came of it, and the same as JSON", async () => {
    const out = join(folder, "table");
    const table = await headrace("pack", SOURCE, "--out", out, "--rows-per-batch", "100");
    expect({ code: table.code, err: table.err }).toEqual({ code: 0, err: "" });
    expect(table.out).toMatch(/^packed +\d+(\.\d+)? kB in /m);
    expect(table.out).toMatch(/^rows +500$/m);
    expect(table.out).toMatch(/^shards +1 shard of arrow, /m);
    const args = [
      "--cast",
      "id=i32",
      "--rename",
      "id=n",
      "--columns",
      "id,tags",
      "--schema",
      "tags=i32[]",
      "--codec",
      "zstd",
      "--level",
      "5",
    ];
    const json = await headrace(
      "pack",
      SOURCE,
      "--out",
      out,
      "--overwrite",
      "--json",
      "--limit",
      "20",
      ...args,
    );
    const said = JSON.parse(json.out);
    expect(said).toMatchObject({ samples: 20, view: "rows", format: "arrow", codec: "zstd" });
    expect(said.shards[0].path).toBe("rows-00000.arrow.zst");
    expect(readdirSync(out).sort()).toEqual(["dataset.json", "rows-00000.arrow.zst"]);
    expect((await report("load", out)).samples).toBe(20);
  });

  test("a type for a column that no row has is a warning", async () => {
    const out = join(folder, "warned");
    const ended = await headrace("pack", SOURCE, "--out", out, "--schema", "zz=i32", "--json");
    const text = 'schema names column "zz", and none of the 500 rows has a value there; is the name right?';
    expect({ code: ended.code, err: ended.err }).toEqual({ code: 0, err: `headrace: --${text}\n` });
    expect(JSON.parse(ended.out).warnings).toEqual([text]);
  });

  test.each([
    [["pack", SOURCE], 2, "required option '--out <folder>' not specified"],
    [["pack", SOURCE, "--out", "x", "--codec", "zip"], 2, "argument 'zip' is invalid"],
    [["pack", SOURCE, "--out", "x", "--rename", "id"], 2, "It must be old=new, with commas between"],
    [["pack", SOURCE, "--out", "x", "--rename", "id=b,id=c"], 2, 'It names "id" twice: b and c'],
    [["pack", SOURCE, "--out", "x", "--schema", "id=i32, id=i64"], 2, 'It names "id" twice: i32 and i64'],
    [["pack", SOURCE, "--out", "x", "--cast", "id=f16", "--cast", "id=f32"], 2, 'It names "id" twice'],
    [["pack", SOURCE, "--out", join(folder, "u"), "--name", ".x"], 2, "--name is .x; it must be"],
    [
      ["pack", "-", "--out", join(folder, "u")],
      1,
      "-: packing takes files; write what comes on standard input",
    ],
    [["pack", "/dev/null", "--out", join(folder, "u")], 1, "/dev/null: is a pipe or a device"],
    [["pack", SOURCE, "--out", join(folder, "u"), "--columns", "idd"], 2, "there is no column idd"],
    [["pack", SOURCE, "--out", join(folder, "u"), "--shard-bytes", "5"], 2, "--shard-bytes is 5"],
    [
      ["pack", SOURCE, "--out", join(folder, "u"), "--level", "3"],
      2,
      "--level means nothing with codec none",
    ],
    [["pack", SOURCE, "--out", folder], 2, "--out is "],
    [["pack", SOURCE, "--out", ""], 2, '--out is ""; it must be'],
    [
      ["pack", SOURCE, "--out", join(folder, "u"), "--tokens-column", "t"],
      2,
      "--tokens-column means nothing without --tokenizer",
    ],
    [
      ["pack", SOURCE, "--out", join(folder, "u"), "--no-special"],
      2,
      "--no-special means nothing without --tokenizer",
    ],
    [
      ["pack", SOURCE, "--out", join(folder, "u"), "--saturate"],
      2,
      "--saturate means nothing without --cast",
    ],
    [
      ["pack", SOURCE, "--out", join(folder, "u"), "--to", "safetensors", "--rows-per-batch", "5"],
      2,
      "--rows-per-batch is of Arrow's record batches, and --to is safetensors",
    ],
    [["pack", SOURCE, "--out", join(folder, "u"), "--delimiter", ";"], 2, "--delimiter is for CSV"],
    [["pack", SOURCE, "--out", FULL], 1, "or add --overwrite [OTHER_JOB]"],
    [["pack", join(folder, "none.jsonl"), "--out", join(folder, "u")], 1, "there is no such file or folder"],
    [["verify", join(folder, "none")], 1, "there is no such file or folder"],
  ])("%j ends with %d", async (args, code, message) => {
    const ended = await headrace(...args);
    expect(ended.code).toBe(code);
    expect(ended.err).toContain(message);
    expect(ended.err.trimEnd().split("\n")).toHaveLength(1);
  });

  test.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("%s leaves nothing", async (signal, code) => {
    const big = join(folder, `big-${code}.jsonl`);
    const lines = readFileSync(SOURCE, "utf8").repeat(200);
    for (let i = 0; i < 12; i++) appendFileSync(big, lines);
    const out = join(folder, `out-${code}`);
    const { child, ended } = start(["pack", big, "--out", out, "--shard-bytes", "1MiB", "--threads", "1"]);
    await waitFor("a shard", () => existsSync(join(out, ".packing", `big-${code}-00000.arrow`)));
    child.kill(signal);
    const { code: got, err } = await ended;
    expect(got).toBe(code);
    expect(err).toBe(`headrace: interrupted; ${out} is as it was\n`);
    expect(existsSync(out)).toBe(false);
  });
});

test("what the README shows is what comes out", async () => {
  const readme = readFileSync(join(ROOT, "README.md"), "utf8");
  const block = /```console\n(\$ bun run pack [\s\S]*?)```/.exec(readme)![1]!;
  const cwd = join(folder, "readme");
  mkdirSync(cwd);
  symlinkSync(DATASETS, join(cwd, "datasets"));
  // Sizes that the installed library decides, and times.
  const plain = (text: string) =>
    text
      .replaceAll(/[\d.]+ (k?B|MB|ms|s)\b/g, "#")
      .replaceAll(/[\d.]+ to 1/g, "#")
      .replaceAll(/ +/g, " ");
  const parts = block.split(/^\$ bun run (.*)\n/m).slice(1);
  expect(parts).toHaveLength(4);
  for (let i = 0; i < parts.length; i += 2) {
    const { out, err, code } = await start(parts[i]!.split(" "), cwd).ended;
    expect({ code, err, out: plain(out) }).toEqual({ code: 0, err: "", out: plain(parts[i + 1]!) });
  }
});

describe("verify", () => {
  test("a line for each shard; damage is named and ends with 1", async () => {
    const out = join(folder, "verified");
    await headrace("pack", SOURCE, "--out", out);
    const well = await headrace("verify", out);
    expect({ code: well.code, err: well.err }).toEqual({ code: 0, err: "" });
    expect(well.out).toMatch(
      /rows-00000\.arrow +500 +.* size sha256 structure schema samples values bounds +ok$/m,
    );
    const shard = join(out, "rows-00000.arrow");
    const bytes = readFileSync(shard);
    bytes.write("X", bytes.indexOf("row 17"));
    writeFileSync(shard, bytes);
    const bad = await headrace("verify", out);
    expect(bad.code).toBe(1);
    expect(bad.err).toContain("[DIGEST_MISMATCH]");
    expect(bad.err).toContain(`headrace: 1 of 1 shard failed: ${shard}`);
    const json = await headrace("verify", out, "--json");
    expect(JSON.parse(json.out)).toMatchObject({ ok: false, failedShards: 1, samples: 500 });
    expect(json.code).toBe(1);
    expect((await headrace("verify", out, "--no-digests")).code).toBe(0);
  });
});
