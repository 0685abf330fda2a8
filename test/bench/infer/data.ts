/** What the benchmarks of inference run on: a model of SmolLM2-135M's shape with random weights, and requests for it. */
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { saveSafetensors, saveText, type TensorData } from "../../../src/index.ts";
import { hasBytes } from "../harness.ts";

/** Of a model in the Llama layout. */
export interface Shape {
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly ffn: number;
  readonly vocab: number;
  readonly context: number;
}

export const SMOLLM2_135M: Shape = {
  hidden: 576,
  layers: 30,
  heads: 9,
  kvHeads: 3,
  headSize: 64,
  ffn: 1536,
  vocab: 49_152,
  context: 2048,
};

/** The same kind, small: tries the script where there is no GPU. */
export const TINY: Shape = {
  hidden: 96,
  layers: 2,
  heads: 3,
  kvHeads: 1,
  headSize: 32,
  ffn: 256,
  vocab: 512,
  context: 1024,
};

/** Requests, by their number. */
export interface Requests {
  readonly prompts: readonly Int32Array[];
  readonly maxNewTokens: Int32Array;
  /** Of the prompts. */
  readonly path: string;
}

/** Where a model's config says that no token ends a text: each request runs to its own bound. */
const NO_EOS = null;
/** Values of the normal distribution that weights are picked from. */
const TABLE = 2 ** 16;

/** A generator of 32 random bits (xorshift32). */
export function random(seed: number): () => number {
  let state = (Math.imul(seed, 0x9e3779b1) ^ 0x6d2b79f5) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
}

/** A folder with config.json and model.safetensors in BF16, made once: weights of a normal distribution of deviation
 * `1 / sqrt(hidden)`, so that activations neither vanish nor grow; norms are ones. */
export function makeModel(folder: string, shape: Shape, seed = 1): string {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, "model.safetensors");
  saveText(join(folder, "config.json"), `${JSON.stringify(configOf(shape), null, 2)}\n`);
  if (hasBytes(`${path}.done`, 0) && Bun.file(path).size > parametersOf(shape) * 2) return folder;
  const next = random(seed);
  const normals = normalTable(1 / Math.sqrt(shape.hidden));
  const tensors = shapesOf(shape).map(([name, dimensions]): TensorData => {
    const count = dimensions.reduce((product, length) => product * length, 1);
    const data = new Uint16Array(count);
    if (name.endsWith("norm.weight")) data.fill(0x3f80);
    else for (let i = 0; i < count; i++) data[i] = normals[next() & (TABLE - 1)]!;
    return { name, dtype: "BF16", shape: dimensions, data };
  });
  saveSafetensors(path, tensors, { metadata: { format: "pt" } });
  saveText(`${path}.done`, "");
  return folder;
}

export function parametersOf(shape: Shape): number {
  return shapesOf(shape).reduce((sum, [, lengths]) => sum + lengths.reduce((a, b) => a * b, 1), 0);
}

function shapesOf({ hidden, layers, heads, kvHeads, headSize, ffn, vocab }: Shape): [string, number[]][] {
  const names: [string, number[]][] = [["model.embed_tokens.weight", [vocab, hidden]]];
  for (let i = 0; i < layers; i++) {
    const layer = `model.layers.${i}`;
    names.push(
      [`${layer}.input_layernorm.weight`, [hidden]],
      [`${layer}.self_attn.q_proj.weight`, [heads * headSize, hidden]],
      [`${layer}.self_attn.k_proj.weight`, [kvHeads * headSize, hidden]],
      [`${layer}.self_attn.v_proj.weight`, [kvHeads * headSize, hidden]],
      [`${layer}.self_attn.o_proj.weight`, [hidden, heads * headSize]],
      [`${layer}.post_attention_layernorm.weight`, [hidden]],
      [`${layer}.mlp.gate_proj.weight`, [ffn, hidden]],
      [`${layer}.mlp.up_proj.weight`, [ffn, hidden]],
      [`${layer}.mlp.down_proj.weight`, [hidden, ffn]],
    );
  }
  return [...names, ["model.norm.weight", [hidden]]];
}

function configOf({ hidden, layers, heads, kvHeads, headSize, ffn, vocab, context }: Shape) {
  return {
    architectures: ["LlamaForCausalLM"],
    attention_bias: false,
    bos_token_id: 0,
    dtype: "bfloat16",
    eos_token_id: NO_EOS,
    head_dim: headSize,
    hidden_act: "silu",
    hidden_size: hidden,
    intermediate_size: ffn,
    max_position_embeddings: context,
    mlp_bias: false,
    model_type: "llama",
    num_attention_heads: heads,
    num_hidden_layers: layers,
    num_key_value_heads: kvHeads,
    pad_token_id: 0,
    rms_norm_eps: 1e-5,
    rope_parameters: { rope_theta: 100_000, rope_type: "default" },
    tie_word_embeddings: true,
    vocab_size: vocab,
  };
}

/** BF16 bits of normal values at equal steps of probability, so that a random index gives a normal value. */
function normalTable(deviation: number): Uint16Array {
  const floats = new Float32Array(TABLE);
  for (let i = 0; i < TABLE; i++) floats[i] = deviation * normalQuantile((i + 0.5) / TABLE);
  const bits = new Uint32Array(floats.buffer);
  return Uint16Array.from(bits, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16);
}

/** By bisection of the logistic approximation's inverse: close enough to normal, and short. */
function normalQuantile(share: number): number {
  const logit = Math.log(share / (1 - share));
  let low = -6;
  let high = 6;
  for (let i = 0; i < 40; i++) {
    const middle = (low + high) / 2;
    if (1.5976 * middle + 0.07056 * middle ** 3 < logit) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** `count` prompts of 16 to 256 tokens, evenly, and outputs of exponentially many tokens: mean 96, 1 to 512. Kept as a
 * safetensors file with the ragged column `tokens` and the column `max_new_tokens`. */
export function makeRequests(folder: string, vocab: number, count = 256, seed = 2): Requests {
  mkdirSync(folder, { recursive: true });
  const next = random(seed);
  const prompts: Int32Array[] = [];
  const maxNewTokens = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const length = 16 + (next() % 241);
    prompts.push(Int32Array.from({ length }, () => next() % vocab));
    maxNewTokens[i] = Math.min(512, Math.max(1, Math.round(-96 * Math.log((next() + 0.5) / 2 ** 32))));
  }
  const offsets = new Int32Array(count + 1);
  prompts.forEach((prompt, i) => {
    offsets[i + 1] = offsets[i]! + prompt.length;
  });
  const values = new Int32Array(offsets[count]!);
  prompts.forEach((prompt, i) => {
    values.set(prompt, offsets[i]!);
  });
  const path = join(folder, "requests.safetensors");
  saveSafetensors(path, [
    { name: "tokens", dtype: "I32", shape: [values.length], data: values },
    { name: "tokens.offsets", dtype: "I32", shape: [count + 1], data: offsets },
    { name: "max_new_tokens", dtype: "I32", shape: [count], data: maxNewTokens },
  ]);
  return { prompts, maxNewTokens, path };
}

/** Bytes of the weights in their file. */
export function weightBytes(folder: string): number {
  const file = readFileSync(join(folder, "model.safetensors")).subarray(0, 8);
  return Bun.file(join(folder, "model.safetensors")).size - 8 - Number(file.readBigUInt64LE(0));
}
