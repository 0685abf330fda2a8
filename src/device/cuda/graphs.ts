/** Launches recorded as graphs of the driver's: what takes a call for each is then one call for all. */
import type { ResolvedDispatch } from "../host/pipeline.ts";
import { OutCell } from "./cells.ts";
import type { CudaContext } from "./context.ts";
import { STREAM_NON_BLOCKING } from "./flags.ts";
import type { GraphFunctions } from "./graph-symbols.ts";
import type { Launcher } from "./launch.ts";
import { needsWorkspace, type Workspaces } from "./workspaces.ts";

/** CU_STREAM_CAPTURE_MODE_RELAXED: a library that loads a kernel meanwhile may. Nothing else runs in between, as a
 * recording is one call on the thread of all launches. */
const RELAXED = 2;
/** CUDA_ERROR_NOT_SUPPORTED: of machines whose driver has the functions alone. */
const NOT_SUPPORTED = 801;

export interface GraphParts {
  readonly context: CudaContext;
  readonly launcher: Launcher;
  readonly workspaces: Workspaces;
  /** Undefined for no graphs. */
  readonly functions: GraphFunctions | undefined;
}

/** The graphs of one device. */
export class Graphs {
  readonly #parts: GraphParts;
  readonly #live = new Set<Graph>();
  readonly #out = new OutCell();
  #functions: GraphFunctions | undefined;
  /** A CUstream that launches are recorded in, and nothing ever runs. */
  #stream = 0;

  constructor(parts: GraphParts) {
    this.#parts = parts;
    this.#functions = parts.functions;
  }

  /** Whether launches can be recorded, as far as that is known. */
  get available(): boolean {
    return this.#functions !== undefined;
  }

  /** Records checked dispatches, to be run one after the other: undefined where the driver has no graphs, or there is
   * nothing to run. Throws what a launch throws. */
  record(dispatches: readonly ResolvedDispatch[]): Graph | undefined {
    const functions = this.#functions;
    const runs = dispatches.some(({ threads }) => threads > 0);
    if (functions === undefined || !runs) return undefined;
    const { context, launcher, workspaces } = this.#parts;
    context.use();
    // Memory is taken before, as there is no taking any during a recording.
    const workspace = needsWorkspace(dispatches) ? workspaces.create() : undefined;
    const freeWorkspace = () => workspace && workspaces.free(workspace);
    let made = 0;
    try {
      const recorded = this.#capture(functions, (stream) => {
        for (const dispatch of dispatches) launcher.dispatch(stream, dispatch, workspace);
      });
      if (recorded === undefined) {
        freeWorkspace();
        return undefined;
      }
      made = recorded;
      const executable = context.make("cuGraphInstantiateWithFlags", (out) =>
        functions.cuGraphInstantiateWithFlags(out, recorded, 0),
      );
      const graph = new Graph(functions, context, executable, () => {
        this.#live.delete(graph);
        freeWorkspace();
      });
      this.#live.add(graph);
      return graph;
    } catch (error) {
      freeWorkspace();
      throw error;
    } finally {
      if (made !== 0) functions.cuGraphDestroy(made);
    }
  }

  /** Destroys the graphs that are left. None of them runs any more. */
  close(): void {
    for (const graph of [...this.#live]) graph.close();
    this.#forgetStream();
  }

  /** The CUgraph of what `launch` puts into the stream that it gets; undefined where the machine cannot. */
  #capture(functions: GraphFunctions, launch: (stream: number) => void): number | undefined {
    const { context } = this.#parts;
    const { cuStreamCreate } = context.driver.symbols;
    this.#stream ||= context.make("cuStreamCreate", (out) => cuStreamCreate(out, STREAM_NON_BLOCKING));
    const stream = this.#stream;
    const begun = functions.cuStreamBeginCapture_v2(stream, RELAXED);
    if (begun === NOT_SUPPORTED) {
      this.#functions = undefined;
      return undefined;
    }
    context.check("cuStreamBeginCapture", begun);
    try {
      launch(stream);
    } catch (error) {
      this.#abandon(functions, stream);
      throw error;
    }
    const ended = functions.cuStreamEndCapture(stream, this.#out.clear());
    // It may still record, or be good for nothing.
    if (ended !== 0) this.#forgetStream();
    context.check("cuStreamEndCapture", ended);
    return this.#out.u64;
  }

  /** Ends a recording in which a launch failed, so that the next one can begin. */
  #abandon(functions: GraphFunctions, stream: number): void {
    const result = functions.cuStreamEndCapture(stream, this.#out.clear());
    const graph = this.#out.u64;
    if (result === 0 && graph !== 0) functions.cuGraphDestroy(graph);
    if (result !== 0) this.#forgetStream();
  }

  #forgetStream(): void {
    const { driver, lost, destroyed } = this.#parts.context;
    if (this.#stream !== 0 && !destroyed && lost === undefined)
      driver.symbols.cuStreamDestroy_v2(this.#stream);
    this.#stream = 0;
  }
}

/** An executable graph. Its kernels get what they were recorded with; the memory behind that is its owner's to keep. */
export class Graph {
  readonly #functions: GraphFunctions;
  readonly #context: CudaContext;
  readonly #handle: number;
  readonly #closed: () => void;
  #open = true;

  constructor(functions: GraphFunctions, context: CudaContext, handle: number, closed: () => void) {
    this.#functions = functions;
    this.#context = context;
    this.#handle = handle;
    this.#closed = closed;
  }

  /** Puts all of it into `stream`, a CUstream. Throws `DEVICE_LOST`, `DEVICE_FAILED`. */
  launch(stream: number): void {
    this.#context.check("cuGraphLaunch", this.#functions.cuGraphLaunch(this.#handle, stream));
  }

  /** When it runs no longer. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    const context = this.#context;
    if (!context.destroyed && context.lost === undefined) {
      context.driver.symbols.cuCtxSetCurrent(context.handle);
      // What fails here ends with the context.
      this.#functions.cuGraphExecDestroy(this.#handle);
    }
    this.#closed();
  }
}
