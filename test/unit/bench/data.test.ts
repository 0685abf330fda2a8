import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { openConsumer } from "../../../src/bench/consume.ts";
import type { StoredForm } from "../../../src/bench/data/forms.ts";
import { DATA_KINDS, type DataKind, makeShards } from "../../../src/bench/data/kinds.ts";
import { prepareData } from "../../../src/bench/data/prepare.ts";
import { parseFormat } from "../../../src/bench/formats.ts";
import { MixSum } from "../../../src/bench/row-sum.ts";
import { HostSum, WordSum } from "../../../src/bench/sums.ts";
import { type Device, openDevice, openLoader } from "../../../src/index.ts";
import { cudaSubjects } from "../../conformance/cuda-subjects.ts";

const folder = mkdtempSync(join(tmpdir(), "headrace-bench-data-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const SIZE = 2 ** 20;
const FORMATS = ["safetensors", "arrow"].map(parseFormat);

function prepare(kind: DataKind, into = folder) {
  return prepareData({ kind, byteLength: SIZE, seed: 3 }, { folder: into, formats: FORMATS });
}

describe("made data", () => {
  test.each([...DATA_KINDS])("%s is the same for the same seed, and other for another", (kind) => {
    const digest = (seed: number) => {
      const hash = new Bun.CryptoHasher("sha256");
      let bytes = 0;
      for (const { values, offsets } of makeShards(kind, SIZE, seed)) {
        hash.update(values);
        if (offsets !== undefined) hash.update(offsets);
        bytes += values.length;
      }
      expect(bytes).toBeGreaterThan(0.8 * SIZE);
      expect(bytes).toBeLessThan(1.4 * SIZE);
      return hash.digest("hex");
    };
    expect(digest(1)).toBe(digest(1));
    expect(digest(1)).not.toBe(digest(2));
  });

  test("weights have the exponents of trained ones: they compress, and their lower bytes hardly do", () => {
    const [shard] = makeShards("weights", 4 * SIZE, 0);
    const { values } = shard!;
    const planes = [0, 1].map((plane) => values.filter((_, i) => i % 2 === plane));
    const [low, high] = planes.map(
      (plane) => Bun.zstdCompressSync(plane, { level: 3 }).length / plane.length,
    );
    expect(low).toBeGreaterThan(0.9);
    expect(high).toBeLessThan(0.55);
  });

  test("tokens follow Zipf's law: few make up most of them, and lengths differ", () => {
    const [shard] = makeShards("tokens", 2 * SIZE, 0);
    const tokens = new Int32Array(shard!.values.buffer);
    const counts = new Map<number, number>();
    for (const token of tokens) counts.set(token, (counts.get(token) ?? 0) + 1);
    const sorted = [...counts.values()].toSorted((a, b) => b - a);
    const top = sorted.slice(0, 100).reduce((sum, count) => sum + count, 0) / tokens.length;
    expect(top).toBeGreaterThan(0.4);
    expect(top).toBeLessThan(0.7);
    const lengths = Array.from(shard!.offsets!.subarray(1), (end, i) => end - shard!.offsets![i]!);
    expect(Math.max(...lengths) / Math.min(...lengths)).toBeGreaterThan(5);
  });

  test("is made once, and again where its files are of another version", async () => {
    const into = join(folder, "once");
    const steps: string[] = [];
    const run = () =>
      prepareData(
        { kind: "embeddings", byteLength: SIZE, seed: 1 },
        { folder: into, formats: FORMATS, onStep: (text) => steps.push(text) },
      );
    const first = await run();
    expect(steps).toEqual(["making embeddings: safetensors, arrow"]);
    expect((await run()).facts).toEqual(first.facts);
    expect(steps.length).toBe(1);
    const facts = join(into, readdirSync(into)[0]!, "facts.json");
    writeFileSync(facts, readFileSync(facts, "utf8").replace('"version": 1', '"version": 0'));
    expect((await run()).facts).toEqual(first.facts);
    expect(steps.length).toBe(2);
  });
});

/** What a device's consumer says of all batches of a form, and which of the sums that is. */
async function consumed(device: Device, form: StoredForm, tensors: boolean, shuffled: boolean) {
  const consumer = openConsumer(device, tensors);
  await using loader = await openLoader([...form.paths], {
    device,
    view: tensors ? "tensors" : "rows",
    ...(tensors ? { batchBytes: 2 ** 17 } : { batchSize: 37 }),
    ...(shuffled ? { shuffle: true, seed: 5 } : {}),
  });
  for await (const batch of loader) await consumer.take(batch);
  const sum = await consumer.finish();
  await consumer.close();
  return { kind: consumer.sum, sum };
}

const subjects: { name: string; open: () => Device }[] = [
  { name: "host", open: () => openDevice("host") },
  ...cudaSubjects()
    .filter(({ runsKernels = true }) => runsKernels)
    .slice(0, 3),
];

describe.each(subjects)("the sum of all samples on $name", ({ name, open }) => {
  test.each([...DATA_KINDS])("of %s is the generator's own, in every form and order", async (kind) => {
    const { facts, forms } = await prepare(kind);
    const device = open();
    try {
      for (const form of forms.values()) {
        if (typeof form === "string") throw new Error(form);
        const tensors = facts.tensors && form.format.base === "safetensors";
        const sums = tensors ? facts.tensorSums! : facts.rowSums;
        for (const shuffled of [false, true]) {
          const found = await consumed(device, form, tensors, shuffled);
          expect(found.kind).toBe(name === "host" ? "xxh3" : "mix");
          expect(found.sum).toBe(sums[found.kind]!);
        }
      }
      expect(device.openResources).toBe(0);
    } finally {
      await device.close();
    }
  });
});

describe("sums", () => {
  const samples = fc.array(fc.uint8Array({ maxLength: 70 }), { minLength: 2, maxLength: 12 });

  test.each([
    ["xxh3", () => new HostSum()],
    ["mix", () => new MixSum()],
  ] as const)("%s does not depend on the order, but on every sample's place and bytes", (_, create) => {
    const sumOf = (all: readonly (readonly [number, Uint8Array])[]) => {
      const sum = create();
      for (const [key, bytes] of all) sum.add(key, bytes);
      return sum.hex;
    };
    fc.assert(
      fc.property(samples, fc.nat(), (all, pick) => {
        const keyed = all.map((bytes, key) => [key, bytes] as const);
        const sum = sumOf(keyed);
        expect(sumOf(keyed.toReversed())).toBe(sum);
        expect(sumOf(keyed.slice(1))).not.toBe(sum);
        const at = pick % (all.length - 1);
        const [a, b] = [all[at]!, all[at + 1]!];
        const swapped = keyed.map(
          ([key, bytes]) => [key, key === at ? b : key === at + 1 ? a : bytes] as const,
        );
        if (Buffer.compare(a, b) !== 0) expect(sumOf(swapped)).not.toBe(sum);
        if (a.length > 0) {
          const changed = a.slice();
          changed[pick % a.length]! ^= 1 << (pick % 8);
          expect(sumOf(keyed.with(at, [at, changed]))).not.toBe(sum);
        }
      }),
    );
  });

  test("of words are those of BigInt, and absent where a sample is no whole number of them", () => {
    fc.assert(
      fc.property(fc.array(fc.bigUint64Array({ maxLength: 9 })), (all) => {
        const sum = new WordSum();
        for (const words of all) sum.add(new Uint8Array(words.buffer));
        const total = all.flatMap((words) => [...words]).reduce((a, b) => a + b, 0n);
        expect(sum.hex).toBe(BigInt.asUintN(64, total).toString(16).padStart(16, "0"));
        sum.add(new Uint8Array(3));
        expect(sum.hex).toBeUndefined();
      }),
    );
  });
});

test("facts that lack a field are not taken for some that say no", async () => {
  const own = join(folder, "facts");
  const { facts } = await prepare("embeddings", own);
  const path = join(own, readdirSync(own)[0]!, "facts.json");
  writeFileSync(path, JSON.stringify({ ...facts, plain: undefined }));
  expect((await prepare("embeddings", own)).facts.plain).toBe(true);
});
