/** The Worker of one lane of the CUDA device. */
import type { LaneStart } from "../host/lane.ts";
import { CudaLane } from "./lane.ts";

declare const self: Worker;

self.onmessage = (event: MessageEvent<LaneStart>) => {
  new CudaLane(event.data).run();
};
