/** Finds out what a source is, by its names and its first bytes, and opens it. */

import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { HeadraceError } from "../../errors.ts";
import { MANIFEST_FILE } from "../../format/manifest.ts";
import type { TextOptions } from "../options.ts";
import type { RowSource, TensorSource } from "../rows.ts";
import { isCheckpoint, openCheckpoint } from "./checkpoint.ts";
import { openCsv } from "./csv.ts";
import { openJsonl } from "./jsonl.ts";
import { openNumpy } from "./numpy.ts";
import { openParquet } from "./parquet.ts";
import { openShards } from "./shards.ts";
import type { SourceOptions } from "./source.ts";
import type { SourceWatch } from "./watch.ts";
import { openWebDataset } from "./webdataset.ts";

/** A source that is open. */
export interface OpenedSource {
  /** Rows or tensors. */
  readonly source: RowSource | TensorSource;
  /** What shards of rows are called after it. */
  readonly name: string;
}

interface Kind {
  readonly name: string;
  /** Of the names of files; `.gz` and `.zst` may follow where `packed`. */
  readonly endings: readonly string[];
  readonly packed: boolean;
  /** Whether files stay open from the first look on, see {@link SourceWatch}; shards tell it themselves. */
  readonly held: boolean;
  /** What files begin with. */
  readonly magic: (head: Buffer) => boolean;
  open(paths: readonly string[], options: TextOptions & SourceOptions): Promise<RowSource | TensorSource>;
}

const KINDS: readonly Kind[] = [
  {
    name: "JSONL",
    endings: [".jsonl", ".ndjson"],
    packed: true,
    held: true,
    magic: (head) => /^(\xef\xbb\xbf)?\s*\{/.test(head.toString("latin1")),
    open: openJsonl,
  },
  { name: "CSV", endings: [".csv", ".tsv"], packed: true, held: true, magic: () => false, open: openCsv },
  {
    name: "Parquet",
    endings: [".parquet"],
    packed: false,
    held: false,
    magic: startsWith("PAR1"),
    open: openParquet,
  },
  {
    name: "NumPy",
    endings: [".npy", ".npz"],
    packed: false,
    held: false,
    magic: (head) => startsWith("\x93NUMPY")(head) || startsWith("PK\x03\x04")(head),
    open: openNumpy,
  },
  {
    name: "WebDataset",
    endings: [".tar", ".tar.gz", ".tgz", ".tar.zst"],
    packed: false,
    held: false,
    magic: (head) => head.toString("latin1", 257, 262) === "ustar",
    open: openWebDataset,
  },
  {
    name: "safetensors",
    endings: ["", ".zst", ".lz4", ".bp.zst", ".index.json"].map((one) => `.safetensors${one}`),
    packed: false,
    held: false,
    magic: (head) => head[8] === 0x7b && head.readUInt32LE(4) === 0,
    open: openShards,
  },
  {
    name: "Arrow",
    endings: [".arrow", ".arrows", ".feather", ".ipc"].flatMap((one) => [one, `${one}.zst`, `${one}.lz4`]),
    packed: false,
    held: false,
    magic: (head) => startsWith("ARROW1")(head) || head.readUInt32LE(0) === 0xffffffff,
    open: openShards,
  },
];

/** Bytes of a file's front that tell what it is. */
const HEAD_BYTES = 512;

function startsWith(text: string): (head: Buffer) => boolean {
  return (head) => head.toString("latin1", 0, text.length) === text;
}

/**
 * Opens what `source` names: a file, several of one kind, a glob, or a folder with files of one kind. `watch` is told of
 * all its files before they are opened. Throws `BAD_OPTION` for options that mean nothing for it, `FILE_CHANGED`,
 * `SOURCE_NOT_FOUND`, `SOURCE_EMPTY`, `SOURCE_MIXED`, `SOURCE_UNREADABLE`, `UNKNOWN_FORMAT`, and what opening it throws.
 */
export async function openSource(
  source: string | readonly string[],
  options: TextOptions,
  watch: SourceWatch,
): Promise<OpenedSource> {
  const opened = await openWatched(source, { ...options, watch }, watch);
  try {
    watch.opened();
    return opened;
  } catch (error) {
    await opened.source.close();
    throw error;
  }
}

async function openWatched(
  source: string | readonly string[],
  options: TextOptions & SourceOptions,
  watch: SourceWatch,
): Promise<OpenedSource> {
  const sources = typeof source === "string" ? [source] : source;
  if (sources.length === 0) throw new HeadraceError("SOURCE_NOT_FOUND", "no source is named");
  const [only] = sources;
  const name = nameOf(only!);
  if (sources.length === 1 && isFolder(only!)) {
    const isModel = isCheckpoint(only!);
    if (isModel || existsSync(join(only!, MANIFEST_FILE))) {
      checkTextOptions(isModel ? "a checkpoint" : "shards", options);
      return { source: await (isModel ? openCheckpoint : openShards)(only!, options), name };
    }
  }
  if (sources.length === 1 && basename(only!) === MANIFEST_FILE) {
    checkTextOptions("shards", options);
    return { source: await openShards(only!, options), name: nameOf(dirname(resolve(only!))) };
  }
  const paths = sources.flatMap(filesOf);
  for (const path of paths) checkFile(path);
  const kinds = new Set(paths.map(kindOf));
  const [kind] = kinds;
  if (kinds.size > 1) {
    const found = [...kinds].map((one) => one.name).join(" and ");
    throw new HeadraceError("SOURCE_MIXED", `${sources.join(" ")}: holds ${found}; name files of one kind`);
  }
  checkTextOptions(kind!.name, options);
  if (kind!.open !== openShards) watch.add(paths, kind!);
  return { source: await kind!.open(paths, options), name };
}

/** Options of text mean nothing elsewhere. */
function checkTextOptions(kind: string, { schema = {}, badRows, delimiter }: TextOptions): void {
  const not = (what: string) => new HeadraceError("BAD_OPTION", `${what}, and the source is ${kind}`);
  if (delimiter !== undefined && kind !== "CSV") throw not("delimiter is for CSV");
  if (kind === "CSV" || kind === "JSONL") return;
  if (Object.keys(schema).length > 0) throw not("schema is for JSONL and CSV");
  if (badRows === "skip") throw not("badRows skip is for JSONL and CSV");
}

function isFolder(path: string): boolean {
  return existsSync(path) && statSync(path).isDirectory();
}

/** The files that one name means, in code-unit order where there are several. */
function filesOf(source: string): string[] {
  if (source === "") throw new HeadraceError("SOURCE_NOT_FOUND", "the source is an empty string");
  if (!existsSync(source)) {
    if (source === "-") {
      const text = "-: packing takes files; write what comes on standard input to a file, and pack that";
      throw new HeadraceError("SOURCE_UNREADABLE", text);
    }
    const paths = /[*?[{]/.test(source)
      ? [...new Bun.Glob(resolve(source)).scanSync({ absolute: true, onlyFiles: true })].sort(byCodeUnits)
      : [];
    if (paths.length > 0) return paths;
    throw new HeadraceError("SOURCE_NOT_FOUND", `${source}: there is no such file or folder`);
  }
  if (!statSync(source).isDirectory()) return [source];
  const names = readdirSync(source).sort(byCodeUnits);
  const known = names.filter((name) => byEnding(name) !== undefined);
  if (known.length === 0) {
    const endings = KINDS.flatMap((kind) => kind.endings).join(", ");
    throw new HeadraceError(
      "SOURCE_EMPTY",
      `${source}: holds no file that can be packed (none ends in ${endings})`,
    );
  }
  return known.map((name) => join(source, name));
}

/** Throws `SOURCE_UNREADABLE` for what has no length and may never end: opening a pipe waits for its writer. */
function checkFile(path: string): void {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined || found.isFile() || found.isDirectory()) return;
  throw new HeadraceError(
    "SOURCE_UNREADABLE",
    `${path}: is a pipe or a device; write what it gives to a file, and pack that`,
  );
}

function byEnding(path: string): Kind | undefined {
  return KINDS.find(({ endings, packed }) => {
    const plain = packed ? path.replace(/\.(gz|zst)$/, "") : path;
    return endings.some((ending) => plain.endsWith(ending));
  });
}

function kindOf(path: string): Kind {
  const found = byEnding(path) ?? KINDS.find(({ magic }) => magic(headOf(path)));
  if (found !== undefined) return found;
  const known = KINDS.map(({ name, endings }) => `${name} (${endings.join(", ")})`).join(", ");
  throw new HeadraceError(
    "UNKNOWN_FORMAT",
    `${path}: is nothing that can be packed by its name or its first bytes; known are ${known}`,
  );
}

function headOf(path: string): Buffer {
  try {
    const fd = openSync(path, "r");
    try {
      const head = Buffer.alloc(HEAD_BYTES);
      readSync(fd, head, 0, head.length, 0);
      return head;
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    throw new HeadraceError("SOURCE_UNREADABLE", `${path}: ${(cause as Error).message}`, { cause });
  }
}

/** A file's name without its ending, or a folder's, without what no shard's name should have. */
function nameOf(source: string): string {
  const name = basename(resolve(source)).replace(/^\.+/, "");
  const ending = /(\.[A-Za-z0-9]{1,12})?(\.(gz|zst|lz4))?$/;
  const plain = (isFolder(source) ? name : name.replace(ending, "")).replaceAll(/[^\w.-]+/g, "-");
  return plain === "" || plain === "-" ? "shard" : plain;
}

function byCodeUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
