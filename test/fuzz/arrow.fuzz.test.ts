/**
 * Feeds the Arrow reader with bytes that nobody wrote on purpose: it must describe them or throw a
 * HeadraceError, soon, with reads and ranges inside the file. Bytes that break readers without its checks
 * (they overflow the stack, loop over two billion buffers, read one block a thousand times) and any that this
 * search finds are kept in crashers/arrow, each under a name that says what it does.
 *
 * HEADRACE_FUZZ_SECONDS lengthens the search (3 seconds), HEADRACE_FUZZ_SEED repeats one.
 */
import { afterAll, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { addressOf } from "../../src/codec/memory.ts";
import { openDecoder } from "../../src/codec/open.ts";
import { HeadraceError } from "../../src/errors.ts";
import { describeArrow } from "../../src/format/arrow.ts";
import type { DecodeChunk } from "../../src/format/arrow-body.ts";
import type { ByteRange, ByteReader, ChunkTable, ColumnLayout } from "../../src/types.ts";
import { footerOf, messageAt, readerOf } from "../unit/format/arrow-helpers.ts";

const SECONDS = Number(process.env.HEADRACE_FUZZ_SECONDS ?? 3);
const SEED = Number(process.env.HEADRACE_FUZZ_SEED ?? Date.now() & 0x7fffffff);

const decoder = openDecoder();
afterAll(() => decoder.close());

const folder = join(import.meta.dir, "..", "golden", "files", "arrow");
const seeds = readdirSync(folder)
  .filter((name) => /\.arrows?$/.test(name))
  .map((name) => ({ name, bytes: new Uint8Array(readFileSync(join(folder, name))) }))
  .map((file) => ({ ...file, hot: [...hotRanges(file.name, file.bytes), ...prefixes(file.bytes)] }));

/** Where metadata lie: changes there do more than changes in data. */
function hotRanges(name: string, bytes: Uint8Array): ByteRange[] {
  if (name.endsWith(".arrow")) {
    const { footer, start } = footerOf(bytes);
    const ranges = [{ start, end: bytes.length }];
    for (let i = 0; i < footer.recordBatchesLength(); i++) {
      const block = footer.recordBatches(i);
      const offset = Number(block?.offset());
      ranges.push({ start: offset, end: offset + (block?.metaDataLength() ?? 0) });
    }
    return ranges;
  }
  if (name.includes("legacy")) return [{ start: 0, end: bytes.length }];
  const ranges: ByteRange[] = [];
  for (let offset = 0; offset + 8 < bytes.length; ) {
    const { bodyStart, end } = messageAt(bytes, offset);
    ranges.push({ start: offset, end: bodyStart });
    offset = end;
  }
  return ranges;
}

/** The lengths in front of compressed buffers, and the frames' first bytes. */
function prefixes(bytes: Uint8Array): ByteRange[] {
  const inner = readerOf(bytes);
  try {
    const { chunks } = describeArrow(inner, bytes.length, undefined, decoding(bytes));
    return Array.from(chunks?.fileOffset ?? [], (at) => ({ start: at - 8, end: at + 8 }));
  } catch (error) {
    // Some of the files cannot be described.
    if (error instanceof HeadraceError) return [];
    throw error;
  }
}

/** Describes `bytes` with all that must hold, and says what came of it. */
function attempt(bytes: Uint8Array, columns?: readonly string[]): string {
  let bytesRead = 0;
  const inner = readerOf(bytes);
  const started = performance.now();
  let outcome: string;
  try {
    const read: ByteReader = (offset, length) => {
      bytesRead += length;
      return inner(offset, length);
    };
    const { rows, chunks } = describeArrow(read, bytes.length, columns, decoding(bytes));
    if (chunks !== undefined) checkChunks(chunks, bytes);
    const first = chunks === undefined ? 8 : 0;
    const end = chunks?.byteLength ?? bytes.length;
    let rowStart = 0;
    for (const group of rows?.groups ?? []) {
      expect(group.rowStart).toBe(rowStart);
      expect(group.numRows).toBeGreaterThan(0);
      rowStart += group.numRows;
      expect(group.columns).toHaveLength(rows?.schema.columns.length ?? -1);
      for (const column of group.columns) checkLayout(column, first, end);
    }
    expect(rows?.numRows).toBe(rowStart);
    outcome = "described";
  } catch (error) {
    if (!(error instanceof HeadraceError)) throw error;
    expect(error.message).not.toContain("\n");
    outcome = error.code;
  }
  expect(performance.now() - started).toBeLessThan(2000);
  // Each byte at most once, but for the head and for bitmaps of null lists, which buffers may share.
  expect(bytesRead).toBeLessThan(4 * bytes.length + 1024);
  return outcome;
}

function checkLayout(column: ColumnLayout, first: number, last: number): void {
  for (const range of [column.values, column.offsets?.range, column.validity?.range]) {
    if (range === undefined) continue;
    const { start, end } = range;
    if (!(Number.isSafeInteger(start) && start >= first && start <= end && end <= last))
      throw new Error(`range [${start}, ${end}) of bytes [${first}, ${last})`);
  }
  for (const { column: entries } of column.dictionary ?? []) checkLayout(entries, first, last);
}

/** Longer chunks are left alone: forgeries may claim a gibibyte of zeros. */
const MAX_DECODED = 2 ** 20;
/** Of a value that no chunk here holds in such numbers, around what is decoded. */
const GUARD = 64;
const guarded = new Uint8Array(new ArrayBuffer(MAX_DECODED + 2 * GUARD));

/** Decodes for `describeArrow`, with the errors that it passes on. */
function decoding(bytes: Uint8Array): DecodeChunk {
  return (codec, fileOffset, fileLength, byteLength) => {
    const source = new Uint8Array(new ArrayBuffer(fileLength));
    source.set(bytes.subarray(fileOffset, fileOffset + fileLength));
    const target = new Uint8Array(new ArrayBuffer(byteLength));
    const error = decoder.decode(codec, addressOf(source), fileLength, addressOf(target), byteLength);
    if (error !== undefined) throw error;
    return target;
  };
}

/** A table must be one, and decoding its chunks must give their bytes or an error, and write nothing else. */
function checkChunks(table: ChunkTable, bytes: Uint8Array): void {
  const file = new Uint8Array(new ArrayBuffer(bytes.length));
  file.set(bytes);
  const inFile: ByteRange[] = [];
  expect(table.starts[0]).toBe(0);
  expect(table.starts[table.numChunks]).toBe(table.byteLength);
  for (let i = 0; i < table.numChunks; i++) {
    const [start, length] = [table.fileOffset[i]!, table.fileLength[i]!];
    const byteLength = table.starts[i + 1]! - table.starts[i]!;
    if (!(byteLength > 0 && byteLength <= table.maxLength && start >= 8 && start + length <= bytes.length))
      throw new Error(`chunk ${i} of ${byteLength} bytes from [${start}, ${start + length})`);
    inFile.push({ start, end: start + length });
    if (byteLength > MAX_DECODED) continue;
    guarded.fill(0xa5, 0, byteLength + 2 * GUARD);
    const at = addressOf(guarded) + GUARD;
    const error = decoder.decode(table.codec[i]!, addressOf(file) + start, length, at, byteLength);
    if (error !== undefined && error.code !== "BAD_CHUNK" && error.code !== "UNSUPPORTED_COMPRESSION")
      throw error;
    const around = [guarded.subarray(0, GUARD), guarded.subarray(byteLength + GUARD, byteLength + 2 * GUARD)];
    if (around.some((guard) => guard.some((byte) => byte !== 0xa5)))
      throw new Error(`chunk ${i} of ${byteLength} bytes was written past its ends`);
  }
  inFile.sort((a, b) => a.start - b.start);
  for (let i = 1; i < inFile.length; i++)
    if (inFile[i]!.start < inFile[i - 1]!.end) throw new Error(`chunks overlap at byte ${inFile[i]!.start}`);
}

/** Numbers that length and offset fields do not expect. */
const ODD = [0, 1, -1, 2, 7, 8, 64, 255, 2 ** 16, 2 ** 31 - 1, -(2 ** 31)];

/** One seed file with a few changes, most of them in its metadata. */
function mutate(next: () => number): Uint8Array {
  const pick = (count: number) => next() % count;
  const seed = seeds[pick(seeds.length)] as (typeof seeds)[number];
  const bytes = seed.bytes.slice();
  const view = new DataView(bytes.buffer);
  for (let changes = 1 + pick(4); changes > 0; changes--) {
    const hot = seed.hot[pick(seed.hot.length)] as ByteRange;
    const at = pick(8) === 0 ? pick(bytes.length) : hot.start + pick(hot.end - hot.start);
    const aligned = Math.max(0, Math.min(at - (at % 4), bytes.length - 8));
    const odd = ODD[pick(ODD.length)] as number;
    const kind = pick(6);
    if (kind === 0) view.setUint8(at, pick(256));
    else if (kind === 1) view.setUint8(at, view.getUint8(at) ^ (1 << pick(8)));
    else if (kind === 2) view.setInt32(aligned, odd, true);
    else if (kind === 3) view.setInt32(aligned, view.getInt32(aligned, true) + pick(65) - 32, true);
    else if (kind === 4) view.setBigInt64(aligned, BigInt(odd) * 2n ** BigInt(pick(33)), true);
    else bytes.copyWithin(aligned, pick(bytes.length), pick(bytes.length));
  }
  return pick(10) === 0 ? bytes.subarray(0, pick(bytes.length)) : bytes;
}

/** A linear congruential generator: the seed alone makes the run. */
function generator(seed: number): () => number {
  let state = BigInt(seed);
  return () => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
    return Number(state >> 33n);
  };
}

test("kept crashers", () => {
  const kept = join(import.meta.dir, "crashers", "arrow");
  const names = readdirSync(kept);
  expect(names).not.toBeEmpty();
  for (const name of names) {
    const bytes = new Uint8Array(readFileSync(join(kept, name)));
    attempt(bytes);
    attempt(bytes, ["first", "a"]);
  }
});

test(
  `mutated shards, seed ${SEED}`,
  () => {
    const next = generator(SEED);
    const outcomes = new Map<string, number>();
    const end = performance.now() + SECONDS * 1000;
    for (let runs = 0; runs < 200 || performance.now() < end; runs++) {
      const bytes = mutate(next);
      try {
        const outcome = attempt(bytes, next() % 3 === 0 ? ["first", "a", "word"] : undefined);
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      } catch (error) {
        throw new Error(`run ${runs} of seed ${SEED}: ${error}; bytes ${bytes.toBase64()}`, { cause: error });
      }
    }
    // A search that never gets past the first check searches nothing.
    const codes = ["ARROW_FOOTER", "ARROW_MESSAGE", "ARROW_BUFFER", "ARROW_TRUNCATED", "UNSUPPORTED_TYPE"];
    expect([...outcomes.keys()]).toEqual(expect.arrayContaining(["described", ...codes]));
  },
  SECONDS * 1000 + 20_000,
);

test("random bytes, also behind a right beginning", () => {
  const magic = new TextEncoder().encode("ARROW1\0\0");
  const starts = [new Uint8Array(), magic, new Uint8Array([255, 255, 255, 255, 40, 0, 0, 0])];
  const property = fc.property(
    fc.constantFrom(...starts),
    fc.uint8Array({ maxLength: 300 }),
    fc.boolean(),
    (start, middle, closed) => {
      const tail = closed
        ? [...new Uint8Array(new Int32Array([middle.length]).buffer), ...magic.subarray(0, 6)]
        : [];
      attempt(new Uint8Array([...start, ...middle, ...tail]));
    },
  );
  fc.assert(property, { numRuns: 2000 });
});
