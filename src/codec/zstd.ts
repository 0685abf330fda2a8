/** zstd by the system's libzstd (1.4 or later), and by the runtime's own where there is none. */
import { type FFIFunction, FFIType, type Library, type Pointer } from "bun:ffi";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { HeadraceError } from "../errors.ts";
import { FrameCursor } from "../format/frame-cursor.ts";
import { parseZstdHeader, ZSTD_MAGIC, zstdFrameEnd } from "../format/zstd-frames.ts";
import { findLibrary, usualNames } from "./library.ts";
import { addressOf, type Windows } from "./memory.ts";

const VARIABLE = "HEADRACE_ZSTD_LIBRARY";

/** The C line above each entry is its declaration. Results that are lengths may be errors. */
const SYMBOLS = {
  // const char* ZSTD_versionString(void);
  ZSTD_versionString: { args: [], returns: "cstring" },
  // unsigned ZSTD_isError(size_t code);
  ZSTD_isError: { args: ["usize"], returns: "u32" },
  // const char* ZSTD_getErrorName(size_t code);
  ZSTD_getErrorName: { args: ["usize"], returns: "cstring" },
  // ZSTD_DCtx* ZSTD_createDCtx(void);
  ZSTD_createDCtx: { args: [], returns: "ptr" },
  // size_t ZSTD_freeDCtx(ZSTD_DCtx* dctx);
  ZSTD_freeDCtx: { args: ["ptr"], returns: FFIType.u64_fast },
  // size_t ZSTD_DCtx_setParameter(ZSTD_DCtx* dctx, ZSTD_dParameter param, int value);
  ZSTD_DCtx_setParameter: { args: ["ptr", "i32", "i32"], returns: FFIType.u64_fast },
  // size_t ZSTD_decompressDCtx(ZSTD_DCtx* dctx, void* dst, size_t dstCapacity, const void* src, size_t srcSize);
  ZSTD_decompressDCtx: { args: ["ptr", "ptr", "usize", "ptr", "usize"], returns: FFIType.u64_fast },
  // size_t ZSTD_decompressStream(ZSTD_DStream* zds, ZSTD_outBuffer* output, ZSTD_inBuffer* input);
  ZSTD_decompressStream: { args: ["ptr", "ptr", "ptr"], returns: FFIType.u64_fast },
  // ZSTD_CCtx* ZSTD_createCCtx(void);
  ZSTD_createCCtx: { args: [], returns: "ptr" },
  // size_t ZSTD_freeCCtx(ZSTD_CCtx* cctx);
  ZSTD_freeCCtx: { args: ["ptr"], returns: FFIType.u64_fast },
  // size_t ZSTD_CCtx_setParameter(ZSTD_CCtx* cctx, ZSTD_cParameter param, int value);
  ZSTD_CCtx_setParameter: { args: ["ptr", "i32", "i32"], returns: FFIType.u64_fast },
  // size_t ZSTD_compressBound(size_t srcSize);
  ZSTD_compressBound: { args: ["usize"], returns: FFIType.u64_fast },
  // size_t ZSTD_compress2(ZSTD_CCtx* cctx, void* dst, size_t dstCapacity, const void* src, size_t srcSize);
  ZSTD_compress2: { args: ["ptr", "ptr", "usize", "ptr", "usize"], returns: FFIType.u64_fast },
} as const satisfies Record<string, FFIFunction>;

const COMPRESSION_LEVEL = 100;
const CHECKSUM_FLAG = 201;
const WINDOW_LOG_MAX = 100;
/** ZSTD_d_forceIgnoreChecksum, experimental; libraries that lack it go on verifying. */
const IGNORE_CHECKSUM = 1002;

type Symbols = Library<typeof SYMBOLS>["symbols"];

function find() {
  return findLibrary(usualNames("zstd"), VARIABLE, SYMBOLS);
}

/** Why decoding failed, for people; undefined where it did not. */
export type Reason = string | undefined;

/** One thread's way of decoding frames. */
export interface ZstdDecoder {
  readonly library: string;
  /** Exactly `targetLength` bytes, of one frame or several. */
  decode(source: number, sourceLength: number, target: number, targetLength: number): Reason;
  close(): void;
}

/** What streams a frame of any length through bounded memory. */
export interface ZstdStream {
  /** Takes from `source` and gives to `target`; returns how much of each, and whether a frame has ended with it. */
  step(
    source: number,
    sourceLength: number,
    target: number,
    targetLength: number,
  ): { taken: number; given: number; frameEnded: boolean } | { reason: string };
  close(): void;
}

/** `windows` shows memory to the fallback. */
export function openZstdDecoder(checksums: boolean, windows: Windows): ZstdDecoder {
  const found = find();
  return "missing" in found
    ? new RuntimeDecoder(found.missing, windows)
    : new LibraryDecoder(found.symbols, checksums);
}

/** Undefined where there is no library. */
export function openZstdStream(checksums: boolean, maxWindowLog: number): ZstdStream | undefined {
  const found = find();
  return "missing" in found ? undefined : new LibraryStream(found.symbols, checksums, maxWindowLog);
}

/** One thread's way of making frames, into memory that it keeps. */
export interface ZstdEncoder {
  readonly library: string;
  /** Bytes of a frame of so many, at most. */
  bound(byteLength: number): number;
  /** Compresses to the front of `into`, which is long enough; returns the frame's length. */
  encode(bytes: Uint8Array, into: Uint8Array): number;
  close(): void;
}

export function openZstdEncoder(level: number, checksum: boolean): ZstdEncoder {
  const found = find();
  return "missing" in found
    ? new RuntimeEncoder(found.missing, level, checksum)
    : new LibraryEncoder(found.symbols, level, checksum);
}

function createContext(create: () => Pointer | bigint | null): Pointer {
  const context = create();
  if (context === null) throw new HeadraceError("OUT_OF_MEMORY", "libzstd got no memory for a context");
  return context as Pointer;
}

class LibraryDecoder implements ZstdDecoder {
  readonly library: string;
  readonly #symbols: Symbols;
  readonly #context: Pointer;

  constructor(symbols: Symbols, checksums: boolean) {
    this.#symbols = symbols;
    this.library = `libzstd ${symbols.ZSTD_versionString()}`;
    this.#context = createContext(symbols.ZSTD_createDCtx);
    if (!checksums) symbols.ZSTD_DCtx_setParameter(this.#context, IGNORE_CHECKSUM, 1);
  }

  decode(source: number, sourceLength: number, target: number, targetLength: number): Reason {
    const symbols = this.#symbols;
    const length = symbols.ZSTD_decompressDCtx(
      this.#context,
      target as Pointer,
      targetLength,
      source as Pointer,
      sourceLength,
    );
    if (length === targetLength) return undefined;
    if (symbols.ZSTD_isError(length) !== 0) return String(symbols.ZSTD_getErrorName(length));
    return `it gives ${length} bytes`;
  }

  close(): void {
    this.#symbols.ZSTD_freeDCtx(this.#context);
  }
}

class LibraryStream implements ZstdStream {
  readonly #symbols: Symbols;
  readonly #context: Pointer;
  /** ZSTD_outBuffer and ZSTD_inBuffer: address, length, position. */
  readonly #buffers = new BigUint64Array(new ArrayBuffer(48));
  readonly #address: number;

  constructor(symbols: Symbols, checksums: boolean, maxWindowLog: number) {
    this.#symbols = symbols;
    this.#context = createContext(symbols.ZSTD_createDCtx);
    this.#address = addressOf(new Uint8Array(this.#buffers.buffer));
    symbols.ZSTD_DCtx_setParameter(this.#context, WINDOW_LOG_MAX, maxWindowLog);
    if (!checksums) symbols.ZSTD_DCtx_setParameter(this.#context, IGNORE_CHECKSUM, 1);
  }

  step(source: number, sourceLength: number, target: number, targetLength: number) {
    const buffers = this.#buffers;
    buffers[0] = BigInt(target);
    buffers[1] = BigInt(targetLength);
    buffers[2] = 0n;
    buffers[3] = BigInt(source);
    buffers[4] = BigInt(sourceLength);
    buffers[5] = 0n;
    const left = this.#symbols.ZSTD_decompressStream(
      this.#context,
      this.#address as Pointer,
      (this.#address + 24) as Pointer,
    );
    if (this.#symbols.ZSTD_isError(left) !== 0) {
      return { reason: String(this.#symbols.ZSTD_getErrorName(left)) };
    }
    return { taken: Number(buffers[5]), given: Number(buffers[2]), frameEnded: Number(left) === 0 };
  }

  close(): void {
    this.#symbols.ZSTD_freeDCtx(this.#context);
  }
}

class LibraryEncoder implements ZstdEncoder {
  readonly library: string;
  readonly #symbols: Symbols;
  readonly #context: Pointer;

  constructor(symbols: Symbols, level: number, checksum: boolean) {
    this.#symbols = symbols;
    this.library = `libzstd ${symbols.ZSTD_versionString()}`;
    this.#context = createContext(symbols.ZSTD_createCCtx);
    this.#check(symbols.ZSTD_CCtx_setParameter(this.#context, COMPRESSION_LEVEL, level));
    this.#check(symbols.ZSTD_CCtx_setParameter(this.#context, CHECKSUM_FLAG, checksum ? 1 : 0));
  }

  bound(byteLength: number): number {
    return Number(this.#symbols.ZSTD_compressBound(byteLength));
  }

  encode(bytes: Uint8Array, into: Uint8Array): number {
    const { ZSTD_compress2 } = this.#symbols;
    const source = bytes.length === 0 ? null : bytes;
    return this.#check(ZSTD_compress2(this.#context, into, into.length, source as Uint8Array, bytes.length));
  }

  close(): void {
    this.#symbols.ZSTD_freeCCtx(this.#context);
  }

  #check(result: number | bigint): number {
    if (this.#symbols.ZSTD_isError(result) === 0) return Number(result);
    const reason = String(this.#symbols.ZSTD_getErrorName(result));
    throw new HeadraceError("OUT_OF_MEMORY", `libzstd cannot compress: ${reason}`);
  }
}

/** The runtime's zstd gives memory of its own, so that its length is looked at first and the result is copied. */
class RuntimeDecoder implements ZstdDecoder {
  readonly library: string;
  readonly #windows: Windows;

  constructor(missing: string, windows: Windows) {
    this.library = `the runtime's zstd (no libzstd: ${missing})`;
    this.#windows = windows;
  }

  decode(source: number, sourceLength: number, target: number, targetLength: number): Reason {
    const bytes = this.#windows.view(source, sourceLength);
    try {
      checkFrames(bytes, targetLength);
      // Never more than was asked for, whatever the headers say.
      const result = zstdDecompressSync(bytes, { maxOutputLength: targetLength });
      if (result.length !== targetLength) return `it gives ${result.length} bytes`;
      this.#windows.view(target, targetLength).set(result);
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message.split("\n")[0] : String(error);
    }
  }

  close(): void {}
}

/** The runtime passes over a last frame that is cut off within its checksum, and over headers' lengths. */
function checkFrames(bytes: Uint8Array, targetLength: number): void {
  const cursor = new FrameCursor((offset, length) => bytes.subarray(offset, offset + length), bytes.length);
  let declared = 0;
  for (let offset = 0; offset < bytes.length; ) {
    if (cursor.u32(offset) !== ZSTD_MAGIC) throw new Error(`no zstd frame starts at ${offset}`);
    const header = parseZstdHeader(cursor, offset);
    declared += header.contentLength ?? 0;
    if (declared > targetLength) throw new Error(`its header claims ${header.contentLength} bytes`);
    offset = zstdFrameEnd(cursor, offset, header);
  }
}

class RuntimeEncoder implements ZstdEncoder {
  readonly library: string;
  readonly #params: Record<number, number>;

  constructor(missing: string, level: number, checksum: boolean) {
    this.library = `the runtime's zstd (no libzstd: ${missing})`;
    this.#params = {
      [constants.ZSTD_c_compressionLevel]: level,
      [constants.ZSTD_c_checksumFlag]: checksum ? 1 : 0,
      [constants.ZSTD_c_contentSizeFlag]: 1,
    };
  }

  bound(byteLength: number): number {
    // ZSTD_COMPRESSBOUND of zstd.h, with some room for a header that a stream writes longer.
    return byteLength + (byteLength >>> 8) + 1024;
  }

  encode(bytes: Uint8Array, into: Uint8Array): number {
    const result = zstdCompressSync(bytes, { params: this.#params, pledgedSrcSize: bytes.length } as never);
    into.set(result);
    return result.length;
  }

  close(): void {}
}
