/** `dataset.json`: what a dataset consists of, so that it opens without touching its shards. */
import { z } from "zod";
import { HeadraceError } from "../errors.ts";
import type { ColumnSchema, Schema, View } from "../types.ts";
import { DTYPES } from "./dtype.ts";
import { checkShardPath } from "./paths.ts";

/** The only version there is; a reader refuses any other. */
export const MANIFEST_VERSION = 1;

/** Bytes of the largest `dataset.json` that is read. */
export const MAX_MANIFEST_BYTES = 256 * 1024 * 1024;

const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);

const columnSchema = z.object({
  name: z.string().min(1),
  dtype: z.enum(DTYPES),
  shape: z.array(count),
  ragged: z.boolean(),
  logical: z.string(),
  nullable: z.boolean(),
  get dictionary(): z.ZodOptional<z.ZodType<ColumnSchema>> {
    return z.optional(columnSchema as unknown as z.ZodType<ColumnSchema>);
  },
});

const shard = z.object({
  path: z.string().min(1),
  samples: count,
  bytes: count,
  sha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .optional(),
});

const manifest = z.object({
  headrace: z.literal(MANIFEST_VERSION),
  view: z.enum(["rows", "tensors"]),
  samples: count,
  schema: z.object({ columns: z.array(columnSchema) }),
  /** Entries of dictionary columns of utf8, in the order of their codes. */
  dictionaries: z.record(z.string(), z.array(z.string())).optional(),
  shards: z.array(shard).min(1),
});

/** One shard of a manifest. `path` is relative to the manifest, with `/` between its parts. */
export interface ManifestShard {
  readonly path: string;
  readonly samples: number;
  readonly bytes: number;
  readonly sha256?: string | undefined;
}

/** The contents of a `dataset.json`. `schema.columns` is empty for the tensors view. */
export interface Manifest {
  readonly headrace: typeof MANIFEST_VERSION;
  readonly view: View;
  readonly samples: number;
  readonly schema: Schema;
  readonly dictionaries?: Readonly<Record<string, readonly string[]>> | undefined;
  readonly shards: readonly ManifestShard[];
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
  const parsed = manifest.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const where = issue?.path.join(".") || "the file";
    throw new HeadraceError("BAD_MANIFEST", `${where}: ${issue?.message ?? "does not match"}`);
  }
  const result = parsed.data as Manifest;
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
  return result;
}

/** The bytes of a manifest: the same manifest gives the same text. */
export function encodeManifest(value: Manifest): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
