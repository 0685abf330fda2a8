/**
 * The launches of a pass through a model's layers: from tokens to the residual stream. All take the number of rows from
 * word 0 of `info`, so that they are encoded once for all passes of up to so many rows.
 */
import type { Device } from "../../device/device.ts";
import type { DispatchCall } from "../../device/requests.ts";
import { attentionCall, attentionKernel } from "../../kernels/attention.ts";
import type { Place } from "../../kernels/constants.ts";
import { embedRowsCall, embedRowsKernel } from "../../kernels/embed.ts";
import {
  fitsMatrixUnits,
  type MatmulKernelOptions,
  matmulCall,
  matmulKernel,
  matmulTile,
} from "../../kernels/matmul.ts";
import { rmsNormCall, rmsNormKernel } from "../../kernels/norm.ts";
import { ropeCacheCall, ropeCacheKernel } from "../../kernels/rope.ts";
import type { LlamaConfig } from "./config.ts";
import { FastProducts, type Product } from "./fast.ts";
import type { BodyMemory } from "./memory.ts";
import type { Geometry } from "./options.ts";
import { Pipelines } from "./pipelines.ts";
import type { LayerWeights, Linear, LlamaWeights, Weight } from "./weights.ts";

/** The word of `info` that holds the rows of a pass. */
export const ROWS_AT = 0;
/** The word of `info` that holds how many rows of a pass have a result. */
export const RESULTS_AT = 1;

/** Where kernels find what the host wrote for a pass. */
export interface StepPlaces {
  readonly info: Place;
  readonly tokens: Place;
  readonly positions: Place;
  readonly slots: Place;
}

export interface BodyParts {
  readonly device: Device;
  readonly config: LlamaConfig;
  readonly weights: LlamaWeights;
  readonly geometry: Geometry;
  readonly memory: BodyMemory;
  readonly places: StepPlaces;
  /** Rows of the block table. */
  readonly numSlots: number;
}

/** How many rows a launch is for, and which word of `info` says how many count. */
interface Rows {
  readonly info: Place;
  readonly countAt: number;
  readonly maxRows: number;
}

/** Makes the launches. Owns its pipelines, borrows everything else. */
export class LlamaBody {
  readonly pipelines: Pipelines;
  readonly #parts: BodyParts;
  readonly #fast: FastProducts | undefined;

  constructor(parts: BodyParts) {
    this.#parts = parts;
    this.pipelines = new Pipelines(parts.device);
    const { fast } = parts.memory;
    this.#fast = fast && new FastProducts(parts.device, this.pipelines, fast);
  }

  /** From tokens through all layers: `memory.x` then holds the residual stream of up to `maxRows` rows. */
  layers(maxRows: number): DispatchCall[] {
    const { weights, places } = this.#parts;
    const rows = { info: places.info, countAt: ROWS_AT, maxRows };
    return [this.#embed(rows), ...weights.layers.flatMap((layer, index) => this.#layer(layer, index, rows))];
  }

  /** The final norm: `memory.normed`, of all rows, or of those whose numbers are in `wanted`. */
  finalNorm(maxRows: number, wanted?: { readonly rows: Place; readonly inputRows: number }): DispatchCall {
    const { memory, weights, places } = this.#parts;
    const countAt = wanted === undefined ? ROWS_AT : RESULTS_AT;
    return this.#norm({ buffer: memory.x }, weights.norm, { info: places.info, countAt, maxRows }, wanted);
  }

  /** Logits of the first rows of `memory.normed`, as many as word 1 of `info` says. */
  head(head: Weight, logits: Place, maxRows: number): DispatchCall[] {
    const rows = { info: this.#parts.places.info, countAt: RESULTS_AT, maxRows };
    const { normed } = this.#parts.memory;
    return this.#product([{ weight: head }], rows, { x: { buffer: normed }, y: logits });
  }

  #embed(rows: Rows): DispatchCall {
    const { memory, weights, places, config } = this.#parts;
    const { embed } = weights;
    const pipeline = this.pipelines.get(`embed ${embed.type}`, () => embedRowsKernel(embed.type));
    return embedRowsCall(pipeline, {
      type: embed.type,
      table: embed,
      vocab: config.vocabSize,
      hidden: config.hiddenSize,
      tokens: places.tokens,
      out: { buffer: memory.x },
      ...rows,
    });
  }

  #layer(layer: LayerWeights, index: number, rows: Rows): DispatchCall[] {
    const { memory } = this.#parts;
    const [x, normed, qkv, attended, gated] = [
      memory.x,
      memory.normed,
      memory.qkv,
      memory.attended,
      memory.gated,
    ].map((buffer) => ({ buffer })) as [Place, Place, Place, Place, Place];
    return [
      this.#norm(x, layer.inputNorm, rows),
      ...this.#product([layer.q, layer.k, layer.v], rows, { x: normed, y: qkv }),
      ...this.#attention(index, rows),
      ...this.#product([layer.out], rows, { x: attended, y: x, accumulate: true }),
      this.#norm(x, layer.postNorm, rows),
      ...this.#product([layer.gate, layer.up], rows, { x: normed, y: gated, gated: true }),
      ...this.#product([layer.down], rows, { x: gated, y: x, accumulate: true }),
    ];
  }

  #attention(layer: number, rows: Rows): DispatchCall[] {
    const { memory, places, config, geometry, numSlots } = this.#parts;
    const { numHeads, numKvHeads, headSize } = config;
    const { kvType: cacheType, blockTokens, numBlocks, maxBlocksPerSlot, contextLength } = geometry;
    const cache = memory.caches[layer]!;
    const shared = {
      cacheType,
      qkv: { buffer: memory.qkv },
      kCache: { buffer: cache.k },
      vCache: { buffer: cache.v },
      blockTable: { buffer: memory.blockTable.device },
      slots: places.slots,
      positions: places.positions,
      ...{ numHeads, numKvHeads, headSize, blockTokens, numBlocks, numSlots },
      tableStride: maxBlocksPerSlot,
      ...rows,
    };
    const rope = this.pipelines.get("rope", () => ropeCacheKernel({ cacheType }));
    const attention = this.pipelines.get("attention", () => attentionKernel({ cacheType }));
    return [
      ropeCacheCall(rope, { ...shared, cosSin: { buffer: memory.cosSin.device }, contextLength }),
      attentionCall(attention, {
        ...shared,
        out: { buffer: memory.attended },
        scale: 1 / Math.sqrt(headSize),
      }),
    ];
  }

  #norm(
    x: Place,
    weight: Weight,
    rows: Rows,
    wanted?: { readonly rows: Place; readonly inputRows: number },
  ): DispatchCall {
    const { memory, config } = this.#parts;
    const { type } = weight;
    const indexed = wanted !== undefined;
    const pipeline = this.pipelines.get(`norm ${type} ${indexed}`, () => rmsNormKernel({ type, indexed }));
    const y = { buffer: memory.normed };
    const { hiddenSize: hidden, normEps: eps } = config;
    return rmsNormCall(pipeline, { type, indexed, x, weight, y, hidden, eps, ...rows, ...wanted });
  }

  #product(linears: readonly Linear[], rows: Rows, product: Product): DispatchCall[] {
    return this.#fast?.calls(linears, rows, product) ?? [this.#ownProduct(linears, rows, product)];
  }

  #ownProduct(linears: readonly Linear[], rows: Rows, product: Product): DispatchCall {
    const [first] = linears as readonly [Linear, ...Linear[]];
    const { type, shape } = first.weight;
    const biases = linears.flatMap(({ bias }) => (bias === undefined ? [] : [bias]));
    const weights = linears.map(({ weight }) => weight);
    const outputs = weights.map((weight) => weight.shape[0]!);
    const form = {
      type,
      parts: linears.length as 1 | 2 | 3,
      gated: product.gated ?? false,
      bias: biases.length > 0,
      accumulate: product.accumulate ?? false,
      maxRows: rows.maxRows,
      outputs,
      matrixUnits:
        this.#parts.geometry.matrixUnits && fitsMatrixUnits(type, shape[1]!, [product.x, ...weights]),
    } satisfies MatmulKernelOptions;
    const { parts, gated, bias, accumulate } = form;
    const key = `matmul ${[type, parts, gated, bias, accumulate, matmulTile(form)].join(" ")}`;
    return matmulCall(
      this.pipelines.get(key, () => matmulKernel(form)),
      {
        ...form,
        ...rows,
        x: product.x,
        y: product.y,
        weights,
        biases,
        inner: shape[1]!,
      },
    );
  }

  close(): void {
    this.pipelines.close();
  }
}
