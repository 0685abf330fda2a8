/** NVRTC, NVIDIA's run-time compiler, which needs no GPU: it proves that kernel texts are CUDA. Named by
 * HEADRACE_NVRTC_LIBRARY, or by its own name where the system's linker finds it. */
import { dlopen, ptr } from "bun:ffi";
import type { KernelSource } from "../../../src/device/device.ts";
import { portableHeader } from "../../../src/kernels/portable.ts";
import { constantDefines } from "./cxx.ts";

/** Compiles for one architecture, `compute_90` say, and gives the PTX; throws what the compiler says. */
export type CompileCuda = (source: KernelSource, architecture: string) => string;

export interface Nvrtc {
  readonly compile: CompileCuda;
  /** 70, 75, … */
  readonly architectures: readonly number[];
}

export function openNvrtc(): Nvrtc | { readonly missing: string } {
  const named = process.env.HEADRACE_NVRTC_LIBRARY;
  const names = named ? [named] : ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
  for (const name of names) {
    try {
      const symbols = bind(name);
      return { compile: compilerOf(symbols), architectures: architecturesOf(symbols) };
    } catch (error) {
      if (named) return { missing: `HEADRACE_NVRTC_LIBRARY: ${error}` };
    }
  }
  return { missing: "there is no libnvrtc; name one by HEADRACE_NVRTC_LIBRARY" };
}

function bind(name: string) {
  return dlopen(name, {
    // nvrtcResult nvrtcGetNumSupportedArchs(int *);
    nvrtcGetNumSupportedArchs: { args: ["ptr"], returns: "i32" },
    // nvrtcResult nvrtcGetSupportedArchs(int *);
    nvrtcGetSupportedArchs: { args: ["ptr"], returns: "i32" },
    // nvrtcResult nvrtcCreateProgram(nvrtcProgram *, const char *src, const char *name, int, const char **, const char **);
    nvrtcCreateProgram: { args: ["ptr", "ptr", "ptr", "i32", "ptr", "ptr"], returns: "i32" },
    // nvrtcResult nvrtcDestroyProgram(nvrtcProgram *);
    nvrtcDestroyProgram: { args: ["ptr"], returns: "i32" },
    // nvrtcResult nvrtcCompileProgram(nvrtcProgram, int, const char **);
    nvrtcCompileProgram: { args: ["u64", "i32", "ptr"], returns: "i32" },
    // nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram, size_t *);
    nvrtcGetProgramLogSize: { args: ["u64", "ptr"], returns: "i32" },
    // nvrtcResult nvrtcGetProgramLog(nvrtcProgram, char *);
    nvrtcGetProgramLog: { args: ["u64", "ptr"], returns: "i32" },
    // nvrtcResult nvrtcGetPTXSize(nvrtcProgram, size_t *);
    nvrtcGetPTXSize: { args: ["u64", "ptr"], returns: "i32" },
    // nvrtcResult nvrtcGetPTX(nvrtcProgram, char *);
    nvrtcGetPTX: { args: ["u64", "ptr"], returns: "i32" },
  }).symbols;
}

type Symbols = ReturnType<typeof bind>;

function architecturesOf(symbols: Symbols): number[] {
  const count = new Int32Array(new ArrayBuffer(4));
  check(symbols.nvrtcGetNumSupportedArchs(count));
  const all = new Int32Array(new ArrayBuffer(4 * count[0]!));
  check(symbols.nvrtcGetSupportedArchs(all));
  return [...all];
}

function compilerOf(symbols: Symbols): CompileCuda {
  return (source, architecture) => {
    // The header has functions for every text, of which one text uses some.
    const quiet = "--diag-suppress=177";
    const flags = [`--gpu-architecture=${architecture}`, "--std=c++14", "--fmad=false", quiet];
    const options = [...flags, ...constantDefines(source.functionConstants)].map(cString);
    const table = BigUint64Array.from(options, (option) => BigInt(ptr(option)));
    const program = new BigUint64Array(new ArrayBuffer(8));
    const text = cString(portableHeader + source.text);
    check(symbols.nvrtcCreateProgram(program, text, cString("kernel"), 0, null, null));
    try {
      const result = symbols.nvrtcCompileProgram(program[0]!, options.length, table);
      const log = textOf(
        (size) => symbols.nvrtcGetProgramLogSize(program[0]!, size),
        (to) => symbols.nvrtcGetProgramLog(program[0]!, to),
      );
      // Warnings too: nobody else would ever read them.
      if (result !== 0 || log.replace(/^nvrtc: warning: Architectures prior to .*$/m, "").trim() !== "")
        throw new Error(`${source.name} for ${architecture}: ${log}`);
      return textOf(
        (size) => symbols.nvrtcGetPTXSize(program[0]!, size),
        (to) => symbols.nvrtcGetPTX(program[0]!, to),
      );
    } finally {
      symbols.nvrtcDestroyProgram(program);
    }
  };
}

/** On memory of its own, which stays where it is. */
function cString(text: string): Uint8Array {
  const bytes = Buffer.from(`${text}\0`);
  const own = new Uint8Array(new ArrayBuffer(bytes.length));
  own.set(bytes);
  return own;
}

function check(result: number): void {
  if (result !== 0) throw new Error(`NVRTC says ${result}`);
}

function textOf(sizeOf: (size: BigUint64Array) => number, read: (to: Uint8Array) => number): string {
  const size = new BigUint64Array(new ArrayBuffer(8));
  check(sizeOf(size));
  const bytes = new Uint8Array(new ArrayBuffer(Number(size[0])));
  check(read(bytes));
  return new TextDecoder().decode(bytes.subarray(0, -1));
}
