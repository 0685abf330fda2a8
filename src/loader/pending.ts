/** A batch between being asked for and being handed out. */
import { HeadraceError } from "../errors.ts";
import type { Step } from "../plan/sampler.ts";
import type { Segment } from "./arena.ts";
import type { Assembled } from "./assemble.ts";
import type { Fetch } from "./fetch.ts";
import type { Cursor } from "./walk.ts";

/** A batch that is on its way, or the reason why none comes. */
export interface Pending {
  readonly title: string;
  readonly epoch: number;
  readonly step: Step | undefined;
  readonly segment: Segment;
  readonly assembled: Assembled | undefined;
  readonly fetch: Fetch | undefined;
  readonly after: Cursor;
  readonly error: unknown;
}

/** Why a batch's bytes did not come in time, in words of the batch: tickets mean nothing to who asked for it. */
export function lateBatch(pending: Pending, timeoutMs: number | undefined, cause: unknown): HeadraceError {
  const shards = [...(pending.assembled?.pins.shards ?? [])];
  const copied = shards.filter(({ path }) => path.strategy !== "map");
  const from = copied.length > 0 ? copied : shards;
  const ways = [...new Set(from.map(({ path }) => path.strategy))].join(" and ");
  const more = from.length > 1 ? ` and ${from.length - 1} more` : "";
  const { title, fetch } = pending;
  const numRequests = fetch?.numRequests ?? 0;
  const requests = numRequests === 1 ? "its request has" : `its ${numRequests} requests have`;
  const text = `${title}: ${requests} not ended within ${timeoutMs} ms (${ways}, ${from[0]?.file.path}${more}); raise timeoutMs, or see what holds up the disk`;
  return new HeadraceError("TIMED_OUT", text, { cause });
}
