/** A folder has the old pack or the new one, never a part: overwriting, runs that are killed, two at once, shards' bounds. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type HeadraceError, openDataset, openDevice, type PackOptions, pack } from "../../src/index.ts";
import { packWith } from "../../src/pack/pack.ts";
import { useTempDir } from "../loader/helpers.ts";
import { CrashDisk } from "../loader/writeback-disk.ts";
import { readRows, rejection, textFile } from "./text.ts";

setDefaultTimeout(60_000);

const temp = useTempDir();

function rowsOf(count: number, tail = ""): string {
  const rows = Array.from({ length: count }, (_, i) =>
    JSON.stringify({
      id: i,
      on: i % 3 === 0,
      text: `row ${i} é`.repeat(1 + (i % 9)),
      l: [i, i + 1].slice(i % 3),
    }),
  );
  return `${rows.join("\n")}\n${tail}`;
}

function contents(folder: string): Record<string, string> {
  const names = readdirSync(folder, { recursive: true }) as string[];
  const files = names.filter((name) => statSync(join(folder, name)).isFile()).sort();
  return Object.fromEntries(files.map((name) => [name, readFileSync(join(folder, name)).toString("latin1")]));
}

test.each([
  ["arrow", "none"],
  ["arrow", "zstd"],
  ["safetensors", "none"],
] as const)("overwriting keeps the old pack until the new one is whole: %s, %s", async (to, codec) => {
  const folder = temp("keep");
  const out = join(folder, "out");
  await pack(textFile(folder, "old.jsonl", rowsOf(20)), { out, to, codec });
  const before = contents(out);
  const options: PackOptions = { out, to, codec, overwrite: true, shardBytes: 2 ** 20, threads: 1 };
  const late = textFile(folder, "old-2.jsonl", rowsOf(30_000, '{"id":"no number"}\n'));
  expect((await rejection(() => pack(late, { ...options, name: "old" }))).code).toBe("BAD_INPUT");
  expect(contents(out)).toEqual(before);
  const abort = new AbortController();
  const onProgress: PackOptions["onProgress"] = ({ shards }) => shards > 1 && abort.abort();
  const big = textFile(folder, "big.jsonl", rowsOf(30_000));
  const cancelled = await rejection(() => pack(big, { ...options, signal: abort.signal, onProgress }));
  expect(cancelled.code).toBe("CANCELLED");
  expect(contents(out)).toEqual(before);
  const { shards } = await pack(big, options);
  expect(shards.length).toBeGreaterThan(2);
  expect(readdirSync(out).sort()).toEqual([...shards.map(({ path }) => path), "dataset.json"].sort());
});

test.each([
  ["arrow", {}],
  ["arrow", { codec: "zstd", chunkBytes: 2 ** 16 }],
  ["arrow", { codec: "lz4", chunkBytes: 2 ** 16 }],
  ["safetensors", { codec: "zstd", planes: true, chunkBytes: 2 ** 16 }],
] as const)(
  "overwriting %s with %j on a disk that fails at any operation: the old pack, or the new one",
  async (to, how) => {
    const folder = temp("disk");
    const first = textFile(folder, "a.jsonl", rowsOf(10));
    const second = textFile(folder, "b.jsonl", rowsOf(14_000));
    const sources = [readFileSync(first, "utf8"), readFileSync(second, "utf8")];
    const options: PackOptions = { out: "/out", to, shardBytes: 2 ** 20, name: "a", overwrite: true, ...how };
    const run = async (failAt: number, code: "EIO" | "ENOSPC") => {
      // Of a write that fails, half is on the disk.
      const disk = new CrashDisk((below) => below >> 1);
      disk.folders.add("/");
      await packWith(disk.process(), first, options);
      const before = disk.files();
      const start = disk.operations;
      disk.fate = (operation) => (operation === start + failAt ? code : undefined);
      const failure = await packWith(disk.process(), second, options).then(
        () => undefined,
        (error: unknown) => error as HeadraceError,
      );
      const names = Object.keys(disk.files());
      const after = Object.entries(disk.files()).filter(([path]) => !path.startsWith("/out/.packing/"));
      const left = names.filter((path) => /\/\.[^/]*\.packing$/.test(path));
      return { before, after: Object.fromEntries(after), left, failure, count: disk.operations - start };
    };
    const { after: whole, count } = await run(-1, "EIO");
    expect(Object.keys(whole).length).toBeGreaterThan(2);
    let failures = 0;
    // Every operation of the end, and some of those before.
    for (let at = 0; at < count; at += at < count - 30 ? 7 : 1) {
      const code = at % 2 === 0 ? "EIO" : "ENOSPC";
      const { before, after, left, failure } = await run(at, code);
      if (failure === undefined) expect(after).toEqual(whole);
      else {
        expect(failure.code).toBe(code === "EIO" ? "IO_ERROR" : "DISK_FULL");
        expect(failure.message).toContain("/out");
        expect(failure.message).toContain(code);
        expect(after).toEqual(before);
        expect(left).toEqual([]);
        failures++;
      }
    }
    expect(failures).toBeGreaterThan(10);
    expect([readFileSync(first, "utf8"), readFileSync(second, "utf8")]).toEqual(sources);
  },
);

test.each(["none", "zstd"] as const)(
  "a file that may grow no more, after a write in part: codec %s",
  async (codec) => {
    const folder = temp("short");
    const path = textFile(folder, "a.jsonl", rowsOf(60_000));
    const out = join(folder, "out");
    const script = textFile(
      folder,
      "short.ts",
      `import { pack } from ${JSON.stringify(join(import.meta.dir, "../../src/index.ts"))};
     const error = await pack(${JSON.stringify(path)}, { out: ${JSON.stringify(out)}, codec: "${codec}" }).catch((e) => e);
     process.stdout.write([error.code, error.message].join());`,
    );
    // Of the write that meets the limit of 100 blocks the system takes a part, and of the next nothing.
    const limited = ["bash", "-c", 'trap "" XFSZ; ulimit -f 100; exec "$0" "$1"', process.execPath, script];
    const child = Bun.spawn(limited, { stdout: "pipe", stderr: "pipe" });
    const text = await new Response(child.stdout).text();
    expect(text).toStartWith("IO_ERROR,");
    expect(text).toContain("(EFBIG)");
    expect(existsSync(out) ? readdirSync(out) : []).toEqual([]);
  },
);

test("two packs into one folder: the second is told so, and harms nothing", async () => {
  const folder = temp("busy");
  const out = join(folder, "out");
  const path = textFile(folder, "a.jsonl", rowsOf(30_000));
  const other = textFile(folder, "b.jsonl", rowsOf(3));
  const failures: Promise<HeadraceError>[] = [];
  const onProgress: PackOptions["onProgress"] = () => {
    if (failures.length > 0) return;
    failures.push(rejection(() => pack(other, { out, overwrite: true })));
    failures.push(rejection(() => pack(other, { out })));
  };
  const { samples } = await pack(path, { out, onProgress, threads: 1 });
  expect(failures.length).toBe(2);
  for (const failure of await Promise.all(failures)) {
    expect(failure.code).toBe("BUSY");
    expect(failure.message).toContain(`process ${process.pid} is writing there`);
  }
  expect(samples).toBe(30_000);
  expect(readdirSync(out).sort()).toEqual(["a-00000.arrow", "dataset.json"]);
});

test("what a killed run left is no dataset, and goes with the next pack", async () => {
  const folder = temp("killed");
  const out = join(folder, "out");
  const path = textFile(folder, "a.jsonl", rowsOf(60_000));
  const script = textFile(
    folder,
    "killed.ts",
    `import { pack } from ${JSON.stringify(join(import.meta.dir, "../../src/index.ts"))};
     await pack(${JSON.stringify(path)}, { out: ${JSON.stringify(out)}, codec: "zstd", shardBytes: 2 ** 20, threads: 1,
       onProgress: ({ shards }) => shards > 2 && process.kill(process.pid, "SIGKILL") });`,
  );
  const child = Bun.spawn([process.execPath, script], { stdout: "ignore", stderr: "pipe" });
  await child.exited;
  expect(child.signalCode).toBe("SIGKILL");
  expect(readdirSync(out)).toEqual([".packing"]);
  const left = readdirSync(join(out, ".packing"));
  expect(left).toContain("a-00000.arrow.zst");
  expect((await rejection(() => readRows(out))).code).toBe("SOURCE_EMPTY");
  await pack(textFile(folder, "b.jsonl", rowsOf(3)), { out });
  expect(readdirSync(out).sort()).toEqual(["b-00000.arrow", "dataset.json"]);
});

test.each([
  ["arrow", undefined, "none"],
  ["arrow", 10_000, "zstd"],
  ["arrow", undefined, "zstd-body"],
  ["safetensors", undefined, "none"],
] as const)(
  "shards of %s with batches of %p rows and codec %s keep to their bytes",
  async (to, rowsPerBatch, codec) => {
    const folder = temp("bound");
    const path = textFile(folder, "a.jsonl", rowsOf(60_000));
    for (const shardBytes of [2 ** 20, 3_000_000]) {
      const out = join(folder, `out-${shardBytes}`);
      const { shards } = await pack(path, { out, to, codec, rowsPerBatch, shardBytes });
      expect(shards.length).toBeGreaterThan(1);
      for (const { logicalBytes } of shards.slice(0, -1)) {
        expect(logicalBytes).toBeLessThanOrEqual(shardBytes);
        expect(logicalBytes).toBeGreaterThan(0.7 * shardBytes);
      }
      expect(shards.at(-1)!.logicalBytes).toBeLessThanOrEqual(shardBytes);
    }
  },
);

test("a row that is longer than a shard has one of its own, and columns that leave no room are refused", async () => {
  const folder = temp("long");
  const row = (id: number, length: number) => `${JSON.stringify({ id, t: "x".repeat(length) })}\n`;
  const out = join(folder, "out");
  const path = textFile(folder, "a.jsonl", row(0, 5) + row(1, 2 ** 21) + row(2, 5) + row(3, 6));
  const { shards } = await pack(path, { out, shardBytes: 2 ** 20 });
  expect(shards.map(({ samples }) => samples)).toEqual([1, 1, 2]);
  await using device = openDevice("host");
  using dataset = openDataset(out, device);
  expect(dataset.numSamples).toBe(4);
  const wide = Object.fromEntries(Array.from({ length: 4000 }, (_, i) => [`column-${i}`, i]));
  const failure = await rejection(() =>
    pack(textFile(folder, "wide.jsonl", `${JSON.stringify(wide)}\n`), {
      out: join(folder, "w"),
      shardBytes: 2 ** 20,
    }),
  );
  expect(failure.code).toBe("BAD_OPTION");
  expect(failure.message).toContain("describes 4000 columns takes");
  mkdirSync(join(folder, "mine"));
  writeFileSync(join(folder, "mine", "notes.txt"), "mine");
  const refused = await rejection(() => pack(path, { out: join(folder, "mine") }));
  expect(refused.code).toBe("OTHER_JOB");
  expect(readdirSync(join(folder, "mine"))).toEqual(["notes.txt"]);
});
