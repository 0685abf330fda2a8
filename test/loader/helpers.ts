/** What the loader's tests share: temp folders, error checks, and a comparison that never trusts the loader. */
import { afterEach, beforeEach, expect } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Batch,
  type Column,
  type ErrorCode,
  HeadraceError,
  type Loader,
  type OpenOptions,
} from "../../src/index.ts";
import { openLoader } from "./device.ts";

/** Bytes of one column of each sample, as the test wrote them; `null` where the sample is missing. */
export interface ExpectedColumn {
  readonly name: string;
  /** Bytes of one element of a ragged column; absent for fixed ones. */
  readonly elementBytes?: number;
  readonly rows: readonly (Uint8Array | null)[];
  /** For dictionary columns: what each code must lead to. */
  readonly texts?: readonly (string | null)[];
}

/** All columns of a dataset, by sample id. */
export type Oracle = readonly ExpectedColumn[];

/** A fresh folder for each test of a file, removed after it. */
export function useTempDir(): (...parts: string[]) => string {
  let dir = "";
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "headrace-loader-"));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));
  return (...parts) => join(dir, ...parts);
}

/** The bytes under any view, copied. */
export function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice();
}

/** Reruns well with the same `seed`: xorshift, so that failures can be repeated. */
export function randomBytes(length: number, seed: number): Uint8Array {
  const out = new Uint8Array(length);
  let state = (seed * 2654435761) >>> 0 || 1;
  for (let i = 0; i < length; i++) {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    out[i] = state >>> 24;
  }
  return out;
}

/** Asserts that `work` fails with `code`, in one line that holds each of `parts`; returns the message. */
export async function expectCode(
  code: ErrorCode,
  work: () => unknown,
  ...parts: readonly (string | number)[]
): Promise<string> {
  let error: unknown;
  try {
    await work();
  } catch (caught) {
    error = caught;
  }
  if (!(error instanceof HeadraceError)) throw error ?? new Error(`nothing failed; ${code} was expected`);
  expect({ code: error.code, message: error.message }).toEqual({ code, message: expect.any(String) });
  expect(error.message).not.toContain("\n");
  for (const part of parts) expect(error.message).toContain(String(part));
  return error.message;
}

/** What one batch held, copied out of its memory. */
export interface Snapshot {
  readonly epoch: number;
  readonly ids: readonly number[];
  /** Hash of every byte of the batch, masks and offsets with it. */
  readonly digest: string;
}

export function snapshot(batch: Batch): Snapshot {
  const hash = new Bun.CryptoHasher("sha256");
  for (const column of batch.columns.values()) {
    for (const part of [column, column.offsets, column.mask, column.validity]) {
      if (part === undefined) continue;
      hash.update(`${column.name}:${part.dtype}[${part.shape}]`);
      hash.update(bytesOf(part.view));
    }
  }
  if (batch.rowMask !== undefined) hash.update(bytesOf(batch.rowMask.view));
  return { epoch: batch.epoch, ids: [...batch.sampleIds], digest: hash.digest("hex") };
}

/** Opens, runs to the end, closes; `each` sees every batch while it lives. */
export async function collect(
  source: string | readonly string[],
  options: OpenOptions,
  each: (batch: Batch, loader: Loader) => void = () => {},
): Promise<Snapshot[]> {
  await using loader = await openLoader(source, options);
  const all: Snapshot[] = [];
  for await (using batch of loader) {
    each(batch, loader);
    all.push(snapshot(batch));
  }
  return all;
}

/** The next `count` batches of a loader (all that are left by default), copied; leaves the loop early. */
export async function take(loader: Loader, count = Number.POSITIVE_INFINITY): Promise<Snapshot[]> {
  const all: Snapshot[] = [];
  if (count <= 0) return all;
  for await (using batch of loader) {
    all.push(snapshot(batch));
    if (all.length >= count) break;
  }
  return all;
}

export function idsOf(batches: readonly Snapshot[]): number[] {
  return batches.flatMap((batch) => batch.ids);
}

/** Compares every row of a batch with what was written, byte by byte. */
export function expectRows(batch: Batch, oracle: Oracle, padValue = 0): void {
  expect([...batch.columns.keys()]).toEqual(oracle.map((column) => column.name));
  const ids = [...batch.sampleIds];
  expect(batch.numSamples).toBe(ids.length);
  for (const expected of oracle) {
    const column = batch.column(expected.name);
    ids.forEach((id, row) => {
      const where = `${expected.name}, batch row ${row}, sample ${id}`;
      const present = expected.rows[id] !== null;
      if (column.validity !== undefined) {
        expect(`${where}: ${column.validity.view[row]}`).toBe(`${where}: ${present ? 1 : 0}`);
      } else expect(`${where}: ${present}`).toBe(`${where}: true`);
      if (present) expectRow(column, expected, row, id, where, padValue);
    });
    expectPadding(column, ids.length, batch.size);
  }
  if (batch.size > ids.length) {
    expect([...batch.rowMask!.view]).toEqual(Array.from({ length: batch.size }, (_, i) => +(i < ids.length)));
  } else expect(batch.rowMask).toBeUndefined();
}

function expectRow(
  column: Column,
  expected: ExpectedColumn,
  row: number,
  id: number,
  where: string,
  padValue: number,
): void {
  if (expected.texts !== undefined) {
    expect(`${where}: ${column.text(row)}`).toBe(`${where}: ${expected.texts[id]}`);
    return;
  }
  const wanted = expected.rows[id]!;
  if (column.mask === undefined) {
    expect(`${where}: ${hex(rowBytes(column, row, expected))}`).toBe(`${where}: ${hex(wanted)}`);
    return;
  }
  const width = column.shape[1]!;
  const item = expected.elementBytes!;
  const length = wanted.length / item;
  const all = bytesOf(column.view).subarray(row * width * item, (row + 1) * width * item);
  expect(`${where}: ${hex(all.subarray(0, wanted.length))}`).toBe(`${where}: ${hex(wanted)}`);
  const mask = [...column.mask.view.subarray(row * width, (row + 1) * width)].map(Number);
  expect(mask).toEqual(Array.from({ length: width }, (_, i) => +(i < length)));
  const perItem = column.view.length / (column.shape[0]! * width);
  const padding = column.view.subarray((row * width + length) * perItem, (row + 1) * width * perItem);
  expect([...padding].every((value) => Number(value) === padValue)).toBe(true);
}

/** The bytes of one row, found by the batch's own offsets and shape but not by its accessors. */
function rowBytes(column: Column, row: number, expected: ExpectedColumn): Uint8Array {
  const all = bytesOf(column.view);
  if (expected.elementBytes !== undefined) {
    const offsets = [...column.offsets!.view].map(Number);
    expect(offsets[0]).toBe(0);
    return all.subarray(offsets[row]! * expected.elementBytes, offsets[row + 1]! * expected.elementBytes);
  }
  const rowLength = column.byteLength / column.shape[0]!;
  return all.subarray(row * rowLength, (row + 1) * rowLength);
}

function expectPadding(column: Column, real: number, size: number): void {
  if (column.offsets !== undefined) {
    expect(column.offsets.shape).toEqual([size + 1]);
    const offsets = [...column.offsets.view].map(Number);
    expect(offsets.slice(real).every((offset) => offset === column.shape[0])).toBe(true);
    return;
  }
  expect(column.shape[0]).toBe(size);
  if (column.mask !== undefined) {
    const width = column.shape[1]!;
    expect([...column.mask.view.subarray(real * width)].every((bit) => Number(bit) === 0)).toBe(true);
  } else if (size > real) {
    const rowLength = column.byteLength / size;
    expect(bytesOf(column.view).subarray(real * rowLength)).toEqual(
      new Uint8Array((size - real) * rowLength),
    );
  }
  if (column.validity !== undefined) {
    expect([...column.validity.view.subarray(real)].every((bit) => Number(bit) === 0)).toBe(true);
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/**
 * Runs the loader once whole, then again for every number of batches: stops there, passes the state through
 * JSON, restores it in a fresh loader, and expects exactly what was left. `open` makes the same loader each
 * time, at `resume` where given.
 */
export async function assertRestoresEverywhere(open: (resume?: unknown) => Promise<Loader>): Promise<void> {
  await using whole = await open();
  const all: Snapshot[] = [];
  const states: string[] = [JSON.stringify(whole.state())];
  for await (using batch of whole) {
    all.push(snapshot(batch));
    states.push(JSON.stringify(whole.state()));
  }
  expect(all.length).toBeGreaterThan(0);
  for (const [done, state] of states.entries()) {
    await using rest = await open(JSON.parse(state));
    expect({ done, rest: await take(rest) }).toEqual({ done, rest: all.slice(done) });
  }
}
