import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { prepareFiles } from "../../../src/bench/cold.ts";
import type { PreparedData, StoredForm } from "../../../src/bench/data/forms.ts";
import { type DataSource, prepareData } from "../../../src/bench/data/prepare.ts";
import { prepareRehearsal } from "../../../src/bench/data/rehearsal.ts";
import { parseFormat } from "../../../src/bench/formats.ts";
import { planBench } from "../../../src/bench/options.ts";
import { pythonOf } from "../../../src/bench/peers.ts";
import { runInProcess } from "../../../src/bench/processes.ts";
import type { TrialSpec } from "../../../src/bench/spec.ts";
import { runTrial } from "../../../src/bench/trial.ts";
import { openDevice } from "../../../src/index.ts";
import { failureOf } from "../failure.ts";

const folder = mkdtempSync(join(tmpdir(), "headrace-bench-rehearsal-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const MIB = 2 ** 20;
const PROSE = join(import.meta.dir, "../../../datasets/prose");
const FORMATS = ["safetensors", "safetensors.lz4-1", "arrow"].map(parseFormat);
const SOURCE: DataSource = { kind: "tokens", byteLength: 2 * MIB, seed: 1 };

let data: PreparedData;
let short: PreparedData;
beforeAll(async () => {
  const options = { folder, formats: FORMATS };
  data = await prepareData(SOURCE, options);
  short = await prepareRehearsal(SOURCE, data, MIB, options);
});

function formOf(prepared: PreparedData, format: string): StoredForm {
  const form = prepared.forms.get(format);
  if (form === undefined || typeof form === "string") throw new Error(form ?? `no ${format}`);
  return form;
}

function specOf(format: string, path: string, change: Partial<TrialSpec> = {}): TrialSpec {
  const { paths, fileBytes } = formOf(data, format);
  const { bytes, numSamples, rowSums } = data.facts;
  const place = {
    data: "tokens",
    order: "sequential",
    temperature: "warm",
    lanes: 2,
    device: "host",
  } as const;
  return {
    cell: { ...place, id: `${format} by ${path}`, format, path },
    round: 0,
    paths,
    fileBytes,
    bytes,
    numSamples,
    tensors: false,
    sums: rowSums,
    batchBytes: 65_536,
    prefetch: 2,
    seed: 4,
    rehearsal: {
      paths: formOf(short, format).paths,
      bytes: short.facts.bytes,
      numSamples: short.facts.numSamples,
    },
    ...change,
  };
}

/** Part of `paths` that is in memory; undefined where the system does not tell. */
async function residentPart(paths: readonly string[]): Promise<number | undefined> {
  const device = openDevice("host", { lanes: 1 });
  try {
    const parts = paths.map((path) => {
      using file = device.openFile(path);
      return file.residentPart?.(true);
    });
    return parts.some((part) => part === undefined) ? undefined : Math.min(...(parts as number[]));
  } finally {
    await device.close();
  }
}

const inodes = (paths: readonly string[]) => paths.map((path) => statSync(path).ino);
const allFiles = (prepared: PreparedData) =>
  [...prepared.forms.values()].flatMap((form) => (typeof form === "string" ? [] : form.paths));

describe("the data of a rehearsal", () => {
  test("is of the same kind and formats, in other files with other bytes", () => {
    expect([...short.forms.keys()]).toEqual([...data.forms.keys()]);
    expect(short.facts.bytes).toBeGreaterThan(0.8 * MIB);
    expect(short.facts.bytes).toBeLessThan(1.4 * MIB);
    const measured = new Set(inodes(allFiles(data)));
    expect(inodes(allFiles(short)).filter((inode) => measured.has(inode))).toEqual([]);
  });

  test("is not the measured data where it has as many bytes", async () => {
    const same = await prepareRehearsal(SOURCE, data, 2 * MIB, { folder, formats: FORMATS });
    expect(same.facts.rowSums.xxh3).not.toBe(data.facts.rowSums.xxh3);
    const measured = new Set(inodes(allFiles(data)));
    expect(inodes(allFiles(same)).filter((inode) => measured.has(inode))).toEqual([]);
  });

  test("of a dataset of one's own is a copy of its smallest shards, once", async () => {
    const options = { folder, formats: ["arrow", "arrow.lz4-body"].map(parseFormat) };
    const own = await prepareData({ own: PROSE }, options);
    const prepare = () => prepareRehearsal({ own: PROSE }, own, MIB, options);
    const copy = await prepare();
    const shards = formOf(own, "arrow").paths;
    const [path, ...others] = formOf(copy, "arrow").paths;
    const smallest = shards.toSorted((a, b) => statSync(a).size - statSync(b).size)[0]!;
    expect(readFileSync(path!)).toEqual(readFileSync(smallest));
    expect(others.length).toBeLessThan(shards.length);
    const measured = new Set(inodes(allFiles(own)));
    expect(inodes(allFiles(copy)).filter((inode) => measured.has(inode))).toEqual([]);
    expect(copy.facts.columns).toEqual(own.facts.columns);
    const before = statSync(path!).ctimeMs;
    await prepare();
    expect(statSync(path!).ctimeMs).toBe(before);
  });

  test("of a dataset of one's own whose shards are large is made", async () => {
    const into = join(folder, "large");
    const own = join(into, "own");
    const formats = [parseFormat("safetensors")];
    const made = await prepareData(
      { kind: "weights", byteLength: 24 * MIB, seed: 2 },
      { folder: own, formats },
    );
    const source = { own: join(formOf(made, "safetensors").paths[0]!, "..") };
    const options = { folder: into, formats };
    const prepared = await prepareData(source, options);
    const instead = await prepareRehearsal(source, prepared, MIB, options);
    expect(instead.name).toBe("weights");
    expect(instead.facts.tensors).toBe(true);
    expect(instead.facts.bytes).toBeLessThan(1.4 * MIB);
  });
});

describe("a trial with a rehearsal", () => {
  test.each([
    ["safetensors", "read"],
    ["safetensors.lz4-1", "stream"],
    ["safetensors", "js-read"],
    ["arrow", "apache-arrow"],
  ])("of %s by %s is prepared when that is over", async (format, path) => {
    const spec = specOf(format, path);
    const cold = { ...spec, cell: { ...spec.cell, temperature: "cold" as const } };
    const order: (readonly string[])[] = [];
    const rehearsed: (number | undefined)[] = [];
    const wasCold: (number | undefined)[] = [];
    const outcome = await runTrial(cold, async (paths, temperature) => {
      order.push(paths);
      if (order.length === 2) rehearsed.push(await residentPart(spec.rehearsal!.paths));
      const prepared = prepareFiles(paths, temperature);
      wasCold.push(prepared.residency);
      return prepared;
    });
    expect(outcome.trial?.error).toBeUndefined();
    expect(order).toEqual([spec.rehearsal!.paths, spec.paths]);
    // Nothing of it was in memory, and all of it is when the trial's own files get their turn.
    if (wasCold[0] === 0) expect(rehearsed[0]).toBeGreaterThan(0.98);
    expect(outcome.trial!.residency).toBe(wasCold[1]);
  });

  test.each([
    ["safetensors", "map"],
    ["safetensors.lz4-1", "stream"],
    ["safetensors", "js-read"],
    ["safetensors", "harness"],
  ])("of %s by %s counts nothing of it", async (format, path) => {
    const spec = specOf(format, path);
    const [{ trial: after }, { trial: alone }] = [
      await runTrial(spec),
      await runTrial({ ...spec, rehearsal: undefined }),
    ];
    expect(after!.rehearsal).toEqual({ bytes: short.facts.bytes, seconds: expect.any(Number) });
    expect(alone!.rehearsal).toBeUndefined();
    for (const trial of [after!, alone!]) {
      expect(trial.error).toBeUndefined();
      expect(trial.bytes).toBe(data.facts.bytes);
    }
    expect(after!.numBatches).toBe(alone!.numBatches);
    expect(after!.checksum).toBe(alone!.checksum);
  });

  test.each([
    ["safetensors.lz4-1", "stream"],
    ["safetensors", "js-read"],
  ])("of %s by %s does not fail with it", async (format, path) => {
    const broken = join(folder, `broken.${format.replace(/-\d+$/, "")}`);
    const bytes = readFileSync(formOf(short, format).paths[0]!);
    writeFileSync(broken, bytes.fill(0xff, 0, 64));
    const spec = specOf(format, path);
    for (const paths of [[broken], [join(folder, "nowhere.safetensors")]]) {
      const outcome = await runInProcess({ ...spec, rehearsal: { ...spec.rehearsal!, paths } }, "python3");
      if ("skipped" in outcome) throw new Error(outcome.skipped);
      expect(outcome.trial.rehearsal).toMatchObject({ bytes: 0, error: expect.stringMatching(/./) });
      expect(outcome.trial.error).toBeUndefined();
      expect(outcome.trial.checksum).toBe(data.facts.rowSums.xxh3);
    }
  });

  test("is skipped as ever where the way declines", async () => {
    const outcome = await runTrial(specOf("safetensors", "mtlio-raw"));
    expect(outcome).toEqual({ skipped: expect.stringContaining("has no file queue to stream through") });
  });
});

describe("a peer", () => {
  /** A program in the interpreter's place, which says what a peer says. */
  function standIn(name: string, rehearse: string): string {
    const path = join(folder, name);
    const figures = { seconds: 1, checksum: data.facts.rowSums.words, cpuSeconds: 1, minorFaults: 0 };
    const line = JSON.stringify({ ...figures, majorFaults: 0, peakRssBytes: 1, latenciesMs: [1] });
    const steps = ["read spec", rehearse, "read go", '[ "$go" = go ] || exit 3', `echo '${line}'`];
    writeFileSync(path, `#!/bin/sh\n${steps.join("\n")}\n`);
    chmodSync(path, 0o755);
    return path;
  }

  function peerSpec(change: Partial<TrialSpec> = {}): TrialSpec {
    const spec = specOf("arrow", "peer", change);
    return { ...spec, cell: { ...spec.cell, peer: "pyarrow" } };
  }

  test("has its files prepared when it has rehearsed, and then begins", async () => {
    const [first] = formOf(data, "arrow").paths;
    const late = join(folder, "late.arrow");
    // Files that are there from the end of the rehearsal on can be prepared then alone.
    const python = standIn("late", `sleep 0.1; cp '${first}' '${late}'; echo hello; echo '{"seconds": 0.1}'`);
    const outcome = await runInProcess(peerSpec({ paths: [late] }), python);
    expect(outcome).toMatchObject({
      trial: { rehearsal: { bytes: short.facts.bytes, seconds: 0.1 }, seconds: 1, temperature: "warm" },
    });
    expect((outcome as { trial: object }).trial).not.toHaveProperty("error");
  });

  test("that ends before it is ready has failed, in its own words", async () => {
    const outcome = await runInProcess(peerSpec(), standIn("ending", "echo 'no such module' >&2; exit 1"));
    expect(outcome).toMatchObject({ trial: { error: "the trial's process ended: no such module" } });
  });

  test.each([1, 20_000])("that takes no specification of %d files has failed all the same", async (count) => {
    const paths = Array.from({ length: count }, (_, i) => join(folder, `shard-${i}.arrow`));
    const python = join(folder, "deaf");
    writeFileSync(python, "#!/bin/sh\nexit 4\n");
    chmodSync(python, 0o755);
    const outcome = await runInProcess(peerSpec({ paths }), python);
    expect(outcome).toMatchObject({ trial: { error: "the trial's process ended: exit code 4" } });
  });

  test("reads the rehearsal's files first, and tells where it could not", async () => {
    const python = pythonOf(undefined);
    if (!Bun.spawnSync([python, "-c", "import pyarrow, numpy"]).success) return;
    const whole = await runInProcess(peerSpec(), python);
    const expected = { bytes: short.facts.bytes, seconds: expect.any(Number) };
    expect(whole).toMatchObject({ trial: { rehearsal: expected, checksum: data.facts.rowSums.words } });
    const rehearsal = { ...peerSpec().rehearsal!, paths: [join(folder, "nowhere.arrow")] };
    const missed = await runInProcess(peerSpec({ rehearsal }), python);
    expect(missed).toMatchObject({
      trial: {
        rehearsal: { bytes: 0, error: expect.stringContaining("nowhere.arrow") },
        checksum: data.facts.rowSums.words,
      },
    });
    const without = await runInProcess(peerSpec({ rehearsal: undefined }), python);
    expect(without).toMatchObject({ trial: { checksum: data.facts.rowSums.words } });
    expect((without as { trial: object }).trial).not.toHaveProperty("rehearsal");
  });
});

test("rehearsals are of 16 MiB, of what is asked for, or of nothing", () => {
  expect(planBench().rehearsalBytes).toBe(16 * MIB);
  expect(planBench({ rehearsalBytes: 0 }).rehearsalBytes).toBe(0);
  for (const rehearsalBytes of [1, MIB - 1, 1024 * MIB + 1, 1.5 * MIB + 0.5]) {
    const error = failureOf(() => planBench({ rehearsalBytes }));
    expect(error.code).toBe("BAD_OPTION");
    expect(error.message).toContain(`rehearsalBytes is ${rehearsalBytes}`);
  }
});
