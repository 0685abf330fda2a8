/** Datasets on disk, in the forms that a run wants. */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Format } from "../formats.ts";
import type { DataFacts } from "./facts.ts";

/** One form of a dataset, on disk. */
export interface StoredForm {
  readonly format: Format;
  readonly paths: readonly string[];
  readonly fileBytes: number;
}

export interface PreparedData {
  /** `weights`, or the own dataset's name. */
  readonly name: string;
  readonly facts: DataFacts;
  /** By the name of the format; a string says why there is none. */
  readonly forms: ReadonlyMap<string, StoredForm | string>;
}

export interface PrepareOptions {
  /** Where data lies, each dataset in a folder of its own. */
  readonly folder: string;
  readonly formats: readonly Format[];
  readonly signal?: AbortSignal | undefined;
  /** Says what is being made. */
  readonly onStep?: ((text: string) => void) | undefined;
}

/** The shards of `folder`, in order. */
export function shardsOf(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => /\.(safetensors|arrow)(\.bp)?(\.(zst|lz4))?$/.test(name))
    .sort()
    .map((name) => join(folder, name));
}

export function storedForm(format: Format, folder: string): StoredForm {
  const paths = shardsOf(folder);
  return { format, paths, fileBytes: paths.reduce((total, path) => total + statSync(path).size, 0) };
}
