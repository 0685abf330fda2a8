/** Tensors as shards: models' folders, arrays, and shards that are packed again. */
import { describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  generate,
  type InferRequest,
  openDevice,
  openLlama,
  type PackOptions,
  pack,
} from "../../src/index.ts";
import { DISK } from "../../src/loader/writeback/files.ts";
import { PlainSink } from "../../src/pack/files.ts";
import type { TensorSource } from "../../src/pack/rows.ts";
import { isCheckpoint, openCheckpoint } from "../../src/pack/sources/checkpoint.ts";
import { openShards } from "../../src/pack/sources/shards.ts";
import { castTensors, type PackTensorsOptions, packTensors } from "../../src/pack/tensors.ts";
import { elementsOf } from "../golden/pack-rows.ts";
import { useTempDir } from "../loader/helpers.ts";

const temp = useTempDir();
const FILES = join(import.meta.dir, "../golden/files");
const QWEN = join(FILES, "llama-qwen2");

async function write(source: TensorSource, out: string, more: Partial<PackTensorsOptions> = {}) {
  mkdirSync(out, { recursive: true });
  const openSink = (path: string) => PlainSink.open(path, DISK);
  try {
    return await packTensors(source, out, { shardBytes: 2 ** 20, openSink, ...more });
  } finally {
    await source.close();
  }
}

async function tensorsIn(folder: string) {
  const source = (await openShards(folder, { view: "tensors" })) as TensorSource;
  const values = await elementsOf(source);
  const types = Object.fromEntries(
    source.tensors.map(({ name, dtype, shape }) => [name, `${dtype} ${shape}`]),
  );
  await source.close();
  return { values, types, names: source.tensors.map(({ name }) => name) };
}

describe("a model's folder", () => {
  test("comes out with the same tensors in other shards, its index and its files", async () => {
    const out = temp("out");
    const shards = await write(await openCheckpoint(QWEN), out, { shardBytes: 20_000 });
    expect(shards.map(({ path }) => path)).toEqual(
      [1, 2, 3, 4].map((i) => `model-0000${i}-of-00004.safetensors`),
    );
    expect(readdirSync(out).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "golden.json",
      ...shards.map(({ path }) => path),
      "model.safetensors.index.json",
    ]);
    const { values, types } = await tensorsIn(QWEN);
    const packed = await tensorsIn(out);
    expect(packed.values).toEqual(values);
    expect(packed.types).toEqual(types);
    for (const { path, bytes, sha256, samples } of shards) {
      const file = readFileSync(join(out, path));
      expect(new Bun.CryptoHasher("sha256").update(file).digest("hex")).toBe(sha256);
      expect(file.length).toBe(bytes);
      const header = JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE())).toString());
      expect((8 + Number(file.readBigUInt64LE())) % 16_384).toBe(0);
      expect(header.__metadata__).toEqual({ format: "pt" });
      expect(Object.keys(header)).toHaveLength(samples + 1);
    }
    const index = JSON.parse(readFileSync(join(out, "model.safetensors.index.json"), "utf8"));
    expect(index.metadata.total_size).toBe(64_640);
    expect(Object.keys(index.weight_map)).toEqual(Object.keys(types).sort());
    expect(readFileSync(join(out, "config.json"))).toEqual(readFileSync(join(QWEN, "config.json")));
  });

  test("gives the same bytes each time, and one shard has no number", async () => {
    const texts = [];
    for (const out of [temp("a"), temp("b")]) {
      const [shard] = await write(await openCheckpoint(QWEN), out);
      expect(shard!.path).toBe("model.safetensors");
      texts.push(
        readFileSync(join(out, shard!.path)),
        readFileSync(join(out, "model.safetensors.index.json")),
      );
    }
    expect(texts[2]!.equals(texts[0]!) && texts[3]!.equals(texts[1]!)).toBe(true);
  });

  test("is known by its configuration beside weights; a pickle alone is refused with what to do", async () => {
    const folder = temp("pickle");
    mkdirSync(folder);
    writeFileSync(join(folder, "config.json"), "{}");
    expect(isCheckpoint(folder)).toBe(false);
    expect(openCheckpoint(folder)).rejects.toMatchObject({ code: "SOURCE_NOT_FOUND" });
    writeFileSync(join(folder, "pytorch_model.bin"), "pickle");
    expect(isCheckpoint(folder)).toBe(true);
    expect(openCheckpoint(folder)).rejects.toMatchObject({
      code: "UNSUPPORTED",
      message: expect.stringMatching(/pytorch_model.bin: holds pickled weights, .*safe_serialization=True/),
    });
    expect(isCheckpoint(QWEN)).toBe(true);
    cpSync(QWEN, folder, { recursive: true });
    writeFileSync(join(folder, "other.safetensors.index.json"), "{}");
    expect(openCheckpoint(folder)).rejects.toMatchObject({ code: "SOURCE_MIXED" });
  });

  test.each([
    { codec: "none" },
    { codec: "zstd", chunkBytes: 8192 },
    { codec: "lz4" },
    { codec: "zstd", planes: true },
  ] as Partial<PackOptions>[])("packed with %o is the same model", async (options) => {
    const request: InferRequest = { row: 0, prompt: Int32Array.of(3, 1, 4, 1, 5), maxNewTokens: 8 };
    const outputs = [];
    const out = temp("packed");
    await pack(QWEN, { out, ...options });
    for (const folder of [QWEN, out]) {
      const device = openDevice("host");
      const engine = await openLlama(folder, device);
      for await (const { tokens } of generate([request], engine)) outputs.push([...tokens]);
      await engine.close();
      await device.close();
    }
    expect(outputs[0]).toHaveLength(8);
    expect(outputs[1]).toEqual(outputs[0]!);
    expect((await tensorsIn(out)).values).toEqual((await tensorsIn(QWEN)).values);
    // What was packed can be packed again.
    const again = temp("again");
    await pack(out, { out: again });
    expect((await plainModel()).equals(readFileSync(join(again, "model.safetensors")))).toBe(true);
  });
});

async function plainModel(): Promise<Buffer> {
  const out = temp("plain");
  rmSync(out, { recursive: true, force: true });
  await write(await openCheckpoint(QWEN), out);
  return readFileSync(join(out, "model.safetensors"));
}

describe("casts by dtype", () => {
  test("change the tensors of that dtype alone", async () => {
    const rig = () =>
      openShards(join(FILES, "safetensors/dtypes.safetensors"), { view: "tensors" }) as Promise<TensorSource>;
    const before = await tensorsIn(join(FILES, "safetensors/dtypes.safetensors"));
    const out = temp("cast");
    await write(castTensors(await rig(), { F32: "F64", I16: "I32" }), out);
    const after = await tensorsIn(out);
    const changed = Object.keys(before.types).filter((name) => before.types[name] !== after.types[name]);
    expect(changed.map((name) => `${before.types[name]} > ${after.types[name]}`).sort()).toEqual(
      changed
        .map((name) =>
          before.types[name]!.replace(
            /^(\w+) (.*)$/,
            (_, type, shape) => `${type} ${shape} > ${type === "F32" ? "F64" : "I32"} ${shape}`,
          ),
        )
        .sort(),
    );
    expect(changed.length).toBeGreaterThan(1);
    expect(after.values).toEqual(before.values);
    expect(() => castTensors({} as TensorSource, { F8_E4M3: "F32" })).toThrow(
      /tensors of F8_E4M3 cannot be cast to F32/,
    );
  });

  test("take pieces that cut elements, and name what does not fit", async () => {
    const values = Float32Array.from({ length: 1000 }, (_, i) => i / 2);
    const bytes = new Uint8Array(values.buffer);
    const source: TensorSource = {
      tensors: [
        {
          name: "odd",
          dtype: "F32",
          shape: [1000],
          byteLength: 4000,
          async *read() {
            for (let at = 0; at < 4000; at += 37) yield bytes.subarray(at, Math.min(4000, at + 37));
          },
        },
      ],
      byteLength: 4000,
      close: async () => {},
    };
    expect((await elementsOf(castTensors(source, { F32: "F64" }))).odd).toEqual([...values]);
    expect(elementsOf(castTensors(source, { F32: "U8" }))).rejects.toMatchObject({
      code: "BAD_INPUT",
      message: expect.stringMatching(/^the source: tensor "odd": element 511 is 255.5, which U8/),
    });
  });
});

test("nothing stays where a shard fails, or the source gives too little", async () => {
  const source = (await openShards(QWEN, { view: "tensors" })) as TensorSource;
  const short = {
    ...source,
    tensors: source.tensors.map((tensor, i) => (i === 20 ? { ...tensor, async *read() {} } : tensor)),
  };
  const out = temp("short");
  const seen: number[] = [];
  const packed = write(short, out, { shardBytes: 20_000, onProgress: (_, shards) => seen.push(shards) });
  expect(packed).rejects.toMatchObject({
    code: "BAD_INPUT",
    message: expect.stringMatching(/gave 0 bytes, and \d+ were/),
  });
  await packed.catch(() => {});
  expect(Math.max(...seen)).toBeGreaterThan(1);
  expect(readdirSync(out)).toEqual([]);
});

test("no tensor is no dataset", () => {
  const empty: TensorSource = { tensors: [], byteLength: 0, close: async () => {} };
  expect(write(empty, temp("empty"))).rejects.toMatchObject({ code: "SOURCE_EMPTY" });
});

test("arrays of an npz become tensors that the loader delivers", async () => {
  const out = temp("npz");
  const { view, samples } = await pack(join(FILES, "pack/tensors.npz"), { out });
  expect([view, samples]).toEqual(["tensors", 3]);
  expect((await tensorsIn(out)).values).toEqual(
    JSON.parse(readFileSync(join(FILES, "pack/tensors.npz.json"), "utf8")),
  );
});
