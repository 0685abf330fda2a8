/** A batch between being asked for and being handed out. */
import type { Ticket } from "../device/device.ts";
import type { Step } from "../plan/sampler.ts";
import type { Segment } from "./arena.ts";
import type { Assembled } from "./assemble.ts";
import type { Cursor } from "./walk.ts";

/** A batch that is on its way, or the reason why none comes. */
export interface Pending {
  readonly title: string;
  readonly epoch: number;
  readonly step: Step | undefined;
  readonly segment: Segment;
  readonly assembled: Assembled | undefined;
  readonly ticket: Ticket | undefined;
  readonly after: Cursor;
  readonly error: unknown;
}
