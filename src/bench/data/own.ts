/** A dataset of the user's own, as it is and in other forms. */
import { mkdirSync } from "node:fs";
import { basename, join } from "node:path";
import { type Dataset, HeadraceError, Loader, openDataset, openDevice } from "../../index.ts";
import { eachSample } from "../consume.ts";
import type { Format } from "../formats.ts";
import { MixSum } from "../row-sum.ts";
import { HostSum, WordSum } from "../sums.ts";
import { compressForm } from "./compress.ts";
import { type DataFacts, readFacts, writeFacts } from "./facts.ts";
import { type PreparedData, type PrepareOptions, type StoredForm, storedForm } from "./forms.ts";

/** Bytes of a batch of the pass that finds the sums. */
const BATCH_BYTES = 16 * 2 ** 20;

/** The dataset `source` in `formats`: its own form is used where it lies, other forms are made. Its sums are those of a
 * pass of plain reads over it. Throws what opening and reading it throw. */
export async function ownData(source: string, options: PrepareOptions): Promise<PreparedData> {
  const device = openDevice("host");
  try {
    using whole = openDataset(source, device, { strategy: "read" });
    const columns = packedColumns(whole);
    using dataset = openDataset(source, device, { strategy: "read", columns });
    const name = basename(dataset.title).replaceAll(/[^\w.-]/g, "_") || "data";
    const folder = join(options.folder, `own-${name}-${dataset.fingerprint.slice(0, 16)}`);
    mkdirSync(folder, { recursive: true });
    const made = `dataset ${dataset.fingerprint}`;
    let facts = readFacts(folder, made);
    if (facts === undefined) {
      options.onStep?.(`reading ${dataset.title} once for its sums`);
      facts = await factsOf(dataset, columns, folder, made, options.signal);
    }
    const forms = new Map<string, StoredForm | string>();
    for (const format of options.formats) {
      options.onStep?.(`${dataset.title}: ${format.name}`);
      const form = await formOf(dataset, folder, format, facts, options.signal);
      forms.set(format.name, form);
      if (typeof form === "string" || facts.formats.includes(format.name)) continue;
      facts = writeFacts(folder, { ...facts, formats: [...facts.formats, format.name] });
    }
    return { name, facts, forms };
  } finally {
    await device.close();
  }
}

/** The form in which the dataset lies. Throws `UNSUPPORTED` where its shards are of several. */
function ownFormat(paths: readonly string[]): "safetensors" | "arrow" {
  const kinds = new Set(paths.map((path) => (/\.safetensors$/.test(path) ? "safetensors" : "arrow")));
  const compressed = paths.find((path) => /\.(zst|lz4)$/.test(path));
  if (compressed !== undefined || kinds.size !== 1) {
    const what = compressed ?? "shards of several formats";
    throw new HeadraceError(
      "UNSUPPORTED",
      `${what}: give bench plain shards of one format, it packs them itself`,
    );
  }
  return [...kinds][0]!;
}

/** The columns that packing stores as they are: dictionaries become what they stand for. Undefined for all. */
function packedColumns({ schema }: Dataset): string[] | undefined {
  const kept = schema.columns.filter(({ dictionary }) => dictionary === undefined).map(({ name }) => name);
  return kept.length === 0 || kept.length === schema.columns.length ? undefined : kept;
}

async function formOf(
  dataset: Dataset,
  folder: string,
  format: Format,
  facts: DataFacts,
  signal: AbortSignal | undefined,
): Promise<StoredForm | string> {
  const paths = dataset.shardPaths;
  const base = ownFormat(paths);
  if (format.name === base) return { format, paths, fileBytes: dataset.byteLength };
  if (format.base !== base) return `${dataset.title} is ${base}; pack it to ${format.base} and give that`;
  const into = join(folder, format.name);
  const why = facts.formats.includes(format.name)
    ? undefined
    : await compressForm(paths, into, format, signal);
  return why ?? storedForm(format, into);
}

async function factsOf(
  dataset: Dataset,
  wanted: readonly string[] | undefined,
  folder: string,
  made: string,
  signal: AbortSignal | undefined,
): Promise<DataFacts> {
  const tensors = dataset.view === "tensors";
  const { columns } = dataset.schema;
  const host = new HostSum();
  const mix = new MixSum();
  const words = new WordSum();
  let bytes = 0;
  const device = dataset.device;
  const limits = tensors ? { batchBytes: BATCH_BYTES } : {};
  await using loader = new Loader(dataset, device, { ...limits, signal });
  for await (using batch of loader) {
    eachSample(batch, tensors, (key, sample) => {
      host.add(key, sample);
      mix.add(key, sample);
      words.add(sample);
      bytes += sample.length;
    });
  }
  const sums = { xxh3: host.hex, mix: mix.hex, words: words.hex };
  return writeFacts(folder, {
    made,
    bytes,
    numSamples: dataset.numSamples,
    tensors,
    plain: tensors || (columns.length === 1 && columns[0]!.logical === "number"),
    ...(wanted === undefined ? {} : { columns: wanted }),
    rowSums: sums,
    ...(tensors ? { tensorSums: sums } : {}),
    formats: [],
  });
}
