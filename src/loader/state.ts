/** Where a loader stands, as a small JSON of integers. */
import { HeadraceError } from "../errors.ts";
import type { SampleRange } from "../plan/select.ts";
import type { ResolvedOptions } from "./options.ts";

/**
 * All that is needed to go on. `position` counts the samples of the epoch's order that all ranks together
 * have had; it means the same for every world size.
 */
export interface LoaderState {
  readonly version: 1;
  /** Of the dataset. */
  readonly fingerprint: string;
  readonly epoch: number;
  readonly position: number;
  /** Of the order; null where it is the dataset's own. */
  readonly seed: number | null;
  readonly blockSize: number | null;
  readonly windowBlocks: number | null;
  /** sha256 in hex of the ranges that the order is over; null, or absent, where it is over all samples. */
  readonly ranges?: string | null;
}

/** What of the options a state fixes. */
export function orderOf(
  options: ResolvedOptions,
): Pick<LoaderState, "seed" | "blockSize" | "windowBlocks" | "ranges"> {
  const { ranges } = options;
  return {
    seed: options.seed ?? null,
    blockSize: options.blockSize ?? null,
    windowBlocks: options.windowBlocks ?? null,
    ...(ranges === undefined ? {} : { ranges: digestOf(ranges) }),
  };
}

/**
 * The state in `value` (a parsed JSON), checked against the dataset and the options it is to go on with.
 * Throws `STATE_MISMATCH` saying what differs.
 */
export function checkState(
  value: unknown,
  fingerprint: string,
  numSamples: number,
  options: ResolvedOptions,
): LoaderState {
  const state = value as LoaderState | null;
  if (typeof state !== "object" || state === null || state.version !== 1) {
    throw new HeadraceError(
      "STATE_MISMATCH",
      "what is to be resumed is not the state of a loader (version 1)",
    );
  }
  if (state.fingerprint !== fingerprint) {
    throw new HeadraceError(
      "STATE_MISMATCH",
      `the state is of another dataset: fingerprint ${short(state.fingerprint)} where this one has ${short(fingerprint)}`,
    );
  }
  const order = orderOf(options);
  for (const key of ["seed", "blockSize", "windowBlocks"] as const) {
    if ((state[key] ?? null) !== order[key]) {
      throw new HeadraceError(
        "STATE_MISMATCH",
        `the state was saved with ${key} ${state[key] ?? "unset"}, this loader has ${order[key] ?? "unset"}; use the same order`,
      );
    }
  }
  if ((state.ranges ?? null) !== (order.ranges ?? null)) {
    const which = (digest: unknown) => (digest == null ? "all samples" : `ranges ${short(digest)}`);
    throw new HeadraceError(
      "STATE_MISMATCH",
      `the state was saved over ${which(state.ranges)}, this loader is over ${which(order.ranges)}; give the same ranges`,
    );
  }
  const { epoch, position } = state;
  if (!Number.isSafeInteger(epoch) || epoch < 0 || !Number.isSafeInteger(position) || position < 0) {
    throw new HeadraceError(
      "STATE_MISMATCH",
      `the state's epoch ${epoch} or position ${position} is no count`,
    );
  }
  if (position > Math.min(numSamples, options.limit)) {
    const limited = options.limit < numSamples ? ` that limit leaves (${options.limit})` : ` (${numSamples})`;
    throw new HeadraceError(
      "STATE_MISMATCH",
      `the state's position ${position} is past the samples${limited}`,
    );
  }
  return state;
}

/** The same for ranges that hold the same samples, however they are cut. */
function digestOf(ranges: readonly SampleRange[]): string {
  const merged: [number, number][] = [];
  for (const [start, end] of ranges) {
    const last = merged.at(-1);
    if (start === end) continue;
    if (last !== undefined && last[1] === start) last[1] = end;
    else merged.push([start, end]);
  }
  return new Bun.CryptoHasher("sha256").update(JSON.stringify(merged)).digest("hex");
}

function short(fingerprint: unknown): string {
  return typeof fingerprint === "string" ? fingerprint.slice(0, 12) : String(fingerprint);
}
