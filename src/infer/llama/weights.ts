/**
 * A model's tensors in device memory, through the project's own loader: in place where the device maps their files, in
 * memory of the loader's else. Checked against the configuration before a byte of them is read.
 */
import type { Device, DeviceBuffer } from "../../device/device.ts";
import { HeadraceError } from "../../errors.ts";
import { didYouMean } from "../../format/suggest.ts";
import { WEIGHT_TYPES, type WeightType } from "../../kernels/weights.ts";
import type { Batch, Column } from "../../loader/batch.ts";
import type { Dataset } from "../../loader/dataset.ts";
import { Loader } from "../../loader/loader.ts";
import { openDataset } from "../../loader/open.ts";
import type { Strategy } from "../../types.ts";
import type { LlamaConfig } from "./config.ts";

/** Bytes of whose multiples a tensor must start at for the kernels' wide loads. */
const TENSOR_ALIGNMENT = 16;
/** Bytes of one of the loader's batches, for models up to 256 times that. */
const BATCH_BYTES = 256 * 1024 * 1024;
const MOST_BATCHES = 256;

/** A tensor in device memory, C order. Lives as long as its model. */
export interface Weight {
  readonly name: string;
  readonly buffer: DeviceBuffer;
  readonly byteOffset: number;
  readonly type: WeightType;
  readonly shape: readonly number[];
}

/** A linear map `[outputs, inputs]`, and its bias `[outputs]` where it has one. */
export interface Linear {
  readonly weight: Weight;
  readonly bias?: Weight | undefined;
}

export interface LayerWeights {
  readonly inputNorm: Weight;
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly out: Linear;
  readonly postNorm: Weight;
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
}

/** All of a model's tensors; {@link LlamaWeights.close} ends their memory. */
export interface LlamaWeights {
  /** `[vocabulary, hidden]` */
  readonly embed: Weight;
  readonly layers: readonly LayerWeights[];
  readonly norm: Weight;
  /** The embedding table itself where they are tied; absent where it was not asked for. */
  readonly head?: Weight | undefined;
  /** Bytes of all tensors; those that are mapped are the file's own pages. */
  readonly byteLength: number;
  /** Of the files, as {@link Dataset.fingerprint}. */
  readonly fingerprint: string;
  close(): Promise<void>;
}

export interface LoadWeightsOptions {
  /** Whether the output head is wanted; default true. */
  readonly head?: boolean | undefined;
  /** How the files are reached; default `auto`. */
  readonly strategy?: Strategy | "auto" | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Name and shape of each tensor that the model consists of. */
export function tensorsOf(config: LlamaConfig, withHead = true): Map<string, readonly number[]> {
  const { hiddenSize: hidden, intermediateSize: inner, headSize, biases } = config;
  const queries = config.numHeads * headSize;
  const keys = config.numKvHeads * headSize;
  const prefix = config.headless ? "" : "model.";
  const shapes = new Map<string, readonly number[]>([
    [`${prefix}embed_tokens.weight`, [config.vocabSize, hidden]],
  ]);
  const linear = (name: string, outputs: number, inputs: number, bias: boolean) => {
    shapes.set(`${name}.weight`, [outputs, inputs]);
    if (bias) shapes.set(`${name}.bias`, [outputs]);
  };
  for (let layer = 0; layer < config.numLayers; layer++) {
    const name = `${prefix}layers.${layer}`;
    shapes.set(`${name}.input_layernorm.weight`, [hidden]);
    linear(`${name}.self_attn.q_proj`, queries, hidden, biases.qkv);
    linear(`${name}.self_attn.k_proj`, keys, hidden, biases.qkv);
    linear(`${name}.self_attn.v_proj`, keys, hidden, biases.qkv);
    linear(`${name}.self_attn.o_proj`, hidden, queries, biases.out);
    shapes.set(`${name}.post_attention_layernorm.weight`, [hidden]);
    linear(`${name}.mlp.gate_proj`, inner, hidden, biases.mlp);
    linear(`${name}.mlp.up_proj`, inner, hidden, biases.mlp);
    linear(`${name}.mlp.down_proj`, hidden, inner, biases.mlp);
  }
  shapes.set(`${prefix}norm.weight`, [hidden]);
  if (withHead && !config.tiedHead) shapes.set("lm_head.weight", [config.vocabSize, hidden]);
  return shapes;
}

/**
 * Loads the tensors of `source` (a safetensors file or an index of several). Borrows `device`. Throws what opening and
 * loading them throws, `BAD_MODEL` for tensors that are missing, of another shape, or not the model's, and `UNSUPPORTED`
 * for element types that kernels do not read.
 */
export async function loadLlamaWeights(
  source: string,
  device: Device,
  config: LlamaConfig,
  options: LoadWeightsOptions = {},
): Promise<LlamaWeights> {
  const { head = true, strategy = "auto", signal } = options;
  const shapes = tensorsOf(config, head);
  const loaded = await loadTensors(source, device, shapes, { config, strategy, signal });
  if ([...loaded.tensors.values()].every(isAligned)) return arranged(config, loaded, head);
  // Mapped at a place that no wide load can start from: read, tensors are laid out anew.
  await loaded.close();
  return arranged(
    config,
    await loadTensors(source, device, shapes, { config, strategy: "read", signal }),
    head,
  );
}

interface Loaded {
  readonly tensors: ReadonlyMap<string, Weight>;
  readonly byteLength: number;
  readonly fingerprint: string;
  readonly close: () => Promise<void>;
}

interface LoadContext {
  readonly config: LlamaConfig;
  readonly strategy: Strategy | "auto";
  readonly signal: AbortSignal | undefined;
}

async function loadTensors(
  source: string,
  device: Device,
  shapes: ReadonlyMap<string, readonly number[]>,
  { config, strategy, signal }: LoadContext,
): Promise<Loaded> {
  checkTensors(source, device, shapes, config);
  const dataset = openDataset(source, device, { view: "tensors", columns: [...shapes.keys()], strategy });
  let loader: Loader | undefined;
  try {
    const expected = tensorBytes(dataset);
    const batchBytes = Math.max(BATCH_BYTES, Math.ceil(expected / MOST_BATCHES));
    loader = new Loader(dataset, device, {
      batchBytes,
      // All batches are held: two neighbours are more than the limit together, or they were one.
      prefetch: 2 * Math.ceil(expected / batchBytes),
      // What the device has no room for, it says itself.
      memoryBytes: Number.MAX_SAFE_INTEGER,
      signal,
    });
    const batches: Batch[] = [];
    for await (const batch of loader) batches.push(batch);
    const tensors = new Map<string, Weight>();
    for (const batch of batches)
      for (const column of batch.columns.values()) tensors.set(column.name, weightOf(column));
    const byteLength = batches.reduce((total, batch) => total + batch.byteLength, 0);
    const { fingerprint } = dataset;
    const opened = loader;
    const close = async () => {
      await opened.close();
      dataset.close();
    };
    return { tensors, byteLength, fingerprint, close };
  } catch (error) {
    await loader?.close();
    dataset.close();
    throw error;
  }
}

/** Of all tensors in memory; files may be compressed. */
function tensorBytes(dataset: Dataset): number {
  let total = 0;
  for (let shard = 0; shard < dataset.numShards; shard++) {
    for (const { range } of dataset.describe(shard).tensors ?? []) total += range.end - range.start;
  }
  return total;
}

function weightOf({ name, buffer, byteOffset, dtype, shape }: Column): Weight {
  return { name, buffer, byteOffset, type: dtype as WeightType, shape };
}

function isAligned({ buffer, byteOffset }: Weight): boolean {
  return (buffer.gpuAddress + byteOffset) % TENSOR_ALIGNMENT === 0;
}

/** Compares what the files hold with what the model consists of. Reads headers alone. */
function checkTensors(
  source: string,
  device: Device,
  shapes: ReadonlyMap<string, readonly number[]>,
  config: LlamaConfig,
): void {
  using dataset: Dataset = openDataset(source, device, { view: "tensors" });
  const missing = new Set(shapes.keys());
  const extra: string[] = [];
  const types = new Map<string, string>();
  for (let shard = 0; shard < dataset.numShards; shard++) {
    for (const { name, dtype, shape } of dataset.describe(shard).tensors ?? []) {
      const wanted = shapes.get(name);
      if (wanted === undefined) {
        if (!isSpare(name)) extra.push(name);
        continue;
      }
      missing.delete(name);
      types.set(name, dtype);
      if (shape.join() !== wanted.join()) {
        throw bad(
          source,
          `tensor ${name} is [${shape.join(", ")}], but config.json makes it [${wanted.join(", ")}]`,
        );
      }
      if (!WEIGHT_TYPES.some((type) => type === dtype)) {
        const text = `${source}: tensor ${name} is ${dtype}; this engine reads ${WEIGHT_TYPES.join(", ")}`;
        throw new HeadraceError("UNSUPPORTED", text);
      }
    }
  }
  const [first] = missing;
  if (first !== undefined) {
    const text = `${missing.size} of the ${shapes.size} tensors of ${config.architecture} are missing, such as ${first}`;
    throw bad(source, `${text}${didYouMean(first, extra)}`);
  }
  checkOneType(source, types);
  if (extra.length > 0) {
    const text = `${extra.length} tensors are not part of ${config.architecture} as config.json has it, such as ${extra[0]}`;
    throw bad(source, text);
  }
}

/** Tensors that checkpoints carry and nobody needs: a head that is tied or not wanted, and tables of older writers. */
function isSpare(name: string): boolean {
  return name === "lm_head.weight" || name.endsWith(".rotary_emb.inv_freq");
}

function arranged(config: LlamaConfig, loaded: Loaded, withHead: boolean): LlamaWeights {
  const { tensors, byteLength, fingerprint, close } = loaded;
  const prefix = config.headless ? "" : "model.";
  // All were there when the files were checked, and files that change are noticed.
  const tensor = (name: string) => tensors.get(name)!;
  const linear = (name: string): Linear => ({
    weight: tensor(`${name}.weight`),
    bias: tensors.get(`${name}.bias`),
  });
  const layers = Array.from({ length: config.numLayers }, (_, layer): LayerWeights => {
    const name = `${prefix}layers.${layer}`;
    return {
      inputNorm: tensor(`${name}.input_layernorm.weight`),
      q: linear(`${name}.self_attn.q_proj`),
      k: linear(`${name}.self_attn.k_proj`),
      v: linear(`${name}.self_attn.v_proj`),
      out: linear(`${name}.self_attn.o_proj`),
      postNorm: tensor(`${name}.post_attention_layernorm.weight`),
      gate: linear(`${name}.mlp.gate_proj`),
      up: linear(`${name}.mlp.up_proj`),
      down: linear(`${name}.mlp.down_proj`),
    };
  });
  const embed = tensor(`${prefix}embed_tokens.weight`);
  const head = !withHead ? undefined : config.tiedHead ? embed : tensor("lm_head.weight");
  return { embed, layers, norm: tensor(`${prefix}norm.weight`), head, byteLength, fingerprint, close };
}

/** One launch reads the matrices of several projections, and their biases, as one type. */
function checkOneType(source: string, types: ReadonlyMap<string, string>): void {
  let first: string | undefined;
  for (const [name, type] of types) {
    if (!/_proj\.(weight|bias)$/.test(name)) continue;
    first ??= name;
    if (type === types.get(first)) continue;
    const text = `${source}: tensor ${name} is ${type} and ${first} is ${types.get(first)}; this engine reads all projections as one type`;
    throw new HeadraceError("UNSUPPORTED", text);
  }
}

function bad(source: string, text: string): HeadraceError {
  return new HeadraceError("BAD_MODEL", `${source}: ${text}`);
}
