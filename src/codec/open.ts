/** Opening what decodes and what compresses, for the calling thread. */
import { HeadraceError } from "../errors.ts";
import { ChunkCodec } from "../format/chunks.ts";
import type {
  ChunkExtras,
  CodecName,
  Compressor,
  CompressorOptions,
  Decoder,
  DecoderOptions,
} from "./codec.ts";
import { type Lz4Blocks, openLz4Blocks } from "./lz4.ts";
import {
  decodeLz4Frame,
  encodeLz4Frame,
  type Lz4Checks,
  type Lz4FrameTools,
  lz4FrameBound,
} from "./lz4-frame.ts";
import { Windows } from "./memory.ts";
import { Planes } from "./planes.ts";
import { openZstdDecoder, openZstdEncoder, type Reason, type ZstdDecoder, type ZstdEncoder } from "./zstd.ts";

/** Lengths of blocks are assumed where a file has more of them than can be looked at. */
const FLUSHED =
  "; if whoever compressed the file flushed in between, compress it again, or tell its length (lz4 --content-size)";
const ALL: Lz4Checks = { blocks: true, content: true };
const BLOCKS_ALONE: Lz4Checks = { blocks: true, content: false };
const NONE: Lz4Checks = { blocks: false, content: false };

/** Opens a decoder of all kinds of chunks, for the calling thread alone. A library that is missing is told in its facts,
 * and something slower stands in. Throws `OUT_OF_MEMORY`. */
export function openDecoder(options: DecoderOptions = {}): Decoder {
  return new ThreadDecoder(options.checksums ?? true, options.exactViews ?? false);
}

class ThreadDecoder implements Decoder {
  readonly facts: Readonly<Record<CodecName, string>>;
  readonly library: string;
  readonly #checksums: boolean;
  readonly #windows: Windows;
  readonly #zstd: ZstdDecoder;
  readonly #lz4: Lz4Blocks;
  readonly #lz4Tools: Lz4FrameTools;
  #planes: Planes | undefined;
  #closed = false;

  constructor(checksums: boolean, exact: boolean) {
    this.#checksums = checksums;
    this.#windows = new Windows({ exact });
    this.#zstd = openZstdDecoder(checksums, this.#windows);
    this.#lz4 = openLz4Blocks(this.#windows);
    this.#lz4Tools = { blocks: this.#lz4, windows: this.#windows };
    this.facts = { zstd: this.#zstd.library, lz4: this.#lz4.library };
    this.library = `${this.facts.zstd}, ${this.facts.lz4}`;
  }

  decode(
    codec: number,
    source: number,
    sourceLength: number,
    target: number,
    targetLength: number,
    extras?: ChunkExtras,
  ): HeadraceError | undefined {
    const planes = extras?.planes ?? 1;
    let reason: Reason;
    try {
      if (planes === 1) reason = this.#decode(codec, source, sourceLength, target, targetLength, extras);
      else {
        this.#planes ??= new Planes();
        const scratch = this.#planes.reserve(targetLength);
        reason = this.#decode(codec, source, sourceLength, scratch, targetLength, extras);
        if (reason === undefined) this.#planes.join(planes, this.#windows.view(target, targetLength));
      }
    } catch (error) {
      if (error instanceof HeadraceError) return error;
      reason = error instanceof Error ? error.message : String(error);
    }
    if (reason === undefined) return undefined;
    const what = `${sourceLength} bytes that should decompress to ${targetLength}`;
    return new HeadraceError("BAD_CHUNK", `${what} do not: ${reason}`);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#zstd.close();
  }

  #decode(
    codec: number,
    source: number,
    sourceLength: number,
    target: number,
    targetLength: number,
    extras: ChunkExtras | undefined,
  ): Reason {
    const checksum = this.#checksums ? extras?.checksum : undefined;
    const reason = this.#decodeBytes(
      codec,
      source,
      sourceLength,
      target,
      targetLength,
      checksum !== undefined,
    );
    if (reason !== undefined || checksum === undefined) return reason;
    const hash = checksumOf(codec, this.#windows.view(target, targetLength));
    return hash === checksum ? undefined : "its checksum in the table is wrong";
  }

  /** `covered`: the content's checksum is verified after this, so that a frame's own need not be where it costs. */
  #decodeBytes(
    codec: number,
    source: number,
    sourceLength: number,
    target: number,
    targetLength: number,
    covered: boolean,
  ): Reason {
    switch (codec) {
      case ChunkCodec.zstd:
        return this.#zstd.decode(source, sourceLength, target, targetLength);
      case ChunkCodec.lz4Frame: {
        const checks = covered ? BLOCKS_ALONE : this.#checksums ? ALL : NONE;
        return decodeLz4Frame(this.#lz4Tools, source, sourceLength, target, targetLength, checks);
      }
      case ChunkCodec.lz4Block: {
        const given = this.#lz4.decode(source, sourceLength, target, targetLength, 0);
        if (given < 0) return "the block is corrupt, or gives more than that";
        return given === targetLength ? undefined : `the block gives ${given} bytes${FLUSHED}`;
      }
      case ChunkCodec.stored:
        if (sourceLength !== targetLength) return "stored bytes keep their length";
        this.#windows.view(target, targetLength).set(this.#windows.view(source, sourceLength));
        return undefined;
      default:
        return `no codec has the number ${codec}`;
    }
  }
}

/** The checksum of a table for a chunk of that kind. */
function checksumOf(codec: number, bytes: Uint8Array): number {
  return codec === ChunkCodec.zstd
    ? Number(Bun.hash.xxHash64(bytes, 0n) & 0xffffffffn)
    : Bun.hash.crc32(bytes);
}

const MAX_FRAME = 2 ** 30;
const LEVELS: Readonly<Record<CodecName, { default: number; max: number }>> = {
  zstd: { default: 3, max: 19 },
  lz4: { default: 1, max: 12 },
};

/** The level that `level` means for `codec`. Throws `BAD_OPTION`. */
export function checkLevel(codec: CodecName, level: number | undefined): number {
  const { default: usual, max } = LEVELS[codec];
  const chosen = level ?? usual;
  if (Number.isInteger(chosen) && chosen >= 1 && chosen <= max) return chosen;
  throw new HeadraceError("BAD_OPTION", `level ${chosen} of ${codec}: must be an integer from 1 to ${max}`);
}

/** Opens a compressor for the calling thread alone. Throws `BAD_OPTION`, `OUT_OF_MEMORY`. */
export function openCompressor(codec: CodecName, options: CompressorOptions = {}): Compressor {
  const level = checkLevel(codec, options.level);
  const checksum = options.checksum ?? true;
  return codec === "zstd"
    ? new ZstdCompressor(openZstdEncoder(level, checksum))
    : new Lz4Compressor(openLz4Blocks(new Windows()), level, checksum);
}

/** Memory that frames are made in, which is kept from one to the next. */
class Room {
  #bytes = new Uint8Array(0);

  of(byteLength: number): Uint8Array {
    if (this.#bytes.length < byteLength) this.#bytes = new Uint8Array(new ArrayBuffer(byteLength));
    return this.#bytes;
  }
}

function checkFrame(byteLength: number): void {
  if (byteLength <= MAX_FRAME) return;
  throw new HeadraceError("OUT_OF_RANGE", `a frame of ${byteLength} bytes, of at most ${MAX_FRAME}`);
}

class ZstdCompressor implements Compressor {
  readonly library: string;
  readonly #encoder: ZstdEncoder;
  readonly #room = new Room();

  constructor(encoder: ZstdEncoder) {
    this.#encoder = encoder;
    this.library = encoder.library;
  }

  frame(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
    checkFrame(bytes.length);
    const room = this.#room.of(this.#encoder.bound(bytes.length));
    return new Uint8Array(room.subarray(0, this.#encoder.encode(bytes, room)));
  }

  close(): void {
    this.#encoder.close();
  }
}

class Lz4Compressor implements Compressor {
  readonly library: string;
  readonly #blocks: Lz4Blocks;
  readonly #level: number;
  readonly #checksum: boolean;
  readonly #room = new Room();

  constructor(blocks: Lz4Blocks, level: number, checksum: boolean) {
    this.#blocks = blocks;
    this.#level = level;
    this.#checksum = checksum;
    this.library = blocks.library;
  }

  frame(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
    checkFrame(bytes.length);
    const room = this.#room.of(lz4FrameBound(bytes.length));
    const length = encodeLz4Frame(this.#blocks, bytes, room, this.#level, this.#checksum);
    return new Uint8Array(room.subarray(0, length));
  }

  close(): void {}
}
