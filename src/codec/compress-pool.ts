/** Workers that compress chunks of a container. */
import type { CompressDone, CompressEnd, CompressStart, CompressWork } from "./compress-worker.ts";
import { WorkerPool } from "./worker-pool.ts";

/** Threads that end by themselves when the pool is closed, after the chunks that they are at. */
export function openCompressPool(
  settings: Omit<CompressStart, "stop">,
  numThreads: number,
): WorkerPool<CompressWork, CompressDone> {
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const kind = {
    does: "compresses",
    start() {
      const worker = new Worker(new URL("./compress-worker.ts", import.meta.url));
      worker.postMessage({ ...settings, stop } satisfies CompressStart);
      return worker;
    },
    end(worker: Worker) {
      Atomics.store(stop, 0, 1);
      worker.postMessage("end" satisfies CompressEnd);
    },
  };
  return new WorkerPool(kind, numThreads);
}
