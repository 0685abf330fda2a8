/** Checksums that reading a shard chunk by chunk passes over. */
import { decodeWhole } from "../codec/whole.ts";
import type { Device } from "../device/device.ts";
import { describeContainer } from "../format/container.ts";
import { parseContainerName } from "../format/container-names.ts";

/**
 * Decodes the LZ4 file at `path` from its start to its end where it has no table of checksums: those of its frames are over
 * several blocks, or behind them, which are chunks without their checksum. Takes room for what it decodes to among the
 * temporary files. Does nothing for other files. Throws what `decodeWhole` does.
 */
export async function checkFrames(
  device: Device,
  path: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (parseContainerName(path)?.codec !== "lz4") return;
  using file = device.openFile(path);
  const read = (byteOffset: number, byteLength: number) => file.readSync(byteOffset, byteLength);
  const container = describeContainer(read, file.byteLength, path);
  if (container.seekable && !container.hasTable) (await decodeWhole(path, { codec: "lz4", signal })).close();
}
