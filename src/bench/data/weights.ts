/** Weights in the shapes of a Llama, in bfloat16 with the exponents that training leaves. */
import { Random } from "../random.ts";
import type { ShardData } from "./kinds.ts";

/** Entries of the vocabulary, as Llama 2 has them. */
const VOCABULARY = 32_000;
/** Values that are drawn once; tensors take of them at random. */
const TABLE = 2 ** 16;
/** Bytes of a bfloat16. */
const BYTES = 2;

interface Spec {
  readonly name: string;
  readonly shape: readonly number[];
  readonly deviation: number;
}

/** Tensors of about `byteLength` bytes, cut into shards between tensors. */
export function* weightsOf(byteLength: number, shardBytes: number, seed: number): Generator<ShardData> {
  const random = new Random(seed);
  const tables = new Map<number, Uint16Array>();
  let shard: Spec[] = [];
  let bytes = 0;
  for (const spec of specsFor(byteLength)) {
    shard.push(spec);
    bytes += bytesOf(spec);
    if (bytes < shardBytes) continue;
    yield fillShard(shard, random, tables);
    shard = [];
    bytes = 0;
  }
  if (shard.length > 0) yield fillShard(shard, random, tables);
}

/** The widest model whose embedding is no more than a quarter, with as many layers as fit. */
function specsFor(byteLength: number): Spec[] {
  const most = Math.log2(byteLength / 4 / BYTES / VOCABULARY);
  const hidden = 2 ** Math.min(12, Math.max(4, Math.floor(most)));
  const inner = Math.max(16, (hidden * 11) >> 2);
  const specs: Spec[] = [
    { name: "model.embed_tokens.weight", shape: [VOCABULARY, hidden], deviation: 0.016 },
  ];
  let left = byteLength - bytesOf(specs[0]!);
  for (let layer = 0; left > 0; layer++) {
    const block = layerSpecs(layer, hidden, inner);
    specs.push(...block);
    left -= block.reduce((total, spec) => total + bytesOf(spec), 0);
  }
  specs.push({ name: "model.norm.weight", shape: [hidden], deviation: 0 });
  return specs;
}

function layerSpecs(layer: number, hidden: number, inner: number): Spec[] {
  const name = (part: string) => `model.layers.${layer}.${part}.weight`;
  const narrow = Math.max(16, hidden >> 2);
  return [
    { name: name("input_layernorm"), shape: [hidden], deviation: 0 },
    { name: name("self_attn.q_proj"), shape: [hidden, hidden], deviation: 0.02 },
    { name: name("self_attn.k_proj"), shape: [narrow, hidden], deviation: 0.025 },
    { name: name("self_attn.v_proj"), shape: [narrow, hidden], deviation: 0.012 },
    { name: name("self_attn.o_proj"), shape: [hidden, hidden], deviation: 0.012 },
    { name: name("post_attention_layernorm"), shape: [hidden], deviation: 0 },
    { name: name("mlp.gate_proj"), shape: [inner, hidden], deviation: 0.02 },
    { name: name("mlp.up_proj"), shape: [inner, hidden], deviation: 0.016 },
    { name: name("mlp.down_proj"), shape: [hidden, inner], deviation: 0.016 },
  ];
}

function bytesOf({ shape }: Spec): number {
  return shape.reduce((product, length) => product * length, BYTES);
}

function fillShard(specs: readonly Spec[], random: Random, tables: Map<number, Uint16Array>): ShardData {
  // As the writer of safetensors places tensors of one type.
  const tensors = specs.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const values = new Uint16Array(tensors.reduce((total, spec) => total + bytesOf(spec), 0) / BYTES);
  const offsets = new Int32Array(tensors.length + 1);
  let at = 0;
  tensors.forEach((spec, i) => {
    const length = bytesOf(spec) / BYTES;
    fill(values.subarray(at, at + length), tableOf(spec.deviation, random, tables), random);
    at += length;
    offsets[i + 1] = at;
  });
  return {
    numRows: tensors.length,
    column: "weights",
    dtype: "BF16",
    elementBytes: BYTES,
    values: new Uint8Array(values.buffer),
    offsets,
    tensors,
  };
}

/** Values of one deviation as bfloat16; deviation 0 stands for the weights of norms, which lie around 1. */
function tableOf(deviation: number, random: Random, tables: Map<number, Uint16Array>): Uint16Array {
  let table = tables.get(deviation);
  if (table === undefined) {
    const floats = Float32Array.from({ length: TABLE }, () =>
      deviation === 0 ? 1 + 0.1 * random.normal() : deviation * random.normal(),
    );
    // The nearest bfloat16, ties to even.
    table = Uint16Array.from(
      new Uint32Array(floats.buffer),
      (bits) => (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16,
    );
    tables.set(deviation, table);
  }
  return table;
}

function fill(values: Uint16Array, table: Uint16Array, random: Random): void {
  for (let i = 0; i < values.length; i += 2) {
    const pick = random.u32();
    values[i] = table[pick & 0xffff]!;
    if (i + 1 < values.length) values[i + 1] = table[pick >>> 16]!;
  }
}
