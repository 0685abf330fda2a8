/** Sequences of the CUDA device: recorded once as a graph, where the driver has graphs. */

import { HostSequence } from "../host/dispatch.ts";
import type { ResolvedDispatch } from "../host/pipeline.ts";
import type { DispatchCall } from "../requests.ts";
import type { CudaContext } from "./context.ts";
import type { Graph, Graphs } from "./graphs.ts";
import type { Launcher } from "./launch.ts";

// A registry that is collected with its device would destroy nothing, so it belongs to the module.
const forgottenGraphs = new FinalizationRegistry<Graph>((graph) => graph.close());

export interface SequenceParts {
  readonly context: CudaContext;
  readonly launcher: Launcher;
  readonly graphs: Graphs;
}

/**
 * A replay with the offsets that the sequence was made with is one launch of its graph. One with other offsets launches
 * its kernels one by one: their arguments lie in the graph, and changing them takes a call for each as well.
 */
export class CudaSequence extends HostSequence {
  /** Undefined where there is nothing to run, or the driver has no graphs. */
  readonly graph: Graph | undefined;
  /** Launches that use mappings of files, which have to be registered when they run. */
  readonly withMappings: readonly ResolvedDispatch[];

  /** Throws what a submission of these dispatches would throw, sooner or later. */
  constructor({ context, launcher, graphs }: SequenceParts, calls: readonly DispatchCall[]) {
    super(context, calls);
    this.withMappings = this.dispatches.filter(({ buffers }) =>
      buffers.some(({ region }) => region.descriptor !== undefined),
    );
    try {
      context.use();
      for (const dispatch of this.dispatches) launcher.check(dispatch);
      this.graph = graphs.record(this.dispatches);
    } catch (error) {
      this.close();
      throw error;
    }
    if (this.graph !== undefined) forgottenGraphs.register(this, this.graph, this);
  }

  /** Of all kernels. */
  get names(): string[] {
    return this.dispatches.map(({ pipeline }) => pipeline.name);
  }

  /** Whether these are its launches as they were made, and so those of {@link CudaSequence.graph}. */
  isUnchanged(dispatches: readonly ResolvedDispatch[]): boolean {
    return dispatches === this.dispatches;
  }

  protected override free(): void {
    forgottenGraphs.unregister(this);
    this.graph?.close();
    super.free();
  }
}
