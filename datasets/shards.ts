/** What the scripts of this folder share: naming shards, writing them, and describing what came of it. */
import { join } from "node:path";
import { encodeManifest, makeManifest, openDataset, openDevice, saveText } from "../src/index.ts";
import { writeFileAtomically } from "../src/loader/save.ts";

/** A file that was written. */
export interface SavedShard {
  /** Relative to the dataset's folder. */
  readonly path: string;
  readonly samples: number;
  readonly bytes: number;
}

/** `prose-00002.arrow`: the name of a dataset's shard. */
export function shardName(dataset: string, shard: number, extension: string): string {
  return `${dataset}-${String(shard).padStart(5, "0")}.${extension}`;
}

/** Writes `parts` one after another to `path`, whole or not at all; returns their bytes. */
export function save(path: string, parts: readonly Uint8Array[]): number {
  writeFileAtomically(path, () => parts);
  return parts.reduce((total, part) => total + part.length, 0);
}

/** Writes the `dataset.json` of the shards that were made, and prints what was made. */
export async function finish(folder: string, dataset: string, shards: readonly SavedShard[]): Promise<void> {
  const device = await openDevice("host");
  try {
    using opened = openDataset(
      shards.map(({ path }) => join(folder, path)),
      device,
    );
    saveText(join(folder, "dataset.json"), encodeManifest(await makeManifest(opened, { folder })));
  } finally {
    await device.close();
  }
  for (const { path, samples, bytes } of shards) {
    console.log(`${dataset}/${path}: ${samples} samples, ${bytes} bytes`);
  }
}
