/** Makes the compressed forms of shards that are there. */
import { rmSync } from "node:fs";
import type { Format } from "../formats.ts";

/** Makes the form `format` of `paths` in `folder`, which is replaced; says why not where it cannot. */
export async function compressForm(
  paths: readonly string[],
  folder: string,
  format: Format,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  rmSync(folder, { recursive: true, force: true });
  signal?.throwIfAborted();
  return `${paths.length} shards cannot be packed as ${format.name} yet`;
}
