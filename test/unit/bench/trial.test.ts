import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { prepareFiles } from "../../../src/bench/cold.ts";
import type { PreparedData, StoredForm } from "../../../src/bench/data/forms.ts";
import { prepareData } from "../../../src/bench/data/prepare.ts";
import { parseFormat } from "../../../src/bench/formats.ts";
import { measure } from "../../../src/bench/measure.ts";
import { openLoaderWork, openTrialDevice } from "../../../src/bench/paths-loader.ts";
import { runInProcess } from "../../../src/bench/processes.ts";
import type { TrialRecord } from "../../../src/bench/record.ts";
import type { TrialSpec } from "../../../src/bench/spec.ts";

const folder = mkdtempSync(join(tmpdir(), "headrace-bench-trial-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const FORMATS = [
  "safetensors",
  "safetensors.zst-1",
  "safetensors.lz4-1",
  "arrow",
  "arrow.zst-3",
  "arrow.zstd-body",
  "arrow.lz4-body",
].map(parseFormat);

let data: PreparedData;
beforeAll(async () => {
  data = await prepareData({ kind: "tokens", byteLength: 2 ** 20, seed: 1 }, { folder, formats: FORMATS });
});

function specOf(format: string, path: string, change: Partial<TrialSpec["cell"]> = {}): TrialSpec {
  const form = data.forms.get(format) as StoredForm;
  if (typeof form === "string") throw new Error(form);
  return {
    cell: {
      id: `${format} by ${path}`,
      data: "tokens",
      format,
      path,
      temperature: "warm",
      order: "sequential",
      lanes: 2,
      device: "host",
      ...change,
    },
    round: 0,
    paths: form.paths,
    fileBytes: form.fileBytes,
    bytes: data.facts.bytes,
    numSamples: data.facts.numSamples,
    tensors: false,
    sums: data.facts.rowSums,
    batchBytes: 65_536,
    prefetch: 2,
    seed: 4,
    ...(/\.zst-/.test(format) ? { container: "zst" } : {}),
  };
}

async function trialOf(spec: TrialSpec): Promise<TrialRecord> {
  const outcome = await runInProcess(spec, "python3");
  if ("skipped" in outcome) throw new Error(outcome.skipped);
  return outcome.trial;
}

describe("a trial in its own process", () => {
  const ways: [format: string, path: string][] = [
    ["safetensors", "map"],
    ["safetensors", "read"],
    ["safetensors", "js-read"],
    ["safetensors.zst-1", "stream"],
    ["safetensors.zst-1", "js-read"],
    ["safetensors.lz4-1", "stream"],
    ["arrow", "apache-arrow"],
    ["arrow.zst-3", "apache-arrow"],
    ["arrow.zstd-body", "stream"],
    ["arrow.zstd-body", "apache-arrow"],
    ["arrow.lz4-body", "stream"],
  ];

  test.each(ways)("of %s by %s delivers every byte, in order and shuffled", async (format, path) => {
    for (const order of ["sequential", "random"] as const) {
      const trial = await trialOf(specOf(format, path, { order }));
      expect(trial.error).toBeUndefined();
      expect(trial.checksum).toBe(data.facts.rowSums.xxh3);
      expect(trial.bytes).toBe(data.facts.bytes);
      expect(trial.numBatches).toBeGreaterThan(0);
      expect(trial.batchMs).toEqual(trial.batchMs.toSorted((a, b) => a - b));
      expect(trial.seconds).toBeGreaterThan(0);
      expect(trial.peakRssBytes).toBeGreaterThan(2 ** 24);
      expect(trial.cpuSeconds).toBeGreaterThan(0);
    }
  });

  test("fails loudly where a byte of a file is another", async () => {
    const path = join(folder, "damaged.safetensors");
    const spec = specOf("safetensors", "read");
    const bytes = readFileSync(spec.paths[0]!);
    bytes[bytes.length - 4000]! ^= 1;
    await Bun.write(path, bytes);
    const trial = await trialOf({ ...spec, paths: [path, ...spec.paths.slice(1)] });
    expect(trial.error).toContain(`and not ${data.facts.rowSums.xxh3}`);
  });

  test("fails with the loader's own words where a file is damaged so that it shows", async () => {
    const spec = specOf("safetensors.lz4-1", "stream");
    const path = join(folder, "damaged.safetensors.lz4");
    const bytes = readFileSync(spec.paths[0]!);
    bytes.fill(0xff, 5000, 6000);
    await Bun.write(path, bytes);
    const trial = await trialOf({ ...spec, paths: [path, ...spec.paths.slice(1)] });
    expect(trial.error).toContain(path);
    expect(trial.error).toMatch(/\[[A-Z_]+\]$/);
    expect(trial.seconds).toBe(0);
  });

  test("tells in its failure whether it was to keep the device busy", async () => {
    const paths = [join(folder, "gone.safetensors")];
    const spec = { ...specOf("safetensors", "read"), paths };
    const plain = await trialOf(spec);
    expect(plain.error).toContain("gone.safetensors");
    expect(plain.busy).toBeUndefined();
    const busy = await trialOf({ ...spec, computeMs: 5 });
    expect(busy.error).toContain("gone.safetensors");
    expect(busy.busy).toEqual({ computeMs: 5, share: 0 });
  });

  test("is skipped with the reason where the device declines", async () => {
    const outcome = await runInProcess(specOf("safetensors", "mtlio-raw"), "python3");
    expect(outcome).toMatchObject({
      skipped: expect.stringContaining("has no file queue to stream through"),
    });
  });

  test("of a peer that is not there fails with what its interpreter said", async () => {
    const trial = await trialOf(specOf("arrow", "peer", { peer: "pyarrow" })).catch((error) => error);
    // Where pyarrow is, it must have had every byte.
    if (trial.error === undefined) expect(trial.checksum).toBe(data.facts.rowSums.words);
    else expect(trial.error).toMatch(/pyarrow|numpy|python3/);
  });

  test("ends when it is told to", async () => {
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 60);
    const running = runInProcess(specOf("safetensors", "map"), "python3", abort.signal);
    await expect(running).rejects.toMatchObject({ code: "CANCELLED" });
  });
});

describe("files", () => {
  test("are proven cold or warm by what the system has in memory", () => {
    const { paths } = data.forms.get("safetensors") as StoredForm;
    const warm = prepareFiles(paths, "warm");
    expect(warm.temperature).toBe("warm");
    expect(warm.residency).toBeGreaterThan(0.98);
    const cold = prepareFiles(paths, "cold");
    // A file system in memory has nothing to drop, and says so.
    expect(cold.temperature).toBe(cold.residency! <= 0.02 ? "cold" : "warm");
    if (process.platform === "linux" && cold.temperature === "cold") {
      const fd = openSync(paths[0]!, "r+");
      try {
        // Dirty pages cannot be dropped before they are on disk.
        writeSync(fd, readFileSync(paths[0]!).subarray(0, 4096), 0, 4096, 0);
      } finally {
        closeSync(fd);
      }
      expect(prepareFiles(paths, "cold").residency).toBeLessThanOrEqual(0.02);
    }
  });
});

describe("the measuring loop", () => {
  const work = (count: number, waitMs: number) => {
    let left = count;
    let taken = 0;
    return {
      next: async () => {
        if (left-- === 0) return undefined;
        await Bun.sleep(waitMs);
        return left;
      },
      take: () => {
        taken++;
      },
      finish: () => String(taken),
    };
  };

  test("counts batches and their latencies", async () => {
    const { checksum, numBatches, batchMs, seconds } = await measure(work(5, 4));
    expect(checksum).toBe("5");
    expect(numBatches).toBe(5);
    expect(batchMs[0]).toBeGreaterThan(2);
    expect(seconds).toBeGreaterThan(0.015);
  });

  test("gives the share of the time that the device is busy, the first step left out", async () => {
    const ready = await measure(work(11, 0), 10);
    expect(ready.busy!.share).toBeGreaterThan(0.4);
    expect(ready.busy!.share).toBeLessThanOrEqual(1);
    const starved = await measure(work(11, 30), 10);
    expect(starved.busy!.share).toBeLessThan(0.27);
    expect(starved.busy!.share).toBeGreaterThan(0.02);
  });

  test("leaves out the wait for the first batch", async () => {
    let batches = 11;
    const late = {
      next: async () => {
        if (batches === 11) await Bun.sleep(400);
        return batches-- === 0 ? undefined : batches;
      },
      take: () => {},
      finish: () => "",
    };
    expect((await measure(late, 10)).busy!.share).toBeGreaterThan(0.35);
  });

  test("does not count what takes longer than the step as busy", async () => {
    const slow = { ...work(6, 0), take: () => Bun.sleep(40) };
    expect((await measure(slow, 10)).busy!.share).toBeLessThan(0.3);
  });
});

test("the loader opens files in the time that is measured, as other readers do", async () => {
  const spec = { ...specOf("safetensors", "read"), paths: [join(folder, "missing.safetensors")] };
  const device = await openTrialDevice(spec);
  const work = openLoaderWork(spec, device);
  try {
    await expect(measure(work)).rejects.toMatchObject({ code: "SOURCE_NOT_FOUND" });
  } finally {
    await work.close();
    await device.close();
  }
});
