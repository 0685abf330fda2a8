/** Decoding a compressed file from its start to its end, through bounded memory: the blocking part, for a Worker. */
import { readSync, writeSync } from "node:fs";
import { createZstdDecompress, constants as zlib } from "node:zlib";
import { HeadraceError } from "../errors.ts";
import { FrameCursor } from "../format/frame-cursor.ts";
import { LZ4_MAGIC, type Lz4FrameHeader, parseLz4Header, walkLz4Blocks } from "../format/lz4-frames.ts";
import { SKIPPABLE_HEADER_BYTES, SKIPPABLE_MAGIC } from "../format/seek-table.ts";
import { XxHash32 } from "../format/xxhash.ts";
import { parseZstdHeader, ZSTD_MAGIC, zstdFrameEnd } from "../format/zstd-frames.ts";
import type { CodecName } from "./codec.ts";
import { type Lz4Blocks, openLz4Blocks } from "./lz4.ts";
import { addressOf, Windows } from "./memory.ts";
import { openZstdStream } from "./zstd.ts";

const PIECE = 2 ** 20;
/** Bytes of a block of LZ4, and how far back it may reach. */
const LZ4_BLOCK = 2 ** 22;
const LZ4_HISTORY = 2 ** 16;
/** 128 MiB, as the zstd command takes without being asked for more. */
const MAX_WINDOW_LOG = 27;

/** What to decode, into which open file. Descriptors stay their owner's. */
export interface WholeWork {
  readonly codec: CodecName;
  readonly source: number;
  readonly sourceLength: number;
  /** Undefined: the bytes are checked and forgotten. */
  readonly target: number | undefined;
  readonly checksums: boolean;
  /** Bytes that may be written, at most. */
  readonly limit: number;
}

/** Decodes all frames to the front of the target; returns how many bytes they gave. Throws `BAD_CHUNK`,
 * `UNSUPPORTED_COMPRESSION`, `DISK_FULL` past the limit, and what the system throws. */
export async function decodeFile(work: WholeWork): Promise<number> {
  const out = new Output(work.target, work.limit);
  const cursor = new FrameCursor((offset, length) => readAt(work.source, offset, length), work.sourceLength);
  if (work.codec === "lz4") decodeLz4(work, cursor, out);
  else if (!decodeZstd(work, cursor, out)) await decodeByRuntime(work, out);
  return out.byteLength;
}

class Output {
  readonly #descriptor: number | undefined;
  readonly #limit: number;
  byteLength = 0;

  constructor(descriptor: number | undefined, limit: number) {
    this.#descriptor = descriptor;
    this.#limit = limit;
  }

  /** Before so many bytes are made at all. */
  expect(byteLength: number): void {
    if (this.byteLength + byteLength <= this.#limit) return;
    throw new HeadraceError(
      "DISK_FULL",
      `it decompresses to ${this.byteLength + byteLength} bytes or more, and only ${this.#limit} may be taken for that`,
    );
  }

  write(bytes: Uint8Array): void {
    this.expect(bytes.length);
    if (this.#descriptor === undefined) {
      this.byteLength += bytes.length;
      return;
    }
    for (let at = 0; at < bytes.length; ) {
      const written = writeSync(this.#descriptor, bytes, at, bytes.length - at, this.byteLength);
      at += written;
      this.byteLength += written;
    }
  }
}

function readAt(descriptor: number, offset: number, byteLength: number): Uint8Array {
  const bytes = new Uint8Array(byteLength);
  readInto(descriptor, bytes, offset);
  return bytes;
}

function readInto(descriptor: number, into: Uint8Array, offset: number): void {
  for (let at = 0; at < into.length; ) {
    const got = readSync(descriptor, into, at, into.length - at, offset + at);
    if (got === 0) throw bad(`it ended at ${offset + at} while it was read`);
    at += got;
  }
}

/** Frames one after another; skippable ones are passed over. */
function eachFrame(cursor: FrameCursor, magic: number, visit: (offset: number) => number): void {
  for (let offset = 0; offset < cursor.fileLength; ) {
    const found = cursor.u32(offset);
    if (found >= SKIPPABLE_MAGIC && found < SKIPPABLE_MAGIC + 16) {
      offset += SKIPPABLE_HEADER_BYTES + cursor.u32(offset + 4);
      if (offset > cursor.fileLength) throw bad(`the skippable frame before ${offset} ends past the file`);
    } else if (found === magic) offset = visit(offset);
    else throw bad(`neither a frame nor the end is at ${offset}`);
  }
}

/** The header of the zstd frame at `offset`, with what its length says of the output. */
function checkedHeader(cursor: FrameCursor, offset: number, out: Output): void {
  const header = parseZstdHeader(cursor, offset);
  if (header.dictionary !== 0) throw withoutDictionary();
  if (header.windowBytes > 2 ** MAX_WINDOW_LOG && header.windowBytes !== header.contentLength) {
    throw new HeadraceError(
      "UNSUPPORTED_COMPRESSION",
      `the zstd frame at ${offset} needs ${header.windowBytes} bytes of memory (zstd --long), of at most ` +
        `${2 ** MAX_WINDOW_LOG}; compress it again`,
    );
  }
  out.expect(header.contentLength ?? 0);
}

/** Returns false where there is no library. */
function decodeZstd(work: WholeWork, cursor: FrameCursor, out: Output): boolean {
  const stream = openZstdStream(work.checksums, MAX_WINDOW_LOG);
  if (stream === undefined) return false;
  const input = new Uint8Array(new ArrayBuffer(PIECE));
  const output = new Uint8Array(new ArrayBuffer(PIECE));
  try {
    eachFrame(cursor, ZSTD_MAGIC, (start) => {
      checkedHeader(cursor, start, out);
      for (let offset = start; ; ) {
        const length = Math.min(PIECE, work.sourceLength - offset);
        readInto(work.source, input.subarray(0, length), offset);
        for (let at = 0; ; ) {
          const step = stream.step(addressOf(input) + at, length - at, addressOf(output), PIECE);
          if ("reason" in step) throw bad(`the zstd frame at ${start}: ${step.reason}`);
          at += step.taken;
          out.write(output.subarray(0, step.given));
          if (step.frameEnded) return offset + at;
          if (at === length && step.given < PIECE) break;
        }
        offset += length;
        if (offset === work.sourceLength)
          throw bad(`the zstd frame at ${start} is cut off by the file's end`);
      }
    });
  } finally {
    stream.close();
  }
  return true;
}

/** The runtime's stream does not tell of a frame that is cut off, so that frames are walked first. */
async function decodeByRuntime(work: WholeWork, out: Output): Promise<void> {
  const cursor = new FrameCursor((offset, length) => readAt(work.source, offset, length), work.sourceLength);
  const frames: { start: number; end: number }[] = [];
  eachFrame(cursor, ZSTD_MAGIC, (start) => {
    checkedHeader(cursor, start, out);
    const end = zstdFrameEnd(cursor, start, parseZstdHeader(cursor, start));
    frames.push({ start, end });
    return end;
  });
  for (const { start, end } of frames) {
    const stream = createZstdDecompress({ params: { [zlib.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG } });
    const feed = async () => {
      for (let offset = start; offset < end; offset += PIECE) {
        const piece = readAt(work.source, offset, Math.min(PIECE, end - offset));
        if (!stream.write(piece)) await new Promise((resolve) => stream.once("drain", resolve));
      }
      stream.end();
    };
    const fed = feed();
    fed.catch((error) => stream.destroy(error));
    try {
      for await (const bytes of stream) out.write(bytes);
    } catch (error) {
      if (error instanceof HeadraceError) throw error;
      throw bad(`the zstd frame at ${start}: ${error instanceof Error ? error.message : error}`);
    }
  }
}

function decodeLz4(work: WholeWork, cursor: FrameCursor, out: Output): void {
  const blocks = openLz4Blocks(new Windows());
  eachFrame(cursor, LZ4_MAGIC, (start) => {
    const header = parseLz4Header(cursor, start);
    if (header.hasDictionary) throw withoutDictionary();
    out.expect(header.contentLength ?? 0);
    return new Lz4FrameDecoding(work, cursor, out, blocks, header, start).run();
  });
}

/** One frame, block by block; linked ones see the end of what came before. */
class Lz4FrameDecoding {
  readonly #work: WholeWork;
  readonly #cursor: FrameCursor;
  readonly #out: Output;
  readonly #blocks: Lz4Blocks;
  readonly #header: Lz4FrameHeader;
  readonly #start: number;
  readonly #input = new Uint8Array(new ArrayBuffer(LZ4_BLOCK));
  /** History, then the block. */
  readonly #output = new Uint8Array(new ArrayBuffer(LZ4_HISTORY + LZ4_BLOCK));
  readonly #hash: XxHash32 | undefined;
  #history = 0;
  #given = 0;

  constructor(
    work: WholeWork,
    cursor: FrameCursor,
    out: Output,
    blocks: Lz4Blocks,
    header: Lz4FrameHeader,
    start: number,
  ) {
    this.#work = work;
    this.#cursor = cursor;
    this.#out = out;
    this.#blocks = blocks;
    this.#header = header;
    this.#start = start;
    if (header.contentChecksum && work.checksums) this.#hash = new XxHash32();
  }

  /** Returns where the frame ends. */
  run(): number {
    const { contentLength } = this.#header;
    const end = walkLz4Blocks(this.#cursor, this.#start, this.#header, (block) => {
      this.#take(block);
      return true;
    })!;
    if (contentLength !== undefined && contentLength !== this.#given) {
      throw bad(`the LZ4 frame at ${this.#start} gives ${this.#given} bytes and claims ${contentLength}`);
    }
    if (this.#hash !== undefined && this.#hash.digest() !== this.#cursor.u32(end - 4)) {
      throw bad(`the checksum of the LZ4 frame at ${this.#start} is wrong`);
    }
    return end;
  }

  #take({ offset, byteLength, stored }: { offset: number; byteLength: number; stored: boolean }): void {
    const { maxBlockBytes, blockChecksums, independent } = this.#header;
    const input = this.#input.subarray(0, byteLength);
    readInto(this.#work.source, input, offset);
    if (blockChecksums && this.#work.checksums) {
      const hash = Bun.hash.xxHash32(input, 0);
      if (hash !== this.#cursor.u32(offset + byteLength)) {
        throw bad(`the checksum of the LZ4 block at ${offset} is wrong`);
      }
    }
    let given = byteLength;
    if (stored) this.#output.set(input, LZ4_HISTORY);
    else {
      const target = addressOf(this.#output) + LZ4_HISTORY;
      given = this.#blocks.decode(addressOf(input), byteLength, target, maxBlockBytes, this.#history);
      if (given < 0) throw bad(`the LZ4 block at ${offset} is corrupt`);
    }
    const bytes = this.#output.subarray(LZ4_HISTORY, LZ4_HISTORY + given);
    this.#hash?.update(bytes);
    this.#out.write(bytes);
    this.#given += given;
    if (independent) return;
    this.#output.copyWithin(0, given, given + LZ4_HISTORY);
    this.#history = Math.min(LZ4_HISTORY, this.#history + given);
  }
}

function withoutDictionary(): HeadraceError {
  return new HeadraceError(
    "UNSUPPORTED_COMPRESSION",
    "it was compressed with a dictionary, which is not in the file; compress it again without one",
  );
}

function bad(message: string): HeadraceError {
  return new HeadraceError("BAD_CHUNK", message);
}
