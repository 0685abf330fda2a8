/** What one batch wants of compressed shards. */
import type { ChunkFile, DecodeRequest } from "../device/decode.ts";
import type { DeviceBuffer } from "../device/device.ts";
import { eachRun } from "./runs.ts";

type Wanted = { -readonly [K in keyof DecodeRequest]: DecodeRequest[K] };

/** Reused from batch to batch. */
export class Decodes {
  #wanted: Wanted[] = [];
  #byteLength = 0;

  get length(): number {
    return this.#wanted.length;
  }

  /** Of all that is wanted. */
  get byteLength(): number {
    return this.#byteLength;
  }

  clear(): void {
    this.#wanted = [];
    this.#byteLength = 0;
  }

  /** Wants logical bytes of a file at `targetOffset` of `target`. What follows the last in both becomes one with it. */
  add(
    file: ChunkFile,
    byteOffset: number,
    byteLength: number,
    target: DeviceBuffer,
    targetOffset: number,
  ): void {
    this.#byteLength += byteLength;
    const last = this.#wanted.at(-1);
    if (
      last?.file === file &&
      last.byteOffset + last.byteLength === byteOffset &&
      last.targetOffset + last.byteLength === targetOffset
    ) {
      last.byteLength += byteLength;
      return;
    }
    this.#wanted.push({ file, byteOffset, byteLength, target, targetOffset });
  }

  /** Straight to where it is wanted. The caller's from the next {@link Decodes.clear} on. */
  direct(): readonly DecodeRequest[] {
    return this.#wanted;
  }

  /** One after another, in memory from which {@link Decodes.eachRange} says where it goes. */
  intoOneAfterAnother(target: DeviceBuffer, from: number): DecodeRequest[] {
    let at = from;
    return this.#wanted.map((one) => {
      const targetOffset = at;
      at += one.byteLength;
      return { ...one, target, targetOffset };
    });
  }

  /** Calls `take` for each range that lies together in both. */
  eachRange(take: (from: number, to: number, byteLength: number) => void): void {
    const wanted = this.#wanted;
    const targetOf = (index: number) => wanted[index]!.targetOffset;
    eachRun(wanted.length, targetOf, (index) => wanted[index]!.byteLength, take);
  }
}
