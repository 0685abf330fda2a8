/** From a row of hr_completion to a {@link Completion}. */
import type { HeadraceError } from "../../errors.ts";
import type { Completion, Stages, Ticket } from "../device.ts";
import { Row } from "./abi.ts";

const MOMENTS = [
  ["startedMs", Row.startedMs],
  ["encodedMs", Row.encodedMs],
  ["committedMs", Row.committedMs],
  ["scheduledMs", Row.scheduledMs],
  ["kernelStartMs", Row.kernelStartMs],
  ["kernelEndMs", Row.kernelEndMs],
  ["gpuStartMs", Row.gpuStartMs],
  ["gpuEndMs", Row.gpuEndMs],
] as const satisfies readonly (readonly [keyof Stages, number])[];

/** `offsetMs` leads from the library's clock to `performance.now()`, which was `seenMs` when the row was seen. */
export function readCompletion(
  rows: Float64Array,
  at: number,
  ticket: Ticket,
  error: HeadraceError | undefined,
  offsetMs: number,
  seenMs: number,
): Completion {
  const submittedMs = rows[at + Row.submittedMs]! + offsetMs;
  const endedMs = rows[at + Row.endedMs]! + offsetMs;
  const stages: { -readonly [K in keyof Stages]: Stages[K] } = { submittedMs, endedMs, seenMs };
  for (const [name, field] of MOMENTS) {
    const ms = rows[at + field]!;
    if (ms > 0) stages[name] = ms + offsetMs;
  }
  const bytesDone = rows[at + Row.bytesDone]!;
  const done = { ticket, bytesDone, submittedMs, completedMs: endedMs, stages };
  return error === undefined ? done : { ...done, error };
}
