/** Makes the compressed forms of shards that are there, as `pack` does for users. */
import { rmSync, statSync } from "node:fs";
import { HeadraceError, pack } from "../../index.ts";
import type { Format } from "../formats.ts";

const LEAST_SHARD_BYTES = 2 ** 20;

/** Makes the form `format` of `paths` in `folder`, which is replaced; the reason where it cannot be made. Throws
 * `CANCELLED`, `DISK_FULL`, `IO_ERROR`. */
export async function compressForm(
  paths: readonly string[],
  folder: string,
  format: Format,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  rmSync(folder, { recursive: true, force: true });
  const longest = Math.max(...paths.map((path) => statSync(path).size));
  try {
    await pack(paths, {
      out: folder,
      to: format.base,
      codec: format.codec ?? "none",
      level: format.level,
      // As many shards as the plain form has, though rows are cut into other batches.
      shardBytes: Math.max(LEAST_SHARD_BYTES, longest + Math.ceil(longest / 64) + 2 ** 16),
      ...(format.planes ? { planes: true } : {}),
      signal,
    });
    return undefined;
  } catch (error) {
    const passes = ["CANCELLED", "DISK_FULL", "IO_ERROR"];
    if (!(error instanceof HeadraceError) || passes.includes(error.code)) throw error;
    return `cannot be packed: ${error.message}`;
  }
}
