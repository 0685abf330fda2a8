/**
 * The manifest of outputs: a `dataset.json` like any other, so that a folder of outputs is a dataset, with a section
 * `outputs` that says which job it is of and which input shard each of its shards answers. What it does not list is not
 * there. The same shards give the same bytes.
 */
import * as v from "valibot";
import { HeadraceError } from "../../errors.ts";
import { encodeManifest, MANIFEST_FILE, MANIFEST_VERSION, parseManifest } from "../../format/manifest.ts";
import { isVariable, type OutputField } from "../../format/output-layout.ts";
import type { ColumnSchema, Schema } from "../../types.ts";
import { type FileOps, readWhole, replaceFile } from "./files.ts";
import type { OutputName } from "./output.ts";

export const LETTERS_FILE = "errors.jsonl";
/** Files that are at work, and go with the job's end. */
export const WORK_FOLDER = ".headrace";
export const JOB_FILE = "job.json";
const OUTPUTS_VERSION = 1;

/** What tells one folder of outputs from another, with the digest of it. */
export interface JobRecord {
  readonly version: number;
  /** sha256 in hex of {@link JobRecord.identity}. */
  readonly digest: string;
  /** The caller's job, and all options that the files depend on. */
  readonly identity: unknown;
}

/** One shard that is whole. */
export interface CommittedShard {
  readonly name: OutputName;
  readonly byteLength: number;
  readonly failedRows: number;
}

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const record = v.object({ version: v.literal(OUTPUTS_VERSION), digest: v.string(), identity: v.unknown() });
const section = v.object({
  ...record.entries,
  sources: v.array(v.object({ name: v.string(), start: count, end: count, failed: count })),
});

/** A shard as the manifest has it. */
export interface ListedShard {
  /** Of the file, in the folder. */
  readonly path: string;
  readonly bytes: number;
  /** The shard of the input, and the first of its rows. */
  readonly source: string;
  readonly start: number;
  /** Rows that failed. */
  readonly failed: number;
}

/** A manifest that is there. */
export interface ReadManifest {
  readonly job: JobRecord;
  /** Of all shards. */
  readonly rows: number;
  readonly shards: readonly ListedShard[];
}

/** The manifest in `folder`; undefined where there is none. Throws `OTHER_JOB` for one that no writer has made,
 * `BAD_MANIFEST`. */
export async function readManifest(ops: FileOps, folder: string): Promise<ReadManifest | undefined> {
  const path = `${folder}/${MANIFEST_FILE}`;
  const bytes = await readWhole(ops, path);
  if (bytes === undefined) return undefined;
  const text = new TextDecoder().decode(bytes);
  let outputs: unknown;
  try {
    outputs = (JSON.parse(text) as { outputs?: unknown } | null)?.outputs;
  } catch {
    outputs = undefined;
  }
  if (outputs === undefined) {
    throw new HeadraceError(
      "OTHER_JOB",
      `${path}: is there already, and is not of a job; give another folder`,
    );
  }
  const parsed = v.safeParse(section, outputs);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new HeadraceError(
      "BAD_MANIFEST",
      `${path}: outputs.${v.getDotPath(issue) ?? ""}: ${issue.message}`,
    );
  }
  const { shards } = parseManifest(text);
  const { sources, ...job } = parsed.output;
  if (shards.length !== sources.length) {
    throw new HeadraceError(
      "BAD_MANIFEST",
      `${path}: names ${shards.length} shards and ${sources.length} sources of them`,
    );
  }
  return {
    job,
    rows: sources.reduce((total, { start, end }) => total + end - start, 0),
    shards: shards.map(({ path, bytes }, i) => {
      const { name: source, start, failed } = sources[i]!;
      return { path, bytes, source, start, failed };
    }),
  };
}

/** The job that `folder` was begun for, where it has no manifest yet. */
export async function readJob(ops: FileOps, folder: string): Promise<JobRecord | undefined> {
  const bytes = await readWhole(ops, `${folder}/${WORK_FOLDER}/${JOB_FILE}`);
  if (bytes === undefined) return undefined;
  try {
    const parsed = v.safeParse(record, JSON.parse(new TextDecoder().decode(bytes)));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

export function writeJob(ops: FileOps, folder: string, job: JobRecord): Promise<void> {
  const text = `${JSON.stringify(job, null, 2)}\n`;
  const place = { folder, name: `${WORK_FOLDER}/${JOB_FILE}`, workFolder: WORK_FOLDER };
  return replaceFile(ops, place, new TextEncoder().encode(text));
}

export function jobRecord(identity: unknown, digest: string): JobRecord {
  return { version: OUTPUTS_VERSION, digest, identity };
}

/** Replaces the manifest, in one step, by one of `shards`, which are in the order of the input. */
export async function writeManifest(
  ops: FileOps,
  folder: string,
  job: JobRecord,
  schema: Schema,
  shards: readonly CommittedShard[],
): Promise<void> {
  const rowsOf = ({ name }: CommittedShard) => name.shard.end - name.shard.start;
  const dictionaries = Object.fromEntries(
    schema.columns
      .filter((column) => column.dictionary !== undefined)
      .map((column) => [column.name, shards.map(({ name }) => name.shard.name)]),
  );
  const manifest = {
    headrace: MANIFEST_VERSION,
    view: "rows",
    samples: shards.reduce((total, shard) => total + rowsOf(shard), 0),
    schema,
    ...(Object.keys(dictionaries).length > 0 ? { dictionaries } : {}),
    shards: shards.map((shard) => ({
      path: shard.name.fileName,
      samples: rowsOf(shard),
      bytes: shard.byteLength,
    })),
    outputs: {
      ...job,
      sources: shards.map(({ name: { shard }, failedRows }) => ({
        name: shard.name,
        start: shard.start,
        end: shard.end,
        failed: failedRows,
      })),
    },
  } as const;
  const place = { folder, name: MANIFEST_FILE, workFolder: WORK_FOLDER };
  await replaceFile(ops, place, new TextEncoder().encode(encodeManifest(manifest)));
}

/** What readers find in files of `fields`. */
export function schemaOf(fields: readonly OutputField[], hasNulls: boolean): Schema {
  const columns = fields.map((field) => (hasNulls ? arrowColumn(field) : tensorColumn(field)));
  if (!hasNulls) columns.sort((a, b) => (a.name < b.name ? -1 : 1));
  return { columns };
}

function arrowColumn(field: OutputField): ColumnSchema {
  const { name, kind, nullable } = field;
  const text = { name, dtype: "U8", shape: [], ragged: true, logical: "utf8", nullable } as const;
  if (kind === "utf8") return text;
  if (kind !== "name") return { ...tensorColumn(field), nullable };
  const logical = "dictionary<utf8>";
  return { name, dtype: "I32", shape: [], ragged: false, logical, nullable, dictionary: text };
}

function tensorColumn(field: OutputField): ColumnSchema {
  const { name, dtype, length } = field;
  const shape = length === undefined ? [] : [length];
  return { name, dtype, shape, ragged: isVariable(field), logical: "number", nullable: false };
}
