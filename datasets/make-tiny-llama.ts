/**
 * Makes `tiny-llama`: the weights of a small language model, as their training wrote them.
 *
 *     bun datasets/make-tiny-llama.ts MODEL [FOLDER]
 *
 * MODEL is a folder in the Hugging Face layout. Checks that `model.safetensors` has every tensor that
 * `config.json` calls for, in the right shape and in BF16, and no other; then copies both, and
 * `generation_config.json`, byte for byte to FOLDER, by default `tiny-llama` beside this script.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describeSafetensors } from "../src/format/safetensors.ts";
import type { TensorLayout } from "../src/types.ts";
import { finish, save } from "./shards.ts";

interface LlamaConfig {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
}

/** Name and shape of every tensor of a Llama with tied embeddings. */
function expectedShapes(config: LlamaConfig): Map<string, readonly number[]> {
  const hidden = config.hidden_size;
  const queries = config.num_attention_heads * config.head_dim;
  const keys = config.num_key_value_heads * config.head_dim;
  const shapes = new Map<string, readonly number[]>([
    ["model.embed_tokens.weight", [config.vocab_size, hidden]],
    ["model.norm.weight", [hidden]],
  ]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const name = `model.layers.${layer}`;
    shapes.set(`${name}.input_layernorm.weight`, [hidden]);
    shapes.set(`${name}.post_attention_layernorm.weight`, [hidden]);
    shapes.set(`${name}.self_attn.q_proj.weight`, [queries, hidden]);
    shapes.set(`${name}.self_attn.k_proj.weight`, [keys, hidden]);
    shapes.set(`${name}.self_attn.v_proj.weight`, [keys, hidden]);
    shapes.set(`${name}.self_attn.o_proj.weight`, [hidden, queries]);
    shapes.set(`${name}.mlp.gate_proj.weight`, [config.intermediate_size, hidden]);
    shapes.set(`${name}.mlp.up_proj.weight`, [config.intermediate_size, hidden]);
    shapes.set(`${name}.mlp.down_proj.weight`, [hidden, config.intermediate_size]);
  }
  return shapes;
}

function checkTensors(tensors: readonly TensorLayout[], config: LlamaConfig): void {
  const expected = expectedShapes(config);
  for (const { name, dtype, shape } of tensors) {
    const wanted = expected.get(name);
    if (wanted === undefined) throw new Error(`tensor ${name} is not part of the model`);
    if (dtype !== "BF16" || shape.join() !== wanted.join())
      throw new Error(`tensor ${name} is ${dtype} [${shape}], not BF16 [${wanted}]`);
    expected.delete(name);
  }
  if (expected.size > 0) throw new Error(`tensor ${[...expected.keys()][0]} is missing`);
}

async function main(model: string | undefined, folder: string): Promise<void> {
  if (model === undefined) throw new Error("usage: bun datasets/make-tiny-llama.ts MODEL [FOLDER]");
  const weights = await Bun.file(join(model, "model.safetensors")).bytes();
  const config = (await Bun.file(join(model, "config.json")).json()) as LlamaConfig;
  const read = (start: number, length: number): Uint8Array => weights.slice(start, start + length);
  const { tensors = [] } = describeSafetensors(read, weights.length);
  checkTensors(tensors, config);
  mkdirSync(folder, { recursive: true });
  for (const name of ["config.json", "generation_config.json"])
    save(join(folder, name), [await Bun.file(join(model, name)).bytes()]);
  const bytes = save(join(folder, "model.safetensors"), [weights]);
  await finish(folder, "tiny-llama", [{ path: "model.safetensors", samples: tensors.length, bytes }]);
}

await main(process.argv[2], process.argv[3] ?? join(import.meta.dir, "tiny-llama"));
