/** Finds out what a source is, by its names and its first bytes, and opens it. */
import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { HeadraceError } from "../../errors.ts";
import type { TextOptions } from "../options.ts";
import type { RowSource } from "../rows.ts";
import { openCsv } from "./csv.ts";
import { openJsonl } from "./jsonl.ts";

/** A source that is open. */
export interface OpenedSource {
  readonly rows: RowSource;
  /** What shards are called after it. */
  readonly name: string;
}

interface Kind {
  readonly name: string;
  /** Of the names of files; `.gz` and `.zst` may follow where `packed`. */
  readonly endings: readonly string[];
  readonly packed: boolean;
  /** What files begin with. */
  readonly magic: (head: Buffer) => boolean;
  open(paths: readonly string[], options: TextOptions): Promise<RowSource>;
}

const KINDS: readonly Kind[] = [
  {
    name: "JSONL",
    endings: [".jsonl", ".ndjson"],
    packed: true,
    magic: (head) => /^(\xef\xbb\xbf)?\s*\{/.test(head.toString("latin1")),
    open: openJsonl,
  },
  { name: "CSV", endings: [".csv", ".tsv"], packed: true, magic: () => false, open: openCsv },
];

/**
 * Opens what `source` names: a file, several of one kind, a glob, or a folder with files of one kind. Throws
 * `SOURCE_NOT_FOUND`, `SOURCE_EMPTY`, `SOURCE_MIXED`, `UNKNOWN_FORMAT`, and what opening it throws.
 */
export async function openSource(
  source: string | readonly string[],
  options: TextOptions = {},
): Promise<OpenedSource> {
  const sources = typeof source === "string" ? [source] : source;
  if (sources.length === 0) throw new HeadraceError("SOURCE_NOT_FOUND", "no source is named");
  const paths = sources.flatMap(filesOf);
  const kinds = new Set(paths.map(kindOf));
  const [kind] = kinds;
  if (kinds.size > 1)
    throw new HeadraceError(
      "SOURCE_MIXED",
      `${sources.join(" ")}: holds ${[...kinds].map(({ name }) => name).join(" and ")}; name files of one kind`,
    );
  return { rows: await kind!.open(paths, options), name: nameOf(sources[0]!) };
}

/** The files that one name means, in code-unit order where there are several. */
function filesOf(source: string): string[] {
  if (source === "") throw new HeadraceError("SOURCE_NOT_FOUND", "the source is an empty string");
  if (!existsSync(source)) {
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
      const head = Buffer.alloc(64);
      return head.subarray(0, readSync(fd, head, 0, head.length, 0));
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    throw new HeadraceError("SOURCE_UNREADABLE", `${path}: ${(cause as Error).message}`, { cause });
  }
}

/** The first part of a file's or a folder's name, without what no shard's name should have. */
function nameOf(source: string): string {
  const name = basename(resolve(source)).replace(/^\.+/, "");
  const plain = name.replace(/(\.[A-Za-z0-9]{1,12}){1,3}$/, "").replaceAll(/[^\w.-]+/g, "-");
  return plain === "" || plain === "-" ? "shard" : plain;
}

function byCodeUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
