/** Puts data on disk in the forms that a run wants, once: what is whole is used again. */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Format } from "../formats.ts";
import { MixSum } from "../row-sum.ts";
import { HostSum, type KnownSums, WordSum } from "../sums.ts";
import { compressForm } from "./compress.ts";
import { type DataFacts, readFacts, tensorKey, writeFacts } from "./facts.ts";
import { type PreparedData, type PrepareOptions, type StoredForm, shardsOf, storedForm } from "./forms.ts";
import { type DataKind, makeShards, type ShardData } from "./kinds.ts";
import { ownData } from "./own.ts";
import { writeArrow, writeSafetensors } from "./write.ts";

/** Where data comes from. */
export type DataSource =
  | { readonly kind: DataKind; readonly byteLength: number; readonly seed: number }
  | { readonly own: string };

/** Makes what is missing of `source` in all `formats`. A form that cannot be made is a reason, not a failure. Throws
 * `DISK_FULL`, `IO_ERROR`, `CANCELLED`, and for a dataset of one's own what opening it throws. */
export async function prepareData(source: DataSource, options: PrepareOptions): Promise<PreparedData> {
  if ("own" in source) return await ownData(source.own, options);
  const { kind, byteLength, seed } = source;
  const folder = join(options.folder, `${kind}-${byteLength}-${seed}`);
  const made = `${kind} of ${byteLength} bytes, seed ${seed}`;
  // A compressed form is made from the plain one.
  const bases = [...new Set(options.formats.map(({ base }) => base))];
  let facts = readFacts(folder, made);
  if (facts === undefined) rmSync(folder, { recursive: true, force: true });
  const missing = bases.filter((base) => !facts?.formats.includes(base));
  if (facts === undefined || missing.length > 0) {
    options.onStep?.(`making ${kind}: ${missing.join(", ")}`);
    facts = await makeBases(folder, made, source, missing, facts, options);
  }
  const forms = new Map<string, StoredForm | string>();
  for (const format of options.formats) {
    options.signal?.throwIfAborted();
    const formFolder = join(folder, format.name);
    if (format.codec !== undefined && !facts.formats.includes(format.name)) {
      options.onStep?.(`making ${kind}: ${format.name}`);
      const why = await compressForm(shardsOf(join(folder, format.base)), formFolder, format, options.signal);
      if (why !== undefined) {
        forms.set(format.name, why);
        continue;
      }
      facts = writeFacts(folder, { ...facts, formats: [...facts.formats, format.name] });
    }
    forms.set(format.name, storedForm(format, formFolder));
  }
  return { name: kind, facts, forms };
}

async function makeBases(
  folder: string,
  made: string,
  { kind, byteLength, seed }: { kind: DataKind; byteLength: number; seed: number },
  bases: readonly Format["base"][],
  known: DataFacts | undefined,
  { signal }: PrepareOptions,
): Promise<DataFacts> {
  for (const base of bases) {
    rmSync(join(folder, base), { recursive: true, force: true });
    mkdirSync(join(folder, base), { recursive: true });
  }
  const sums = new Sums();
  let shardIndex = 0;
  for (const shard of makeShards(kind, byteLength, seed)) {
    const name = `${kind}-${String(shardIndex++).padStart(5, "0")}`;
    for (const base of bases) {
      const path = join(folder, base, `${name}.${base}`);
      if (base === "safetensors") writeSafetensors(path, shard);
      else await writeArrow(path, shard);
    }
    sums.add(shard);
    // Signals are heard between shards.
    await new Promise(setImmediate);
    signal?.throwIfAborted();
  }
  return writeFacts(folder, { made, ...sums.facts, formats: [...(known?.formats ?? []), ...bases] });
}

/** The sums of one way of giving keys. */
class KeyedSums {
  readonly #host = new HostSum();
  readonly #mix = new MixSum();
  readonly #words = new WordSum();

  add(key: number, bytes: Uint8Array): void {
    this.#host.add(key, bytes);
    this.#mix.add(key, bytes);
    this.#words.add(bytes);
  }

  get known(): KnownSums {
    return { xxh3: this.#host.hex, mix: this.#mix.hex, words: this.#words.hex };
  }
}

/** Adds up what was made, before anything writes it: no reader has a part in what it is held against. */
class Sums {
  readonly #rows = new KeyedSums();
  readonly #tensors = new KeyedSums();
  #numSamples = 0;
  #bytes = 0;
  #isTensors = false;

  add({ numRows, values, offsets, elementBytes, tensors }: ShardData): void {
    const rowBytes = values.length / numRows;
    for (let row = 0; row < numRows; row++) {
      const start = offsets === undefined ? row * rowBytes : offsets[row]! * elementBytes;
      const end = offsets === undefined ? start + rowBytes : offsets[row + 1]! * elementBytes;
      const bytes = values.subarray(start, end);
      this.#rows.add(this.#numSamples + row, bytes);
      if (tensors !== undefined) this.#tensors.add(tensorKey(tensors[row]!.name), bytes);
    }
    this.#numSamples += numRows;
    this.#bytes += values.length;
    this.#isTensors = tensors !== undefined;
  }

  get facts() {
    return {
      bytes: this.#bytes,
      numSamples: this.#numSamples,
      tensors: this.#isTensors,
      plain: true,
      rowSums: this.#rows.known,
      ...(this.#isTensors ? { tensorSums: this.#tensors.known } : {}),
    };
  }
}
