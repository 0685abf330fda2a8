/** Dictionary columns: one vocabulary for the whole dataset, whatever each shard's own says. */
import { HeadraceError } from "../errors.ts";
import { dtypeBits } from "../format/dtype.ts";
import type { ColumnSchema, DictionaryLayout, Schema } from "../types.ts";
import { readBits, readOffsets } from "./integers.ts";
import type { OpenShard } from "./shard.ts";
import type { Source } from "./source.ts";

/** Bytes of all entries of one column beyond which a dictionary no longer is one. */
const MAX_DICTIONARY_BYTES = 256 * 1024 * 1024;

/** Turns a shard's own codes into the dataset's. */
export interface CodeMap {
  readonly codes: Int32Array;
  /** Whether every code is already the dataset's. */
  readonly identity: boolean;
}

/** The entries that the codes of one column point to. Grows only while the dataset opens. */
export class DatasetDictionary {
  /** Type of the entries. */
  readonly entry: ColumnSchema;
  readonly #column: string;
  readonly #codeOf = new Map<string, number>();
  readonly #entries: Uint8Array[] = [];
  readonly #maps = new WeakMap<readonly DictionaryLayout[], CodeMap>();
  #bytes = 0;
  #complete = false;

  constructor(column: ColumnSchema) {
    this.#column = column.name;
    this.entry = column.dictionary!;
  }

  get length(): number {
    return this.#entries.length;
  }

  /** The bytes of entry `code`. Owned by the dictionary. Throws `OUT_OF_RANGE`. */
  bytes(code: number): Uint8Array {
    const entry = this.#entries[code];
    if (entry !== undefined) return entry;
    throw new HeadraceError(
      "OUT_OF_RANGE",
      `column ${this.#column}: there is no code ${code} among ${this.length} entries`,
    );
  }

  /** Entry `code` of a dictionary of utf8. */
  text(code: number): string {
    return new TextDecoder().decode(this.bytes(code));
  }

  /** Adds an entry that is not there yet; returns its code. */
  add(bytes: Uint8Array): number {
    const key = Buffer.from(bytes).toString("latin1");
    const known = this.#codeOf.get(key);
    if (known !== undefined) return known;
    if (this.#complete) {
      throw new HeadraceError(
        "BAD_DICTIONARY",
        `column ${this.#column}: an entry of ${bytes.length} bytes is not in the dataset's dictionary of ${this.length}`,
      );
    }
    this.#bytes += bytes.length;
    if (this.#bytes > MAX_DICTIONARY_BYTES) {
      throw new HeadraceError(
        "BAD_DICTIONARY",
        `column ${this.#column}: its dictionaries hold over ${MAX_DICTIONARY_BYTES} bytes; store it without a dictionary`,
      );
    }
    this.#codeOf.set(key, this.#entries.length);
    return this.#entries.push(bytes.slice()) - 1;
  }

  /** No entry may come after this. */
  complete(): void {
    this.#complete = true;
  }

  /** The dataset's code for each of a group's own. `layouts` are the dictionary batches in effect. */
  mapFor(shard: OpenShard, layouts: readonly DictionaryLayout[]): CodeMap {
    let map = this.#maps.get(layouts);
    if (map === undefined) {
      const codes = Int32Array.from(this.#read(shard, layouts), (bytes) => this.#addOf(shard, bytes));
      map = { codes, identity: codes.every((code, i) => code === i) };
      this.#maps.set(layouts, map);
    }
    return map;
  }

  /** Errors of reading name the shard already. */
  #addOf(shard: OpenShard, bytes: Uint8Array): number {
    try {
      return this.add(bytes);
    } catch (error) {
      throw error instanceof HeadraceError ? error.within(shard.name) : error;
    }
  }

  *#read(shard: OpenShard, layouts: readonly DictionaryLayout[]): Generator<Uint8Array> {
    const itemBits = dtypeBits(this.entry.dtype) * this.entry.shape.reduce((a, b) => a * b, 1);
    for (const { numRows, column } of layouts) {
      const { values } = column;
      if (column.validity !== undefined) {
        throw new HeadraceError(
          "BAD_DICTIONARY",
          `${shard.name}: column ${this.#column}: an entry of its dictionary is null`,
        );
      }
      if (column.bitPacked) {
        const bits = new Uint8Array(numRows * (itemBits / 8));
        readBits(shard, values.start, 0, bits.length, bits, 0);
        for (let i = 0; i < numRows; i++) yield bits.subarray((i * itemBits) / 8, ((i + 1) * itemBits) / 8);
        continue;
      }
      const itemBytes = itemBits / 8;
      const bytes = shard.meta(values.start, values.end - values.start).slice();
      const offsets = new Float64Array(numRows + 1);
      if (column.offsets === undefined)
        offsets.forEach((_, i) => {
          offsets[i] = i;
        });
      else readOffsets(shard, this.#column, column, itemBytes, 0, numRows, offsets);
      for (let i = 0; i < numRows; i++)
        yield bytes.subarray(offsets[i]! * itemBytes, offsets[i + 1]! * itemBytes);
    }
  }
}

/** The dictionaries of `schema`'s columns: from the manifest where it has them, else from all shards in
 * order, so that codes do not depend on which shard is read first. */
export function openDictionaries(
  schema: Schema,
  source: Source,
  open: (index: number) => OpenShard,
): ReadonlyMap<string, DatasetDictionary> {
  const dictionaries = new Map<string, DatasetDictionary>();
  const unread: number[] = [];
  schema.columns.forEach((column, i) => {
    if (column.dictionary === undefined) return;
    const dictionary = new DatasetDictionary(column);
    dictionaries.set(column.name, dictionary);
    const listed = source.manifest?.dictionaries?.[column.name];
    if (listed === undefined) unread.push(i);
    else for (const text of listed) dictionary.add(new TextEncoder().encode(text));
  });
  if (unread.length > 0) {
    source.shards.forEach((_, s) => {
      const shard = open(s);
      for (const group of shard.description.rows?.groups ?? []) {
        for (const i of unread) {
          const layouts = group.columns[shard.columnOf[i]!]?.dictionary;
          if (layouts !== undefined) dictionaries.get(schema.columns[i]!.name)!.mapFor(shard, layouts);
        }
      }
    });
  }
  for (const dictionary of dictionaries.values()) dictionary.complete();
  return dictionaries;
}
