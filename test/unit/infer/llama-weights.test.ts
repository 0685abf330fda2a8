/** Model folders: what is found, what is refused, and where tensors lie. */
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  setDefaultTimeout,
  test,
} from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Device } from "../../../src/device/device.ts";
import { openHost } from "../../../src/device/host/device.ts";
import { type ErrorCode, HeadraceError } from "../../../src/errors.ts";
import { describeSafetensors } from "../../../src/format/safetensors.ts";
import { openEmbedder } from "../../../src/infer/embed.ts";
import { openLlama } from "../../../src/infer/llama/engine.ts";
import { findModel } from "../../../src/infer/llama/model.ts";
import { loadLlamaWeights, tensorsOf } from "../../../src/infer/llama/weights.ts";
import { type RawTensor, writeRaw } from "../../loader/safetensors-files.ts";
import { chunkOf, FILES, requestOf } from "./llama-rig.ts";

setDefaultTimeout(60_000);

let device: Device;
let folder: string;
beforeAll(() => {
  device = openHost();
});
afterAll(async () => {
  await device.close();
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "headrace-model-"));
  cpSync(join(FILES, "llama-mistral"), folder, { recursive: true });
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
  expect(device.openResources).toBe(0);
});

/** The tensors of the folder's one file, to be changed and written again. */
function tensors(): RawTensor[] {
  const file = new Uint8Array(readFileSync(join(folder, "model.safetensors")));
  const described = describeSafetensors((at, length) => file.subarray(at, at + length), file.length);
  return described.tensors!.map(({ name, dtype, shape, range }) => ({
    name,
    dtype,
    shape,
    bytes: file.slice(range.start, range.end),
  }));
}

function rewrite(changed: readonly RawTensor[]): void {
  writeRaw(join(folder, "model.safetensors"), changed);
}

function reconfigure(changes: object): void {
  const path = join(folder, "config.json");
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...changes }));
}

async function expectRefused(code: ErrorCode, ...words: string[]): Promise<void> {
  const failure = await openLlama(folder, device, { slots: 1 }).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(HeadraceError);
  expect((failure as HeadraceError).code).toBe(code);
  for (const word of words) expect((failure as HeadraceError).message).toContain(word);
  expect((failure as HeadraceError).message).not.toContain("\n");
}

const TOKENS = Int32Array.of(1, 36, 5, 9);

async function logitsOf(source: string): Promise<Float32Array> {
  await using engine = await openLlama(source, device, { slots: 1 });
  return engine.logits(TOKENS);
}

describe("a model folder", () => {
  test("can be named by its folder or its weights", async () => {
    const expected = await logitsOf(folder);
    expect(await logitsOf(join(folder, "model.safetensors"))).toEqual(expected);
    const sharded = join(FILES, "llama-qwen2");
    const whole = await logitsOf(sharded);
    expect(await logitsOf(join(sharded, "model.safetensors.index.json"))).toEqual(whole);
  });

  test("has its end tokens from generation_config.json", () => {
    writeFileSync(join(folder, "generation_config.json"), JSON.stringify({ eos_token_id: [5, 6] }));
    expect(findModel(folder).config.eosTokenIds).toEqual([5, 6]);
    rmSync(join(folder, "generation_config.json"));
    expect(findModel(folder).config.eosTokenIds).toEqual([1]);
  });

  test("that is not there, or is none", async () => {
    rmSync(join(folder, "config.json"));
    await expectRefused("BAD_MODEL", "holds no config.json", folder);
    rmSync(folder, { recursive: true });
    await expectRefused("SOURCE_NOT_FOUND", folder);
  });

  test("whose configuration is cut off, or of another kind", async () => {
    reconfigure({ hidden_act: "relu" });
    await expectRefused("UNSUPPORTED", "hidden_act", "relu", folder);
    writeFileSync(join(folder, "config.json"), '{"hidden_size": ');
    await expectRefused("BAD_MODEL", "config.json", folder);
  });

  test("without weights", async () => {
    rmSync(join(folder, "model.safetensors"));
    await expectRefused("SOURCE_EMPTY", folder);
  });

  test("whose weights are cut off", async () => {
    const path = join(folder, "model.safetensors");
    writeFileSync(path, readFileSync(path).subarray(0, -1));
    await expectRefused("DATA_INCOMPLETE", path);
  });
});

describe("tensors", () => {
  test("that are missing are named, with what may be meant", async () => {
    const renamed = tensors().map((tensor) =>
      tensor.name === "model.norm.weight" ? { ...tensor, name: "model.norn.weight" } : tensor,
    );
    rewrite(renamed);
    await expectRefused("BAD_MODEL", "1 of the 21", "model.norm.weight", 'did you mean "model.norn.weight"');
  });

  test("of another shape", async () => {
    reconfigure({ vocab_size: 38 });
    await expectRefused("BAD_MODEL", "lm_head.weight is [37, 24]", "[38, 24]");
  });

  test("that are not the model's", async () => {
    reconfigure({ num_hidden_layers: 1 });
    await expectRefused("BAD_MODEL", "9 tensors", "model.layers.1.");
  });

  test("that nobody needs are passed over", async () => {
    const expected = await logitsOf(folder);
    const spare = { name: "model.rotary_emb.inv_freq", dtype: "F32", shape: [8], bytes: new Uint8Array(32) };
    rewrite([...tensors(), spare]);
    expect(await logitsOf(folder)).toEqual(expected);
  });

  test("of types that kernels do not read, or do not read together", async () => {
    const all = tensors();
    const [first] = all.filter(({ name }) => name.endsWith("q_proj.weight"));
    rewrite(all.map((one) => (one === first ? { ...one, dtype: "I16" } : one)));
    await expectRefused("UNSUPPORTED", first!.name, "I16", "F32, F16, BF16");
    rewrite(all.map((one) => (one === first ? { ...one, dtype: "F16" } : one)));
    await expectRefused("UNSUPPORTED", first!.name, "F16", "BF16", "one type");
  });

  test("of norms may be wider than the others", async () => {
    const expected = await logitsOf(folder);
    const wide = tensors().map((tensor) => {
      if (!/norm/.test(tensor.name)) return tensor;
      const bits = Uint32Array.from(new Uint16Array(tensor.bytes.buffer), (value) => value << 16);
      return { ...tensor, dtype: "F32", bytes: new Uint8Array(bits.buffer) };
    });
    rewrite(wide);
    expect(await logitsOf(folder)).toEqual(expected);
  });

  test("wherever they begin in the file give the same numbers", async () => {
    const expected = await logitsOf(folder);
    const all = tensors();
    // Names of other lengths move all data by as many bytes; spare tensors move those behind them.
    for (let pad = 0; pad < 8; pad++) {
      const spare = {
        name: `${"x".repeat(pad)}.rotary_emb.inv_freq`,
        dtype: "U8",
        shape: [pad * 3],
        bytes: new Uint8Array(pad * 3),
      };
      rewrite([spare, ...all]);
      for (const strategy of ["map", "read"] as const) {
        await using engine = await openLlama(folder, device, { slots: 1, strategy });
        expect(await engine.logits(TOKENS)).toEqual(expected);
      }
    }
  });

  test("lie in the file's own pages where it is mapped, and at wide places always", async () => {
    const { config, weights: path } = findModel(folder);
    const places = new Set<boolean>();
    for (let pad = 0; pad < 16; pad++) {
      rewrite([
        { name: `${"x".repeat(pad)}.rotary_emb.inv_freq`, dtype: "U8", shape: [0], bytes: new Uint8Array(0) },
        ...tensors().filter(({ name }) => !name.includes("inv_freq")),
      ]);
      const weights = await loadLlamaWeights(path, device, config, { strategy: "map" });
      const [first] = weights.layers;
      for (const { buffer, byteOffset } of [weights.embed, first!.q.weight, first!.down.weight]) {
        expect((buffer.gpuAddress + byteOffset) % 16).toBe(0);
      }
      places.add(weights.embed.buffer.file !== undefined);
      await weights.close();
    }
    expect(places).toEqual(new Set([true, false]));
  });

  test("are counted by hand", () => {
    const { config } = findModel(folder);
    expect(tensorsOf(config).size).toBe(1 + 2 * 9 + 1 + 1);
    expect(tensorsOf(config, false).has("lm_head.weight")).toBe(false);
    const biased = findModel(join(FILES, "llama-biased")).config;
    expect(tensorsOf(biased).size).toBe(1 + 2 * 16 + 1 + 1);
    expect(tensorsOf(biased).get("model.layers.1.self_attn.k_proj.bias")).toEqual([48]);
    expect(tensorsOf(findModel(join(FILES, "llama-qwen2")).config).has("lm_head.weight")).toBe(false);
  });
});

describe("weights that go wrong", () => {
  const request = requestOf(0, TOKENS);

  test("by NaNs give rows that fail, and engines that go on", async () => {
    const bytes = new Uint8Array(Uint16Array.from({ length: 24 }, () => 0x7fc0).buffer);
    rewrite(tensors().map((one) => (one.name === "model.norm.weight" ? { ...one, bytes } : one)));
    await using engine = await openLlama(folder, device, { slots: 1 });
    for (let i = 0; i < 2; i++) {
      const [result] = await engine.prefill([chunkOf(0, request)]);
      expect(result).toMatchObject({ slot: 0, error: { retry: false } });
      expect(result!.error!.message).toContain("no finite logit");
      engine.release(0);
    }
    await using embedder = await openEmbedder(folder, device, { slots: 1, vectors: 1 });
    for (let i = 0; i < 2; i++) {
      const [result] = await embedder.prefill([chunkOf(0, request)]);
      expect(result!.error!.message).toContain("no finite vector");
    }
  });

  /** Places data at a multiple of 16, so that it stays where it is when it is mapped. */
  function makeMappable(): string {
    const path = join(folder, "model.safetensors");
    const all = tensors();
    for (let pad = 0; pad < 16; pad++) {
      const name = `${"x".repeat(pad)}.rotary_emb.inv_freq`;
      rewrite([{ name, dtype: "U8", shape: [0], bytes: new Uint8Array(0) }, ...all]);
      if (readFileSync(path)[0]! % 16 === 8) break;
    }
    return path;
  }

  async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
    const failure = await work.then(
      () => undefined,
      (error: unknown) => error,
    );
    return failure instanceof HeadraceError ? failure.code : undefined;
  }

  test("by a file that shrinks under its mapping fail the step, and nothing is lost by it", async () => {
    const path = makeMappable();
    const whole = readFileSync(path);
    await using engine = await openLlama(folder, device, { slots: 1, strategy: "map" });
    await using embedder = await openEmbedder(folder, device, { slots: 1, strategy: "map", vectors: 1 });
    const expected = await engine.prefill([chunkOf(0, request)]);
    truncateSync(path, 1000);
    expect(await codeOf(engine.decode([0]))).toBe("FILE_CHANGED");
    expect(await codeOf(embedder.prefill([chunkOf(0, request)]))).toBe("FILE_CHANGED");
    writeFileSync(path, whole);
    engine.release(0);
    expect(await engine.prefill([chunkOf(0, request)])).toEqual(expected);
    expect(await embedder.prefill([chunkOf(0, request)])).toMatchObject([{ finish: "stop" }]);
  });

  test("by a signal that ends loading", async () => {
    const signal = AbortSignal.abort();
    expect(await codeOf(openLlama(folder, device, { slots: 1, signal }))).toBe("CANCELLED");
  });
});

test("a body without a head embeds, and does not generate", async () => {
  const request = requestOf(0, TOKENS);
  const vector = async () => {
    await using engine = await openEmbedder(folder, device, { slots: 1 });
    const [result] = await engine.prefill([chunkOf(0, request)]);
    const { buffer, byteOffset, length } = result!.embedding!;
    return new Float32Array(buffer.view(byteOffset, length * 4)).slice();
  };
  const expected = await vector();
  const body = tensors().filter(({ name }) => name !== "lm_head.weight");
  rewrite(body.map((tensor) => ({ ...tensor, name: tensor.name.replace(/^model\./, "") })));
  reconfigure({ architectures: ["MistralModel"] });
  expect(await vector()).toEqual(expected);
  await expectRefused("UNSUPPORTED", "MistralModel", "openEmbedder");
});
