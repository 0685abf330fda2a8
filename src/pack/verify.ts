/** Checks shards for what can be wrong with them: their bytes, their structure, every value that leads somewhere. */
import { isUtf8 } from "node:buffer";
import { stat } from "node:fs/promises";
import type { Device } from "../device/device.ts";
import { openDevice } from "../device/open.ts";
import { type ErrorCode, HeadraceError } from "../errors.ts";
import type { ManifestShard } from "../format/manifest.ts";
import type { Column } from "../loader/batch.ts";
import { Dataset } from "../loader/dataset.ts";
import { Loader } from "../loader/loader.ts";
import { checkAgreement } from "../loader/schema.ts";
import { findSource, type Source } from "../loader/source.ts";
import { prepareSource } from "../loader/whole.ts";
import type { ColumnSchema, View } from "../types.ts";
import { sha256Of } from "./files.ts";
import { isNumeric, Range } from "./stats.ts";
import { checkFrames } from "./verify-frames.ts";

/** Bytes of the batches that values are looked at in. */
const BATCH_BYTES = 8 * 2 ** 20;

export interface VerifyOptions {
  /** As for a dataset; default as the manifest says, else rows where the shards allow it. */
  readonly view?: View | "auto" | undefined;
  /** Whether bytes are hashed where a manifest has digests; default true. */
  readonly digests?: boolean | undefined;
  /** Ends it with `CANCELLED`. */
  readonly signal?: AbortSignal | undefined;
  /** Bytes that were looked at, of all; each file may count twice. */
  readonly onProgress?: ((bytes: number, totalBytes: number, shards: number) => void) | undefined;
  /** Called for each shard when it is done. */
  readonly onShard?: ((shard: VerifiedShard) => void) | undefined;
}

/** What was looked at, by name: `size` and `sha256` against `dataset.json`; `structure`: headers, footers, ranges;
 * `schema`, `samples`: against `dataset.json`; `values`: all decoded, checksums, offsets, codes of dictionaries and UTF-8
 * included; `bounds`: the least and largest values and the nulls that `dataset.json` lists. */
export type Check = "size" | "sha256" | "structure" | "schema" | "samples" | "values" | "bounds";

export interface Problem {
  readonly code: ErrorCode;
  readonly message: string;
}

export interface VerifiedShard {
  readonly path: string;
  /** Undefined where it cannot be opened. */
  readonly samples: number | undefined;
  readonly bytes: number;
  /** What was checked; what failed has a problem. */
  readonly checks: readonly Check[];
  readonly problems: readonly Problem[];
}

export interface VerifyReport {
  readonly source: string;
  /** Whether there was a `dataset.json` to compare with. */
  readonly manifest: boolean;
  readonly shards: readonly VerifiedShard[];
  readonly samples: number;
  readonly bytes: number;
  readonly failedShards: number;
  readonly seconds: number;
}

/**
 * Checks every shard of `source`, whatever is wrong with those before it. Throws what finding the source throws (a
 * manifest that is malformed among it), `BAD_OPTION` and `CANCELLED`; what is wrong with shards is in the report.
 */
export async function verify(
  source: string | readonly string[],
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  const started = performance.now();
  const found = findSource(source);
  const device = openDevice("host");
  try {
    const run = new Verification(found, device, options);
    const shards: VerifiedShard[] = [];
    for (const index of found.shards.keys()) {
      const shard = await run.shard(index);
      shards.push(shard);
      options.onShard?.(shard);
    }
    return {
      source: found.title,
      manifest: found.manifest !== undefined,
      shards,
      samples: shards.reduce((total, { samples = 0 }) => total + samples, 0),
      bytes: shards.reduce((total, { bytes }) => total + bytes, 0),
      failedShards: shards.filter(({ problems }) => problems.length > 0).length,
      seconds: (performance.now() - started) / 1000,
    };
  } catch (cause) {
    if (options.signal?.aborted !== true) throw cause;
    throw new HeadraceError("CANCELLED", `${found.title}: verifying was cancelled`, { cause });
  } finally {
    await device.close();
  }
}

/** What one shard's checks find. */
class Findings {
  readonly checks: Check[] = [];
  readonly problems: Problem[] = [];

  /** Runs a check; a failure of it is a problem, and gives undefined. */
  async check<T>(name: Check, work: () => T | Promise<T>): Promise<T | undefined> {
    this.checks.push(name);
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof HeadraceError) || error.code === "CANCELLED") throw error;
      this.problems.push({ code: error.code, message: error.message });
      return undefined;
    }
  }
}

class Verification {
  readonly #source: Source;
  readonly #device: Device;
  readonly #options: VerifyOptions;
  readonly #totalBytes: number;
  #doneBytes = 0;
  #doneShards = 0;

  constructor(source: Source, device: Device, options: VerifyOptions) {
    this.#source = source;
    this.#device = device;
    this.#options = options;
    const listed = source.manifest?.shards ?? [];
    this.#totalBytes =
      listed.reduce((total, { bytes }) => total + bytes, 0) * (options.digests === false ? 1 : 2);
  }

  async shard(index: number): Promise<VerifiedShard> {
    this.#options.signal?.throwIfAborted();
    const { path } = this.#source.shards[index]!;
    const listed = this.#source.manifest?.shards[index];
    const findings = new Findings();
    const bytes = (await findings.check("size", () => checkSize(path, listed))) ?? 0;
    if (listed?.sha256 !== undefined && this.#options.digests !== false && bytes > 0)
      await findings.check("sha256", () => this.#checkDigest(path, listed));
    const samples = await this.#checkContents(path, listed, bytes, findings);
    this.#doneShards++;
    const { checks, problems } = findings;
    return { path, samples, bytes, checks, problems };
  }

  async #checkDigest(path: string, { sha256 }: ManifestShard): Promise<void> {
    const found = await sha256Of(path, (bytes) => this.#progress(bytes), this.#options.signal);
    if (found === sha256) return;
    const text = `${path}: its sha256 is ${found}, and dataset.json lists ${sha256}; fetch the shard again`;
    throw new HeadraceError("DIGEST_MISMATCH", text);
  }

  /** Returns how many samples the shard holds. */
  async #checkContents(
    path: string,
    listed: ManifestShard | undefined,
    bytes: number,
    findings: Findings,
  ): Promise<number | undefined> {
    const { manifest } = this.#source;
    const view = manifest?.view ?? this.#options.view ?? "auto";
    const shards = [{ path, name: path }];
    const { signal } = this.#options;
    using owned = new DisposableStack();
    const dataset = await findings.check("structure", async () => {
      const { wholes } = owned.use(await prepareSource([path], this.#device, { signal }));
      return owned.use(new Dataset({ title: path, shards }, this.#device, { view }, wholes));
    });
    if (dataset === undefined) return undefined;
    const { schema, numSamples } = dataset;
    if (manifest !== undefined && manifest.view === "rows")
      await findings.check("schema", () =>
        checkAgreement(manifest.schema, "dataset.json", schema, path, true),
      );
    if (listed !== undefined) await findings.check("samples", () => checkSamples(path, numSamples, listed));
    const bounds = boundsOf(schema.columns, listed);
    const whole = await findings.check("values", async () => {
      await checkFrames(this.#device, path, signal);
      return await this.#readAll(dataset, bounds, bytes);
    });
    if (whole === true && bounds.length > 0)
      await findings.check("bounds", () => checkBounds(path, bounds, listed!));
    return numSamples;
  }

  /** Reads all samples, which checks what they are made of. */
  async #readAll(dataset: Dataset, bounds: readonly Bounds[], fileBytes: number): Promise<true> {
    const { numSamples } = dataset;
    if (numSamples === 0) return true;
    const { signal } = this.#options;
    await using loader = new Loader(dataset, this.#device, { batchBytes: BATCH_BYTES, signal });
    const texts = dataset.schema.columns.filter(({ logical }) => logical === "utf8").map(({ name }) => name);
    let samples = 0;
    for await (using batch of loader) {
      for (const name of texts) checkText(dataset.title, batch.column(name), samples);
      for (const one of bounds) addBounds(one, batch.column(one.name));
      samples += batch.numSamples;
      this.#progress((fileBytes * batch.numSamples) / numSamples);
    }
    return true;
  }

  #progress(bytes: number): void {
    this.#doneBytes += bytes;
    this.#options.onProgress?.(
      this.#doneBytes,
      Math.max(this.#totalBytes, this.#doneBytes),
      this.#doneShards,
    );
  }
}

async function checkSize(path: string, listed: ManifestShard | undefined): Promise<number> {
  const size = await stat(path).then(
    (stats) => stats.size,
    (cause) => {
      throw new HeadraceError("SOURCE_NOT_FOUND", `${path}: there is no such file`, { cause });
    },
  );
  if (listed !== undefined && size !== listed.bytes) {
    const text = `${path}: holds ${size} bytes, and dataset.json lists ${listed.bytes}; fetch the shard again`;
    throw new HeadraceError("FILE_CHANGED", text);
  }
  return size;
}

function checkSamples(path: string, samples: number, listed: ManifestShard): void {
  if (samples === listed.samples) return;
  throw new HeadraceError(
    "FILE_CHANGED",
    `${path}: holds ${samples} samples, and dataset.json lists ${listed.samples}`,
  );
}

/** What a column holds, to be compared with what is listed. */
interface Bounds {
  readonly name: string;
  readonly range: Range;
  nulls: number;
}

function boundsOf(columns: readonly ColumnSchema[], listed: ManifestShard | undefined): Bounds[] {
  return columns.flatMap(({ name, dtype, ragged, logical }) => {
    const kind = ragged ? "list" : "fixed";
    const known = listed?.columns !== undefined && Object.hasOwn(listed.columns, name);
    if (!known || logical !== "number" || !isNumeric({ kind, dtype })) return [];
    return [{ name, range: new Range(dtype), nulls: 0 }];
  });
}

function addBounds(bounds: Bounds, column: Column): void {
  const { view } = column;
  const bytes = new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength);
  const rows = column.offsets === undefined ? column.shape[0]! : column.offsets.shape[0]! - 1;
  const validity = column.validity?.view as Uint8Array | undefined;
  const start = (row: number) =>
    column.offsets === undefined ? (row * view.length) / rows : Number(column.offsets.view[row]);
  for (let row = 0; row < rows; ) {
    if (validity?.[row] === 0) {
      bounds.nulls++;
      row++;
      continue;
    }
    const from = row;
    if (validity === undefined) row = rows;
    else while (row < rows && validity[row] !== 0) row++;
    bounds.range.add(bytes, start(from), start(row));
  }
}

function checkBounds(path: string, bounds: readonly Bounds[], { columns }: ManifestShard): void {
  for (const { name, range, nulls } of bounds) {
    const found = { ...range.result(), nulls };
    const listed = columns![name]!;
    for (const what of ["min", "max", "nulls"] as const) {
      if (found[what] === listed[what]) continue;
      const text = `${path}: column ${JSON.stringify(name)} has ${what} ${found[what] ?? "none"}, and dataset.json lists ${listed[what] ?? "none"}`;
      throw new HeadraceError("DIGEST_MISMATCH", text);
    }
  }
}

function checkText(path: string, column: Column, firstRow: number): void {
  if (column.dictionary !== undefined || column.offsets === undefined) return;
  const bytes = column.view as Uint8Array;
  const rows = column.offsets.shape[0]! - 1;
  // Characters that are whole in all do not make each row's whole.
  const starts = column.offsets.view;
  let whole = isUtf8(bytes);
  for (let row = 1; row < rows && whole; row++) whole = ((bytes[Number(starts[row])] ?? 0) & 0xc0) !== 0x80;
  if (whole) return;
  for (let row = 0; row < rows; row++) {
    if (isUtf8(column.row(row) as Uint8Array)) continue;
    const text = `${path}: row ${firstRow + row} of column ${JSON.stringify(column.name)} is no UTF-8`;
    throw new HeadraceError("BAD_INPUT", text);
  }
}
