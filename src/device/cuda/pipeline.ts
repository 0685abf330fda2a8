/** Kernels compiled from their portable text, and the modules they lie in. */
import { HeadraceError } from "../../errors.ts";
import { argumentsOf, type KernelArgument } from "../../kernels/signature.ts";
import type { KernelSource } from "../device.ts";
import type { HostContext } from "../host/context.ts";
import { EnginePipeline, type ResolvedDispatch } from "../host/pipeline.ts";
import { cText, OutCell } from "./cells.ts";
import { compileKernel, type KernelText, type Target } from "./compile.ts";
import type { CudaDriver } from "./driver.ts";
import { checkResult, cudaError } from "./errors.ts";
import { type Nvrtc, type NvrtcSearch, openNvrtc } from "./nvrtc.ts";

/** Of `enum CUfunction_attribute`. */
const MAX_THREADS_PER_BLOCK = 0;
const SHARED_SIZE_BYTES = 1;
const MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
/** Of `CUresult`. */
const NOT_FOUND = 500;

/** A loaded module: the code of one text with one set of function constants. */
export interface CudaModule {
  /** CUmodule. */
  readonly handle: number;
}

export class CudaPipeline extends EnginePipeline {
  /** CUfunction; valid until its compiler is closed. */
  readonly functionHandle: number;
  /** Threads of a group at most. */
  readonly maxThreadsPerBlock: number;
  readonly module: CudaModule;
  readonly #driver: CudaDriver;
  /** Threadgroup memory of the kernel's own arrays. */
  readonly #ownGroupBytes: number;
  /** What launches may ask for beside that; the driver wants to be told of more than some 48 KiB in all. */
  #groupBytes: number;

  readonly #arguments: readonly KernelArgument[] | undefined;

  /** Takes up the kernel `name` of a module, whose context is current; `text` is what the module was compiled from.
   * Throws `BAD_KERNEL` where there is none. */
  constructor(context: HostContext, driver: CudaDriver, module: CudaModule, name: string, text: string) {
    super(context, name);
    this.#arguments = argumentsOf(text, name);
    this.module = module;
    this.#driver = driver;
    const { symbols } = driver;
    const cell = new OutCell();
    const found = symbols.cuModuleGetFunction(cell.clear(), module.handle, cText(name));
    if (found === NOT_FOUND) {
      throw new HeadraceError("BAD_KERNEL", `kernel ${name}: its text has no HR_KERNEL of that name`);
    }
    checkResult(driver, `kernel ${name}: cuModuleGetFunction`, found);
    this.functionHandle = cell.u64;
    this.maxThreadsPerBlock = this.#attribute(MAX_THREADS_PER_BLOCK);
    this.#ownGroupBytes = this.#attribute(SHARED_SIZE_BYTES);
    this.#groupBytes = this.#attribute(MAX_DYNAMIC_SHARED_SIZE_BYTES);
  }

  /** An argument that is missing, misplaced or not to be written to ends the context, and with it all of CUDA in the
   * process. */
  override checkCall(buffers: ResolvedDispatch["buffers"], constants: Uint8Array): void {
    if (this.#arguments === undefined) return;
    const wanted = this.#arguments.filter(({ kind }) => kind !== "constants");
    const what = `dispatch of ${this.name}`;
    if (buffers.length !== wanted.length) {
      throw refused(`${what}: ${buffers.length} buffers were given, and the kernel takes ${wanted.length}`);
    }
    const takesConstants = wanted.length < this.#arguments.length;
    if (takesConstants !== constants.byteLength > 0) {
      const takes = takesConstants ? "takes some" : "takes none";
      throw refused(
        `${what}: ${constants.byteLength} bytes of constants were given, and the kernel ${takes}`,
      );
    }
    for (const [index, { region, offset }] of buffers.entries()) {
      const { kind, type, alignment = 1 } = wanted[index]!;
      if (kind === "out" && region.extent.kind === "file") {
        const path = region.descriptor?.path ?? "a file";
        throw refused(`${what}: buffer ${index} is written to, and the mapping of ${path} can only be read`);
      }
      if ((region.address + offset) % alignment === 0) continue;
      const text = `buffer ${index} holds ${type}, which must start on a multiple of ${alignment} bytes`;
      throw refused(`${what}: ${text}, and its offset is ${offset}`);
    }
  }

  /** Has later launches take up to `byteLength` bytes of threadgroup memory beside the kernel's own. Its context is
   * current. Throws `BAD_OPTION` for more than the device has. */
  allowGroupBytes(byteLength: number): void {
    if (byteLength <= this.#groupBytes) return;
    const { cuFuncSetAttribute } = this.#driver.symbols;
    const result = cuFuncSetAttribute(this.functionHandle, MAX_DYNAMIC_SHARED_SIZE_BYTES, byteLength);
    if (result !== 0) {
      const error = cudaError(this.#driver, "cuFuncSetAttribute", result);
      if (error.code === "DEVICE_LOST") throw error;
      const asked = `kernel ${this.name}: ${byteLength} bytes of threadgroup memory`;
      const text = `${asked} beside its own ${this.#ownGroupBytes} are more than this device gives`;
      throw new HeadraceError("BAD_OPTION", `${text} (${error.message})`);
    }
    this.#groupBytes = byteLength;
  }

  #attribute(attribute: number): number {
    const cell = new OutCell();
    const { cuFuncGetAttribute } = this.#driver.symbols;
    const result = cuFuncGetAttribute(cell.clear(), attribute, this.functionHandle);
    checkResult(this.#driver, `kernel ${this.name}: cuFuncGetAttribute ${attribute}`, result);
    return cell.i32;
  }
}

/** What {@link CudaCompiler} works with. */
export interface CompilerParts extends Target {
  readonly driver: CudaDriver;
  /** Path of libnvrtc; false for none, undefined to find it. */
  readonly nvrtc: string | false | undefined;
  /** Makes the device's context the current one of the calling thread. */
  makeCurrent(): void;
}

/** Compiles the kernels of one device, each text once for the same function constants. */
export class CudaCompiler {
  readonly #parts: CompilerParts;
  /** A text may be long, and is kept by its digest alone. */
  readonly #modules = new Map<string, CudaModule>();
  #search: NvrtcSearch | undefined;

  constructor(parts: CompilerParts) {
    this.#parts = parts;
  }

  /** NVRTC, which is looked for when this is first asked; loading it takes some 30 ms. */
  get nvrtc(): NvrtcSearch {
    const { nvrtc: library, driverVersion } = this.#parts;
    this.#search ??= openNvrtc({ library, driverVersion });
    return this.#search;
  }

  /** Throws `UNSUPPORTED` without a text or without NVRTC, `BAD_KERNEL` where the text does not compile, `BAD_OPTION`
   * for a function constant that is not of its type, `DEVICE_LOST` and the like. */
  compile(context: HostContext, source: KernelSource): CudaPipeline {
    const { name, text } = source;
    if (typeof text !== "string") {
      throw new HeadraceError("UNSUPPORTED", `kernel ${name}: has no text, which this device compiles`);
    }
    const module = this.#module({ ...source, text });
    this.#parts.makeCurrent();
    return new CudaPipeline(context, this.#parts.driver, module, name, text);
  }

  /** Unloads all modules; no kernel of theirs may run any more, and the context still exists. */
  close(): void {
    if (this.#modules.size === 0) return;
    const { driver } = this.#parts;
    try {
      this.#parts.makeCurrent();
    } catch {
      // They end with their context.
      return;
    }
    // What fails here ends with the context as well.
    for (const { handle } of this.#modules.values()) driver.symbols.cuModuleUnload(handle);
    this.#modules.clear();
  }

  #module(source: KernelText): CudaModule {
    const key = keyOf(source);
    const known = this.#modules.get(key);
    if (known !== undefined) return known;
    const image = compileKernel(this.#requireNvrtc(source.name), source, this.#parts);
    const { driver } = this.#parts;
    this.#parts.makeCurrent();
    const cell = new OutCell();
    const result = driver.symbols.cuModuleLoadData(cell.clear(), image);
    checkResult(driver, `kernel ${source.name}: cuModuleLoadData of ${image.byteLength} bytes`, result);
    const module = { handle: cell.u64 };
    this.#modules.set(key, module);
    return module;
  }

  #requireNvrtc(name: string): Nvrtc {
    const search = this.nvrtc;
    if (search.nvrtc !== undefined) return search.nvrtc;
    throw new HeadraceError("UNSUPPORTED", `kernel ${name}: needs NVRTC to be compiled: ${search.reason}`);
  }
}

function keyOf({ text, functionConstants = [] }: KernelText): string {
  // Not by JSON, which has one form for NaN and infinity, and none of its own for -0.
  const constants = functionConstants.map(({ index, type, value }) => {
    return `${index} ${type} ${Object.is(value, -0) ? "-0" : value}`;
  });
  return new Bun.CryptoHasher("sha256").update([...constants, "", text].join("\n")).digest("hex");
}

function refused(message: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", message);
}
