/** The life of a ticket inside its device, as spans of a trace. */
import type { Completion, Stages } from "../device/device.ts";
import type { FetchEnd } from "./fetch.ts";
import type { DEVICE_TRACKS, Tracer } from "./trace.ts";

/** A layer and the time that a ticket was in it, in ms of `performance.now()`. */
export interface StageSpan {
  readonly track: (typeof DEVICE_TRACKS)[number];
  readonly startMs: number;
  readonly endMs: number;
}

/**
 * The layers that a ticket went through, in order. A layer whose beginning or end is not known is left out. A
 * ticket that was never encoded was on the lanes alone from its start to its end; one that was committed and never
 * met the GPU's driver was in the device's file queue from then on. Times come from
 * several clocks that are brought onto one, so that an end may lie a little before its beginning: then the span
 * is empty, never negative.
 */
export function stageSpans(stages: Stages): StageSpan[] {
  const { startedMs, encodedMs, committedMs, scheduledMs, gpuEndMs, endedMs } = stages;
  const encoded = encodedMs !== undefined || gpuEndMs !== undefined;
  const spans: StageSpan[] = [];
  const add = (track: StageSpan["track"], startMs: number | undefined, endMs: number | undefined) => {
    if (startMs === undefined || endMs === undefined) return;
    spans.push({ track, startMs, endMs: Math.max(startMs, endMs) });
  };
  add("device: queued", stages.submittedMs, startedMs);
  if (!encoded) add("device: lanes", startedMs, endedMs);
  add("device: encoding", startedMs, encodedMs);
  add("device: committing", encodedMs, committedMs);
  add("device: scheduling", committedMs, scheduledMs);
  if (scheduledMs === undefined && gpuEndMs === undefined) add("device: file queue", committedMs, endedMs);
  add("device: driver", stages.kernelStartMs, stages.kernelEndMs);
  add("device: on the GPU", stages.gpuStartMs, gpuEndMs);
  add("device: ending", gpuEndMs, endedMs);
  add("device: waking JavaScript", endedMs, stages.seenMs);
  return spans;
}

/** Records a batch's reads, and what is known of their way through the device. */
export function traceRead(tracer: Tracer | undefined, title: string, completion: Completion): void {
  if (tracer === undefined) return;
  const { submittedMs, completedMs, bytesDone, error, stages } = completion;
  tracer.span("reads", title, submittedMs, completedMs, { bytes: bytesDone, error: error?.code });
  if (stages === undefined) return;
  for (const { track, startMs, endMs } of stageSpans(stages)) tracer.span(track, title, startMs, endMs);
}

/** Records the time in which a batch's chunks were decoded. */
export function traceDecoding(
  tracer: Tracer | undefined,
  title: string,
  { startedMs, endedMs, decodedBytes, error }: NonNullable<FetchEnd["decoded"]>,
): void {
  tracer?.span("reads", `${title} decoding`, startedMs, endedMs, { bytes: decodedBytes, error: error?.code });
}
