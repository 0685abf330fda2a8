/** `dataset.json`: what a dataset consists of, so that it opens without touching its shards. */
import * as v from "valibot";
import { HeadraceError } from "../errors.ts";
import type { ColumnSchema, Schema, View } from "../types.ts";
import { DTYPES } from "./dtype.ts";
import { quoted } from "./json.ts";
import { checkShardPath } from "./paths.ts";

/** The only version there is; a reader refuses any other. */
export const MANIFEST_VERSION = 1;

/** What the file is called, in the folder of its dataset. */
export const MANIFEST_FILE = "dataset.json";

/** Bytes of the largest `dataset.json` that is read. */
export const MAX_MANIFEST_BYTES = 256 * 1024 * 1024;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const text = v.pipe(v.string(), v.nonEmpty());

const columnSchema: v.GenericSchema<ColumnSchema> = v.object({
  name: text,
  dtype: v.picklist(DTYPES),
  shape: v.array(count),
  ragged: v.boolean(),
  logical: v.string(),
  nullable: v.boolean(),
  dictionary: v.optional(v.lazy(() => columnSchema)),
}) as v.GenericSchema<ColumnSchema>;

const bound = v.optional(v.union([v.number(), text]));

const shard = v.object({
  path: text,
  samples: count,
  bytes: count,
  sha256: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, "not a sha256 in hex"))),
  columns: v.optional(v.record(v.string(), v.object({ min: bound, max: bound, nulls: count }))),
});

const manifest = v.object({
  headrace: v.literal(MANIFEST_VERSION),
  view: v.picklist(["rows", "tensors"]),
  samples: count,
  schema: v.object({ columns: v.array(columnSchema) }),
  /** Entries of dictionary columns of utf8, in the order of their codes. */
  dictionaries: v.optional(v.record(v.string(), v.array(v.string()))),
  shards: v.pipe(v.array(shard), v.nonEmpty("a dataset has at least one shard")),
  packed: v.optional(v.record(v.string(), v.unknown())),
});

/** One shard of a manifest. `path` is relative to the manifest, with `/` between its parts. */
export interface ManifestShard {
  readonly path: string;
  readonly samples: number;
  readonly bytes: number;
  readonly sha256?: string | undefined;
  /** Of numeric columns, by name. */
  readonly columns?: Readonly<Record<string, ColumnStats>> | undefined;
}

/** What one column of a shard holds. NaN counts neither as the least nor as the largest value; without any other value
 * there is no `min` and no `max`. Text where JSON has no number: `Infinity`, `-Infinity`, 64-bit integers past 2^53. */
export interface ColumnStats {
  readonly min?: number | string | undefined;
  readonly max?: number | string | undefined;
  /** Rows that are missing. */
  readonly nulls: number;
}

/** The contents of a `dataset.json`. `schema.columns` is empty for the tensors view. */
export interface Manifest {
  readonly headrace: typeof MANIFEST_VERSION;
  readonly view: View;
  readonly samples: number;
  readonly schema: Schema;
  readonly dictionaries?: Readonly<Record<string, readonly string[]>> | undefined;
  readonly shards: readonly ManifestShard[];
  /** By which options `pack` made the dataset; for people, and read by nothing. */
  readonly packed?: Readonly<Record<string, unknown>> | undefined;
}

/**
 * Checks and returns the manifest in `text`. Throws `BAD_MANIFEST` naming the field, `UNSAFE_PATH` for a
 * shard outside the manifest's folder.
 */
export function parseManifest(text: string): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HeadraceError("BAD_MANIFEST", `not JSON: ${(cause as Error).message}`, { cause });
  }
  const parsed = v.safeParse(manifest, value, { abortEarly: true });
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new HeadraceError("BAD_MANIFEST", `${v.getDotPath(issue) ?? "the file"}: ${issue.message}`);
  }
  const result: Manifest = parsed.output;
  let total = 0;
  const seen = new Set<string>();
  for (const entry of result.shards) {
    checkShardPath(entry.path);
    if (seen.has(entry.path)) throw new HeadraceError("BAD_MANIFEST", `shard ${entry.path} is listed twice`);
    seen.add(entry.path);
    total += entry.samples;
  }
  if (total !== result.samples) {
    throw new HeadraceError(
      "BAD_MANIFEST",
      `samples is ${result.samples}, but the shards' samples add up to ${total}`,
    );
  }
  checkOnce(
    "schema.columns: column",
    result.schema.columns.map((column) => column.name),
  );
  for (const [column, entries] of Object.entries(result.dictionaries ?? {})) {
    checkOnce(`dictionaries.${column}: entry`, entries);
  }
  return result;
}

/** Throws `BAD_MANIFEST` where one of `names` comes again. */
function checkOnce(what: string, names: readonly string[]): void {
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) throw new HeadraceError("BAD_MANIFEST", `${what} ${quoted(name)} is listed twice`);
    seen.add(name);
  }
}

/** The bytes of a manifest: the same manifest gives the same text. */
export function encodeManifest(value: Manifest): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
