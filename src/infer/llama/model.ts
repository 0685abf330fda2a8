/** Finds the files of a model: a folder in the Hugging Face layout, or a weights file or index in one. */
import { readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { HeadraceError, withContext } from "../../errors.ts";
import { type LlamaConfig, parseLlamaConfig } from "./config.ts";

/** Bytes of the largest `config.json` that is read. */
const MAX_CONFIG_BYTES = 4 * 1024 * 1024;

/** Weights of a folder, the first that is there. */
const WEIGHT_NAMES = ["model.safetensors.index.json", "model.safetensors"] as const;

/** What a model consists of, before its weights are opened. */
export interface ModelFiles {
  readonly folder: string;
  /** What the loader opens. */
  readonly weights: string;
  readonly config: LlamaConfig;
}

/**
 * Finds and parses. Throws `SOURCE_NOT_FOUND` where `source` is not there, `BAD_MODEL` where `config.json` is not or is
 * malformed, and `UNSUPPORTED` for another kind of model.
 */
export function findModel(source: string): ModelFiles {
  const stats = statSync(source, { throwIfNoEntry: false });
  if (stats === undefined)
    throw new HeadraceError("SOURCE_NOT_FOUND", `${source}: there is no such model folder`);
  const folder = stats.isDirectory() ? source : dirname(source);
  const config = readText(join(folder, "config.json"));
  if (config === undefined) {
    const text = `${folder}: holds no config.json; name a model folder in the Hugging Face layout`;
    throw new HeadraceError("BAD_MODEL", text);
  }
  const generation = readText(join(folder, "generation_config.json"));
  const parsed = withContext(folder, () => parseLlamaConfig(config, generation));
  return { folder, weights: stats.isDirectory() ? weightsOf(folder) : source, config: parsed };
}

function weightsOf(folder: string): string {
  const found = WEIGHT_NAMES.map((name) => join(folder, name)).find(
    (path) => statSync(path, { throwIfNoEntry: false }) !== undefined,
  );
  // A folder of other names is left to the loader, which knows manifests and says what is missing.
  return found ?? folder;
}

/** The text of a small file; undefined where there is none. */
function readText(path: string): string | undefined {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return undefined;
  if (!stats.isFile() || stats.size > MAX_CONFIG_BYTES) {
    const text = `${path}: is no regular file of at most ${MAX_CONFIG_BYTES} bytes`;
    throw new HeadraceError("BAD_MODEL", text);
  }
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new HeadraceError("SOURCE_UNREADABLE", `${path}: ${(cause as Error).message}`, { cause });
  }
}
