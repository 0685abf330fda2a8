/** Describes one shard of either format, told apart by its first bytes; what is compressed, in the bytes it gives. */

import { ptr } from "bun:ffi";
import type { Decoder } from "../codec/codec.ts";
import { openDecoder } from "../codec/open.ts";
import type { ChunkDecoders, ChunkFile } from "../device/decode.ts";
import type { Device, DeviceFile } from "../device/device.ts";
import { HeadraceError, withContext } from "../errors.ts";
import { describeArrow } from "../format/arrow.ts";
import type { DecodeChunk } from "../format/arrow-body.ts";
import { describeContainer } from "../format/container.ts";
import { innerName, isContainerName } from "../format/container-names.ts";
import { describeSafetensors } from "../format/safetensors.ts";
import type { ByteReader, ShardDescription } from "../types.ts";
import { notPrepared } from "./whole.ts";

const ARROW_MAGIC = [0x41, 0x52, 0x52, 0x4f, 0x57, 0x31];
const CONTINUATION = [0xff, 0xff, 0xff, 0xff];

/** A shard's metadata. */
export interface Described {
  readonly description: ShardDescription;
  /** What its data are decoded through; the caller's to close. Absent where nothing of it is compressed. */
  readonly chunkFile?: ChunkFile | undefined;
}

export interface DescribeOptions {
  /** Of an Arrow file, the columns that must be of supported types; all where absent. */
  readonly columns?: readonly string[] | undefined;
  /** The path of the shard where `file` is what it decodes to. */
  readonly wholeOf?: string | undefined;
  /** Whether checksums of what is compressed are verified; default true. */
  readonly checksums?: boolean | undefined;
}

/** The bytes to describe: a file, or what a compressed one decodes to. */
interface Bytes {
  /** Without the endings that say how it is compressed. */
  readonly path: string;
  readonly byteLength: number;
  readonly read: ByteReader;
  readonly decode?: DecodeChunk;
}

/**
 * Reads the metadata of `file`, never its data. Throws the format's errors with the path in front, and `UNSUPPORTED` where `device` decodes nothing or
 * a compressed file has no random access.
 */
export function describeShard(device: Device, file: DeviceFile, options: DescribeOptions = {}): Described {
  const { byteLength } = file;
  const { columns, checksums, wholeOf } = options;
  const path = wholeOf ?? file.path;
  const read = (byteOffset: number, length: number) => file.readSync(byteOffset, length);
  if (wholeOf === undefined && isContainerName(path)) return describePacked(device, file, read, options);
  using decoding = new BodyDecoder(read);
  const bytes = { path: innerName(path), byteLength, read, decode: decoding.decode };
  const description = withContext(path, () => describeBytes(bytes, columns));
  if (description.chunks === undefined) return { description };
  return {
    description,
    chunkFile: decodersOf(device, path).open(file.path, description.chunks, { checksums }),
  };
}

function describePacked(
  device: Device,
  { path, byteLength }: DeviceFile,
  read: ByteReader,
  { columns, checksums }: DescribeOptions,
): Described {
  const container = describeContainer(read, byteLength, path);
  if (!container.seekable) throw notPrepared(path, container.wholeReason);
  const { table } = container;
  const chunkFile = decodersOf(device, path).open(path, table, { checksums });
  try {
    const bytes: Bytes = {
      path: innerName(path),
      byteLength: table.byteLength,
      read: (byteOffset, length) => chunkFile.readSync(byteOffset, length),
    };
    const description = describeInside(path, bytes, columns);
    return { description: { ...description, chunks: table, byteLength }, chunkFile };
  } catch (error) {
    chunkFile.close();
    throw error;
  }
}

/** The errors of `chunkFile` name the file already, those of the formats do not. */
function describeInside(
  path: string,
  bytes: Bytes,
  columns: readonly string[] | undefined,
): ShardDescription {
  let reading: unknown;
  const read: ByteReader = (byteOffset, length) => {
    try {
      return bytes.read(byteOffset, length);
    } catch (error) {
      reading = error;
      throw error;
    }
  };
  try {
    const description = describeBytes({ ...bytes, read }, columns);
    if (description.chunks === undefined) return description;
    const text =
      "is compressed as a whole, and its Arrow bodies are compressed inside; decompress it, or pack it again";
    throw new HeadraceError("UNSUPPORTED_COMPRESSION", text);
  } catch (error) {
    throw error instanceof HeadraceError && error !== reading ? error.within(path) : error;
  }
}

function describeBytes(bytes: Bytes, columns: readonly string[] | undefined): ShardDescription {
  const { path, byteLength, read } = bytes;
  if (path.endsWith(".safetensors")) return describeSafetensors(read, byteLength);
  const head = read(0, Math.min(8, byteLength));
  const isArrow = startsWith(head, ARROW_MAGIC) || startsWith(head, CONTINUATION);
  if (isArrow || /\.(arrows?|feather|ipc)$/.test(path)) return describeWanted(bytes, columns);
  if (looksLikeSafetensors(bytes, head)) return describeSafetensors(read, byteLength);
  throw new HeadraceError(
    "UNKNOWN_FORMAT",
    `neither safetensors nor Arrow: its ${byteLength} bytes start with ${Buffer.from(head).toString("hex") || "nothing"}`,
  );
}

/** All columns where they are supported, so that errors can list them; else the wanted ones alone, also where a buffer of
 * another is too long to decode. */
function describeWanted({ read, byteLength, decode }: Bytes, columns?: readonly string[]): ShardDescription {
  try {
    return describeArrow(read, byteLength, undefined, decode);
  } catch (error) {
    const unsupported =
      error instanceof HeadraceError &&
      (error.code === "UNSUPPORTED_TYPE" || error.code === "UNSUPPORTED_COMPRESSION");
    if (!unsupported || columns === undefined) throw error;
    return describeArrow(read, byteLength, columns, decode);
  }
}

/** For the few bits of a shard that are decoded while it is described. */
class BodyDecoder implements Disposable {
  readonly #read: ByteReader;
  #decoder: Decoder | undefined;

  constructor(read: ByteReader) {
    this.#read = read;
  }

  readonly decode: DecodeChunk = (codec, fileOffset, fileLength, byteLength) => {
    this.#decoder ??= openDecoder({ exactViews: true });
    const source = this.#read(fileOffset, fileLength);
    const target = new Uint8Array(new ArrayBuffer(byteLength));
    const error = this.#decoder.decode(codec, ptr(source), fileLength, ptr(target), byteLength);
    // Used after the call: while only its address was, memory may otherwise have been collected.
    if (error !== undefined) throw error.within(`${source.length} bytes at ${fileOffset}`);
    return target;
  };

  [Symbol.dispose](): void {
    this.#decoder?.close();
  }
}

function decodersOf(device: Device, path: string): ChunkDecoders {
  const decoders = device.decoders?.();
  if (decoders !== undefined) return decoders;
  throw new HeadraceError(
    "UNSUPPORTED",
    `${path}: is compressed, and device ${device.capabilities.name} decodes nothing`,
  );
}

function startsWith(bytes: Uint8Array, prefix: readonly number[]): boolean {
  return bytes.length >= prefix.length && prefix.every((byte, i) => bytes[i] === byte);
}

function looksLikeSafetensors({ byteLength, read }: Bytes, head: Uint8Array): boolean {
  if (head.length < 8 || byteLength < 10) return false;
  const first = read(8, 1)[0];
  return first === 0x7b || first === 0x20;
}
