/** Kernel launches, checked: single ones of a submission, and sequences that are replayed. */
import { HeadraceError } from "../../errors.ts";
import { closedError } from "../common/errors.ts";
import type { Sequence } from "../device.ts";
import { type BufferBinding, checkRange, type DispatchCall, OFFSET_FIELDS } from "../requests.ts";
import type { HostContext } from "./context.ts";
import { HostBuffer, type Region } from "./memory.ts";
import { EnginePipeline, type ResolvedDispatch } from "./pipeline.ts";

const MAX_CONSTANTS = 4096;

/** Checks one launch and copies what the caller may change. Throws `BAD_OPTION`, `CLOSED`, `OUT_OF_RANGE`,
 * `UNSUPPORTED`. */
export function resolveDispatch(context: HostContext, call: DispatchCall): ResolvedDispatch {
  const { pipeline } = call;
  if (!(pipeline instanceof EnginePipeline) || pipeline.context !== context)
    throw foreign(context, "a pipeline");
  if (pipeline.closed) throw closedError(`the pipeline ${pipeline.name}`);
  const what = `dispatch of ${pipeline.name}`;
  if (!Number.isSafeInteger(call.threads) || call.threads < 0) {
    throw new HeadraceError("BAD_OPTION", `${what}: threads ${call.threads} is no non-negative integer`);
  }
  if (!(call.constants instanceof Uint8Array)) {
    throw new HeadraceError("BAD_OPTION", `${what}: constants are no Uint8Array; give an empty one for none`);
  }
  if (call.constants.byteLength > MAX_CONSTANTS) {
    const message = `${what}: ${call.constants.byteLength} bytes of constants are over ${MAX_CONSTANTS}`;
    throw new HeadraceError("BAD_OPTION", message);
  }
  const buffers = call.buffers.map((binding, index) => resolveBuffer(context, binding, index, what));
  const constants = call.constants.slice();
  pipeline.checkCall(buffers, constants, call.threads);
  const { threads, threadsPerGroup, threadgroupBytes } = call;
  return { pipeline, buffers, constants, threads, threadsPerGroup, threadgroupBytes };
}

function resolveBuffer(context: HostContext, { buffer, offset }: BufferBinding, index: number, what: string) {
  if (!(buffer instanceof HostBuffer) || buffer.context !== context) throw foreign(context, "a buffer");
  if (buffer.region.closed) throw closedError(`buffer ${index} of the ${what}`);
  checkOffset(context, what, index, offset, buffer.region);
  return { region: buffer.region, offset };
}

function checkOffset(
  context: HostContext,
  what: string,
  index: number,
  offset: number,
  region: Region,
): void {
  checkRange(`${what}: buffer ${index}`, offset, 0, region.byteLength);
  if (region.byteLength - offset <= context.maxKernelBytes) return;
  const message = `${what}: buffer ${index} has over ${context.maxKernelBytes} bytes from its offset, more than a kernel of this device can see`;
  throw new HeadraceError("UNSUPPORTED", message);
}

/** The failure of using what another device made. */
export function foreign(context: HostContext, what: string): HeadraceError {
  return new HeadraceError(
    "BAD_OPTION",
    `${what} of the submission is not of this ${context.deviceName} device`,
  );
}

// A registry that is collected with its device would release nothing, so it belongs to the module.
const forgottenSequences = new FinalizationRegistry<ReadonlySet<Region>>((regions) => {
  for (const region of regions) region.release();
});

/** Launches that were checked once. Its memory stays until it is closed and no submission uses it. */
export class HostSequence implements Sequence {
  readonly context: HostContext;
  /** What its launches use. */
  readonly regions: ReadonlySet<Region>;
  /** Those of them that show files. */
  readonly #mapped: readonly Region[];
  protected readonly dispatches: readonly ResolvedDispatch[];
  /** Slots of the buffers of each launch; undefined for a fixed one. */
  readonly #slots: readonly (readonly (number | undefined)[])[];
  readonly #known: ReadonlySet<number>;
  #closed = false;
  /** Submissions that replay it. */
  #users = 0;

  /** Throws what {@link resolveDispatch} throws, and `BAD_OPTION` for a slot that is no non-negative integer. */
  constructor(context: HostContext, calls: readonly DispatchCall[]) {
    this.context = context;
    this.dispatches = calls.map((call) => resolveDispatch(context, call));
    this.#slots = calls.map((call) => call.buffers.map(({ slot }) => slot));
    this.#known = new Set(this.#slots.flat().filter((slot) => slot !== undefined));
    for (const slot of this.#known) {
      if (Number.isSafeInteger(slot) && slot >= 0) continue;
      throw new HeadraceError("BAD_OPTION", `slot ${slot} of the sequence is no non-negative integer`);
    }
    this.regions = new Set(this.dispatches.flatMap(({ buffers }) => buffers.map(({ region }) => region)));
    this.#mapped = [...this.regions].filter(({ descriptor }) => descriptor !== undefined);
    for (const region of this.regions) region.retain();
    forgottenSequences.register(this, this.regions, this);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Throws `FILE_CHANGED` where the file behind a mapping has shrunk. */
  checkFiles(): void {
    for (const region of this.#mapped) region.checkFile();
  }

  /** For a submission: all that its launches use stays until {@link HostSequence.release}. */
  retain(): void {
    this.#users++;
  }

  release(): void {
    this.#users--;
    if (this.#closed && this.#users === 0) this.free();
  }

  /** The launches with other offsets: `count` pairs of `offsets` from pair `first` on. Throws `BAD_OPTION` for a
   * slot that no buffer has, `OUT_OF_RANGE` for an offset outside one. */
  at(offsets: Float64Array, first: number, count: number): readonly ResolvedDispatch[] {
    if (count === 0) return this.dispatches;
    const given = new Map<number, number>();
    for (let i = first; i < first + count; i++) {
      const slot = offsets[i * OFFSET_FIELDS]!;
      if (!this.#known.has(slot)) {
        const slots = [...this.#known].sort((a, b) => a - b).join(", ") || "none";
        throw new HeadraceError("BAD_OPTION", `slot ${slot} is none of the sequence's: ${slots}`);
      }
      given.set(slot, offsets[i * OFFSET_FIELDS + 1]!);
    }
    return this.dispatches.map((dispatch, i) => moved(dispatch, this.#slots[i]!, given));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    forgottenSequences.unregister(this);
    if (this.#users === 0) this.free();
  }

  /** Called once, when it is closed and nothing runs of it. */
  protected free(): void {
    for (const region of this.regions) region.release();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function moved(
  dispatch: ResolvedDispatch,
  slots: readonly (number | undefined)[],
  given: ReadonlyMap<number, number>,
): ResolvedDispatch {
  const buffers = dispatch.buffers.map((buffer, index) => {
    const slot = slots[index];
    const offset = slot === undefined ? undefined : given.get(slot);
    if (offset === undefined) return buffer;
    const { context, name } = dispatch.pipeline;
    checkOffset(context, `dispatch of ${name}`, index, offset, buffer.region);
    return { region: buffer.region, offset };
  });
  dispatch.pipeline.checkCall(buffers, dispatch.constants, dispatch.threads);
  return { ...dispatch, buffers };
}
