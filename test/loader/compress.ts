/** Compressed forms of datasets, for tests. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { ContainerOptions } from "../../src/codec/container.ts";
import { type Device, HostReader, type OpenOptions, openLoader } from "../../src/index.ts";
import { containerAt } from "../unit/codec/container-at.ts";

/** Forms of one container each, by what tests call them. */
export const CONTAINERS = {
  zstd: { ending: ".zst", options: { codec: "zstd", chunkBytes: 32 * 1024 } },
  lz4: { ending: ".lz4", options: { codec: "lz4", chunkBytes: 20 * 1024 } },
  "zstd without checksums": { ending: ".zst", options: { codec: "zstd", checksum: false, chunkBytes: 4096 } },
  "zstd in large chunks": { ending: ".zst", options: { codec: "zstd", chunkBytes: 2 ** 22 } },
} satisfies Record<string, { readonly ending: string; readonly options: ContainerOptions }>;

/** Byte planes, which safetensors alone have. */
export const PLANES = { ending: ".bp.zst", options: { codec: "zstd", planes: true } } as const;

export async function compressFile(from: string, to: string, options: ContainerOptions): Promise<void> {
  const writer = await containerAt(to, { threads: 1, ...options });
  await writer.write(readFileSync(from));
  await writer.finish();
}

/** Compresses all shards of `from` into `to`, which exists. */
export async function compressFolder(
  from: string,
  to: string,
  { ending, options }: { readonly ending: string; readonly options: ContainerOptions },
): Promise<void> {
  for (const name of readdirSync(from).filter((one) => /\.(safetensors|arrow)$/.test(one))) {
    await compressFile(join(from, name), join(to, `${name}${ending}`), options);
  }
}

/** Of every batch, its samples and a hash of all its bytes, wherever they are. */
export async function digestsOn(
  device: Device,
  source: string | readonly string[],
  options: OpenOptions,
): Promise<string[]> {
  const found: string[] = [];
  await using reader = new HostReader(device);
  await using loader = await openLoader(source, { ...options, device });
  for await (using batch of loader) {
    const hash = new Bun.CryptoHasher("sha256");
    for (const column of batch.columns.values()) {
      for (const part of [column, column.offsets, column.mask, column.validity]) {
        if (part !== undefined) hash.update(await reader.read(part));
      }
    }
    found.push(`${[...batch.sampleIds].join()} ${hash.digest("hex")}`);
  }
  return found;
}
