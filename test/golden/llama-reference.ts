/**
 * A Llama in plain TypeScript, as an oracle: one sequence at a time, without cache, blocks or batches, in double
 * precision. It shares the parsers of configuration and files with the engine, and no arithmetic.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describeSafetensors } from "../../src/format/safetensors.ts";
import { parseSafetensorsIndex } from "../../src/format/safetensors-index.ts";
import { type LlamaConfig, parseLlamaConfig } from "../../src/infer/llama/config.ts";

type Vector = Float64Array;

export class LlamaReference {
  readonly config: LlamaConfig;
  readonly #tensors = new Map<string, Vector>();

  /** Reads all of the model in `folder`. */
  constructor(folder: string) {
    this.config = parseLlamaConfig(readFileSync(join(folder, "config.json"), "utf8"));
    const index = join(folder, "model.safetensors.index.json");
    const names = existsSync(index)
      ? parseSafetensorsIndex(readFileSync(index)).shards
      : ["model.safetensors"];
    for (const name of names) this.#read(readFileSync(join(folder, name)));
  }

  /** The hidden states behind the final norm, one for each of `tokens`. */
  hidden(tokens: ArrayLike<number>): Vector[] {
    const { hiddenSize, numLayers } = this.config;
    const table = this.#tensor("model.embed_tokens.weight");
    const states = Array.from(tokens, (token) => table.slice(token * hiddenSize, (token + 1) * hiddenSize));
    for (let layer = 0; layer < numLayers; layer++) this.#layer(`model.layers.${layer}`, states);
    return states.map((state) => this.#norm(state, "model.norm"));
  }

  /** The logits behind each of `tokens`. */
  logits(tokens: ArrayLike<number>): Vector[] {
    const head = this.config.tiedHead ? "model.embed_tokens" : "lm_head";
    return this.hidden(tokens).map((state) => this.#linear(state, head));
  }

  #layer(name: string, states: Vector[]): void {
    const normed = states.map((state) => this.#norm(state, `${name}.input_layernorm`));
    const attended = this.#attention(normed, `${name}.self_attn`);
    states.forEach((state, t) => {
      addTo(state, attended[t]!);
      const input = this.#norm(state, `${name}.post_attention_layernorm`);
      const gate = this.#linear(input, `${name}.mlp.gate_proj`);
      const up = this.#linear(input, `${name}.mlp.up_proj`);
      addTo(
        state,
        this.#linear(
          gate.map((value, i) => (value / (1 + Math.exp(-value))) * up[i]!),
          `${name}.mlp.down_proj`,
        ),
      );
    });
  }

  #attention(inputs: readonly Vector[], name: string): Vector[] {
    const { numHeads, numKvHeads, headSize } = this.config;
    const heads = (projection: string, count: number, turned: boolean) =>
      inputs.map((input, t) => {
        const all = this.#linear(input, `${name}.${projection}`);
        const split = Array.from({ length: count }, (_, h) => all.slice(h * headSize, (h + 1) * headSize));
        return turned ? split.map((head) => this.#turned(head, t)) : split;
      });
    const [q, k, v] = [
      heads("q_proj", numHeads, true),
      heads("k_proj", numKvHeads, true),
      heads("v_proj", numKvHeads, false),
    ];
    return inputs.map((_, t) => {
      const joined = new Float64Array(numHeads * headSize);
      for (let head = 0; head < numHeads; head++) {
        const own = Math.floor(head / (numHeads / numKvHeads));
        const scores = k.slice(0, t + 1).map((keys) => dot(q[t]![head]!, keys[own]!) / Math.sqrt(headSize));
        const most = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - most));
        const sum = weights.reduce((a, b) => a + b, 0);
        weights.forEach((weight, s) => {
          for (let i = 0; i < headSize; i++) joined[head * headSize + i]! += (weight / sum) * v[s]![own]![i]!;
        });
      }
      return this.#linear(joined, `${name}.o_proj`);
    });
  }

  /** Element i of the first half turns with element i of the second, by its own angle for each position. */
  #turned(head: Vector, position: number): Vector {
    const { rope, headSize } = this.config;
    const half = headSize / 2;
    const out = head.slice();
    for (let i = 0; i < half; i++) {
      let angle = position * rope.theta ** (-i / half);
      if (rope.scaling !== undefined) {
        const { factor, lowFreqFactor, highFreqFactor, originalMaxPositions } = rope.scaling;
        const turns = (originalMaxPositions * rope.theta ** (-i / half)) / (2 * Math.PI);
        const share = Math.min(1, Math.max(0, (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor)));
        angle *= share + (1 - share) / factor;
      }
      out[i] = head[i]! * Math.cos(angle) - head[i + half]! * Math.sin(angle);
      out[i + half] = head[i + half]! * Math.cos(angle) + head[i]! * Math.sin(angle);
    }
    return out;
  }

  #norm(state: Vector, name: string): Vector {
    const weight = this.#tensor(`${name}.weight`);
    const scale = 1 / Math.sqrt(dot(state, state) / state.length + this.config.normEps);
    return state.map((value, i) => value * scale * weight[i]!);
  }

  #linear(input: Vector, name: string): Vector {
    const weight = this.#tensor(`${name}.weight`);
    const bias = this.#tensors.get(`${name}.bias`);
    const outputs = weight.length / input.length;
    return Float64Array.from({ length: outputs }, (_, row) => {
      let sum = bias?.[row] ?? 0;
      for (let i = 0; i < input.length; i++) sum += weight[row * input.length + i]! * input[i]!;
      return sum;
    });
  }

  #tensor(name: string): Vector {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw new Error(`the model has no ${name}`);
    return tensor;
  }

  #read(file: Uint8Array): void {
    const { tensors } = describeSafetensors(
      (offset, length) => file.subarray(offset, offset + length),
      file.length,
    );
    for (const { name, dtype, range } of tensors ?? []) {
      const bytes = new Uint8Array(file.subarray(range.start, range.end)).buffer;
      if (dtype === "F32") this.#tensors.set(name, Float64Array.from(new Float32Array(bytes)));
      else if (dtype === "F16") this.#tensors.set(name, Float64Array.from(new Float16Array(bytes)));
      else if (dtype === "BF16") {
        const wide = Uint32Array.from(new Uint16Array(bytes), (bits) => bits << 16);
        this.#tensors.set(name, Float64Array.from(new Float32Array(wide.buffer)));
      } else throw new Error(`${name} is ${dtype}`);
    }
  }
}

function dot(a: Vector, b: Vector): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

function addTo(target: Vector, other: Vector): void {
  for (let i = 0; i < target.length; i++) target[i]! += other[i]!;
}
