/** LZ4 blocks by the system's liblz4, by Apple's libcompression, or by code of our own. Frames are in `lz4-frame.ts`. */
import { type FFIFunction, FFIType, type Library, type Pointer } from "bun:ffi";
import { findLibrary, usualNames } from "./library.ts";
import { decodeLz4Block, encodeLz4Block, lz4Bound } from "./lz4-block.ts";
import type { Windows } from "./memory.ts";

const VARIABLE = "HEADRACE_LZ4_LIBRARY";
/** Bytes that a block may reach back. */
const HISTORY = 2 ** 16;

/** The C line above each entry is its declaration. */
const LIBLZ4 = {
  // const char* LZ4_versionString(void);
  LZ4_versionString: { args: [], returns: "cstring" },
  // int LZ4_decompress_safe(const char* src, char* dst, int compressedSize, int dstCapacity);
  LZ4_decompress_safe: { args: ["ptr", "ptr", "i32", "i32"], returns: "i32" },
  // int LZ4_decompress_safe_usingDict(const char* src, char* dst, int srcSize, int dstCapacity,
  //     const char* dictStart, int dictSize);
  LZ4_decompress_safe_usingDict: { args: ["ptr", "ptr", "i32", "i32", "ptr", "i32"], returns: "i32" },
  // int LZ4_compress_fast(const char* src, char* dst, int srcSize, int dstCapacity, int acceleration);
  LZ4_compress_fast: { args: ["ptr", "ptr", "i32", "i32", "i32"], returns: "i32" },
  // int LZ4_compress_HC(const char* src, char* dst, int srcSize, int dstCapacity, int compressionLevel);
  LZ4_compress_HC: { args: ["ptr", "ptr", "i32", "i32", "i32"], returns: "i32" },
} as const satisfies Record<string, FFIFunction>;

const LIBCOMPRESSION = {
  // size_t compression_decode_buffer(uint8_t* dst, size_t dst_size, const uint8_t* src, size_t src_size,
  //     void* scratch, compression_algorithm algorithm);
  compression_decode_buffer: {
    args: ["ptr", "usize", "ptr", "usize", "ptr", "i32"],
    returns: FFIType.u64_fast,
  },
  // size_t compression_encode_buffer(uint8_t* dst, size_t dst_size, const uint8_t* src, size_t src_size,
  //     void* scratch, compression_algorithm algorithm);
  compression_encode_buffer: {
    args: ["ptr", "usize", "ptr", "usize", "ptr", "i32"],
    returns: FFIType.u64_fast,
  },
} as const satisfies Record<string, FFIFunction>;
const COMPRESSION_LZ4_RAW = 0x101;

/** One thread's way with blocks. Lengths are below 2^31. */
export interface Lz4Blocks {
  readonly library: string;
  /** Decodes a block; `history` bytes in front of `target` belong to the same frame, and matches may reach into them.
   * Returns how many bytes it gave, or a negative number where it is malformed or gives more than `targetLength`. */
  decode(source: number, sourceLength: number, target: number, targetLength: number, history: number): number;
  /** Compresses `bytes` to the front of `into`; returns the block's length, or 0 where `into` is too short for it. */
  encode(bytes: Uint8Array, into: Uint8Array, level: number): number;
}

/** From this level on, LZ4HC. */
const HC_LEVEL = 3;

/** `windows` shows memory to code of our own. */
export function openLz4Blocks(windows: Windows): Lz4Blocks {
  const found = findLibrary(usualNames("lz4"), VARIABLE, LIBLZ4);
  if (!("missing" in found)) return new LibraryBlocks(found.symbols);
  const own = new OwnBlocks(found.missing, windows);
  if (process.platform !== "darwin" || process.env[VARIABLE] === "none") return own;
  const apple = findLibrary(["/usr/lib/libcompression.dylib"], undefined, LIBCOMPRESSION);
  return "missing" in apple ? own : new AppleBlocks(apple.symbols, own);
}

class LibraryBlocks implements Lz4Blocks {
  readonly library: string;
  readonly #symbols: Library<typeof LIBLZ4>["symbols"];

  constructor(symbols: Library<typeof LIBLZ4>["symbols"]) {
    this.#symbols = symbols;
    this.library = `liblz4 ${symbols.LZ4_versionString()}`;
  }

  decode(source: number, sourceLength: number, target: number, targetLength: number, history: number) {
    const from = source as Pointer;
    const to = target as Pointer;
    if (history === 0) return this.#symbols.LZ4_decompress_safe(from, to, sourceLength, targetLength);
    const reach = Math.min(history, HISTORY);
    return this.#symbols.LZ4_decompress_safe_usingDict(
      from,
      to,
      sourceLength,
      targetLength,
      (target - reach) as Pointer,
      reach,
    );
  }

  encode(bytes: Uint8Array, into: Uint8Array, level: number): number {
    return level >= HC_LEVEL
      ? this.#symbols.LZ4_compress_HC(bytes, into, bytes.length, into.length, level)
      : this.#symbols.LZ4_compress_fast(bytes, into, bytes.length, into.length, 1);
  }
}

/** Apple's library knows blocks by themselves alone, and cuts off what does not fit, so that the checksum has to tell. */
class AppleBlocks implements Lz4Blocks {
  readonly library = "Apple's libcompression";
  readonly #symbols: Library<typeof LIBCOMPRESSION>["symbols"];
  readonly #own: OwnBlocks;

  constructor(symbols: Library<typeof LIBCOMPRESSION>["symbols"], own: OwnBlocks) {
    this.#symbols = symbols;
    this.#own = own;
  }

  decode(source: number, sourceLength: number, target: number, targetLength: number, history: number) {
    if (history > 0) return this.#own.decode(source, sourceLength, target, targetLength, history);
    const length = this.#symbols.compression_decode_buffer(
      target as Pointer,
      targetLength,
      source as Pointer,
      sourceLength,
      null,
      COMPRESSION_LZ4_RAW,
    );
    return length === 0 ? -1 : Number(length);
  }

  encode(bytes: Uint8Array, into: Uint8Array): number {
    const { compression_encode_buffer } = this.#symbols;
    return Number(
      compression_encode_buffer(into, into.length, bytes, bytes.length, null, COMPRESSION_LZ4_RAW),
    );
  }
}

class OwnBlocks implements Lz4Blocks {
  readonly library: string;
  readonly #windows: Windows;

  constructor(missing: string, windows: Windows) {
    this.library = `Headrace's own LZ4 (no liblz4: ${missing})`;
    this.#windows = windows;
  }

  decode(source: number, sourceLength: number, target: number, targetLength: number, history: number) {
    const reach = Math.min(history, HISTORY);
    const bytes = this.#windows.view(source, sourceLength);
    const into = this.#windows.view(target - reach, reach + targetLength);
    return decodeLz4Block(bytes, into, reach, reach + targetLength, 0);
  }

  encode(bytes: Uint8Array, into: Uint8Array): number {
    if (into.length >= lz4Bound(bytes.length)) return encodeLz4Block(bytes, into);
    const room = new Uint8Array(lz4Bound(bytes.length));
    const length = encodeLz4Block(bytes, room);
    if (length > into.length) return 0;
    into.set(room.subarray(0, length));
    return length;
  }
}
