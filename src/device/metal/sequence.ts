/** Dispatches that the library has checked and resolved once. */
import type { Sequence } from "../device.ts";
import type { DispatchCall } from "../requests.ts";
import { type MetalContext, NativeObject } from "./context.ts";
import { Dispatches } from "./dispatches.ts";

export class MetalSequence extends NativeObject implements Sequence {
  constructor(context: MetalContext, handle: number) {
    super(context, handle, false);
  }
}

/** Throws as a submission of the same calls would. */
export function createMetalSequence(context: MetalContext, calls: readonly DispatchCall[]): MetalSequence {
  const packed = new Dispatches(context);
  for (const call of calls) packed.add(call, (buffer) => buffer.region.handle);
  const { symbols, handleOut, error } = context;
  const handle = context.make("a sequence", () =>
    symbols.hr_sequence_create(
      context.handle,
      packed.dispatches,
      packed.numDispatches,
      packed.bindings,
      packed.numBindings,
      packed.constants,
      packed.constantsLength,
      handleOut,
      error.bytes,
    ),
  );
  return new MetalSequence(context, handle);
}
