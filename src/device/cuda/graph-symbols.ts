/** The functions of the driver's graphs, which drivers before CUDA 11.4 lack. */
import { dlopen } from "bun:ffi";
import { checkedFunctions, type Functions, ffiTable, type Signature } from "./symbols.ts";

/** CUgraph and CUgraphExec are pointers, a CUstreamCaptureMode is an int. */
export const GRAPH_SYMBOLS = {
  // CUresult cuStreamBeginCapture_v2(CUstream hStream, CUstreamCaptureMode mode);
  cuStreamBeginCapture_v2: { args: ["pointer", "i32"] },
  // CUresult cuStreamEndCapture(CUstream hStream, CUgraph *phGraph);
  cuStreamEndCapture: { args: ["pointer", "bytes"] },
  // CUresult cuGraphInstantiateWithFlags(CUgraphExec *phGraphExec, CUgraph hGraph, unsigned long long flags);
  cuGraphInstantiateWithFlags: { args: ["bytes", "pointer", "size"] },
  // CUresult cuGraphDestroy(CUgraph hGraph);
  cuGraphDestroy: { args: ["pointer"] },
  // CUresult cuGraphLaunch(CUgraphExec hGraphExec, CUstream hStream);
  cuGraphLaunch: { args: ["pointer", "pointer"] },
  // CUresult cuGraphExecDestroy(CUgraphExec hGraphExec);
  cuGraphExecDestroy: { args: ["pointer"] },
} as const satisfies Record<string, Signature>;

export type GraphFunctions = Functions<typeof GRAPH_SYMBOLS>;

/** Binds them from the driver's library at `path`; undefined where it lacks one of them. */
export function bindGraphs(path: string): GraphFunctions | undefined {
  try {
    return checkedFunctions(GRAPH_SYMBOLS, dlopen(path, ffiTable(GRAPH_SYMBOLS)).symbols);
  } catch {
    return undefined;
  }
}
