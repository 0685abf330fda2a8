/** Files that change while they are packed: told, whatever their kind, and nothing is left behind. */
import { expect, setDefaultTimeout, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { basename, join } from "node:path";
import { gunzipSync, gzipSync, zstdCompressSync } from "node:zlib";
import { type PackOptions, pack } from "../../src/index.ts";
import { DISK } from "../../src/loader/writeback/files.ts";
import { packWith } from "../../src/pack/pack.ts";
import { useTempDir } from "../loader/helpers.ts";
import { readRows, rejection, textFile } from "./text.ts";

setDefaultTimeout(60_000);

const temp = useTempDir();

const ROWS = 200_000;

function lines(count = ROWS, start = 0): string {
  let text = "";
  for (let i = start; i < start + count; i++) text += `{"id":${1_000_000 + i},"t":"a text of row ${i}"}\n`;
  return text;
}

/** Runs `change` once, when the packing has begun to write: the source is open, and read in part. */
function packChanging(source: string | string[], options: PackOptions, change: () => void) {
  let changed = false;
  const ops: typeof DISK = Object.assign(Object.create(DISK), {
    open: (...args: Parameters<typeof DISK.open>) => {
      if (!changed) change();
      changed = true;
      return DISK.open(...args);
    },
  });
  return packWith(ops, source, options);
}

/** Writes over `byteOffset` in place; the length stays where the file is that long. */
function overwrite(path: string, bytes: string | Uint8Array, byteOffset: number): void {
  const file = openSync(path, "r+");
  writeSync(file, typeof bytes === "string" ? Buffer.from(bytes) : bytes, 0, undefined, byteOffset);
  closeSync(file);
}

/** So long ago that the clock of the file system has moved since. */
function aged(path: string): string {
  utimesSync(path, 1_700_000_000, 1_700_000_000);
  return path;
}

const CHANGES: Record<string, (path: string) => void> = {
  "overwritten in place": (path) => overwrite(path, '{"id":7777777,', statSync(path).size - 20_000),
  appended: (path) => appendFileSync(path, lines(10, ROWS)),
  truncated: (path) => truncateSync(path, statSync(path).size - 1_000_003),
  "cut at a line": (path) => truncateSync(path, Buffer.byteLength(lines(ROWS / 2))),
  "overwritten, and its time put back": (path) => {
    overwrite(path, "9", 8);
    aged(path);
  },
};

for (const badRows of ["fail", "skip"] as const) {
  test.each(Object.keys(CHANGES))(
    `JSONL that is %s while it is packed, bad rows: ${badRows}`,
    async (how) => {
      const folder = temp("change");
      const path = aged(textFile(folder, "a.jsonl", lines()));
      const before = statSync(path).size;
      const out = join(folder, "out");
      const error = await rejection(() =>
        packChanging(path, { out, badRows, threads: 1 }, () => CHANGES[how]!(path)),
      );
      expect(error.code).toBe("FILE_CHANGED");
      expect(error.message).toContain(`${path}: changed while it was packed: it had ${before} bytes`);
      expect(error.message).toContain("2023-11-14T22:13:20.000000000Z");
      expect(error.message).toContain(`${statSync(path).size} bytes`);
      expect(existsSync(out)).toBe(false);
    },
  );
}

test("a change is told in place of what it did to the rows", async () => {
  const folder = temp("torn");
  const path = aged(textFile(folder, "a.jsonl", lines(2 * ROWS)));
  const size = statSync(path).size;
  const tear = () => overwrite(path, "\n}}}}\n", size - 20_000);
  const error = await rejection(() => packChanging(path, { out: join(folder, "out"), threads: 1 }, tear));
  expect(error.code).toBe("FILE_CHANGED");
});

test.each(["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])(
  "%s that is replaced by rename is packed as it was",
  async (name) => {
    const folder = temp("replace");
    const bytes = (text: string) =>
      name.endsWith(".gz")
        ? gzipSync(text)
        : name.endsWith(".zst")
          ? zstdCompressSync(text)
          : Buffer.from(text);
    const path = textFile(folder, name, bytes(lines()));
    const other = textFile(folder, `other-${name}`, bytes(lines(10)));
    const out = join(folder, "out");
    const report = await packChanging(path, { out, threads: 1 }, () => renameSync(other, path));
    expect(report.samples).toBe(ROWS);
    const rows = await readRows(out);
    expect(rows.at(-1)).toEqual({ id: 1_000_000 + ROWS - 1, t: `a text of row ${ROWS - 1}` });
  },
);

test("a file that gets another name or mode has not changed", async () => {
  const folder = temp("mode");
  const path = aged(textFile(folder, "a.jsonl", lines(1000)));
  const out = join(folder, "out");
  const { samples } = await packChanging(path, { out, threads: 1 }, () => {
    chmodSync(path, 0o600);
    renameSync(path, `${path}.old`);
  });
  expect(samples).toBe(1000);
});

/** Sources of the other kinds, each made from rows that were packed before. */
const KINDS = [
  "a.csv",
  "a.csv.gz",
  "a.jsonl.zst",
  "a.npy",
  "a.npz",
  "a.tar",
  "a.arrow",
  "a.safetensors",
  "a.parquet",
] as const;

/** Those of them that this library does not write. */
const GOLDEN: Readonly<Record<string, string>> = {
  "a.npy": "longs.npy",
  "a.npz": "stored.npz",
  "a.tar": "gnu.tar.gz",
  "a.parquet": "snappy.parquet",
};

async function sourceOf(name: (typeof KINDS)[number], folder: string): Promise<string> {
  const path = join(mkdirs(folder, "."), name);
  if (name.startsWith("a.csv")) {
    const text = `id\n${Array.from({ length: 1000 }, (_, i) => i).join("\n")}\n`;
    return textFile(folder, name, name.endsWith(".gz") ? gzipSync(text) : text);
  }
  if (name === "a.jsonl.zst") return textFile(folder, name, zstdCompressSync(lines(1000)));
  if (name === "a.arrow" || name === "a.safetensors") {
    const to = name === "a.arrow" ? "arrow" : "safetensors";
    const made = join(folder, "made");
    const text = Array.from({ length: 1000 }, (_, i) => `{"id":${i}}\n`).join("");
    const { shards } = await pack(textFile(folder, "rows.jsonl", text), { out: made, to, threads: 1 });
    renameSync(join(made, shards[0]!.path), path);
    return path;
  }
  const made = readFileSync(join(import.meta.dir, "../golden/files/pack", GOLDEN[name]!));
  writeFileSync(path, name === "a.tar" ? gunzipSync(made) : made);
  return path;
}

test.each(KINDS)("%s that is overwritten in place or grows while it is packed", async (name) => {
  const folder = temp(name.slice(2));
  const path = aged(await sourceOf(name, folder));
  const out = join(folder, "out");
  const bytes = new Uint8Array(8).fill(0x31);
  const middle = statSync(path).size >> 1;
  const torn = await rejection(() =>
    packChanging(path, { out, threads: 1 }, () => overwrite(path, bytes, middle)),
  );
  expect([torn.code, torn.message.startsWith(`${path}: changed while`)]).toEqual(["FILE_CHANGED", true]);
  const again = aged(await sourceOf(name, join(mkdirs(folder, "again"))));
  const grown = await rejection(() =>
    packChanging(again, { out, threads: 1 }, () => appendFileSync(again, bytes)),
  );
  expect([grown.code, grown.message.startsWith(`${again}: changed while`)]).toEqual(["FILE_CHANGED", true]);
  expect(existsSync(out)).toBe(false);
});

function mkdirs(folder: string, name: string): string {
  mkdirSync(join(folder, name), { recursive: true });
  return join(folder, name);
}

test.each(["model.safetensors", "config.json"])(
  "a checkpoint whose %s changes leaves the folder as it was",
  async (name) => {
    const folder = temp("model");
    const model = mkdirs(folder, "model");
    renameSync(await sourceOf("a.safetensors", folder), join(model, "model.safetensors"));
    writeFileSync(join(model, "config.json"), '{"a": 1}');
    const out = join(folder, "out");
    await pack(model, { out });
    const before = readdirSync(out).sort();
    const path = aged(join(model, name));
    const error = await rejection(() =>
      packChanging(model, { out, overwrite: true }, () => overwrite(path, " ", statSync(path).size - 1)),
    );
    expect([error.code, error.message.includes(`${basename(path)}: changed while`)]).toEqual([
      "FILE_CHANGED",
      true,
    ]);
    expect(readdirSync(out).sort()).toEqual(before);
  },
);

test("a file that is opened again by its path may not be replaced", async () => {
  const folder = temp("numpy");
  const path = await sourceOf("a.npy", folder);
  const other = await sourceOf("a.npy", mkdirs(folder, "other"));
  const out = join(folder, "out");
  const error = await rejection(() => packChanging(path, { out }, () => renameSync(other, path)));
  expect([error.code, error.message.includes("was replaced by another file")]).toEqual([
    "FILE_CHANGED",
    true,
  ]);
});
