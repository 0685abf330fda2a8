import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathCounts } from "../../src/cli/run.ts";
import { TRACKS } from "../../src/index.ts";
import { proseRows, sha256, shardsOf } from "./expected.ts";
import { DATASETS, headrace, MAIN, ROOT, report, scratch, spawn } from "./process.ts";

const folder = scratch();
const rows = proseRows();
const DIGITS = join(DATASETS, "digits");
const [DIGITS_SHARD] = shardsOf("digits", ".safetensors") as [string];

const KEYS =
  "dataset device strategy samples batches bytes seconds firstBatchMs samplesPerSecond bytesPerSecond batchMsP50 batchMsP99 peakRssBytes epochs state".split(
    " ",
  );

function batchesOf<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) =>
    items.slice(i * size, (i + 1) * size),
  );
}

describe("what it prints", () => {
  test("one JSON object with every key, whose numbers agree", async () => {
    const { code, out, err } = await headrace("load", "--json");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^\{.*\}\n$/);
    const result = JSON.parse(out);
    for (const key of KEYS) expect(result).toHaveProperty(key);
    expect(result).not.toHaveProperty("digests");
    expect(result).toMatchObject({ dataset: "datasets/prose", device: "host", samples: 3000, batches: 47 });
    expect(result).toMatchObject({ epochs: 1, state: { version: 1, epoch: 1, position: 0 } });
    const values = rows.reduce((sum, row) => sum + 12 + Buffer.byteLength(row.text) + 4 * row.length, 0);
    expect(result.bytes).toBeGreaterThan(values);
    expect(result.bytes).toBeLessThan(values + 2 * 8 * (3000 + 47) + 1);
    expect(result.samplesPerSecond * result.seconds).toBeCloseTo(3000, 3);
    expect(result.bytesPerSecond * result.seconds).toBeCloseTo(result.bytes, 0);
    expect(result.firstBatchMs).toBeGreaterThan(0);
    expect(result.firstBatchMs).toBeLessThan(result.seconds * 1000);
    expect(result.batchMsP50).toBeGreaterThan(0);
    expect(result.batchMsP99).toBeGreaterThanOrEqual(result.batchMsP50);
    expect(result.peakRssBytes).toBeGreaterThan(10e6);
  });

  test("a table of numbers with units, and neither bar nor colours in a pipe", async () => {
    const { code, out, err } = await headrace("load");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^dataset +datasets\/prose \(4 shards\)$/m);
    expect(out).toMatch(/^samples +3,000 in 47 batches$/m);
    expect(out).toMatch(/^bytes +5\.\d\d MB$/m);
    expect(out).toMatch(/^time +[\d.]+ m?s, first batch after [\d.]+ m?s$/m);
    expect(out).toMatch(/^rate +[\d,]+ samples\/s, [\d.]+ [kMG]B\/s$/m);
    expect(out).toMatch(/^peak memory +[\d.]+ MB$/m);
    expect(out).not.toContain("\u001b");
  });
});

describe("the ways that shards took", () => {
  test("are counted by their reason, whatever its numbers", () => {
    const read = (reason: string) => ({ strategy: "read" as const, reason });
    const counts = pathCounts([
      read("7 bytes more than the 12 that are mapped"),
      { strategy: "map", reason: "it is in memory already" },
      read("8 bytes more than the 7 that are mapped"),
      read("asked for"),
      { strategy: "stream", reason: "asked for" },
    ]);
    expect([...counts]).toEqual([
      ["read (7 bytes more than the 12 that are mapped)", 2],
      ["map (it is in memory already)", 1],
      ["read (asked for)", 1],
      ["stream (asked for)", 1],
    ]);
  });

  test("are in the report, with their number", async () => {
    expect(await report("load", "--device", "host", "--strategy", "map")).toMatchObject({
      strategy: "map",
      paths: { "map (asked for)": 4 },
    });
  });
});

describe("options", () => {
  test("--device: null moves nothing, host does, the others are refused", async () => {
    expect(await report("load", "--device", "null")).toMatchObject({ device: "null", samples: 3000 });
    const env = { HEADRACE_CUDA_LIBRARY: "/nowhere" };
    const cuda = await spawn([process.execPath, MAIN, "load", "--device", "cuda"], ROOT, env).ended;
    expect(cuda).toMatchObject({ code: 1, out: "", err: expect.stringContaining("DEVICE_UNAVAILABLE") });
    expect(await headrace("load", "--device", "tpu")).toMatchObject({ code: 2, out: "" });
    expect(await headrace("load", "--device", "null", "--digest")).toMatchObject({ code: 2, out: "" });
  });

  test("--view", async () => {
    const result = await report("load", DIGITS_SHARD, "--view", "tensors", "--digest");
    expect(result).toMatchObject({ samples: 2, batches: 2, digests: { images: expect.any(String) } });
    expect(await headrace("load", "datasets/tiny-llama", "--view", "rows")).toMatchObject({
      code: 1,
      err: expect.stringContaining("NOT_ROWS"),
    });
  });

  test("--columns: names and patterns, only their bytes", async () => {
    const result = await report("load", "--columns", "id, len*", "--digest");
    expect(Object.keys(result.digests)).toEqual(["id", "length"]);
    expect(result.bytes).toBe(3000 * 8);
  });

  test("--batch-bytes with a unit", async () => {
    const result = await report("load", "--columns", "length", "--batch-bytes", "4kB");
    expect(result).toMatchObject({ batches: 3, bytes: 12_000 });
  });

  test("--batch-length and --length-column", async () => {
    const most = 50_000;
    let batches = 0;
    let length = Number.POSITIVE_INFINITY;
    for (const row of rows) {
      length += row.length;
      if (length <= most) continue;
      batches++;
      length = row.length;
    }
    const args = ["--columns", "text,tokens", "--length-column", "tokens"];
    expect((await report("load", "--batch-length", String(most), ...args)).batches).toBe(batches);
  });

  test("--last-batch drop and pad", async () => {
    const args = ["load", "--columns", "length", "--batch-size", "1024", "--last-batch"];
    expect(await report(...args, "drop")).toMatchObject({ batches: 2, samples: 2048, bytes: 2048 * 4 });
    expect(await report(...args, "pad")).toMatchObject({
      batches: 3,
      samples: 3000,
      bytes: 3072 * 4 + 1024,
    });
  });

  test("--shuffle with and without a seed, --block, --window", async () => {
    const digest = async (...args: string[]) => {
      const result = await report("load", "--columns", "id", "--digest", ...args);
      expect(result.samples).toBe(3000);
      return [result.digests.id, result.state.seed, result.state.blockSize, result.state.windowBlocks];
    };
    const zero = await digest("--shuffle");
    expect(zero.slice(1)).toEqual([0, null, null]);
    expect(await digest("--shuffle", "0")).toEqual(zero);
    const seven = await digest("--shuffle", "7");
    const blocks = await digest("--shuffle", "7", "--block", "50", "--window", "3");
    expect(blocks.slice(1)).toEqual([7, 50, 3]);
    const inOrder = await digest();
    expect(new Set([zero[0], seven[0], blocks[0], inOrder[0]]).size).toBe(4);
  });

  test("--epochs and --limit", async () => {
    const args = ["--columns", "id", "--epochs", "3", "--limit", "100"];
    expect(await report("load", ...args)).toMatchObject({ samples: 300, epochs: 3, bytes: 1200 });
    const nothing = await report("load", "--epochs", "0");
    expect(nothing).toMatchObject({ samples: 0, batches: 0, batchMsP50: 0, batchMsP99: 0, firstBatchMs: 0 });
  });

  test("--rank and --world-size share all samples out", async () => {
    const args = ["--columns", "id", "--batch-size", "100", "--digest", "--world-size", "2", "--rank"];
    const ranks = [await report("load", ...args, "0"), await report("load", ...args, "1")];
    expect(ranks.map(({ samples }) => samples)).toEqual([1500, 1500]);
    expect(ranks[0]!.digests.id).not.toBe(ranks[1]!.digests.id);
  });

  test("--memory bounds the arena, and the message speaks of options as they are typed", async () => {
    const { code, err } = await headrace("load", "--strategy", "read", "--memory", "20kB");
    expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining("BATCH_TOO_LARGE") });
    expect(err).not.toContain("memoryBytes");
    expect((await report("load", "--strategy", "read", "--memory", "64MiB")).samples).toBe(3000);
  });

  test("--pad-to and --pad-value", async () => {
    const padded = batchesOf(rows, 64).map((batch) => {
      const width = Math.ceil(Math.max(...batch.map((row) => row.length)) / 32) * 32;
      const values = new Int32Array(batch.length * width).fill(9);
      batch.forEach((row, i) => {
        values.set(row.tokens, i * width);
      });
      return values;
    });
    const bytes = Buffer.concat(padded.map((values) => new Uint8Array(values.buffer)));
    const args = ["--columns", "tokens", "--pad-to", "32", "--pad-value", "9", "--digest"];
    const result = await report("load", ...args);
    expect(result.digests).toEqual({ tokens: sha256(bytes) });
    expect(result.bytes).toBe(bytes.length + bytes.length / 4);
  });

  test("--timeout lets a fast run pass", async () => {
    const args = ["--strategy", "read", "--timeout", "60000"];
    expect((await report("load", ...args)).samples).toBe(3000);
  });

  test("--state at the end, and --resume from there", async () => {
    const file = join(folder, "end.json");
    await report("load", DIGITS, "--shuffle", "5", "--epochs", "2", "--state", file);
    const state = JSON.parse(readFileSync(file, "utf8"));
    expect(state).toMatchObject({ version: 1, epoch: 2, position: 0, seed: 5 });
    const resumed = ["load", DIGITS, "--shuffle", "5", "--resume", file, "--epochs"];
    const over = await headrace(...resumed, "2", "--json");
    expect(over).toMatchObject({ code: 0, err: expect.stringContaining("nothing is left to load") });
    expect(JSON.parse(over.out).samples).toBe(0);
    expect(await report(...resumed, "3")).toMatchObject({ samples: 2000, epochs: 3 });
  });
});

describe("--trace", () => {
  interface Event {
    ph: string;
    tid: number;
    ts: number;
    dur?: number;
    id?: number;
    name: string;
    args?: Record<string, unknown>;
  }

  async function trace(name: string, ...args: string[]): Promise<Event[]> {
    const file = join(folder, name);
    await report("load", "--strategy", "read", "--trace", file, ...args);
    return JSON.parse(readFileSync(file, "utf8")).traceEvents;
  }

  const spans = (events: Event[], track: number) =>
    events.filter(({ tid, ph }) => tid === track && (ph === "X" || ph === "b"));
  const ends = (events: Event[], track: number) =>
    new Map(events.filter(({ tid, ph }) => tid === track && ph === "e").map(({ name, ts }) => [name, ts]));

  test("has four tracks, each with a span a batch, and every begin its end", async () => {
    const events = await trace("trace.json", "--batch-size", "500");
    const names = events.filter(({ ph }) => ph === "M").map(({ tid, args }) => [tid, args?.name]);
    expect(names).toEqual([...TRACKS.entries()].map(([tid, name]) => [tid, name]));
    const batches = Array.from({ length: 6 }, (_, i) => `batch 0:${i * 500}`);
    for (const [tid, track] of TRACKS.entries()) {
      const titles = spans(events, tid).map(({ name }) => name.replace(/^wait /, ""));
      expect({ track, titles: titles.toSorted() }).toEqual({ track, titles: batches.toSorted() });
    }
    const open = new Map<number, number>();
    for (const { ph, id, ts, dur } of events) {
      if (ph === "X") expect(dur).toBeGreaterThanOrEqual(0);
      if (ph === "b") open.set(id!, ts);
      if (ph !== "e") continue;
      expect(ts).toBeGreaterThanOrEqual(open.get(id!) ?? Number.POSITIVE_INFINITY);
      open.delete(id!);
    }
    expect(open.size).toBe(0);
  });

  test("shows that --prefetch plans ahead, and not with 0", async () => {
    const early = async (prefetch: string) => {
      const events = await trace(`prefetch-${prefetch}.json`, "--batch-size", "300", "--prefetch", prefetch);
      const released = ends(events, TRACKS.indexOf("segments"));
      const planned = spans(events, TRACKS.indexOf("planning"));
      return planned.filter(({ ts }, i) => i > 0 && ts < released.get(`batch 0:${(i - 1) * 300}`)!).length;
    };
    expect(await early("0")).toBe(0);
    expect(await early("3")).toBeGreaterThan(0);
  });

  test("is written before the load, and also where the load fails", async () => {
    const file = join(folder, "failed.json");
    const { code } = await headrace("load", "--strategy", "read", "--memory", "20kB", "--trace", file);
    expect(code).toBe(1);
    expect(JSON.parse(readFileSync(file, "utf8")).traceEvents.length).toBeGreaterThanOrEqual(4);
    const lost = join(folder, "no-such-folder", "trace.json");
    const { err } = await headrace("load", "--epochs", "100000000", "--trace", lost);
    expect(err).toContain(`${lost}: cannot be written (ENOENT: its folder does not exist)`);
    expect(existsSync(lost)).toBe(false);
  });
});
