/** Kernels compiled from their portable text. */
import { HeadraceError } from "../../errors.ts";
import type { FunctionConstant, KernelSource, Pipeline } from "../device.ts";
import type { DispatchCall } from "../requests.ts";
import { ConstantType, STRUCTS } from "./abi.ts";
import { cString, type MetalContext, NativeObject } from "./context.ts";

const CONSTANT = STRUCTS.hr_constant.byteLength;

export class MetalPipeline extends NativeObject implements Pipeline {
  readonly name: string;

  constructor(context: MetalContext, handle: number, name: string) {
    super(context, handle, false);
    this.name = name;
  }

  /** Throws `BAD_OPTION` or `OUT_OF_RANGE` for a call that it does not take. */
  checkCall(_call: DispatchCall): void {}
}

/** Compiles the kernels of one device. Texts are compiled once as long as they are among the last few used. */
export class MetalCompiler {
  readonly #context: MetalContext;
  readonly #header: string;
  readonly #archive: Uint8Array | null;
  readonly #libraries = new Map<string, NativeObject>();

  /** `header` comes before every text; `archive` is the path of a binary archive to look in and to add to. */
  constructor(context: MetalContext, header: string, archive: string | undefined) {
    this.#context = context;
    this.#header = header;
    this.#archive = archive === undefined ? null : cString(archive);
  }

  /** Throws `UNSUPPORTED` without a text, `BAD_KERNEL` where it does not compile. */
  compile(source: KernelSource): MetalPipeline {
    const { name, text } = source;
    if (typeof text !== "string") {
      throw new HeadraceError("UNSUPPORTED", `kernel ${name}: has no text, which this device compiles`);
    }
    const library = this.#library(name, text);
    const { symbols, handleOut, error } = this.#context;
    const constants = source.functionConstants ?? [];
    const rows = constantRows(name, constants);
    const info = new Uint32Array(new ArrayBuffer(STRUCTS.hr_pipeline_info.byteLength));
    const kernel = cString(name);
    const handle = this.#context.make(`kernel ${name}`, () =>
      symbols.hr_pipeline_create(
        library.handle,
        kernel,
        rows,
        constants.length,
        this.#archive,
        handleOut,
        info,
        error.bytes,
      ),
    );
    return new MetalPipeline(this.#context, handle, name);
  }

  #library(name: string, text: string): NativeObject {
    const known = this.#libraries.get(text);
    if (known !== undefined) return known;
    const { symbols, handle: device, handleOut, error } = this.#context;
    const source = cString(this.#header + text);
    const handle = this.#context.make(`kernel ${name}`, () =>
      symbols.hr_library_create(device, source, null, 0, handleOut, error.bytes),
    );
    const library = new NativeObject(this.#context, handle, false);
    this.#libraries.set(text, library);
    if (this.#libraries.size > LIBRARIES_KEPT) {
      const [oldest] = this.#libraries.keys();
      this.#libraries.get(oldest!)?.close();
      this.#libraries.delete(oldest!);
    }
    return library;
  }
}

/** Compiled texts kept for other kernels of theirs. */
const LIBRARIES_KEPT = 16;

/** Throws `BAD_OPTION` for a value that is not of its type. */
function constantRows(name: string, constants: readonly FunctionConstant[]): Uint8Array | null {
  if (constants.length === 0) return null;
  const { index: INDEX, type: TYPE, bits: BITS } = STRUCTS.hr_constant.fields;
  const rows = new DataView(new ArrayBuffer(constants.length * CONSTANT));
  for (const [row, { index, type, value }] of constants.entries()) {
    const at = row * CONSTANT;
    const code = ConstantType[type];
    if (code === undefined || !fits(type, value) || !(Number.isInteger(index) && index >= 0)) {
      const what = `function constant ${index}: ${value} is no ${type}`;
      throw new HeadraceError("BAD_OPTION", `kernel ${name}: ${what}`);
    }
    rows.setUint32(at + INDEX, index, true);
    rows.setUint32(at + TYPE, code, true);
    if (type === "float") rows.setFloat32(at + BITS, Number(value), true);
    else rows.setUint32(at + BITS, Number(value), true);
  }
  return new Uint8Array(rows.buffer);
}

function fits(type: FunctionConstant["type"], value: number | boolean): boolean {
  if (type === "bool") return typeof value === "boolean";
  if (typeof value !== "number") return false;
  if (type === "int") return value === (value | 0);
  if (type === "uint") return value === value >>> 0;
  return true;
}
