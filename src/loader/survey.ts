/** Looks a dataset over before a batch is planned: how its shards are seen, and what they hold together. */
import { HeadraceError } from "../errors.ts";
import { checkIndexAgainst } from "../format/safetensors-index.ts";
import type { Schema, ShardDescription, TensorLayout, View } from "../types.ts";
import { checkAgreement, chooseNames } from "./schema.ts";
import type { OpenShard } from "./shard.ts";
import type { Source } from "./source.ts";

/** What of a dataset's options decides it. */
export interface SurveyOptions {
  readonly view?: View | "auto" | undefined;
  readonly columns?: readonly string[] | undefined;
}

/** What is known of a dataset before a batch is planned. */
export interface Survey {
  readonly view: View;
  /** Samples of each shard. */
  readonly counts: readonly number[];
  /** Bytes of each shard. */
  readonly lengths: readonly number[];
  /** The chosen columns. */
  readonly delivered: Schema;
  /** Tensors view with chosen tensors. */
  readonly tensors: ReadonlySet<string> | undefined;
}

/** Opens the shards where no manifest tells. Throws what opening them throws, `UNKNOWN_COLUMN`, `SCHEMA_MISMATCH`,
 * `NOT_ROWS`, and `BAD_OPTION` for a view that the shards do not have. */
export function surveyOf(source: Source, options: SurveyOptions, open: (index: number) => OpenShard): Survey {
  const asked = options.view ?? "auto";
  const { manifest } = source;
  if (manifest !== undefined && (asked === "auto" || asked === manifest.view)) {
    const counts = manifest.shards.map((shard) => shard.samples);
    const lengths = manifest.shards.map((shard) => shard.bytes);
    if (manifest.view === "rows") return rowsSurvey(manifest.schema, counts, lengths, options.columns);
    if (options.columns === undefined) {
      return { view: "tensors", counts, lengths, delivered: { columns: [] }, tensors: undefined };
    }
  }
  const descriptions = source.shards.map((_, i) => open(i).description);
  if (source.index !== undefined) {
    checkIndexAgainst(source.index, new Map(source.shards.map((shard, i) => [shard.name, descriptions[i]!])));
  }
  const view = asked === "auto" ? (manifest?.view ?? chooseView(source, descriptions)) : asked;
  return view === "tensors"
    ? tensorsSurvey(source, descriptions, options.columns)
    : rowsOfAll(source, descriptions, options.columns);
}

/** Rows where every shard has them; an index file means weights, which are tensors. */
function chooseView(source: Source, descriptions: readonly ShardDescription[]): View {
  if (source.index !== undefined) return "tensors";
  const canBeTensors = descriptions.every((description) => description.tensors !== undefined);
  return canBeTensors && descriptions.some((description) => description.rows === undefined)
    ? "tensors"
    : "rows";
}

function rowsOfAll(
  source: Source,
  descriptions: readonly ShardDescription[],
  columns: readonly string[] | undefined,
): Survey {
  const layouts = descriptions.map((description, i) => rowsOf(description, source.shards[i]!.path));
  const first = layouts[0]!;
  layouts.forEach((layout, i) => {
    checkAgreement(first.schema, source.shards[0]!.path, layout.schema, source.shards[i]!.path, false);
  });
  const nullable = new Set(
    layouts.flatMap((layout) => layout.schema.columns.filter((c) => c.nullable).map((c) => c.name)),
  );
  const whole = { columns: first.schema.columns.map((c) => ({ ...c, nullable: nullable.has(c.name) })) };
  const counts = layouts.map((layout) => layout.numRows);
  const lengths = descriptions.map((description) => description.byteLength);
  return rowsSurvey(whole, counts, lengths, columns);
}

function rowsSurvey(
  whole: Schema,
  counts: readonly number[],
  lengths: readonly number[],
  wanted: readonly string[] | undefined,
): Survey {
  const names = whole.columns.map((column) => column.name);
  const chosen = new Set(wanted === undefined ? names : chooseNames(names, wanted));
  const delivered = { columns: whole.columns.filter((column) => chosen.has(column.name)) };
  return { view: "rows", counts, lengths, delivered, tensors: undefined };
}

function tensorsSurvey(
  source: Source,
  descriptions: readonly ShardDescription[],
  wanted: readonly string[] | undefined,
): Survey {
  const shardOf = new Map<string, string>();
  descriptions.forEach((description, i) => {
    const path = source.shards[i]!.path;
    if (description.tensors === undefined) {
      throw new HeadraceError(
        "BAD_OPTION",
        `${path}: the tensors view is for safetensors, this is ${description.format}`,
      );
    }
    for (const { name } of description.tensors) {
      const other = shardOf.get(name);
      if (other !== undefined)
        throw new HeadraceError("SCHEMA_MISMATCH", `${path}: tensor ${name} is in ${other} too`);
      shardOf.set(name, path);
    }
  });
  const tensors = wanted === undefined ? undefined : new Set(chooseNames([...shardOf.keys()], wanted));
  const counts = descriptions.map((description) => tensorSamples(description, tensors).length);
  const lengths = descriptions.map((description) => description.byteLength);
  return { view: "tensors", counts, lengths, delivered: { columns: [] }, tensors };
}

/** The tensors of a shard that are samples; all where none are named. */
export function tensorSamples(
  description: ShardDescription,
  wanted: ReadonlySet<string> | undefined,
): readonly TensorLayout[] {
  const tensors = description.tensors ?? [];
  return wanted === undefined ? tensors : tensors.filter((tensor) => wanted.has(tensor.name));
}

/** Throws `NOT_ROWS`. */
export function rowsOf(description: ShardDescription, path: string) {
  if (description.rows !== undefined) return description.rows;
  throw new HeadraceError(
    "NOT_ROWS",
    `${path}: cannot be seen as rows: ${description.notRows}; use the tensors view`,
  );
}

/** The dataset's, in hex. */
export function fingerprintOf(source: Source, survey: Survey): string {
  const hash = new Bun.CryptoHasher("sha256").update(survey.view);
  source.shards.forEach((shard, i) => {
    hash.update(JSON.stringify([shard.name, survey.counts[i], survey.lengths[i]]));
  });
  return hash.digest("hex");
}
