/** Makes the `dataset.json` of a dataset that is open. */
import { createReadStream } from "node:fs";
import { relative, sep } from "node:path";
import { MANIFEST_VERSION, type Manifest, type ManifestShard } from "../format/manifest.ts";
import type { Dataset } from "./dataset.ts";

export interface ManifestOptions {
  /** Where the manifest will lie: its shards are named relative to it. */
  readonly folder: string;
  /** Whether each shard's sha256 goes in, which reads all of it; default true. */
  readonly digests?: boolean;
}

/**
 * The manifest of all of `dataset`'s columns, with which it opens without touching its shards. Throws
 * `UNSAFE_PATH` (when it is parsed again) where a shard does not lie below `folder`.
 */
export async function makeManifest(dataset: Dataset, options: ManifestOptions): Promise<Manifest> {
  const shards: ManifestShard[] = [];
  for (const [i, path] of dataset.shardPaths.entries()) {
    const name = relative(options.folder, path).split(sep).join("/");
    const entry = { path: name, samples: dataset.index.countOf(i), bytes: dataset.describe(i).byteLength };
    shards.push(options.digests === false ? entry : { ...entry, sha256: await sha256Of(path) });
  }
  const texts = [...dataset.dictionaries].filter(([, dictionary]) => dictionary.entry.logical === "utf8");
  const dictionaries = texts.map(([name, dictionary]) => [
    name,
    Array.from({ length: dictionary.length }, (_, code) => dictionary.text(code)),
  ]);
  return {
    headrace: MANIFEST_VERSION,
    view: dataset.view,
    samples: dataset.numSamples,
    schema: dataset.schema,
    ...(texts.length > 0 ? { dictionaries: Object.fromEntries(dictionaries) } : {}),
    shards,
  };
}

async function sha256Of(path: string): Promise<string> {
  const hash = new Bun.CryptoHasher("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 4 * 1024 * 1024 })) hash.update(chunk);
  return hash.digest("hex");
}
