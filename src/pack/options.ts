/** What packing is asked to do. */

import { HeadraceError } from "../errors.ts";
import type { CastType } from "./cast.ts";
import { MTLIO_CODECS } from "./mtlio.ts";
import type { SourceOptions } from "./sources/source.ts";

/** How packed shards are compressed: not at all; as a whole (`zstd`, `lz4`: containers); the buffers inside an Arrow file
 * (`zstd-body`, `lz4-body`); or by Metal's own compression, beside shards that are not. */
export const PACK_CODECS = ["none", "zstd", "lz4", "zstd-body", "lz4-body", ...MTLIO_CODECS] as const;

export type PackCodec = (typeof PACK_CODECS)[number];

/** Formats that are written. */
export type PackFormat = "arrow" | "safetensors";

/** What sources of rows of text are opened with. */
export interface TextOptions extends SourceOptions {
  /** Types of columns that are not left to be found out: `i64`, `f32[768]`, `i32[]`, `bool`, `utf8`. */
  readonly schema?: Readonly<Record<string, string>> | undefined;
  /** What becomes of rows that cannot be read; default `fail`. */
  readonly badRows?: "fail" | "skip" | undefined;
  /** CSV: between fields; default a comma, and a tab in `.tsv`. */
  readonly delimiter?: string | undefined;
  /** Workers that parse, from 1 to 64; default one a core, at most 8. Results do not depend on it. */
  readonly threads?: number | undefined;
}

export interface PackOptions extends TextOptions {
  /** The folder that shards and `dataset.json` go to; made where it is not there. */
  readonly out: string;
  /** Default `arrow` for rows, `safetensors` for tensors. */
  readonly to?: PackFormat | undefined;
  /** What shards' names begin with; default the source's name. */
  readonly name?: string | undefined;
  /** Bytes of a shard before it is compressed, at most; a row or a tensor that is longer has a shard of its own. At least
   * 1 MiB; default 256 MiB. */
  readonly shardBytes?: number | undefined;
  /** Rows of an Arrow record batch, fewer where a shard would be too long; by default so many that one holds about 2 MiB,
   * or an eighth of a shard. */
  readonly rowsPerBatch?: number | undefined;
  /** Default `none`. */
  readonly codec?: PackCodec | undefined;
  /** Of the codec; default its own. */
  readonly level?: number | undefined;
  /** Bytes of a chunk of a container; default the codec's own. */
  readonly chunkBytes?: number | undefined;
  /** Whether a container of safetensors splits the bytes of floats into planes first; default false. */
  readonly planes?: boolean | undefined;
  /** New names of columns, by their old ones. */
  readonly rename?: Readonly<Record<string, string>> | undefined;
  /** Element types to convert columns to, by their old names or patterns; of tensors, by dtype (`F32`). */
  readonly casts?: Readonly<Record<string, CastType>> | undefined;
  /** Whether values that an integer type of `casts` cannot hold become the nearest that it can (NaN 0); else they throw
   * `BAD_INPUT`. */
  readonly saturate?: boolean | undefined;
  /** A `tokenizer.json` or the folder that holds one, or `bytes`: its ids take the place of a column of text. */
  readonly tokenizer?: string | undefined;
  /** The column that is tokenised; default `text`. */
  readonly textColumn?: string | undefined;
  /** What the column of ids is called; default `tokens`. */
  readonly tokensColumn?: string | undefined;
  /** Whether the column of text stays beside its ids; default false. */
  readonly keepText?: boolean | undefined;
  /** Ids of a row, at most: what is over is cut off. */
  readonly maxTokens?: number | undefined;
  /** Whether rows begin and end as the model's prompts do (BOS, most often); default true. */
  readonly addSpecial?: boolean | undefined;
  /** Only the first rows. */
  readonly limit?: number | undefined;
  /** Whether what an earlier run packed in `out` is replaced once the new files are whole; else a folder that is not empty is refused. */
  readonly overwrite?: boolean | undefined;
  /** Ends packing with `CANCELLED` and `out` as it was. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: PackProgress) => void) | undefined;
}

export interface PackProgress {
  /** Bytes of the source that were read, and all of them. */
  readonly sourceBytes: number;
  readonly totalBytes: number;
  /** Rows that were read, or tensors. */
  readonly samples: number;
  /** Shards that are finished. */
  readonly shards: number;
}

/** What came of packing. */
export interface PackReport {
  readonly out: string;
  readonly view: "rows" | "tensors";
  readonly format: PackFormat;
  readonly codec: PackCodec;
  /** Rows, or tensors. */
  readonly samples: number;
  /** Rows that could not be read and were left out. */
  readonly skippedRows: number;
  readonly shards: readonly PackedShard[];
  readonly sourceBytes: number;
  /** Of all shards, before they were compressed and after. */
  readonly logicalBytes: number;
  readonly bytes: number;
  /** Of the forms that MTLIO reads, which are beside the shards; with its codecs alone. */
  readonly streamBytes?: number | undefined;
  readonly seconds: number;
  /** What was not as the options let expect, a sentence each: types given for columns that no row has, links in archives, old files that could not be
   * removed. */
  readonly warnings: readonly string[];
}

export interface PackedShard {
  /** File name in `out`. */
  readonly path: string;
  readonly samples: number;
  /** Before it was compressed, and after. */
  readonly logicalBytes: number;
  readonly bytes: number;
  readonly sha256: string;
}

export const DEFAULT_SHARD_BYTES = 256 * 2 ** 20;
const LEAST_SHARD_BYTES = 2 ** 20;
export const MAX_THREADS = 64;

/** Throws `BAD_OPTION` for what no source could make sense of. */
export function checkPackOptions(options: PackOptions): void {
  const { out, to, codec, name, badRows, delimiter } = options;
  if (typeof out !== "string" || out === "") throw bad("out", out, "the path of a folder");
  if (to !== undefined && to !== "arrow" && to !== "safetensors") throw bad("to", to, "arrow or safetensors");
  if (codec !== undefined && !PACK_CODECS.includes(codec))
    throw bad("codec", codec, `one of ${PACK_CODECS.join(", ")}`);
  if (name !== undefined && !/^[^./\\\0][^/\\\0]*$/.test(name))
    throw bad(
      "name",
      name,
      "the beginning of a file name, without a dot in front, which would hide the shards",
    );
  if (badRows !== undefined && badRows !== "fail" && badRows !== "skip")
    throw bad("badRows", badRows, "fail or skip");
  if (delimiter !== undefined && !/^[\t !#$%&'*,/:;<=>?@\\^`|~]$/.test(delimiter))
    throw bad("delimiter", JSON.stringify(delimiter), "one ASCII character that no number or quote has");
  checkTogether(options);
  checkWhole("shardBytes", options.shardBytes, LEAST_SHARD_BYTES);
  checkWhole("rowsPerBatch", options.rowsPerBatch, 1, 2 ** 31 - 1);
  checkWhole("chunkBytes", options.chunkBytes, 4096, 2 ** 30);
  checkWhole("limit", options.limit, 1);
  checkWhole("maxTokens", options.maxTokens, 1);
  checkWhole("threads", options.threads, 1, MAX_THREADS);
  if (options.level !== undefined && !Number.isInteger(options.level))
    throw bad("level", options.level, "a whole number");
}

/** Options that would do nothing. */
function checkTogether({ casts = {}, saturate, tokenizer, to, rowsPerBatch, ...options }: PackOptions): void {
  const { textColumn, tokensColumn, keepText, maxTokens, addSpecial } = options;
  const ofTokens = { textColumn, tokensColumn, keepText: keepText || undefined, maxTokens, addSpecial };
  for (const [name, value] of Object.entries(ofTokens))
    if (tokenizer === undefined && value !== undefined)
      throw new HeadraceError("BAD_OPTION", `${name} means nothing without tokenizer`);
  if (tokensColumn === "") throw bad("tokensColumn", tokensColumn, "the name of a column");
  if (saturate === true && Object.keys(casts).length === 0)
    throw new HeadraceError("BAD_OPTION", "saturate means nothing without casts");
  if (rowsPerBatch !== undefined && to === "safetensors") {
    const text = "rowsPerBatch is of Arrow's record batches, and to is safetensors; leave one of them out";
    throw new HeadraceError("BAD_OPTION", text);
  }
}

function checkWhole(name: string, value: number | undefined, least: number, most = Number.MAX_SAFE_INTEGER) {
  if (value === undefined) return;
  if (Number.isSafeInteger(value) && value >= least && value <= most) return;
  const bounds = most === Number.MAX_SAFE_INTEGER ? `from ${least}` : `from ${least} to ${most}`;
  throw bad(name, value, `a whole number ${bounds}`);
}

function bad(name: string, value: unknown, wanted: string): HeadraceError {
  return new HeadraceError(
    "BAD_OPTION",
    `${name} is ${value === "" ? '""' : String(value)}; it must be ${wanted}`,
  );
}
