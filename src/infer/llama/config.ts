/**
 * What `config.json` of a model folder in the Hugging Face layout says, and `generation_config.json` beside it: Llama,
 * and Mistral and Qwen2 where they differ from it in nothing but biases.
 *
 * Both spellings of the rotation are read: `rope_parameters` (transformers 5) and `rope_theta` with `rope_scaling`.
 */
import * as v from "valibot";
import { HeadraceError } from "../../errors.ts";
import { MAX_HEAD_SIZE } from "../../kernels/attention-text.ts";

/** The scaling of `rope_type` `llama3`. */
export interface Llama3Scaling {
  readonly factor: number;
  readonly lowFreqFactor: number;
  readonly highFreqFactor: number;
  /** Positions that the model was first trained with. */
  readonly originalMaxPositions: number;
}

/** How positions turn queries and keys. */
export interface RopeConfig {
  readonly theta: number;
  readonly scaling?: Llama3Scaling | undefined;
}

/** A model's shape. All counts are at least 1. */
export interface LlamaConfig {
  readonly architecture: string;
  /** Whether the file holds the body alone, without an output head: its tensors lack the prefix `model.`. */
  readonly headless: boolean;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  /** Divides `numHeads`. */
  readonly numKvHeads: number;
  /** Elements of one head: a multiple of 8 from 16 to 256. */
  readonly headSize: number;
  readonly vocabSize: number;
  /** Positions that the model knows. */
  readonly maxPositions: number;
  readonly normEps: number;
  readonly rope: RopeConfig;
  /** Whether the output head is the embedding table. */
  readonly tiedHead: boolean;
  /** Which projections have a bias. */
  readonly biases: { readonly qkv: boolean; readonly out: boolean; readonly mlp: boolean };
  /** Tokens that end a text; may be empty. */
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId?: number | undefined;
}

/** Bounds that keep sizes exact and tables small. */
const MAX_COUNT = 2 ** 24;
const MAX_LAYERS = 4096;

const count = (most = MAX_COUNT) => v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(most));
const positive = v.pipe(v.number(), v.finite(), v.gtValue(0));
const tokenId = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const tokenIds = v.nullish(v.union([tokenId, v.array(tokenId)]));

const ropeFields = v.looseObject({
  rope_theta: v.nullish(positive),
  rope_type: v.nullish(v.string()),
  type: v.nullish(v.string()),
  factor: v.nullish(positive),
  low_freq_factor: v.nullish(positive),
  high_freq_factor: v.nullish(positive),
  original_max_position_embeddings: v.nullish(count(2 ** 31)),
  partial_rotary_factor: v.nullish(v.number()),
});

const fields = v.looseObject({
  architectures: v.nullish(v.array(v.string())),
  model_type: v.nullish(v.string()),
  hidden_size: count(),
  intermediate_size: count(),
  num_hidden_layers: count(MAX_LAYERS),
  num_attention_heads: count(),
  num_key_value_heads: v.nullish(count()),
  head_dim: v.nullish(count()),
  vocab_size: count(),
  max_position_embeddings: count(2 ** 31),
  rms_norm_eps: v.pipe(v.number(), v.finite(), v.minValue(0)),
  hidden_act: v.nullish(v.string()),
  tie_word_embeddings: v.nullish(v.boolean()),
  attention_bias: v.nullish(v.boolean()),
  mlp_bias: v.nullish(v.boolean()),
  sliding_window: v.nullish(v.number()),
  use_sliding_window: v.nullish(v.boolean()),
  layer_types: v.nullish(v.array(v.string())),
  rope_theta: v.nullish(positive),
  rope_scaling: v.nullish(ropeFields),
  rope_parameters: v.nullish(ropeFields),
  rope_interleaved: v.nullish(v.boolean()),
  partial_rotary_factor: v.nullish(v.number()),
  quantization_config: v.nullish(v.unknown()),
  eos_token_id: tokenIds,
  bos_token_id: tokenIds,
});

type Fields = v.InferOutput<typeof fields>;
type RopeFields = v.InferOutput<typeof ropeFields>;

const generationFields = v.looseObject({ eos_token_id: tokenIds });

/** By the class's name without its task: what it differs in from Llama. */
const FAMILIES: Readonly<
  Record<string, { readonly qkvBias?: boolean; readonly window?: "always" | "on-request" }>
> = {
  Llama: {},
  Mistral: { window: "always" },
  Qwen2: { qkvBias: true, window: "on-request" },
};
const TASKS = ["ForCausalLM", "Model"] as const;
const DEFAULT_THETA = 10_000;

/**
 * The model that `config` describes; `generation` is the text of `generation_config.json` where there is one, whose end
 * tokens count before the others. Throws `BAD_MODEL` for text that is no such JSON, naming the field, and `UNSUPPORTED`
 * for models that these kernels do not compute, naming field and value.
 */
export function parseLlamaConfig(config: string, generation?: string): LlamaConfig {
  const read = parsed(fields, "config.json", config);
  const { name, family, headless } = architectureOf(read);
  checkSupported(read, family);
  const numHeads = read.num_attention_heads;
  const numKvHeads = read.num_key_value_heads ?? numHeads;
  if (numHeads % numKvHeads !== 0) {
    const text = `num_attention_heads ${numHeads} is no multiple of num_key_value_heads ${numKvHeads}`;
    throw bad("config.json", text);
  }
  const headSize = read.head_dim ?? read.hidden_size / numHeads;
  if (!Number.isInteger(headSize)) {
    const text = `hidden_size ${read.hidden_size} is no multiple of num_attention_heads ${numHeads}, and head_dim is absent`;
    throw bad("config.json", text);
  }
  if (headSize % 8 !== 0 || headSize < 16 || headSize > MAX_HEAD_SIZE) {
    throw unsupported("head_dim", headSize, `a multiple of 8 from 16 to ${MAX_HEAD_SIZE}`);
  }
  const ends =
    generation === undefined ? undefined : parsed(generationFields, "generation_config.json", generation);
  const bias = read.attention_bias ?? false;
  return {
    architecture: name,
    headless,
    hiddenSize: read.hidden_size,
    intermediateSize: read.intermediate_size,
    numLayers: read.num_hidden_layers,
    numHeads,
    numKvHeads,
    headSize,
    vocabSize: read.vocab_size,
    maxPositions: read.max_position_embeddings,
    normEps: read.rms_norm_eps,
    rope: ropeOf(read),
    tiedHead: read.tie_word_embeddings ?? false,
    biases: {
      qkv: family.qkvBias ?? bias,
      out: family.qkvBias === undefined && bias,
      mlp: read.mlp_bias ?? false,
    },
    eosTokenIds: listOf(ends?.eos_token_id ?? read.eos_token_id),
    bosTokenId: listOf(read.bos_token_id)[0],
  };
}

function parsed<T extends v.GenericSchema>(schema: T, file: string, text: string): v.InferOutput<T> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw bad(file, `not JSON: ${(cause as Error).message}`, cause);
  }
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw bad(file, `${v.getDotPath(issue) ?? "the file"}: ${issue.message}`);
}

function architectureOf(read: Fields) {
  const names = read.architectures ?? [];
  const name = names[0] ?? (read.model_type === "llama" ? "LlamaForCausalLM" : undefined);
  for (const task of TASKS) {
    if (names.length > 1 || !name?.endsWith(task)) continue;
    const model = name.slice(0, -task.length);
    if (Object.hasOwn(FAMILIES, model)) return { name, family: FAMILIES[model]!, headless: task === "Model" };
  }
  const known = Object.keys(FAMILIES).map((model) => `${model}ForCausalLM`);
  const value = names.length === 0 ? (read.model_type ?? "nothing") : names.join(", ");
  throw unsupported(names.length === 0 ? "model_type" : "architectures", value, `one of ${known.join(", ")}`);
}

function checkSupported(read: Fields, family: (typeof FAMILIES)[string]): void {
  const { hidden_act: activation, layer_types: layers, sliding_window: window } = read;
  if (activation != null && activation !== "silu") throw unsupported("hidden_act", activation, "silu");
  if (read.quantization_config != null) {
    throw unsupported(
      "quantization_config",
      JSON.stringify(read.quantization_config),
      "absent: weights are F32, F16 or BF16",
    );
  }
  if (read.rope_interleaved === true) throw unsupported("rope_interleaved", true, "false");
  const partial = read.partial_rotary_factor ?? read.rope_parameters?.partial_rotary_factor ?? 1;
  if (partial !== 1) throw unsupported("partial_rotary_factor", partial, "1");
  const other = layers?.find((layer) => layer !== "full_attention");
  if (other !== undefined) throw unsupported("layer_types", other, "full_attention throughout");
  if (layers != null || family.window === undefined || window == null) return;
  if (family.window === "on-request" && read.use_sliding_window !== true) return;
  if (window < read.max_position_embeddings) {
    throw unsupported(
      "sliding_window",
      window,
      `null, or at least max_position_embeddings (${read.max_position_embeddings})`,
    );
  }
}

function ropeOf(read: Fields): RopeConfig {
  const field = read.rope_parameters == null ? "rope_scaling" : "rope_parameters";
  const given: RopeFields = read.rope_parameters ?? read.rope_scaling ?? {};
  const theta = given.rope_theta ?? read.rope_theta ?? DEFAULT_THETA;
  const type = given.rope_type ?? given.type ?? "default";
  if (type === "default") return { theta };
  if (type !== "llama3") throw unsupported(`${field}.rope_type`, type, "default or llama3");
  const need = (
    name: "factor" | "low_freq_factor" | "high_freq_factor" | "original_max_position_embeddings",
  ) => {
    const value = given[name];
    if (value == null) throw bad("config.json", `${field}.${name} is absent, which rope_type llama3 needs`);
    return value;
  };
  const scaling = {
    factor: need("factor"),
    lowFreqFactor: need("low_freq_factor"),
    highFreqFactor: need("high_freq_factor"),
    originalMaxPositions: need("original_max_position_embeddings"),
  };
  if (scaling.highFreqFactor > scaling.lowFreqFactor) return { theta, scaling };
  const text = `${field}.high_freq_factor ${scaling.highFreqFactor} is not above low_freq_factor ${scaling.lowFreqFactor}`;
  throw bad("config.json", text);
}

function listOf(ids: number | readonly number[] | null | undefined): readonly number[] {
  if (ids == null) return [];
  return typeof ids === "number" ? [ids] : ids;
}

function bad(file: string, text: string, cause?: unknown): HeadraceError {
  return new HeadraceError("BAD_MODEL", `${file}: ${text}`, cause === undefined ? {} : { cause });
}

function unsupported(field: string, value: unknown, wanted: string): HeadraceError {
  const shown = String(value).slice(0, 80);
  return new HeadraceError(
    "UNSUPPORTED",
    `config.json: ${field} is ${shown}, which this engine does not compute; it must be ${wanted}`,
  );
}
