/** The kernels of a model's step: every device computes what their host forms do, byte for byte where that is promised,
 * from fresh random inputs each time. */
import { expect, test } from "bun:test";
import type { Device, DeviceBuffer, DeviceQueue, KernelSource, Pipeline } from "../../src/device/device.ts";
import type { DispatchCall } from "../../src/device/requests.ts";
import { resolveSampling, sampleParamsView, writeSampleParams } from "../../src/infer/sampling.ts";
import type { Place } from "../../src/kernels/constants.ts";
import { embedRowsCall, embedRowsKernel } from "../../src/kernels/embed.ts";
import { rmsNormCall, rmsNormKernel } from "../../src/kernels/norm.ts";
import { poolFinishCall, poolFinishKernel, poolRowsCall, poolRowsKernel } from "../../src/kernels/pool.ts";
import { ropeCacheCall, ropeCacheKernel } from "../../src/kernels/rope.ts";
import { SAMPLE_PARAMS_BYTES, sampleCall, sampleKernel } from "../../src/kernels/sample.ts";
import { markSeenCall, markSeenKernel, seenWords } from "../../src/kernels/seen.ts";
import { bytesOf, expectBytes, runWell, type Subject, useRig } from "./harness.ts";

const POISON = 0x7fa5a5a5;
/** Samples in the order of the options that a row may have. */
const SAMPLINGS = [
  {},
  { temperature: 1, seed: 3 },
  { temperature: 0.7, topK: 20 },
  { temperature: 1.3, topP: 0.8, seed: 2 ** 45 },
  { temperature: 1, topK: 30, topP: 0.9, minP: 0.05, repetitionPenalty: 1.2 },
  { repetitionPenalty: 1.5 },
  { temperature: 5, minP: 0.3 },
].map(resolveSampling);

/** Fresh random things, the same again for the same seed. */
class Fresh {
  #state: number;

  constructor(readonly seed: number) {
    this.#state = seed | 1;
  }

  below(bound: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % bound;
  }

  words(length: number, bound: number): Uint32Array<ArrayBuffer> {
    return Uint32Array.from({ length }, () => this.below(bound));
  }

  floats(length: number, scale = 4): Float32Array<ArrayBuffer> {
    return Float32Array.from({ length }, () => (this.below(2 ** 24) / 2 ** 23 - 1) * scale);
  }

  /** Elements of 4 or 2 bytes, all finite and none subnormal. */
  elements(length: number, elementBytes: 2 | 4): Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> {
    if (elementBytes === 4) return this.floats(length);
    return Uint16Array.from({ length }, () => 0x3000 + this.below(0x0f00) + 0x8000 * this.below(2));
  }
}

function poison(length: number): Uint32Array<ArrayBuffer> {
  return new Uint32Array(length).fill(POISON);
}

export function stepCases(subject: Subject): void {
  if (!subject.movesData) return;
  let device: Device;
  let queue: DeviceQueue;
  useRig(subject, (rig) => {
    ({ device, queue } = rig);
  });

  /** Runs a kernel on the device, and its host form on copies, and compares all buffers; gives what they hold then. */
  const runAsHost = async (
    source: KernelSource,
    arrays: readonly (ArrayBufferView & { readonly buffer: ArrayBuffer })[],
    build: (pipeline: Pipeline, places: readonly Place[]) => DispatchCall,
  ): Promise<Uint8Array[]> => {
    using pipeline = device.createPipeline(source);
    const buffers = arrays.map((array) => filled(device, array));
    try {
      const call = build(
        pipeline,
        buffers.map((buffer) => ({ buffer })),
      );
      const views = () =>
        call.buffers.map(({ buffer, offset }) => bytesOf(buffer, offset, buffer.byteLength - offset));
      const expected = views();
      source.host!(expected, call.constants, call.threads);
      await runWell(queue, (list) => list.dispatch(call));
      const after = views();
      for (const [index, bytes] of after.entries()) expectBytes(bytes, expected[index]!);
      return after;
    } finally {
      for (const buffer of buffers) buffer.close();
    }
  };

  /** A test with a seed of its own each time, which a failure tells. */
  const fresh = (name: string, work: (random: Fresh) => Promise<void>) =>
    test(name, async () => {
      const random = new Fresh(Math.floor(Math.random() * 2 ** 31));
      try {
        await work(random);
      } catch (error) {
        throw new Error(`with the seed ${random.seed}: ${error}`, { cause: error });
      }
    });

  fresh("embed_rows takes rows of a table of any type", async (random) => {
    for (const [type, hidden] of [
      ["F32", 192],
      ["F16", 37],
      ["BF16", 64],
    ] as const) {
      const table = random.elements(50 * hidden, type === "F32" ? 4 : 2);
      const tokens = random.words(21, 52);
      const info = random.words(3, 22);
      const options = { type, vocab: 50, hidden, countAt: 1, maxRows: 21 };
      await runAsHost(embedRowsKernel(type), [table, tokens, info, poison(21 * hidden)], (pipeline, at) =>
        embedRowsCall(pipeline, { ...options, table: at[0]!, tokens: at[1]!, info: at[2]!, out: at[3]! }),
      );
    }
  });

  fresh("rms_norm scales rows of any length, in order and by their numbers", async (random) => {
    for (const [type, hidden] of [
      ["F32", 576],
      ["BF16", 1025],
      ["F16", 4100],
      ["F32", 3],
    ] as const) {
      const x = random.floats(9 * hidden);
      const weight = random.elements(hidden, type === "F32" ? 4 : 2);
      const options = { type, hidden, eps: 1e-5, countAt: 0, maxRows: 9 };
      const plain = [x, weight, random.words(1, 12), poison(9 * hidden)];
      await runAsHost(rmsNormKernel({ type }), plain, (pipeline, at) =>
        rmsNormCall(pipeline, { ...options, x: at[0]!, weight: at[1]!, info: at[2]!, y: at[3]! }),
      );
      const indexed = [x, random.words(9, 11), weight, random.words(1, 10), poison(9 * hidden)];
      await runAsHost(rmsNormKernel({ type, indexed: true }), indexed, (pipeline, at) =>
        rmsNormCall(pipeline, {
          ...{ ...options, indexed: true, inputRows: 9 },
          ...{ x: at[0]!, rows: at[1]!, weight: at[2]!, info: at[3]!, y: at[4]! },
        }),
      );
    }
  });

  fresh("rope_cache turns heads into caches of any type, and stays within them", async (random) => {
    const shape = { numHeads: 4, numKvHeads: 2, headSize: 26, contextLength: 30, blockTokens: 4 };
    const pages = { numBlocks: 40, numSlots: 5, tableStride: 8 };
    // No two rows may be of one place.
    const table = Uint32Array.from({ length: 40 }, (_, i) => i);
    for (let i = 39; i > 0; i--) {
      const j = random.below(i + 1);
      [table[i], table[j]] = [table[j]!, table[i]!];
    }
    table[random.below(40)] = 40 + random.below(2 ** 30);
    const positions = Uint32Array.from({ length: 24 }, (_, i) => i + random.below(2) * 4);
    const slots = Uint32Array.from({ length: 24 }, (_, i) => (i % 5) + (random.below(8) === 0 ? 5 : 0));
    const places = new Set<string>();
    for (let i = 0; i < 24; i++) {
      while (places.has(`${slots[i]} ${positions[i]}`)) positions[i]!++;
      places.add(`${slots[i]} ${positions[i]}`);
    }
    for (const cacheType of ["F32", "F16", "BF16"] as const) {
      const cache = poison((40 * 2 * 4 * 26 * (cacheType === "F32" ? 4 : 2)) / 4);
      const arrays = [random.floats(24 * 8 * 26), random.floats(30 * 26, 1), positions, slots, table];
      await runAsHost(
        ropeCacheKernel({ cacheType }),
        [...arrays, random.words(1, 26), cache, cache.slice()],
        (pipeline, at) =>
          ropeCacheCall(pipeline, {
            ...{ cacheType, ...shape, ...pages, countAt: 0, maxRows: 24 },
            ...{ qkv: at[0]!, cosSin: at[1]!, positions: at[2]!, slots: at[3]!, blockTable: at[4]! },
            ...{ info: at[5]!, kCache: at[6]!, vCache: at[7]! },
          }),
      );
    }
  });

  fresh("mark_seen sets the bits of the slots that have rows", async (random) => {
    for (const vocab of [31, 64, 1000]) {
      const rows = [random.words(70, vocab + 2), random.words(70, 5), random.words(70, 8)];
      const seen = random.words(6 * seenWords(vocab), 2 ** 32);
      await runAsHost(markSeenKernel, [...rows, random.words(1, 75), seen], (pipeline, at) =>
        markSeenCall(pipeline, {
          ...{ tokens: at[0]!, positions: at[1]!, slots: at[2]!, info: at[3]!, seen: at[4]! },
          ...{ vocab, numSlots: 6, countAt: 0, maxRows: 70 },
        }),
      );
    }
  });

  fresh("pool_rows and pool_finish make one vector of a sequence", async (random) => {
    for (const pooling of ["mean", "first", "last"] as const) {
      const hidden = 1 + random.below(300);
      const slots = Uint32Array.of(2, 2, 2, 0, 9, 9, 1, 1, 1, 1);
      const positions = Uint32Array.of(0, 1, 2, 7, 0, 1, 3, 4, 5, 6);
      const states = random.floats(10 * hidden);
      const kept = random.floats(3 * hidden);
      const rows = [states, positions, slots, Uint32Array.of(4 + random.below(7)), kept];
      const after = await runAsHost(poolRowsKernel(pooling), rows, (pipeline, at) =>
        poolRowsCall(pipeline, {
          ...{ states: at[0]!, positions: at[1]!, slots: at[2]!, info: at[3]!, pooled: at[4]! },
          ...{ hidden, numSlots: 3, countAt: 0, maxRows: 10 },
        }),
      );
      const pooled = new Float32Array(after[4]!.slice().buffer).subarray(0, 3 * hidden).slice();
      const last = [Uint32Array.of(2, 3, 9, 5, 12), Uint32Array.of(4, 0, 1, 3, 2), Uint32Array.of(5)];
      for (const normalize of [false, true]) {
        const arrays = [pooled, positions, slots, ...last, poison(5 * hidden)];
        await runAsHost(poolFinishKernel({ pooling, normalize }), arrays, (pipeline, at) =>
          poolFinishCall(pipeline, {
            ...{ pooled: at[0]!, positions: at[1]!, slots: at[2]!, lastRows: at[3]!, targets: at[4]! },
            ...{ info: at[5]!, vectors: at[6]!, hidden, numSlots: 3, numStates: 10, numVectors: 5 },
            ...{ countAt: 0, maxRows: 5 },
          }),
        );
      }
    }
  });

  fresh("sample chooses the same tokens, whatever the options", async (random) => {
    for (const vocab of [264, 1001, 5000]) {
      const maxRows = 2 * SAMPLINGS.length;
      const logits = random.floats(maxRows * vocab, 8);
      // Equal ones, and what is never chosen.
      for (let i = 0; i < logits.length; i += 1 + random.below(9)) {
        logits[i] = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 7, 7.5, 0, -0][
          random.below(7)
        ]!;
      }
      const params = new ArrayBuffer(maxRows * SAMPLE_PARAMS_BYTES);
      for (let i = 0; i < maxRows; i++) {
        const row = {
          slot: random.below(4),
          row: random.below(2 ** 31) * 2 ** 20,
          step: i,
          logprob: i % 3 === 0,
        };
        writeSampleParams(sampleParamsView(params, 0, maxRows), i, SAMPLINGS[i % SAMPLINGS.length]!, row);
      }
      const seen = random.words(4 * seenWords(vocab), 2 ** 32);
      const arrays = [logits, new Uint8Array(params), seen, Uint32Array.of(0, maxRows - 1)];
      const after = await runAsHost(
        sampleKernel(),
        [...arrays, poison(maxRows), poison(maxRows)],
        (pipeline, at) =>
          sampleCall(pipeline, {
            ...{ logits: at[0]!, params: at[1]!, seen: at[2]!, info: at[3]!, tokens: at[4]! },
            ...{ logprobs: at[5]!, vocab, numSlots: 4, countAt: 1, maxRows },
          }),
      );
      const tokens = new Int32Array(after[4]!.slice(0, 4 * maxRows).buffer);
      expect(tokens.subarray(0, maxRows - 1).every((token) => token >= 0 && token < vocab)).toBe(true);
      expect(tokens[maxRows - 1]).toBe(POISON);
    }
  });

  fresh("one sequence does steps of any number of rows", async (random) => {
    const [hidden, vocab, maxRows] = [72, 40, 16];
    using table = filled(device, random.elements(vocab * hidden, 2));
    using weight = filled(device, random.floats(hidden));
    using tokens = filled(device, random.words(maxRows, vocab));
    using info = device.createBuffer(32);
    using x = device.createBuffer(maxRows * hidden * 4);
    using y = device.createBuffer(maxRows * hidden * 4);
    const kernels = [embedRowsKernel("BF16"), rmsNormKernel({ type: "F32" })] as const;
    using embed = device.createPipeline(kernels[0]);
    using norm = device.createPipeline(kernels[1]);
    const rows = { info: { buffer: info }, countAt: 1, maxRows };
    const calls = [
      embedRowsCall(embed, {
        ...{ type: "BF16", table: { buffer: table }, vocab, hidden },
        ...{ tokens: { buffer: tokens }, out: { buffer: x }, ...rows },
      }),
      rmsNormCall(norm, {
        ...{ type: "F32", x: { buffer: x }, weight: { buffer: weight } },
        ...{ y: { buffer: y }, hidden, eps: 1e-6, ...rows },
      }),
    ];
    using sequence = device.createSequence(calls);
    for (const count of [3, 16, 0, 1, 99]) {
      new Uint32Array(info.view(0, 32))[1] = count;
      for (const buffer of [x, y]) new Uint32Array(buffer.view(0, buffer.byteLength)).fill(POISON);
      const views = calls.map((call) => call.buffers.map(({ buffer }) => bytesOf(buffer)));
      kernels[0].host!(views[0]!, calls[0]!.constants, calls[0]!.threads);
      views[1]![0] = views[0]![3]!;
      kernels[1].host!(views[1]!, calls[1]!.constants, calls[1]!.threads);
      await runWell(queue, (list) => list.replay(sequence));
      expectBytes(bytesOf(x), views[0]![3]!);
      expectBytes(bytesOf(y), views[1]![3]!);
    }
  });
}

/** A shared buffer of exactly these bytes. */
function filled(device: Device, array: ArrayBufferView & { readonly buffer: ArrayBuffer }): DeviceBuffer {
  const buffer = device.createBuffer(Math.max(1, array.byteLength));
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  new Uint8Array(buffer.view(0, buffer.byteLength)).set(bytes);
  return buffer;
}
