/** From a kernel's text to what the driver loads, by NVRTC. */
import { ptr } from "bun:ffi";
import { HeadraceError } from "../../errors.ts";
import { portableHeader } from "../../kernels/portable.ts";
import type { FunctionConstant, KernelSource } from "../device.ts";
import { cText, OutCell, textOf } from "./cells.ts";
import { checkFunctionConstants } from "./function-constants.ts";
import { type Nvrtc, nvrtcErrorText, versionText } from "./nvrtc.ts";

/** A kernel that has a text. */
export type KernelText = KernelSource & { readonly text: string };

/** What is compiled for. */
export interface Target {
  /** As 90 for 9.0. */
  readonly computeCapability: number;
  /** The driver's CUDA version, as 12040. */
  readonly driverVersion: number;
}

const HEADER_NAME = "portable.h";
/** By the header's last line. */
const TEXT_NAME = "kernel";

enum Result {
  success = 0,
  outOfMemory = 1,
  invalidOption = 5,
  compilation = 6,
  builtins = 7,
}

/** Of an NVRTC that does not tell: every capability since Maxwell. */
const KNOWN_ARCHITECTURES = [50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100, 103, 120, 121];

/** PTX with its final zero, or a cubin where this NVRTC's PTX would be too new for the driver. Throws `BAD_KERNEL`
 * with the first error and its line in the text, the whole log as its cause, and for a function constant without a
 * value; `BAD_OPTION` for one that is not of its type or not in the text; `UNSUPPORTED` where this NVRTC does not know the GPU, or is not whole. */
export function compileKernel(nvrtc: Nvrtc, source: KernelText, target: Target): Uint8Array {
  const { name, text } = source;
  if (text.includes("\0")) throw new HeadraceError("BAD_KERNEL", `kernel ${name}: its text has a zero in it`);
  const options = [...OPTIONS, ...constantOptions(name, source.functionConstants ?? [])];
  checkFunctionConstants(name, text, source.functionConstants ?? []);
  const { architectures, kind } = architecturesFor(nvrtc, target);
  if (architectures.length === 0) throw tooOld(nvrtc, name, target);
  const { symbols } = nvrtc;
  const program = new OutCell();
  const created = symbols.nvrtcCreateProgram(
    program.clear(),
    cText(portableHeader + text),
    cText(HEADER_NAME),
    0,
    0,
    0,
  );
  if (created !== Result.success) throw failure(nvrtc, name, created, "");
  try {
    let result: number = Result.invalidOption;
    for (const architecture of architectures) {
      const strings = new CStrings([`--gpu-architecture=${kind}_${architecture}`, ...options]);
      result = symbols.nvrtcCompileProgram(program.u64, strings.length, strings.bytes);
      if (result !== Result.invalidOption) break;
    }
    if (result !== Result.success) throw failure(nvrtc, name, result, logOf(nvrtc, program.u64));
    return kind === "sm" ? cubinOf(nvrtc, name, program.u64) : ptxOf(nvrtc, name, program.u64);
  } finally {
    symbols.nvrtcDestroyProgram(program.bytes);
  }
}

/** IEEE 754 throughout: NVRTC rounds divisions and roots correctly and keeps subnormal numbers unless it is told
 * otherwise, and contracts unless it is told not to. */
const OPTIONS = ["--std=c++17", "--fmad=false", "-default-device", "-w"];

/** The highest that the GPU has comes first; others are for an NVRTC that may not know it. */
function architecturesFor(nvrtc: Nvrtc, target: Target) {
  const { computeCapability, driverVersion } = target;
  const known = nvrtc.architectures.length > 0 ? nvrtc.architectures : KNOWN_ARCHITECTURES;
  const usable = known.filter((one) => one <= computeCapability).reverse();
  // The driver compiles PTX of its own CUDA version at most; machine code of its GPU runs with the same major version.
  const same = usable.filter((one) => Math.floor(one / 10) === Math.floor(computeCapability / 10));
  if (nvrtc.version > driverVersion && nvrtc.cubin !== undefined && same.length > 0) {
    return { architectures: same, kind: "sm" as const };
  }
  return { architectures: usable, kind: "compute" as const };
}

function constantOptions(name: string, constants: readonly FunctionConstant[]): string[] {
  return constants.map(({ index, type, value }) => {
    const text = Number.isSafeInteger(index) && index >= 0 ? constantText(type, value) : undefined;
    if (text !== undefined) return `-DHR_FUNCTION_CONSTANT_${index}=${text}`;
    const message = `kernel ${name}: function constant ${index}: ${value} is no ${type}`;
    throw new HeadraceError("BAD_OPTION", message);
  });
}

/** A value as a constant expression of C++; undefined where it is not of its type. */
export function constantText(type: FunctionConstant["type"], value: number | boolean): string | undefined {
  if (type === "bool") return typeof value === "boolean" ? String(value) : undefined;
  if (typeof value !== "number") return undefined;
  switch (type) {
    case "int":
      // There is no literal for the least one: it is the negative of one that is too large.
      if (value !== (value | 0)) return undefined;
      return value === -(2 ** 31) ? "(-2147483647-1)" : `(${value})`;
    case "uint":
      return value === value >>> 0 ? `${value}u` : undefined;
    case "float":
      return floatText(Math.fround(value));
    default:
      return undefined;
  }
}

function floatText(value: number): string {
  if (Object.is(value, -0)) return "(-0.0f)";
  // Nine digits tell every float from its neighbours.
  if (Number.isFinite(value)) return `(${value.toExponential(8)}f)`;
  const bits = new Uint32Array(Float32Array.of(value).buffer)[0]!;
  return `__builtin_bit_cast(float,${bits}u)`;
}

function ptxOf(nvrtc: Nvrtc, name: string, program: number): Uint8Array {
  const { nvrtcGetPTXSize, nvrtcGetPTX } = nvrtc.symbols;
  return outputOf(nvrtc, name, program, nvrtcGetPTXSize, nvrtcGetPTX);
}

function cubinOf(nvrtc: Nvrtc, name: string, program: number): Uint8Array {
  const { nvrtcGetCUBINSize, nvrtcGetCUBIN } = nvrtc.cubin!;
  return outputOf(nvrtc, name, program, nvrtcGetCUBINSize, nvrtcGetCUBIN);
}

type Ask = (program: number, out: Uint8Array) => number;

function outputOf(nvrtc: Nvrtc, name: string, program: number, askSize: Ask, ask: Ask): Uint8Array {
  const size = new OutCell();
  const sized = askSize(program, size.bytes);
  if (sized !== Result.success) throw failure(nvrtc, name, sized, "");
  if (size.u64 === 0) throw new HeadraceError("BAD_KERNEL", `kernel ${name}: NVRTC made nothing of it`);
  const bytes = new Uint8Array(new ArrayBuffer(size.u64));
  const read = ask(program, bytes);
  if (read !== Result.success) throw failure(nvrtc, name, read, "");
  return bytes;
}

/** What the compiler wrote; empty where it cannot be had, as it only explains a failure that is known already. */
function logOf({ symbols }: Nvrtc, program: number): string {
  const size = new OutCell();
  if (symbols.nvrtcGetProgramLogSize(program, size.bytes) !== 0 || size.u64 === 0) return "";
  const log = new Uint8Array(new ArrayBuffer(size.u64));
  return symbols.nvrtcGetProgramLog(program, log) === 0 ? textOf(log) : "";
}

function failure(nvrtc: Nvrtc, name: string, result: number, log: string): HeadraceError {
  const compiler = `NVRTC ${versionText(nvrtc.version)}`;
  const options = log === "" ? {} : { cause: new Error(log) };
  if (result === Result.compilation) {
    return new HeadraceError("BAD_KERNEL", `kernel ${name}: ${firstError(log)} (${compiler})`, options);
  }
  const what = `kernel ${name}: ${compiler} failed: ${nvrtcErrorText(nvrtc, result)}`;
  if (result === Result.outOfMemory) return new HeadraceError("OUT_OF_MEMORY", what, options);
  if (result === Result.builtins) {
    const mend = `libnvrtc-builtins of the same version has to lie beside ${nvrtc.path}`;
    return new HeadraceError("UNSUPPORTED", `${what}; ${mend}`, options);
  }
  const said = firstLine(log);
  return new HeadraceError("DEVICE_FAILED", said === "" ? what : `${what}: ${said}`, options);
}

/** `line 3: identifier "x" is undefined` from a whole log. */
export function firstError(log: string): string {
  const found = /^(.*)\((\d+)\): (?:catastrophic )?error[^:]*: (.+)$/m.exec(log);
  if (found === null) return firstLine(log) || "does not compile, and the compiler does not say why";
  const [, file, line, text] = found;
  return file === TEXT_NAME ? `line ${line}: ${text}` : `${file} line ${line}: ${text}`;
}

function firstLine(log: string): string {
  return (
    log
      .split("\n")
      .find((line) => line.trim() !== "")
      ?.trim() ?? ""
  );
}

function tooOld(nvrtc: Nvrtc, name: string, { computeCapability }: Target): HeadraceError {
  const least = nvrtc.architectures[0] ?? KNOWN_ARCHITECTURES[0]!;
  const text = `NVRTC ${versionText(nvrtc.version)} compiles for compute capability ${capabilityText(least)} and later`;
  const mend = "set HEADRACE_NVRTC_LIBRARY to an older one";
  return new HeadraceError(
    "UNSUPPORTED",
    `kernel ${name}: ${text}, and this GPU has ${capabilityText(computeCapability)}; ${mend}`,
  );
}

/** `9.0` for 90. */
export function capabilityText(computeCapability: number): string {
  return `${Math.floor(computeCapability / 10)}.${computeCapability % 10}`;
}

/** Texts as C takes several: an array of pointers, and what they point to behind it, in one buffer that stays where it
 * is. */
class CStrings {
  readonly length: number;
  readonly bytes: Uint8Array<ArrayBuffer>;

  constructor(texts: readonly string[]) {
    const encoded = texts.map(cText);
    const head = encoded.length * 8;
    const byteLength = encoded.reduce((sum, { length }) => sum + length, head);
    this.length = encoded.length;
    this.bytes = new Uint8Array(new ArrayBuffer(byteLength));
    const address = ptr(this.bytes);
    const view = new DataView(this.bytes.buffer);
    let at = head;
    for (const [i, text] of encoded.entries()) {
      view.setBigUint64(i * 8, BigInt(address + at), true);
      this.bytes.set(text, at);
      at += text.length;
    }
  }
}
