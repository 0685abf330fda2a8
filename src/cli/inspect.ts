/** `inspect`: what a source holds, without loading it. */
import { Command, Option } from "commander";
import {
  type Column,
  type ColumnSchema,
  columnText,
  type Dataset,
  type Device,
  Loader,
  openDataset,
  openDevice,
  type ShardDescription,
  type View,
} from "../index.ts";
import { bytesText, countText, nameList, printTable, wholeNumber } from "./output.ts";

/** The page of Apple Silicon; data that starts on a multiple of it can be handed to any GPU as it is. */
const PAGE_BYTES = 16_384;
/** Elements or characters of one cell. */
const CELL = 48;

interface InspectFlags {
  readonly view: View | "auto";
  readonly columns?: string[];
  readonly rows: number;
  readonly shards: number;
  readonly tensors: number;
  readonly json?: true;
}

const EXAMPLES = `
Examples:
  headrace inspect datasets/prose
  headrace inspect model.safetensors --tensors 500
  headrace inspect 'data/*.arrow' --columns tokens --rows 20
  headrace inspect data/ --json
`;

/** The command, ready to be added to a program. */
export function inspectCommand(): Command {
  return new Command("inspect")
    .description("Show the schema, the shards and a few samples of a source.")
    .argument("<source>", "shard, folder, glob, index json or dataset.json")
    .addOption(
      new Option("--view <view>", "what a sample is").choices(["auto", "rows", "tensors"]).default("auto"),
    )
    .option("--columns <names>", "only these columns or tensors: names or patterns, with commas", nameList)
    .option("--rows <count>", "samples to show", wholeNumber(0), 5)
    .option("--shards <count>", "shards to show", wholeNumber(0), 20)
    .option("--tensors <count>", "tensors to show", wholeNumber(0), 40)
    .option("--json", "one JSON object on stdout instead of tables")
    .addHelpText("after", EXAMPLES)
    .action(inspect);
}

async function inspect(source: string, flags: InspectFlags): Promise<void> {
  const device = await openDevice("host");
  try {
    using dataset = openDataset(source, device, { view: flags.view, columns: flags.columns });
    const shards = dataset.shardPaths.map((path, i) =>
      shardFacts(path, dataset.describe(i), dataset.index.countOf(i)),
    );
    if (flags.json) console.log(JSON.stringify(await jsonReport(dataset, device, shards, flags)));
    else await print(dataset, device, shards, flags);
  } finally {
    await device.close();
  }
}

async function print(
  dataset: Dataset,
  device: Device,
  shards: readonly ShardFacts[],
  flags: InspectFlags,
): Promise<void> {
  await printSummary(dataset, shards);
  await printShards(shards.slice(0, flags.shards), shards.length);
  if (dataset.view === "rows") await printColumns(dataset);
  else await printTensors(shards, flags.tensors);
  if (flags.rows > 0 && dataset.view === "rows" && dataset.numSamples > 0) {
    const { names, rows } = await sampleRows(dataset, device, flags.rows);
    console.log("");
    await printTable(rows, names);
  }
}

interface ShardFacts {
  readonly path: string;
  readonly format: string;
  readonly bytes: number;
  readonly samples: number;
  readonly groups: number | undefined;
  /** Largest power of two up to a page that all values start on a multiple of. */
  readonly alignment: number;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ShardDescription["tensors"];
}

function shardFacts(path: string, description: ShardDescription, samples: number): ShardFacts {
  const starts = [
    ...(description.tensors ?? []).map((tensor) => tensor.range.start),
    ...(description.tensors === undefined
      ? (description.rows?.groups ?? []).flatMap((group) =>
          group.columns.map((column) => column.values.start),
        )
      : []),
  ];
  let alignment = PAGE_BYTES;
  for (const start of starts) while (start % alignment !== 0) alignment /= 2;
  return {
    path,
    format: description.format,
    bytes: description.byteLength,
    samples,
    groups: description.tensors === undefined ? description.rows?.groups.length : undefined,
    alignment,
    metadata: description.metadata,
    tensors: description.tensors,
  };
}

/** Bytes (tensors view) or columns (rows view) by element type. */
function dtypeMix(dataset: Dataset, shards: readonly ShardFacts[]): Record<string, number> {
  const mix: Record<string, number> = {};
  if (dataset.view === "rows") {
    for (const { dtype } of dataset.schema.columns) mix[dtype] = (mix[dtype] ?? 0) + 1;
    return mix;
  }
  for (const { dtype, range } of shards.flatMap((shard) => shard.tensors ?? [])) {
    mix[dtype] = (mix[dtype] ?? 0) + range.end - range.start;
  }
  return mix;
}

async function jsonReport(
  dataset: Dataset,
  device: Device,
  shards: readonly ShardFacts[],
  flags: InspectFlags,
) {
  const wantsRows = flags.rows > 0 && dataset.view === "rows" && dataset.numSamples > 0;
  const sample = wantsRows ? await sampleRows(dataset, device, flags.rows) : { names: [], rows: [] };
  return {
    dataset: dataset.title,
    view: dataset.view,
    samples: dataset.numSamples,
    bytes: shards.reduce((total, shard) => total + shard.bytes, 0),
    fingerprint: dataset.fingerprint,
    schema: dataset.schema,
    dtypes: dtypeMix(dataset, shards),
    shards: shards.map(({ tensors, ...shard }) => ({ ...shard, numTensors: tensors?.length })),
    tensors: dataset.view === "tensors" ? shards.flatMap((shard) => shard.tensors ?? []) : undefined,
    rows: sample.rows.map((row) => Object.fromEntries(row.map((cell, i) => [sample.names[i], cell]))),
  };
}

async function printSummary(dataset: Dataset, shards: readonly ShardFacts[]): Promise<void> {
  const mix = Object.entries(dtypeMix(dataset, shards)).map(([dtype, amount]) =>
    dataset.view === "rows" ? `${dtype} × ${amount}` : `${dtype} ${bytesText(amount)}`,
  );
  await printTable([
    ["dataset", dataset.title],
    ["view", dataset.view],
    ["samples", countText(dataset.numSamples)],
    ["shards", countText(shards.length)],
    ["bytes", bytesText(shards.reduce((total, shard) => total + shard.bytes, 0))],
    ["dtypes", mix.join(", ") || "none"],
    ["fingerprint", dataset.fingerprint],
  ]);
}

async function printShards(shards: readonly ShardFacts[], total: number): Promise<void> {
  console.log("");
  const rows = shards.map((shard) => [
    shard.path,
    shard.format,
    countText(shard.samples),
    bytesText(shard.bytes),
    shard.groups === undefined ? "-" : countText(shard.groups),
    `${shard.alignment} B`,
  ]);
  await printTable(rows, ["shard", "format", "samples", "bytes", "batches", "values aligned to"]);
  if (total > shards.length) console.log(`… and ${countText(total - shards.length)} more (--shards)`);
}

async function printColumns(dataset: Dataset): Promise<void> {
  console.log("");
  const rows = dataset.schema.columns.map((column) => [
    column.name,
    columnText(column),
    column.nullable ? "yes" : "no",
    dictionaryText(dataset, column),
  ]);
  await printTable(rows, ["column", "type", "nullable", "dictionary"]);
}

function dictionaryText(dataset: Dataset, column: ColumnSchema): string {
  const dictionary = dataset.dictionaries.get(column.name);
  return dictionary === undefined ? "-" : `${countText(dictionary.length)} × ${columnText(dictionary.entry)}`;
}

async function printTensors(shards: readonly ShardFacts[], limit: number): Promise<void> {
  const tensors = shards.flatMap((shard) => shard.tensors ?? []);
  console.log("");
  const rows = tensors
    .slice(0, limit)
    .map(({ name, dtype, shape, range }) => [
      name,
      dtype,
      `[${shape.join(", ")}]`,
      bytesText(range.end - range.start),
      String(range.start),
    ]);
  await printTable(rows, ["tensor", "dtype", "shape", "bytes", "at"]);
  if (tensors.length > limit) console.log(`… and ${countText(tensors.length - limit)} more (--tensors)`);
}

async function sampleRows(dataset: Dataset, device: Device, count: number) {
  const batchSize = Math.min(count, dataset.numSamples);
  await using loader = new Loader(dataset, device, { batchSize, limit: batchSize, prefetch: 0 });
  const rows: string[][] = [];
  const names = ["#", ...dataset.schema.columns.map((column) => column.name)];
  for await (using batch of loader) {
    for (let row = 0; row < batch.numSamples; row++) {
      rows.push([
        String(batch.sampleIds[row]),
        ...[...batch.columns.values()].map((column) => cellText(column, row)),
      ]);
    }
  }
  return { names, rows };
}

function cellText(column: Column, row: number): string {
  if (column.validity !== undefined && column.validity.view[row] === 0) return "null";
  if (column.logical === "utf8" || column.dictionary?.entry.logical === "utf8") {
    return shorten(JSON.stringify(column.text(row)));
  }
  const values = column.row(row);
  if (column.offsets === undefined && column.shape.length === 1 && values.length === 1)
    return String(values[0]);
  const shown = Array.from(values.subarray(0, CELL) as ArrayLike<number | bigint>, String).join(", ");
  return shorten(`[${shown}${values.length > CELL ? ", …" : ""}]`, `(${values.length})`);
}

function shorten(text: string, note = ""): string {
  if (text.length <= CELL) return text;
  return `${text.slice(0, CELL - 1)}…${note === "" ? "" : ` ${note}`}`;
}
