/** What one thread needs to decode chunks: decoders, and memory of its own for chunks on their way. */
import type { Decoder } from "../../codec/codec.ts";
import { openDecoder } from "../../codec/open.ts";
import type { Syscalls } from "../host/syscalls.ts";

/** Bytes of scratch that are kept for the next chunk; longer scratch is given back. */
const KEPT_BYTES = 64 * 2 ** 20;
/** Scratch grows by whole multiples of this. */
const GROWTH = 256 * 1024;

/** Memory that is reused from chunk to chunk. */
export class Scratch {
  readonly #syscalls: Syscalls;
  #address = 0;
  #length = 0;

  constructor(syscalls: Syscalls) {
    this.#syscalls = syscalls;
  }

  /** Address of `byteLength` bytes at least, whose content is undefined; or `-errno`. Valid until the next call. */
  ensure(byteLength: number): number {
    if (byteLength <= this.#length) return this.#address;
    this.free();
    const length = Math.ceil(byteLength / GROWTH) * GROWTH;
    const address = this.#syscalls.mapAnonymous(length);
    if (address < 0) return address;
    this.#address = address;
    this.#length = length;
    return address;
  }

  /** Gives back what is too long to be kept. */
  trim(): void {
    if (this.#length > KEPT_BYTES) this.free();
  }

  free(): void {
    if (this.#length > 0) this.#syscalls.unmap(this.#address, this.#length);
    this.#address = 0;
    this.#length = 0;
  }
}

/** Decoders of one thread, opened when they are first needed. */
export class ThreadDecoders {
  readonly #exactViews: boolean;
  #verifying: Decoder | undefined;
  #trusting: Decoder | undefined;

  /** `exactViews` as in `DecoderOptions`. */
  constructor(exactViews = false) {
    this.#exactViews = exactViews;
  }

  /** One that verifies checksums, or that does not. */
  of(verify: boolean): Decoder {
    if (verify) {
      this.#verifying ??= openDecoder({ checksums: true, exactViews: this.#exactViews });
      return this.#verifying;
    }
    this.#trusting ??= openDecoder({ checksums: false, exactViews: this.#exactViews });
    return this.#trusting;
  }

  close(): void {
    this.#verifying?.close();
    this.#trusting?.close();
    this.#verifying = undefined;
    this.#trusting = undefined;
  }
}
