/** Kernel launches as the library takes them: rows of hr_dispatch and hr_binding, and one run of constants. */
import { HeadraceError } from "../../errors.ts";
import { GROUP_SIZE } from "../../kernels/portable.ts";
import { closedError } from "../common/errors.ts";
import { checkRange, type DispatchCall } from "../requests.ts";
import { STRUCTS } from "./abi.ts";
import type { MetalContext } from "./context.ts";
import { MetalBuffer } from "./memory.ts";
import { MetalPipeline } from "./pipeline.ts";

/** Bytes of constants that one launch can take. */
const MAX_CONSTANTS = 4096;
const MAX_U32 = 0xffffffff;
const DISPATCH = STRUCTS.hr_dispatch.byteLength / 4;
const BINDING = STRUCTS.hr_binding.byteLength / 8;
const AT = Object.fromEntries(
  Object.entries(STRUCTS.hr_dispatch.fields).map(([name, at]) => [name, at / 4]),
) as Record<keyof typeof STRUCTS.hr_dispatch.fields, number>;

/** How a binding names its buffer: by handle in a sequence, by number among a submission's objects. */
export type NameBuffer = (buffer: MetalBuffer) => number;

/** Grows and is used again. */
export class Dispatches {
  /** Valid up to `numDispatches * 14` numbers. */
  dispatches = new Uint32Array(new ArrayBuffer(16 * DISPATCH * 4));
  numDispatches = 0;
  /** Valid up to `numBindings * 4` numbers. */
  bindings = new Float64Array(new ArrayBuffer(64 * BINDING * 8));
  numBindings = 0;
  constants = new Uint8Array(new ArrayBuffer(MAX_CONSTANTS));
  constantsLength = 0;
  readonly #context: MetalContext;

  constructor(context: MetalContext) {
    this.#context = context;
  }

  clear(): void {
    this.numDispatches = 0;
    this.numBindings = 0;
    this.constantsLength = 0;
  }

  /** Adds a launch, and returns its number. Throws `BAD_OPTION`, `CLOSED`, `OUT_OF_RANGE`. */
  add(call: DispatchCall, nameBuffer: NameBuffer): number {
    const pipeline = this.#check(call);
    const firstBinding = this.numBindings;
    for (const [index, binding] of call.buffers.entries()) {
      const buffer = this.#bufferOf(call, binding.buffer, index);
      const what = `dispatch of ${pipeline.name}: buffer ${index}`;
      checkRange(what, binding.offset, 0, buffer.byteLength);
      const slot = binding.slot ?? -1;
      if (!Number.isInteger(slot) || slot < -1 || slot > MAX_U32) {
        throw new HeadraceError("BAD_OPTION", `${what}: slot ${slot} is no non-negative integer`);
      }
      this.#addBinding(nameBuffer(buffer), binding.offset, index, slot);
    }
    pipeline.checkCall(call);
    const constantsOffset = this.#addConstants(call.constants);
    const row = this.numDispatches * DISPATCH;
    if (row + DISPATCH > this.dispatches.length) this.#growDispatches();
    const out = this.dispatches;
    out[row + AT.pipeline] = pipeline.handle;
    out[row + AT.first_binding] = firstBinding;
    out[row + AT.binding_count] = call.buffers.length;
    out[row + AT.constants_offset] = constantsOffset;
    out[row + AT.constants_length] = call.constants.byteLength;
    out[row + AT.constants_index] = call.buffers.length;
    out.fill(1, row + AT.threads, row + AT.threads + 3);
    out[row + AT.threads] = call.threads;
    const group = call.threadsPerGroup ?? GROUP_SIZE;
    out.fill(1, row + AT.group, row + AT.group + 3);
    out[row + AT.group] = group;
    out[row + AT.threadgroup_memory] = call.threadgroupBytes ?? 0;
    out[row + AT.reserved] = 0;
    return this.numDispatches++;
  }

  #check(call: DispatchCall): MetalPipeline {
    const { pipeline } = call;
    if (!(pipeline instanceof MetalPipeline) || pipeline.context !== this.#context) {
      throw this.#foreign("a pipeline");
    }
    if (pipeline.closed) throw closedError(`the pipeline ${pipeline.name}`);
    const what = `dispatch of ${pipeline.name}`;
    const { threadsPerGroup = 1, threadgroupBytes = 0 } = call;
    for (const [name, value, least] of [
      ["threads", call.threads, 0],
      ["threadsPerGroup", threadsPerGroup, 1],
      ["threadgroupBytes", threadgroupBytes, 0],
    ] as const) {
      if (Number.isInteger(value) && value >= least && value <= MAX_U32) continue;
      throw new HeadraceError(
        "BAD_OPTION",
        `${what}: ${name} ${value} is no integer from ${least} to ${MAX_U32}`,
      );
    }
    if (call.constants.byteLength > MAX_CONSTANTS) {
      const message = `${what}: ${call.constants.byteLength} bytes of constants are over ${MAX_CONSTANTS}`;
      throw new HeadraceError("BAD_OPTION", message);
    }
    return pipeline;
  }

  #bufferOf(call: DispatchCall, buffer: unknown, index: number): MetalBuffer {
    if (!(buffer instanceof MetalBuffer) || buffer.region.context !== this.#context) {
      throw this.#foreign("a buffer");
    }
    if (!buffer.closed) return buffer;
    throw closedError(`buffer ${index} of the dispatch of ${call.pipeline.name}`);
  }

  #addBinding(buffer: number, offset: number, index: number, slot: number): void {
    const at = this.numBindings * BINDING;
    if (at + BINDING > this.bindings.length) {
      const larger = new Float64Array(new ArrayBuffer(this.bindings.byteLength * 2));
      larger.set(this.bindings);
      this.bindings = larger;
    }
    this.bindings[at] = buffer;
    this.bindings[at + 1] = offset;
    this.bindings[at + 2] = index;
    this.bindings[at + 3] = slot;
    this.numBindings++;
  }

  #addConstants(bytes: Uint8Array): number {
    // Structs with 64-bit fields must lie where the library may read them as such.
    const offset = Math.ceil(this.constantsLength / 16) * 16;
    const end = offset + bytes.byteLength;
    if (end > this.constants.length) {
      const larger = new Uint8Array(new ArrayBuffer(Math.max(end, this.constants.length * 2)));
      larger.set(this.constants);
      this.constants = larger;
    }
    this.constants.set(bytes, offset);
    this.constantsLength = end;
    return offset;
  }

  #growDispatches(): void {
    const larger = new Uint32Array(new ArrayBuffer(this.dispatches.byteLength * 2));
    larger.set(this.dispatches);
    this.dispatches = larger;
  }

  #foreign(what: string): HeadraceError {
    const { deviceName } = this.#context;
    return new HeadraceError("BAD_OPTION", `${what} of the dispatch is not of this ${deviceName} device`);
  }
}
