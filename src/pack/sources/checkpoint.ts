/** A model's folder in the Hugging Face layout: weights as tensors, and the files that belong to them. */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { HeadraceError } from "../../errors.ts";
import type { TensorSource } from "../rows.ts";
import { openShards } from "./shards.ts";
import type { SourceOptions } from "./source.ts";

const CONFIG = "config.json";
const INDEX_ENDING = ".safetensors.index.json";
const WEIGHTS = /\.safetensors(\.bp)?(\.zst|\.lz4)?$/;
/** What PyTorch pickles: reading it is running it. */
const PICKLES = /\.(bin|pt|pth|ckpt)$/;
/** Configuration, tokenizers, templates and licences. */
const COMPANIONS = /\.(json|txt|model|jinja|tiktoken|md)$|^(LICENSE|NOTICE)/;
/** Companions are small; what is larger is something else. */
const MAX_COMPANION_BYTES = 256 * 2 ** 20;

/** Whether `folder` is a model's: a configuration beside weights. */
export function isCheckpoint(folder: string): boolean {
  const names = namesIn(folder);
  return names.includes(CONFIG) && names.some((name) => WEIGHTS.test(name) || PICKLES.test(name));
}

/**
 * Opens the weights of the model in `folder` as tensors: those of its index, else of all its safetensors files by name.
 * Throws `UNSUPPORTED` where weights are pickled alone, `SOURCE_NOT_FOUND` where there are none, `SOURCE_MIXED` for
 * several indexes, and what opening shards throws.
 */
export async function openCheckpoint(folder: string, options: SourceOptions = {}): Promise<TensorSource> {
  const names = namesIn(folder);
  const companions = names.filter(
    (name) => COMPANIONS.test(name) && !name.endsWith(".index.json") && name !== "dataset.json",
  );
  const files = companions.map((name) => join(folder, name)).filter(isSmallFile);
  options.watch?.add(files, { held: false });
  const source = await openShards(weightsOf(folder, names), { ...options, view: "tensors" });
  // Seen as tensors, shards are nothing else.
  return { ...(source as TensorSource), files };
}

function weightsOf(folder: string, names: readonly string[]): string | readonly string[] {
  const indexes = names.filter((name) => name.endsWith(INDEX_ENDING));
  if (indexes.length > 1) {
    const text = `${folder}: holds ${indexes.length} index files (${indexes.join(", ")}); leave one`;
    throw new HeadraceError("SOURCE_MIXED", text);
  }
  if (indexes.length === 1) return join(folder, indexes[0]!);
  const weights = names.filter((name) => WEIGHTS.test(name));
  if (weights.length > 0) return weights.map((name) => join(folder, name));
  const pickle = names.find((name) => PICKLES.test(name));
  if (pickle === undefined) {
    throw new HeadraceError(
      "SOURCE_NOT_FOUND",
      `${folder}: holds no weights (no file ending in .safetensors)`,
    );
  }
  throw new HeadraceError(
    "UNSUPPORTED",
    `${join(folder, pickle)}: holds pickled weights, which only Python reads; write safetensors by ` +
      "transformers' save_pretrained(folder, safe_serialization=True), and pack that folder",
  );
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder).sort();
  } catch (cause) {
    const { code } = cause as { code?: string };
    const missing = code === "ENOENT" || code === "ENOTDIR";
    throw new HeadraceError(
      missing ? "SOURCE_NOT_FOUND" : "SOURCE_UNREADABLE",
      `${folder}: ${missing ? "there is no such folder" : `cannot be listed (${code})`}`,
      { cause },
    );
  }
}

function isSmallFile(path: string): boolean {
  const stats = statSync(path, { throwIfNoEntry: false });
  return stats?.isFile() === true && stats.size <= MAX_COMPANION_BYTES;
}
