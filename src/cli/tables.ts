/** What `inspect` prints for people. */
import { type ColumnSchema, columnText, type Dataset, type Device } from "../index.ts";
import { dtypeMix, type ShardFacts } from "./facts.ts";
import type { InspectFlags } from "./inspect.ts";
import { amountText, bytesText, countText, printPairs, printTable } from "./output.ts";
import { tableRows } from "./rows.ts";
import { pathCounts } from "./run.ts";

/** Characters of a value of a file's metadata. */
const METADATA = 60;

/** Prints summary, shards, columns or tensors, and the first rows. */
export async function printReport(
  dataset: Dataset,
  device: Device,
  shards: readonly ShardFacts[],
  flags: InspectFlags,
): Promise<void> {
  printSummary(dataset, shards);
  await printShards(shards.slice(0, flags.shards), shards.length);
  if (dataset.view === "rows") await printColumns(dataset);
  else await printTensors(shards, flags.tensors);
  const { head, rows } = await tableRows(dataset, device, flags.rows);
  if (rows.length === 0) return;
  console.log("");
  await printTable(head, rows);
}

function printSummary(dataset: Dataset, shards: readonly ShardFacts[]): void {
  const mix = Object.entries(dtypeMix(dataset, shards)).map(([dtype, amount]) =>
    dataset.view === "rows" ? `${dtype} × ${amount}` : `${dtype} ${bytesText(amount)}`,
  );
  const metadata = Object.entries(shards[0]?.metadata ?? {});
  printPairs([
    ["dataset", dataset.title],
    ["view", dataset.view],
    ["samples", countText(dataset.numSamples)],
    ["shards", countText(shards.length)],
    ["bytes", bytesText(shards.reduce((total, shard) => total + shard.bytes, 0))],
    ["dtypes", mix.join(", ") || "none"],
    ...[...pathCounts(dataset.paths.values())].map(([path, count]): [string, string] => [
      "path",
      `${path}, ${amountText(count, "shard")}`,
    ]),
    ...decoderRows(dataset, shards),
    ["fingerprint", dataset.fingerprint],
    ...metadata.map(([key, value]): [string, string] => [
      `metadata ${key}`,
      value.length > METADATA ? `${value.slice(0, METADATA - 1)}…` : value,
    ]),
  ]);
}

/** What decodes compressed shards here. */
function decoderRows({ device }: Dataset, shards: readonly ShardFacts[]): [string, string][] {
  if (!shards.some(({ compressed }) => compressed !== undefined)) return [];
  const facts = Object.entries(device.decoders?.().facts ?? {});
  return [["decoded by", facts.map(([codec, library]) => `${codec}: ${library}`).join(", ")]];
}

/** `safetensors, zstd 3.12:1 in 41 chunks`. */
function formatText({ format, compressed }: ShardFacts): string {
  if (compressed === undefined) return format;
  const { codecs, ratio, chunks } = compressed;
  return `${format}, ${codecs} ${ratio.toFixed(2)}:1 in ${amountText(chunks, "chunk")}`;
}

async function printShards(shards: readonly ShardFacts[], total: number): Promise<void> {
  if (shards.length > 0) {
    console.log("");
    const rows = shards.map((shard) => [
      shard.path,
      formatText(shard),
      countText(shard.samples),
      bytesText(shard.bytes),
      shard.groups === undefined ? "-" : countText(shard.groups),
      shard.alignment === undefined ? "-" : `${shard.alignment} B`,
    ]);
    await printTable(["shard", "format", "samples", "bytes", "batches", "values aligned to"], rows);
  }
  printMore(total - shards.length, "--shards");
}

async function printColumns(dataset: Dataset): Promise<void> {
  console.log("");
  const rows = dataset.schema.columns.map((column) => [
    column.name,
    columnText(column),
    column.nullable ? "yes" : "no",
    dictionaryText(dataset, column),
  ]);
  await printTable(["column", "type", "nullable", "dictionary"], rows);
}

function dictionaryText(dataset: Dataset, column: ColumnSchema): string {
  const dictionary = dataset.dictionaries.get(column.name);
  return dictionary === undefined ? "-" : `${countText(dictionary.length)} × ${columnText(dictionary.entry)}`;
}

async function printTensors(shards: readonly ShardFacts[], limit: number): Promise<void> {
  const tensors = shards.flatMap((shard) => shard.tensors ?? []);
  const rows = tensors
    .slice(0, limit)
    .map(({ name, dtype, shape, range }) => [
      name,
      dtype,
      `[${shape.join(", ")}]`,
      bytesText(range.end - range.start),
      String(range.start),
    ]);
  if (rows.length > 0) {
    console.log("");
    await printTable(["tensor", "dtype", "shape", "bytes", "at byte"], rows);
  }
  printMore(tensors.length - rows.length, "--tensors");
}

function printMore(count: number, flag: string): void {
  if (count > 0) console.log(`… and ${countText(count)} more (${flag})`);
}
