/** The Worker of one lane that decodes. */
import type { LaneStart } from "../host/lane.ts";
import { DecodeLane } from "./decode-lane.ts";

declare const self: Worker;

self.onmessage = (event: MessageEvent<LaneStart>) => {
  new DecodeLane(event.data).run();
};
