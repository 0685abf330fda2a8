/** Turns what a user names (a file, a folder, a glob, an index, a manifest, a list) into shards. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative, resolve } from "node:path";
import { HeadraceError, withContext } from "../errors.ts";
import { innerName } from "../format/container-names.ts";
import { MANIFEST_FILE, MAX_MANIFEST_BYTES, type Manifest, parseManifest } from "../format/manifest.ts";
import {
  MAX_INDEX_BYTES,
  parseSafetensorsIndex,
  type SafetensorsIndex,
} from "../format/safetensors-index.ts";

const INDEX_SUFFIX = ".safetensors.index.json";

/** Formats by the ending of a shard's name, before those that say how it is compressed. */
const FAMILIES: readonly (readonly [ending: string, family: string])[] = [
  [".safetensors", "safetensors"],
  [".arrow", "arrow"],
  [".arrows", "arrow"],
  [".feather", "arrow"],
  [".ipc", "arrow"],
];

/** One file of a source. */
export interface SourceShard {
  readonly path: string;
  /** Unique in the source and free of machine-specific parts; goes into the fingerprint. */
  readonly name: string;
}

/** What a source consists of, before any shard is opened. */
export interface Source {
  /** For people and for trace files: as the user gave it. */
  readonly title: string;
  readonly shards: readonly SourceShard[];
  readonly manifest?: Manifest;
  readonly index?: SafetensorsIndex;
}

/**
 * Finds the shards of `source`: a shard, a folder (its `dataset.json`, else its one index, else all shards in
 * it by name), a glob, a `*.safetensors.index.json`, a `dataset.json`, or several of shards and globs.
 * Throws `SOURCE_NOT_FOUND`, `SOURCE_EMPTY`, `SOURCE_MIXED`, `SOURCE_UNREADABLE`, `UNKNOWN_FORMAT`,
 * `BAD_MANIFEST`, `BAD_INDEX`, `UNSAFE_PATH`.
 */
export function findSource(source: string | readonly string[]): Source {
  const found = findAny(source);
  if (found.shards.length > 0) return found;
  throw new HeadraceError("SOURCE_EMPTY", `${found.title || "the source"}: names no shard`);
}

function findAny(source: string | readonly string[]): Source {
  if (typeof source === "string") return findOne(source);
  if (source.length === 1) return findOne(source[0]!);
  const paths = source.flatMap((one) => findOne(one).shards.map((shard) => shard.path));
  return fromPaths(source.join(" "), paths);
}

function findOne(source: string): Source {
  if (source === "") throw new HeadraceError("SOURCE_NOT_FOUND", "the source is an empty string");
  if (!existsSync(source)) {
    if (/[*?[{]/.test(source)) return fromGlob(source);
    throw new HeadraceError("SOURCE_NOT_FOUND", `${source}: there is no such file or folder`);
  }
  if (statSync(source).isDirectory()) return fromFolder(source);
  if (basename(source) === MANIFEST_FILE) return fromManifest(source);
  if (source.endsWith(INDEX_SUFFIX)) return fromIndex(source);
  return fromPaths(source, [source]);
}

function fromGlob(pattern: string): Source {
  const found = [...new Bun.Glob(resolve(pattern)).scanSync({ absolute: true, onlyFiles: true })];
  // As the user would name them.
  const paths = found.map((path) => (isAbsolute(pattern) ? path : relative("", path))).sort(byCodeUnits);
  if (paths.length === 0) {
    throw new HeadraceError("SOURCE_NOT_FOUND", `${pattern}: no file matches this pattern`);
  }
  return fromPaths(pattern, paths);
}

function fromFolder(folder: string): Source {
  const names = listFolder(folder);
  if (names.includes(MANIFEST_FILE)) return fromManifest(join(folder, MANIFEST_FILE), folder);
  const indexes = names.filter((name) => name.endsWith(INDEX_SUFFIX));
  if (indexes.length === 1) return fromIndex(join(folder, indexes[0]!), folder);
  if (indexes.length > 1) {
    throw new HeadraceError(
      "SOURCE_MIXED",
      `${folder}: holds ${indexes.length} index files (${indexes.join(", ")}); name the one to load`,
    );
  }
  const shards = names.filter((name) => familyOf(name) !== undefined);
  if (shards.length === 0) {
    const endings = FAMILIES.map(([ending]) => ending).join(", ");
    const text = `${folder}: holds no shard (no file ending in ${endings}, or in these and .zst or .lz4)`;
    throw new HeadraceError("SOURCE_EMPTY", text);
  }
  refuseTwins(folder, shards);
  return fromPaths(
    folder,
    shards.map((name) => join(folder, name)),
  );
}

/** A shard beside its compressed form would be loaded twice. */
function refuseTwins(folder: string, names: readonly string[]): void {
  const seen = new Map<string, string>();
  for (const name of names) {
    const twin = seen.get(innerName(name));
    if (twin !== undefined) {
      throw new HeadraceError(
        "SOURCE_MIXED",
        `${folder}: holds ${twin} and ${name}, which are forms of one shard; name the files to load, or move one away`,
      );
    }
    seen.set(innerName(name), name);
  }
}

function listFolder(folder: string): string[] {
  try {
    return readdirSync(folder).sort(byCodeUnits);
  } catch (cause) {
    throw new HeadraceError("SOURCE_UNREADABLE", `${folder}: ${(cause as Error).message}`, { cause });
  }
}

function fromManifest(path: string, title = path): Source {
  const manifest = withContext(path, () =>
    parseManifest(readWhole(path, MAX_MANIFEST_BYTES).toString("utf8")),
  );
  const folder = dirname(path);
  const paths = manifest.shards.map((shard) => join(folder, shard.path));
  return { ...fromPaths(title, paths), manifest };
}

function fromIndex(path: string, title = path): Source {
  const index = withContext(path, () => parseSafetensorsIndex(readWhole(path, MAX_INDEX_BYTES)));
  const folder = dirname(path);
  const shards = index.shards.map((name) => ({ path: join(folder, name), name }));
  for (const shard of shards) {
    if (!existsSync(shard.path)) {
      throw new HeadraceError("BAD_INDEX", `${path}: names shard ${shard.name}, which does not exist`);
    }
  }
  return { title, shards, index };
}

function fromPaths(title: string, paths: readonly string[]): Source {
  const names = namesOf(paths);
  const shards = paths.map((path, i) => ({ path, name: names[i]! }));
  oneFamily(title, shards);
  return { title, shards };
}

/** File names where they are unique, else the paths below their common folder. */
function namesOf(paths: readonly string[]): string[] {
  const names = paths.map((path) => basename(path));
  if (new Set(names).size === names.length) return names;
  const parts = paths.map((path) => resolve(path).split("/"));
  const first = parts[0]!;
  let common = 0;
  while (common < first.length - 1 && parts.every((part) => part[common] === first[common])) common++;
  return parts.map((part) => part.slice(common).join("/"));
}

function oneFamily(title: string, shards: readonly SourceShard[]): void {
  let first: string | undefined;
  for (const shard of shards) {
    const family = familyOf(shard.path);
    if (family === undefined && shards.length > 1) {
      throw new HeadraceError("UNKNOWN_FORMAT", `${shard.path}: not the name of a safetensors or Arrow file`);
    }
    first ??= family;
    if (family !== first) {
      throw new HeadraceError(
        "SOURCE_MIXED",
        `${title}: mixes formats: ${shards[0]!.path} is ${first}, ${shard.path} is ${family}; name one kind, such as ${title}/*.${first}`,
      );
    }
  }
}

function familyOf(path: string): string | undefined {
  const inner = innerName(path);
  return FAMILIES.find(([ending]) => inner.endsWith(ending))?.[1];
}

function readWhole(path: string, limit: number): Buffer {
  try {
    const stats = statSync(path);
    // Reading a pipe would wait for a writer.
    if (!stats.isFile()) throw new HeadraceError("SOURCE_UNREADABLE", `${path}: is not a regular file`);
    if (stats.size > limit) {
      throw new HeadraceError(
        "SOURCE_UNREADABLE",
        `${path}: ${stats.size} bytes, over the limit of ${limit}`,
      );
    }
    return readFileSync(path);
  } catch (cause) {
    if (cause instanceof HeadraceError) throw cause;
    const code = (cause as { code?: string }).code === "ENOENT" ? "SOURCE_NOT_FOUND" : "SOURCE_UNREADABLE";
    throw new HeadraceError(code, `${path}: ${(cause as Error).message}`, { cause });
  }
}

function byCodeUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
