/** A compressed file that is open: its descriptor, its mapping where it is in memory, and who uses them. */
import { HeadraceError } from "../../errors.ts";
import type { ChunkTable } from "../../types.ts";
import { closedError } from "../common/errors.ts";
import { shrunkError } from "../common/files.ts";
import type { ChunkFile } from "../decode.ts";
import { type DeviceBuffer, isDeclined } from "../device.ts";
import type { HostContext } from "../host/context.ts";
import type { HostFile } from "../host/file.ts";
import type { HostMemory } from "../host/memory.ts";
import type { Place, PlaceOwner } from "./cache.ts";
import { ChunkBits } from "./chunk-bits.ts";

/** A file of which this part is in memory is decoded from a mapping. */
const WARM_PART = 0.5;

/** What a file needs of the pool that opened it. */
export interface FileHome {
  readonly context: HostContext;
  readonly memory: HostMemory;
  readSync(file: OpenChunks, byteOffset: number, byteLength: number): Uint8Array;
  closed(file: OpenChunks): void;
}

export class OpenChunks implements ChunkFile, PlaceOwner {
  readonly path: string;
  readonly table: ChunkTable;
  readonly checksums: boolean;
  readonly places = new Map<number, Place>();
  readonly gone: ChunkBits;
  readonly #home: FileHome;
  readonly #file: HostFile;
  #mapping: DeviceBuffer | undefined;
  /** File bytes to decode before it is looked at again whether the file is in memory. */
  #untilLook = 0;
  /** The opener, and decodings. */
  #users = 1;
  #closed = false;

  /** Throws `FILE_CHANGED` where the file is shorter than the table says, `UNSUPPORTED` for a codec that nobody knows;
   * then the file is the caller's to close. */
  constructor(home: FileHome, file: HostFile, table: ChunkTable, checksums: boolean) {
    this.path = file.path;
    this.table = table;
    this.gone = new ChunkBits(table.numChunks);
    this.checksums = checksums;
    this.#home = home;
    this.#file = file;
    let end = 0;
    for (let chunk = 0; chunk < table.numChunks; chunk++) {
      end = Math.max(end, table.fileOffset[chunk]! + table.fileLength[chunk]!);
      if (table.codec[chunk]! > LAST_CODEC) throw unknownCodec(file.path, chunk, table.codec[chunk]!);
    }
    if (end > file.byteLength) throw shrunkError(file.path, file.byteLength, end);
  }

  isOf(home: FileHome): boolean {
    return this.#home === home;
  }

  /** Valid while someone uses the file. */
  get fd(): number {
    return this.#file.descriptor.fd;
  }

  readSync(byteOffset: number, byteLength: number): Uint8Array {
    this.assertOpen();
    return this.#home.readSync(this, byteOffset, byteLength);
  }

  /** Address of the file's first byte in a mapping, for a decoding that has retained the file; 0 where it is to be read.
   * `fileBytes` is about what the decoding takes from it. */
  mapped(fileBytes: number): number {
    if (this.#mapping === undefined) {
      if (this.#untilLook <= 0) this.#look();
      this.#untilLook -= fileBytes;
    }
    return this.#mapping?.hostAddress ?? 0;
  }

  /** The length now, for errors; below 0 where it is not to be had. */
  lengthNow(): number {
    return this.#home.context.syscalls.fileLength(this.fd);
  }

  /** For a decoding: descriptor and mapping stay until {@link OpenChunks.release}. */
  retain(): void {
    this.#users++;
  }

  release(): void {
    if (--this.#users > 0) return;
    this.#mapping?.close();
    this.#file.close();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#home.closed(this);
    this.release();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Throws `CLOSED` after `close`. */
  assertOpen(): void {
    this.#home.context.assertOpen();
    if (this.#closed) throw closedError(`the compressed file ${this.path}`);
  }

  #look(): void {
    this.#untilLook = this.#file.byteLength;
    if (this.#file.byteLength === 0 || (this.#file.residentPart() ?? 0) < WARM_PART) return;
    const answer = this.#home.memory.map(this.#file, 0, this.#file.byteLength);
    if (!isDeclined(answer)) this.#mapping = answer;
  }
}

/** Of `ChunkCodec`. */
const LAST_CODEC = 3;

function unknownCodec(path: string, chunk: number, codec: number): HeadraceError {
  return new HeadraceError(
    "UNSUPPORTED",
    `${path}: chunk ${chunk} is of codec ${codec}, which is not known here`,
  );
}
