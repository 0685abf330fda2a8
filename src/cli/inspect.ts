/** `inspect`: what a source holds, without loading it. */

import { statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { Command, Option } from "commander";
import {
  type Dataset,
  type Device,
  encodeManifest,
  HeadraceError,
  makeManifest,
  openDataset,
  openDevice,
  parseManifest,
  prepareSource,
  saveText,
  type View,
} from "../index.ts";
import { dtypeMix, factsOf, type ShardFacts } from "./facts.ts";
import { amountText, bytesText, isTerminal, nameList, wholeNumber } from "./output.ts";
import { RECOMMENDED_HELP, type RecommendedFlags, readRecommended, warnUnused } from "./recommended.ts";
import { jsonRows } from "./rows.ts";
import { pathCounts } from "./run.ts";
import { printReport } from "./tables.ts";

/** Sources and folders are known by this name alone. */
const MANIFEST_NAME = "dataset.json";

/** What was asked for on the command line. */
export interface InspectFlags extends RecommendedFlags {
  readonly view: View | "auto";
  readonly columns?: string[];
  readonly rows: number;
  readonly shards: number;
  readonly tensors: number;
  readonly manifest?: string;
  readonly json?: true;
}

const EXAMPLES = `
Examples:
  headrace inspect datasets/prose
  headrace inspect model.safetensors --tensors 500
  headrace inspect 'data/*.arrow' --columns tokens --rows 20
  headrace inspect data/ --json
  headrace inspect 'data/*.arrow' --manifest data/dataset.json
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
    .option(
      "--manifest <file>",
      `write a ${MANIFEST_NAME} with each shard's sha256, with which the source opens at once`,
    )
    .option("--recommended <file>", RECOMMENDED_HELP)
    .option("--no-recommended", "let the choice between map and read go by its own rule")
    .option("--json", "one JSON object on stdout instead of tables: all shards, all tensors")
    .addHelpText("after", EXAMPLES)
    .action(inspect);
}

async function inspect(source: string, flags: InspectFlags): Promise<void> {
  const manifestPath = flags.manifest === undefined ? undefined : manifestPathOf(flags.manifest, flags);
  const kept = readRecommended(flags);
  const device = await openDevice("host");
  try {
    const { view, columns } = flags;
    using prepared = await prepareSource(source, device);
    using dataset = openDataset(prepared, device, { view, columns, recommended: kept?.recommended });
    warnUnused(dataset, kept);
    const shards = factsOf(dataset);
    if (manifestPath !== undefined) await writeManifest(dataset, shards, manifestPath);
    if (flags.json) console.log(JSON.stringify(await jsonReport(dataset, device, shards, flags)));
    else await printReport(dataset, device, shards, flags);
    if (manifestPath !== undefined) {
      console.error(`headrace: wrote ${manifestPath}: ${amountText(shards.length, "shard")}`);
    }
  } finally {
    await device.close();
  }
}

/** Checks what can be checked before any shard is opened. A folder stands for the manifest in it. */
function manifestPathOf(file: string, flags: InspectFlags): string {
  if (flags.columns !== undefined) {
    throw new HeadraceError("BAD_OPTION", "a manifest has all columns; leave out --columns with --manifest");
  }
  const path = statSync(file, { throwIfNoEntry: false })?.isDirectory() ? join(file, MANIFEST_NAME) : file;
  if (basename(path) === MANIFEST_NAME) return path;
  throw new HeadraceError(
    "BAD_OPTION",
    `--manifest ${file}: a manifest is known by its name; use ${join(dirname(path), MANIFEST_NAME)}`,
  );
}

async function writeManifest(dataset: Dataset, shards: readonly ShardFacts[], path: string): Promise<void> {
  const folder = dirname(resolve(path));
  for (const shard of shards) {
    const below = relative(folder, resolve(shard.path));
    if (below.split(sep)[0] !== ".." && !isAbsolute(below)) continue;
    throw new HeadraceError(
      "UNSAFE_PATH",
      `${shard.path}: does not lie below ${folder}, where the manifest would be; write it there, or further up`,
    );
  }
  if (isTerminal(2)) {
    const bytes = shards.reduce((total, shard) => total + shard.bytes, 0);
    console.error(`headrace: reading ${bytesText(bytes)} for their sha256 …`);
  }
  const text = encodeManifest(await makeManifest(dataset, { folder }));
  parseManifest(text);
  saveText(path, text);
}

async function jsonReport(
  dataset: Dataset,
  device: Device,
  shards: readonly ShardFacts[],
  flags: InspectFlags,
) {
  return {
    dataset: dataset.title,
    view: dataset.view,
    samples: dataset.numSamples,
    bytes: shards.reduce((total, shard) => total + shard.bytes, 0),
    fingerprint: dataset.fingerprint,
    schema: dataset.schema,
    dictionaries: Object.fromEntries(
      [...dataset.dictionaries].map(([name, dictionary]) => [name, dictionary.length]),
    ),
    dtypes: dtypeMix(dataset, shards),
    paths: Object.fromEntries(pathCounts(dataset.paths.values())),
    shards: shards.map(({ tensors, ...shard }) => ({ ...shard, numTensors: tensors?.length })),
    tensors: dataset.view === "tensors" ? shards.flatMap((shard) => shard.tensors ?? []) : undefined,
    ...(await jsonRows(dataset, device, flags.rows)),
  };
}
