/** Decoding a compressed file from its start to its end, through bounded memory: the blocking part, for a Worker. */
import { readSync, writeSync } from "node:fs";
import { createZstdDecompress, constants as zlib } from "node:zlib";
import { HeadraceError } from "../errors.ts";
import { FrameCursor } from "../format/frame-cursor.ts";
import { walkFrames } from "../format/frame-walk.ts";
import { type Lz4Block, type Lz4FrameHeader, parseLz4Header, walkLz4Blocks } from "../format/lz4-frames.ts";
import { XxHash32 } from "../format/xxhash.ts";
import { parseZstdHeader, type ZstdFrameHeader, zstdFrameEnd } from "../format/zstd-frames.ts";
import type { CodecName } from "./codec.ts";
import { openLz4Blocks } from "./lz4.ts";
import { addressOf, Windows } from "./memory.ts";
import { openZstdStream } from "./zstd.ts";

const PIECE = 2 ** 20;
/** How far back a block of LZ4 may reach. */
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
  else if (!decodeZstd(work, cursor, out)) await decodeByRuntime(work, cursor, out);
  out.flush();
  return out.byteLength;
}

/** Gathers bytes, as frames may be tiny and there may be many. */
class Output {
  readonly #descriptor: number | undefined;
  readonly #limit: number;
  readonly #buffer = new Uint8Array(PIECE);
  #buffered = 0;
  #flushed = 0;

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

  get byteLength(): number {
    return this.#flushed + this.#buffered;
  }

  write(bytes: Uint8Array): void {
    this.expect(bytes.length);
    if (bytes.length > PIECE - this.#buffered) this.flush();
    if (bytes.length >= PIECE) this.#put(bytes);
    else {
      this.#buffer.set(bytes, this.#buffered);
      this.#buffered += bytes.length;
    }
  }

  flush(): void {
    const length = this.#buffered;
    this.#buffered = 0;
    this.#put(this.#buffer.subarray(0, length));
  }

  #put(bytes: Uint8Array): void {
    if (this.#descriptor === undefined) {
      this.#flushed += bytes.length;
      return;
    }
    for (let at = 0; at < bytes.length; ) {
      const written = writeSync(this.#descriptor, bytes, at, bytes.length - at, this.#flushed);
      at += written;
      this.#flushed += written;
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

/** The header of the zstd frame at `offset`, with what its length says of the output. */
function checkedHeader(cursor: FrameCursor, offset: number, out: Output): ZstdFrameHeader {
  const header = parseZstdHeader(cursor, offset);
  if (header.dictionary !== 0) throw withoutDictionary();
  if (header.windowBytes > 2 ** MAX_WINDOW_LOG) {
    throw new HeadraceError(
      "UNSUPPORTED_COMPRESSION",
      `the zstd frame at ${offset} needs ${header.windowBytes} bytes of memory (zstd --long), of at most ` +
        `${2 ** MAX_WINDOW_LOG}; compress it again`,
    );
  }
  out.expect(header.contentLength ?? 0);
  return header;
}

/** Returns false where there is no library. */
function decodeZstd(work: WholeWork, cursor: FrameCursor, out: Output): boolean {
  const stream = openZstdStream(work.checksums, MAX_WINDOW_LOG);
  if (stream === undefined) return false;
  const input = new Uint8Array(new ArrayBuffer(PIECE));
  const output = new Uint8Array(new ArrayBuffer(PIECE));
  const [from, to] = [addressOf(input), addressOf(output)];
  // What of the file the input holds: a piece may have many frames.
  let [start, end] = [0, 0];
  const fill = (offset: number) => {
    start = offset;
    end = Math.min(offset + PIECE, work.sourceLength);
    readInto(work.source, input.subarray(0, end - start), start);
  };
  try {
    walkFrames(cursor, "zstd", (frame) => {
      checkedHeader(cursor, frame, out);
      for (let at = frame; ; ) {
        if (at < start || at >= end) fill(at);
        const step = stream.step(from + at - start, end - at, to, PIECE);
        if ("reason" in step) throw bad(`the zstd frame at ${frame}: ${step.reason}`);
        at += step.taken;
        out.write(output.subarray(0, step.given));
        if (step.frameEnded) return at;
        // With the output full there may be more to come of what was taken.
        if (at === work.sourceLength && step.given < PIECE) {
          throw bad(`the zstd frame at ${frame} is cut off by the file's end`);
        }
      }
    });
  } finally {
    stream.close();
  }
  return true;
}

/** The runtime's stream does not tell of a frame that is cut off, so that frames are walked first. */
async function decodeByRuntime(work: WholeWork, cursor: FrameCursor, out: Output): Promise<void> {
  walkFrames(cursor, "zstd", (frame) => zstdFrameEnd(cursor, frame, checkedHeader(cursor, frame, out)));
  const stream = createZstdDecompress({ params: { [zlib.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG } });
  const feed = async () => {
    for (let offset = 0; offset < work.sourceLength; offset += PIECE) {
      const piece = readAt(work.source, offset, Math.min(PIECE, work.sourceLength - offset));
      if (!stream.write(piece)) await new Promise((resolve) => stream.once("drain", resolve));
    }
    stream.end();
  };
  feed().catch((error) => stream.destroy(error));
  try {
    for await (const bytes of stream) out.write(bytes);
  } catch (error) {
    if (error instanceof HeadraceError) throw error;
    throw bad(`one of its zstd frames: ${error instanceof Error ? error.message : error}`);
  }
}

function decodeLz4(work: WholeWork, cursor: FrameCursor, out: Output): void {
  const decoding = new Lz4Decoding(work, cursor, out);
  walkFrames(cursor, "lz4", (frame) => decoding.run(frame));
}

/** Memory that grows to the longest block of a file, as few files have blocks of the longest kind. */
class Room {
  bytes = new Uint8Array(new ArrayBuffer(0));
  address = 0;

  reserve(byteLength: number): void {
    if (byteLength <= this.bytes.length) return;
    this.bytes = new Uint8Array(new ArrayBuffer(2 ** Math.ceil(Math.log2(byteLength))));
    this.address = addressOf(this.bytes);
  }
}

/** Frames block by block; blocks of linked ones see the end of what came before. */
class Lz4Decoding {
  readonly #work: WholeWork;
  readonly #cursor: FrameCursor;
  readonly #out: Output;
  readonly #blocks = openLz4Blocks(new Windows());
  readonly #input = new Room();
  /** History, then the block. */
  readonly #output = new Room();
  #history = 0;
  #given = 0;

  constructor(work: WholeWork, cursor: FrameCursor, out: Output) {
    this.#work = work;
    this.#cursor = cursor;
    this.#out = out;
  }

  /** Decodes the frame at `start`; returns where it ends. */
  run(start: number): number {
    const header = parseLz4Header(this.#cursor, start);
    if (header.hasDictionary) throw withoutDictionary();
    const { contentLength, contentChecksum, maxBlockBytes } = header;
    this.#out.expect(contentLength ?? 0);
    this.#output.reserve(LZ4_HISTORY + maxBlockBytes);
    const hash = contentChecksum && this.#work.checksums ? new XxHash32() : undefined;
    [this.#history, this.#given] = [0, 0];
    const end = walkLz4Blocks(this.#cursor, start, header, (block) => {
      this.#take(block, header, hash);
      return true;
    })!;
    if (contentLength !== undefined && contentLength !== this.#given) {
      throw bad(`the LZ4 frame at ${start} gives ${this.#given} bytes and claims ${contentLength}`);
    }
    if (hash !== undefined && hash.digest() !== this.#cursor.u32(end - 4)) {
      throw bad(`the checksum of the LZ4 frame at ${start} is wrong`);
    }
    return end;
  }

  #take(
    { offset, byteLength, stored }: Lz4Block,
    { maxBlockBytes, blockChecksums, independent }: Lz4FrameHeader,
    hash: XxHash32 | undefined,
  ): void {
    this.#input.reserve(byteLength);
    const input = this.#input.bytes.subarray(0, byteLength);
    readInto(this.#work.source, input, offset);
    if (blockChecksums && this.#work.checksums) {
      const found = Bun.hash.xxHash32(input, 0);
      if (found !== this.#cursor.u32(offset + byteLength)) {
        throw bad(`the checksum of the LZ4 block at ${offset} is wrong`);
      }
    }
    const output = this.#output.bytes;
    let given = byteLength;
    if (stored) output.set(input, LZ4_HISTORY);
    else {
      const target = this.#output.address + LZ4_HISTORY;
      given = this.#blocks.decode(this.#input.address, byteLength, target, maxBlockBytes, this.#history);
      if (given < 0) throw bad(`the LZ4 block at ${offset} is corrupt`);
    }
    const bytes = output.subarray(LZ4_HISTORY, LZ4_HISTORY + given);
    hash?.update(bytes);
    this.#out.write(bytes);
    this.#given += given;
    if (independent) return;
    output.copyWithin(0, given, given + LZ4_HISTORY);
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
