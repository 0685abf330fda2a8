/** The Worker of one lane of the host device. */
import { Lane, type LaneStart } from "./lane.ts";

declare const self: Worker;

self.onmessage = (event: MessageEvent<LaneStart>) => {
  new Lane(event.data).run();
};
