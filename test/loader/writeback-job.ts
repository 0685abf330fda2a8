/** A job whose outputs are known: the same for all tests of the writer. */
import type { Device, InputShard, OutputColumn, WriterOptions } from "../../src/index.ts";
import type { Writer } from "../../src/loader/writeback/writer.ts";

/** Elements of the column `embedding`. */
export const WIDTH = 5;

export const COLUMNS: readonly OutputColumn[] = [
  { name: "tokens", kind: "list", dtype: "I32" },
  { name: "text", kind: "utf8" },
  { name: "finish", kind: "utf8" },
  { name: "error", kind: "utf8", nullable: true },
  { name: "logprobs", kind: "list", dtype: "F32", nullable: true },
  { name: "embedding", kind: "fixed", dtype: "F32", length: WIDTH, nullable: true },
  { name: "score", kind: "fixed", dtype: "I16" },
];

export const FINGERPRINT = "0123456789abcdef0123456789abcdef";

/** Shards of so many rows each. */
export function shardsOf(counts: readonly number[]): InputShard[] {
  let start = 0;
  return counts.map((count, i) => {
    const shard = { name: `part-${i}.arrow`, start, end: start + count };
    start += count;
    return shard;
  });
}

export function optionsOf(counts: readonly number[], more: Partial<WriterOptions> = {}): WriterOptions {
  const job = { model: "m", seed: 1 };
  return { job, fingerprint: FINGERPRINT, shards: shardsOf(counts), columns: COLUMNS, ...more };
}

/** What a row's output is, as plain values. */
export interface KnownRow {
  readonly tokens: readonly number[];
  readonly text: string;
  readonly finish: string;
  readonly error: string | null;
  readonly logprobs: readonly number[] | null;
  readonly embedding: readonly number[] | null;
  readonly score: number;
}

const TEXTS = ["", "plain", "äöü ﷽ 🧪", 'line\nfeed "quoted"', "x".repeat(300)];

export function knownRow(row: number): KnownRow {
  const failed = row % 7 === 3;
  const tokens = Array.from({ length: (row * 5) % 11 }, (_, i) => row * 100 + i);
  return {
    tokens: failed ? [] : tokens,
    text: failed ? "" : `${row} ${TEXTS[row % TEXTS.length]}`,
    finish: failed ? "error" : row % 2 === 0 ? "stop" : "length",
    error: failed ? `row ${row}: "it" failed` : null,
    logprobs: row % 3 === 0 ? null : tokens.map((token) => -token / 8),
    embedding: failed ? null : Array.from({ length: WIDTH }, (_, i) => row + i / 4),
    score: (row % 100) - 50,
  };
}

/** The same as the writer takes it. */
export function outputOf(row: number) {
  const { tokens, logprobs, embedding, ...rest } = knownRow(row);
  return {
    row,
    ...rest,
    attempts: rest.error === null ? 1 : 3,
    tokens: Int32Array.from(tokens),
    logprobs: logprobs === null ? undefined : Float32Array.from(logprobs),
    embedding: embedding === null ? undefined : Float32Array.from(embedding),
    ignored: "not a column",
  };
}

/** The lines of the dead-letter file. */
export function knownLetters(counts: readonly number[]): string {
  return shardsOf(counts)
    .flatMap(({ name, start, end }) =>
      Array.from({ length: end - start }, (_, i) => start + i).flatMap((row) => {
        const { error } = knownRow(row);
        return error === null ? [] : [`${JSON.stringify({ row, shard: name, error, attempts: 3 })}\n`];
      }),
    )
    .join("");
}

/** Adds a row; its embedding from device memory where `place` gives such. */
export function addRow(
  writer: Writer,
  row: number,
  place?: (values: Float32Array) => {
    buffer: ReturnType<Device["createBuffer"]>;
    byteOffset: number;
    release(): void;
  },
): Promise<void> | undefined {
  const output = outputOf(row);
  if (place === undefined || output.embedding === undefined) return writer.add(output);
  return writer.add({ ...output, embedding: place(output.embedding) });
}

/** Numbers below a bound, the same for a seed. */
export function randomOf(seed: number): (below: number) => number {
  let state = (Math.imul(seed, 2654435761) ^ 0x9e3779b9) >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

export function shuffled<T>(values: readonly T[], random: (below: number) => number): T[] {
  const out = [...values];
  for (let i = out.length - 1; i > 0; i--) {
    const j = random(i + 1);
    [out[i], out[j]] = [out[j]!, out[i]!];
  }
  return out;
}
