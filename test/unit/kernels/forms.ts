/** Kernels in both forms at once: TypeScript, and their text as C++, which have to give the same bytes. */
import { afterAll, beforeAll, setDefaultTimeout } from "bun:test";
import type { KernelSource } from "../../../src/device/device.ts";
import type { DispatchCall } from "../../../src/device/requests.ts";
import type { Place } from "../../../src/kernels/constants.ts";
import { expectBytes } from "../../conformance/harness.ts";
import { type CompiledAll, compileKernels, compiler } from "./cxx.ts";
import { Guarded, runCxx, runHost } from "./memory.ts";

// Properties over both forms, one of them compiled by the way, where others want the processor too.
setDefaultTimeout(60_000);

/** Runs a dispatch over copies of `buffers`, each between pages that nobody may touch, and gives what they hold then. */
export type RunForms = (
  source: KernelSource,
  buffers: readonly ArrayBufferView[],
  build: (places: readonly Place[]) => DispatchCall,
) => Uint8Array<ArrayBuffer>[];

/** Compiles `sources` before the tests of the block around it; only they can be run. Both forms must agree. */
export function useForms(sources: readonly KernelSource[]): RunForms {
  let compiled: CompiledAll | undefined;
  beforeAll(() => {
    if (compiler !== null) compiled = compileKernels(sources);
  });
  afterAll(() => compiled?.[Symbol.dispose]());
  return (source, buffers, build) => {
    const host = runOver(buffers, build, (call) => runHost(source, call));
    if (compiled === undefined) return host;
    const run = compiled.runs[sources.indexOf(source)]!;
    const cxx = runOver(buffers, build, (call) => runCxx(run, call));
    for (const [index, bytes] of cxx.entries()) expectBytes(bytes, host[index]!);
    return host;
  };
}

function runOver(
  buffers: readonly ArrayBufferView[],
  build: (places: readonly Place[]) => DispatchCall,
  run: (call: DispatchCall) => void,
): Uint8Array<ArrayBuffer>[] {
  const guarded = buffers.map(({ buffer, byteOffset, byteLength }) => {
    const one = new Guarded(byteLength);
    one.bytes.set(new Uint8Array(buffer, byteOffset, byteLength));
    return one;
  });
  try {
    run(build(guarded.map((buffer) => ({ buffer }))));
    return guarded.map(({ bytes }) => bytes.slice());
  } finally {
    for (const buffer of guarded) buffer.close();
  }
}

/** Numbers from [-scale, scale) without a pattern, the same for the same seed. */
export function floats(length: number, seed = 1, scale = 1): Float32Array<ArrayBuffer> {
  let state = Math.imul(seed, 0x9e3779b1) | 1;
  return Float32Array.from({ length }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state / 2 ** 31) * scale;
  });
}

/** Bytes that a kernel which is to write all of them must not leave. */
export function poison(floatCount: number): Float32Array<ArrayBuffer> {
  return new Float32Array(new Uint32Array(floatCount).fill(0x7fa5a5a5).buffer);
}

/** Words that a kernel knows where they are: the count at `countAt`. */
export function infoOf(count: number, countAt = 0): Uint32Array<ArrayBuffer> {
  const info = new Uint32Array(8).fill(0xffffffff);
  info[countAt] = count;
  return info;
}

export function floatsIn(bytes: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}
export function wordsIn(bytes: Uint8Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

/** Floats as elements of a type, rounded to the nearest. */
export function elementsOf(type: "F32" | "F16" | "BF16", values: Float32Array<ArrayBuffer>) {
  if (type === "F32") return values;
  if (type === "F16") return new Uint16Array(Float16Array.from(values).buffer);
  const bits = new Uint32Array(values.buffer);
  return Uint16Array.from(bits, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16);
}
/** And back. */
export function valuesOf(type: "F32" | "F16" | "BF16", elements: Float32Array | Uint16Array): Float32Array {
  if (type === "F32") return elements as Float32Array;
  if (type === "F16") return Float32Array.from(new Float16Array(elements.slice().buffer as ArrayBuffer));
  return new Float32Array(Uint32Array.from(elements, (half) => half << 16).buffer);
}
