/** Memory with guards around what a decoder may touch. */
import { ptr } from "bun:ffi";
import { expect } from "bun:test";
import type { ChunkExtras, Decoder } from "../../../src/codec/codec.ts";
import type { HeadraceError } from "../../../src/errors.ts";

const GUARD = 256;
const SENTINEL = 0xa7;

/** Decodes `chunk`, which lies alone in memory of its own, to memory between sentinels, and looks at them after it. */
export function decodeGuarded(
  decoder: Decoder,
  codec: number,
  chunk: Uint8Array,
  length: number,
  extras?: ChunkExtras,
): { bytes: Uint8Array; error: HeadraceError | undefined } {
  const source = new Uint8Array(new ArrayBuffer(GUARD + chunk.length));
  source.fill(0xff);
  source.set(chunk);
  const target = new Uint8Array(new ArrayBuffer(GUARD + length + GUARD)).fill(SENTINEL);
  const error = decoder.decode(codec, ptr(source), chunk.length, ptr(target) + GUARD, length, extras);
  // This also keeps the source from being collected while only its address is in use.
  expect(Buffer.compare(source.subarray(0, chunk.length), chunk)).toBe(0);
  const intact = (bytes: Uint8Array) => bytes.every((byte) => byte === SENTINEL);
  expect(intact(target.subarray(0, GUARD))).toBe(true);
  expect(intact(target.subarray(GUARD + length))).toBe(true);
  return { bytes: target.subarray(GUARD, GUARD + length), error };
}

/** Runs `work` with variables of the environment set, and puts them back. */
export function withVariables<T>(variables: Readonly<Record<string, string>>, work: () => T): T {
  const before = Object.keys(variables).map((name) => [name, process.env[name]] as const);
  Object.assign(process.env, variables);
  try {
    return work();
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
}

export const NO_LIBRARIES = { HEADRACE_ZSTD_LIBRARY: "none", HEADRACE_LZ4_LIBRARY: "none" };

/** Bytes that compress as text and tokens do: runs from a small dictionary, and noise. */
export function texture(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let state = (seed * 2654435761) >>> 0 || 1;
  const next = () => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state = (state ^ (state << 5)) >>> 0;
    return state;
  };
  for (let at = 0; at < length; ) {
    const run = 4 + (next() % 60);
    const from = next() % 3 === 0 ? -1 : next() % (at + 1);
    for (let i = 0; i < run && at < length; i++, at++) {
      bytes[at] = from < 0 ? next() >>> 24 : bytes[from + (i % Math.max(1, at - from))]!;
    }
  }
  return bytes;
}
