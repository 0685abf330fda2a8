/** Chunks that somebody has to look at while a shard is described, decoded on the calling thread. */
import type { DecodeChunk } from "../format/arrow-body.ts";
import type { ByteReader } from "../types.ts";
import type { Decoder } from "./codec.ts";
import { addressOf } from "./memory.ts";
import { openDecoder } from "./open.ts";

/** Decodes chunks of the file that `read` reads into fresh memory, by a decoder that is opened when it is first needed. */
export class ChunkLooker implements Disposable {
  readonly #read: ByteReader;
  #decoder: Decoder | undefined;

  constructor(read: ByteReader) {
    this.#read = read;
  }

  /** Throws `BAD_CHUNK`, `OUT_OF_MEMORY`, and what reading throws. */
  readonly decode: DecodeChunk = (codec, fileOffset, fileLength, byteLength) => {
    // In buffers of their own, whose addresses stay.
    const source = new Uint8Array(new ArrayBuffer(fileLength));
    source.set(this.#read(fileOffset, fileLength));
    const target = new Uint8Array(new ArrayBuffer(byteLength));
    this.#decoder ??= openDecoder();
    const error = this.#decoder.decode(codec, addressOf(source), fileLength, addressOf(target), byteLength);
    if (error !== undefined) throw error;
    return target;
  };

  [Symbol.dispose](): void {
    this.#decoder?.close();
  }
}
