import { describe, expect, test } from "bun:test";
import { parseLlamaConfig } from "../../../src/infer/llama/config.ts";
import { failureOf } from "../failure.ts";

const SMALL = {
  architectures: ["LlamaForCausalLM"],
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  vocab_size: 100,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
};

function parse(changes: object, generation?: object) {
  const text = generation === undefined ? undefined : JSON.stringify(generation);
  return parseLlamaConfig(JSON.stringify({ ...SMALL, ...changes }), text);
}

describe("config.json", () => {
  test("of the least has the usual rest", () => {
    expect(parse({})).toEqual({
      architecture: "LlamaForCausalLM",
      headless: false,
      hiddenSize: 64,
      intermediateSize: 96,
      numLayers: 2,
      numHeads: 4,
      numKvHeads: 4,
      headSize: 16,
      vocabSize: 100,
      maxPositions: 128,
      normEps: 1e-5,
      rope: { theta: 10_000 },
      tiedHead: false,
      biases: { qkv: false, out: false, mlp: false },
      eosTokenIds: [],
      bosTokenId: undefined,
    });
  });

  test("spells the rotation in two ways", () => {
    const numbers = {
      factor: 32,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    };
    const scaling = { factor: 32, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192 };
    const ways = [
      { rope_parameters: { rope_theta: 500_000, rope_type: "llama3", ...numbers } },
      { rope_theta: 500_000, rope_scaling: { rope_type: "llama3", ...numbers } },
      { rope_theta: 500_000, rope_scaling: { type: "llama3", ...numbers } },
      { rope_theta: 500_000, rope_parameters: { rope_type: "llama3", ...numbers } },
    ];
    for (const way of ways) expect(parse(way).rope).toEqual({ theta: 500_000, scaling });
    const plain = [{ rope_theta: 500_000 }, { rope_theta: 500_000, rope_scaling: null }];
    for (const way of plain) expect(parse(way).rope).toEqual({ theta: 500_000 });
    const lacking = failureOf(() => parse({ rope_scaling: { rope_type: "llama3", factor: 2 } }));
    expect(lacking.code).toBe("BAD_MODEL");
    expect(lacking.message).toContain("rope_scaling.low_freq_factor is absent");
  });

  test("says which projections have biases, by architecture", () => {
    const of = (changes: object) => parse(changes).biases;
    expect(of({ attention_bias: true })).toEqual({ qkv: true, out: true, mlp: false });
    expect(of({ mlp_bias: true })).toEqual({ qkv: false, out: false, mlp: true });
    expect(of({ architectures: ["Qwen2ForCausalLM"] })).toEqual({ qkv: true, out: false, mlp: false });
    expect(of({ architectures: ["MistralForCausalLM"] })).toEqual({ qkv: false, out: false, mlp: false });
  });

  test("may lack a head", () => {
    expect(parse({ architectures: ["MistralModel"] })).toMatchObject({
      architecture: "MistralModel",
      headless: true,
    });
    expect(parse({ architectures: undefined, model_type: "llama" }).architecture).toBe("LlamaForCausalLM");
  });

  test("names end tokens, and generation_config.json names them before it", () => {
    expect(parse({ eos_token_id: 7 }).eosTokenIds).toEqual([7]);
    expect(parse({ eos_token_id: [7, 8] }).eosTokenIds).toEqual([7, 8]);
    expect(parse({ eos_token_id: 7 }, { eos_token_id: [9, 10] }).eosTokenIds).toEqual([9, 10]);
    expect(parse({ eos_token_id: 7 }, { temperature: 0.6 }).eosTokenIds).toEqual([7]);
    expect(parse({ eos_token_id: 7, bos_token_id: 3 }).bosTokenId).toBe(3);
  });

  test("takes a window that reaches as far as the context, or is not used", () => {
    const mistral = { architectures: ["MistralForCausalLM"] };
    const qwen = { architectures: ["Qwen2ForCausalLM"] };
    parse({ ...mistral, sliding_window: null });
    parse({ ...mistral, sliding_window: 128 });
    parse({ ...qwen, sliding_window: 32, use_sliding_window: false });
    for (const windowed of [
      { ...mistral, sliding_window: 127 },
      { ...qwen, sliding_window: 32, use_sliding_window: true },
      { ...qwen, layer_types: ["full_attention", "sliding_attention"] },
    ]) {
      expect(failureOf(() => parse(windowed)).code).toBe("UNSUPPORTED");
    }
  });

  const refused: readonly (readonly [changes: object, ...words: string[]])[] = [
    [{ architectures: ["GPT2LMHeadModel"] }, "architectures", "GPT2LMHeadModel", "LlamaForCausalLM"],
    [{ architectures: undefined, model_type: "gemma" }, "model_type", "gemma"],
    [{ architectures: undefined }, "nothing"],
    [{ hidden_act: "gelu" }, "hidden_act", "gelu", "silu"],
    [{ rope_scaling: { rope_type: "yarn", factor: 4 } }, "rope_scaling.rope_type", "yarn"],
    [{ rope_parameters: { rope_type: "linear" } }, "rope_parameters.rope_type", "linear"],
    [{ partial_rotary_factor: 0.5 }, "partial_rotary_factor", "0.5"],
    [{ rope_interleaved: true }, "rope_interleaved"],
    [{ quantization_config: { quant_method: "awq" } }, "quantization_config", "awq"],
    [{ head_dim: 12 }, "head_dim", "12", "16 to 256"],
    [{ head_dim: 264 }, "head_dim", "264"],
  ];
  test.each(refused)("of a model that is not computed: %j", (changes, ...words) => {
    const failure = failureOf(() => parse(changes));
    expect(failure.code).toBe("UNSUPPORTED");
    for (const word of words) expect(failure.message).toContain(word);
    expect(failure.message).not.toContain("\n");
  });

  const malformed: readonly (readonly [changes: object, ...words: string[]])[] = [
    [{ hidden_size: "64" }, "hidden_size"],
    [{ num_hidden_layers: 0 }, "num_hidden_layers"],
    [{ num_hidden_layers: 1e9 }, "num_hidden_layers"],
    [{ vocab_size: 1.5 }, "vocab_size"],
    [{ rms_norm_eps: -1 }, "rms_norm_eps"],
    [{ num_key_value_heads: 3 }, "num_attention_heads 4", "num_key_value_heads 3"],
    [{ hidden_size: 66 }, "hidden_size 66", "head_dim is absent"],
    [{ eos_token_id: "</s>" }, "eos_token_id"],
    [{ rope_theta: 0 }, "rope_theta"],
    [
      {
        rope_scaling: {
          rope_type: "llama3",
          factor: 2,
          low_freq_factor: 4,
          high_freq_factor: 4,
          original_max_position_embeddings: 64,
        },
      },
      "high_freq_factor 4",
    ],
  ];
  test.each(malformed)("that contradicts itself: %j", (changes, ...words) => {
    const failure = failureOf(() => parse(changes));
    expect(failure.code).toBe("BAD_MODEL");
    for (const word of ["config.json", ...words]) expect(failure.message).toContain(word);
    expect(failure.message).not.toContain("\n");
  });

  test("that is no JSON", () => {
    expect(failureOf(() => parseLlamaConfig("{")).code).toBe("BAD_MODEL");
    expect(failureOf(() => parseLlamaConfig("[]")).code).toBe("BAD_MODEL");
    const failure = failureOf(() => parseLlamaConfig(JSON.stringify(SMALL), "{"));
    expect(failure.message).toContain("generation_config.json");
  });
});
