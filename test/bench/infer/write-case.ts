/** Whether outputs hold steps up: an engine that does nothing but give vectors, at 1 GB/s, in device memory. */
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import {
  type Device,
  type Engine,
  infer,
  openDevice,
  type SlotResult,
  saveSafetensors,
} from "../../../src/index.ts";
import { type CaseResult, judge, progress } from "../cuda/rounds.ts";
import type { InferBenchOptions } from "./options.ts";

const SLOTS = 16;
/** Elements of a row's vector: 256 KiB. */
const LENGTH = 65_536;
const ROW_BYTES = LENGTH * 4;
/** Vectors that may be out at once. */
const RING = 16 * SLOTS;
const BYTES_PER_SECOND = 1e9;
/** Share of the steps' time that may be spent on waiting for a vector's place. */
const MOST_WAIT = 0.01;

export async function writeBack(options: InferBenchOptions): Promise<CaseResult> {
  const rows = options.quick ? 1024 : 8192;
  mkdirSync(options.outputFolder, { recursive: true });
  const folder = mkdtempSync(join(options.outputFolder, "headrace-bench-write-"));
  try {
    const source = join(folder, "prompts.safetensors");
    saveSafetensors(source, [{ name: "tokens", dtype: "I32", shape: [rows, 1], data: new Int32Array(rows) }]);
    const rates: number[] = [];
    const waits: number[] = [];
    for (let i = 0; i < options.repeats; i++) {
      const { gigabytes, waitShare } = await run(source, join(folder, `out-${i}`), rows);
      rates.push(gigabytes);
      waits.push(Math.max(waitShare, 1e-6));
      progress(
        `infer.write-back: ${gigabytes.toFixed(3)} GB/s, ${(100 * waitShare).toFixed(2)} % of the time waited`,
      );
      rmSync(join(folder, `out-${i}`), { recursive: true, force: true });
    }
    const text = {
      name: "infer.write-back",
      unit: "of the time",
      against: "a bar",
      note: `share of the time in which steps waited for outputs to be written, at 1 GB/s of vectors of ${ROW_BYTES} bytes; got ${rates.map((rate) => rate.toFixed(2)).join(", ")} GB/s`,
      atLeast: 1,
      higherIsBetter: false,
    };
    return { rows: [judge(text, waits, [MOST_WAIT])], leftOut: [], details: { rates, waits, rows } };
  } finally {
    if (existsSync(folder)) rmSync(folder, { recursive: true, force: true });
  }
}

async function run(source: string, out: string, rows: number) {
  await using device = openDevice("host");
  using vectors = new PacedVectors(device);
  const engine = { engine: vectors.engine, name: "paced vectors", vectorLength: LENGTH };
  const report = await infer({ source, out, device, engine, slots: SLOTS });
  return {
    gigabytes: (rows * ROW_BYTES) / report.seconds / 1e9,
    waitShare: vectors.waitedMs / 1000 / report.seconds + report.outputWaitShare,
  };
}

/** Gives a vector for every row, and no more bytes a second than it should. */
class PacedVectors implements Disposable {
  waitedMs = 0;
  readonly engine: Engine;
  readonly #buffer;
  readonly #free = Array.from({ length: RING }, (_, i) => i);
  #wake: (() => void) | undefined;
  #given = 0;
  #startedMs = 0;

  constructor(device: Device) {
    this.#buffer = device.createBuffer(RING * ROW_BYTES);
    new Float32Array(this.#buffer.view(0, RING * ROW_BYTES)).fill(1.5);
    this.engine = {
      capacity: { slots: SLOTS, contextLength: 2, tokensPerStep: SLOTS, promptsOnly: true },
      prefill: async (chunks) => {
        const results: SlotResult[] = [];
        for (const { slot } of chunks) results.push(await this.#give(slot));
        await this.#pace();
        return results;
      },
      decode: async () => [],
      release: () => {},
    };
  }

  async #give(slot: number): Promise<SlotResult> {
    const started = performance.now();
    while (this.#free.length === 0) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.waitedMs += performance.now() - started;
    const place = this.#free.pop()!;
    const embedding = {
      buffer: this.#buffer,
      byteOffset: place * ROW_BYTES,
      length: LENGTH,
      release: () => {
        this.#free.push(place);
        this.#wake?.();
      },
    };
    this.#given++;
    return { slot, finish: "stop", embedding };
  }

  /** Waits until so many bytes are due. */
  async #pace(): Promise<void> {
    this.#startedMs ||= performance.now();
    const dueMs = this.#startedMs + (this.#given * ROW_BYTES * 1000) / BYTES_PER_SECOND;
    const leftMs = dueMs - performance.now();
    if (leftMs > 1) await Bun.sleep(leftMs);
  }

  [Symbol.dispose](): void {
    this.#buffer.close();
  }
}
