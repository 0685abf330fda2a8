/** Describes one shard of either format, told apart by its first bytes. */

import type { DeviceFile } from "../device/device.ts";
import { HeadraceError, withContext } from "../errors.ts";
import { describeArrow } from "../format/arrow.ts";
import { describeSafetensors } from "../format/safetensors.ts";
import type { ByteReader, ShardDescription } from "../types.ts";

const ARROW_MAGIC = [0x41, 0x52, 0x52, 0x4f, 0x57, 0x31];
const CONTINUATION = [0xff, 0xff, 0xff, 0xff];

/**
 * Reads the metadata of `file`, never its data. Of an Arrow file only `columns` need be of a supported type
 * where given. Throws the format's errors with the path in front.
 */
export function describeShard(file: DeviceFile, columns?: readonly string[]): ShardDescription {
  return withContext(file.path, () => {
    const read = (byteOffset: number, byteLength: number) => file.readSync(byteOffset, byteLength);
    if (file.path.endsWith(".safetensors")) return describeSafetensors(read, file.byteLength);
    const head = read(0, Math.min(8, file.byteLength));
    const isArrow = startsWith(head, ARROW_MAGIC) || startsWith(head, CONTINUATION);
    if (isArrow || /\.(arrows?|feather|ipc)$/.test(file.path))
      return describeWanted(read, file.byteLength, columns);
    if (looksLikeSafetensors(file, head)) return describeSafetensors(read, file.byteLength);
    throw new HeadraceError(
      "UNKNOWN_FORMAT",
      `neither safetensors nor Arrow: its ${file.byteLength} bytes start with ${Buffer.from(head).toString("hex") || "nothing"}`,
    );
  });
}

/** All columns where they are supported, so that errors can list them; else the wanted ones alone. */
function describeWanted(read: ByteReader, byteLength: number, columns?: readonly string[]): ShardDescription {
  try {
    return describeArrow(read, byteLength);
  } catch (error) {
    const unsupported = error instanceof HeadraceError && error.code === "UNSUPPORTED_TYPE";
    if (!unsupported || columns === undefined) throw error;
    return describeArrow(read, byteLength, columns);
  }
}

function startsWith(bytes: Uint8Array, prefix: readonly number[]): boolean {
  return bytes.length >= prefix.length && prefix.every((byte, i) => bytes[i] === byte);
}

function looksLikeSafetensors(file: DeviceFile, head: Uint8Array): boolean {
  if (head.length < 8 || file.byteLength < 10) return false;
  const first = file.readSync(8, 1)[0];
  return first === 0x7b || first === 0x20;
}
