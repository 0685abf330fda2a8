/** What is known of data that was made: read before it is used again, written when it is whole. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { saveText } from "../../index.ts";
import type { KnownSums } from "../sums.ts";

/** Of the layout of folders, of the generators, and of the sums: data of another version is made anew. */
const VERSION = 1;
const NAME = "facts.json";

/** A dataset, whatever it is stored as. */
export interface DataFacts {
  readonly version: typeof VERSION;
  /** What it was made from: `tokens of 268435456 bytes, seed 0`. */
  readonly made: string;
  /** Bytes of all values: what a trial delivers. */
  readonly bytes: number;
  /** Rows, or tensors. */
  readonly numSamples: number;
  /** Whether safetensors shows it as tensors; rows otherwise. */
  readonly tensors: boolean;
  /** Whether it is one column of numbers, or tensors: what readers are measured with that know no more. */
  readonly plain: boolean;
  /** The columns that are delivered; all where absent. */
  readonly columns?: readonly string[] | undefined;
  /** Keys are the samples' numbers in the dataset. */
  readonly rowSums: KnownSums;
  /** Keys are those of the tensors' names; of data that is tensors. */
  readonly tensorSums?: KnownSums | undefined;
  /** Forms that are whole. */
  readonly formats: readonly string[];
}

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const names = v.array(v.string());
const sums = v.object({ xxh3: v.string(), mix: v.optional(v.string()), words: v.optional(v.string()) });

/** Layouts changed before they had versions: what lacks a field is not taken for false. */
const schema = v.object({
  version: v.literal(VERSION),
  made: v.string(),
  bytes: count,
  numSamples: count,
  tensors: v.boolean(),
  plain: v.boolean(),
  columns: v.optional(names),
  rowSums: sums,
  tensorSums: v.optional(sums),
  formats: names,
});

/** The facts of `folder`, or undefined where they are not there, damaged, or of something else than `made`. */
export function readFacts(folder: string, made: string): DataFacts | undefined {
  try {
    const facts = v.parse(schema, JSON.parse(readFileSync(join(folder, NAME), "utf8")));
    return facts.made === made ? facts : undefined;
  } catch {
    return undefined;
  }
}

export function writeFacts(folder: string, facts: Omit<DataFacts, "version">): DataFacts {
  const all: DataFacts = { version: VERSION, ...facts };
  saveText(join(folder, NAME), `${JSON.stringify(all, null, 2)}\n`);
  return all;
}

/** The key of a tensor: its name's, so that it is the same wherever the tensor lies. */
export function tensorKey(name: string): number {
  return Bun.hash.xxHash32(name);
}
