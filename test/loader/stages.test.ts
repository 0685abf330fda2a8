/** A ticket's life inside its device, on the trace. */
import { describe, expect, test } from "bun:test";
import {
  type Completion,
  DEVICE_TRACKS,
  Loader,
  openDataset,
  openDevice,
  type Stages,
  TRACKS,
  TraceRecorder,
} from "../../src/index.ts";
import { stageSpans } from "../../src/loader/stages.ts";
import { double } from "./doubles.ts";
import { useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset } from "./safetensors-files.ts";

const temp = useTempDir();

const ON_GPU: Stages = {
  submittedMs: 10,
  startedMs: 11,
  encodedMs: 13,
  committedMs: 16,
  scheduledMs: 20,
  kernelStartMs: 17,
  kernelEndMs: 19,
  gpuStartMs: 21,
  gpuEndMs: 26,
  endedMs: 28,
  seenMs: 31,
};

describe("spans of a ticket", () => {
  test("on the GPU: one a layer, each from where the one before it ended", () => {
    expect(stageSpans(ON_GPU).map(({ track, startMs, endMs }) => [track, startMs, endMs])).toEqual([
      ["device: queued", 10, 11],
      ["device: encoding", 11, 13],
      ["device: committing", 13, 16],
      ["device: scheduling", 16, 20],
      ["device: driver", 17, 19],
      ["device: on the GPU", 21, 26],
      ["device: ending", 26, 28],
      ["device: waking JavaScript", 28, 31],
    ]);
  });

  test("on the lanes alone", () => {
    const stages = { submittedMs: 1, startedMs: 2, endedMs: 5, seenMs: 6 };
    expect(stageSpans(stages).map(({ track, startMs, endMs }) => [track, startMs, endMs])).toEqual([
      ["device: queued", 1, 2],
      ["device: lanes", 2, 5],
      ["device: waking JavaScript", 5, 6],
    ]);
  });

  test("through the device's file queue", () => {
    const stages = { submittedMs: 1, startedMs: 2, encodedMs: 3, committedMs: 4, endedMs: 9, seenMs: 10 };
    expect(stageSpans(stages).map(({ track, startMs, endMs }) => [track, startMs, endMs])).toEqual([
      ["device: queued", 1, 2],
      ["device: encoding", 2, 3],
      ["device: committing", 3, 4],
      ["device: file queue", 4, 9],
      ["device: waking JavaScript", 9, 10],
    ]);
  });

  test("one that never started has but its wake-up; clocks that disagree give empty spans", () => {
    expect(stageSpans({ submittedMs: 1, endedMs: 5, seenMs: 6 })).toEqual([
      { track: "device: waking JavaScript", startMs: 5, endMs: 6 },
    ]);
    const [ending] = stageSpans({ ...ON_GPU, endedMs: 25.9 }).filter(
      ({ track }) => track === "device: ending",
    );
    expect(ending).toEqual({ track: "device: ending", startMs: 26, endMs: 26 });
  });
});

interface TraceEvent {
  ph: string;
  tid: number;
  ts: number;
  name: string;
  args?: { name?: string };
}

/** The trace of a load by a device that tells what `stages` makes of each completion. */
async function trace(stages: ((completion: Completion) => Stages) | undefined): Promise<TraceEvent[]> {
  writeDataset(temp, [30], SMALL_SPECS);
  await using host = openDevice("host");
  const { device } = double(host, stages === undefined ? {} : { stages });
  const tracer = new TraceRecorder();
  using dataset = openDataset(temp(), device, { strategy: "read" });
  await using loader = new Loader(dataset, device, { batchSize: 10, tracer });
  for await (using batch of loader) expect(batch.size).toBe(10);
  return JSON.parse(tracer.toJSON()).traceEvents;
}

const tracksOf = (events: TraceEvent[]) =>
  events.filter(({ ph }) => ph === "M").map(({ tid, args }) => [tid, args!.name]);

describe("the trace", () => {
  test("has a track for each layer that a device tells of, below the loader's", async () => {
    const events = await trace((done) => ({
      submittedMs: done.submittedMs,
      startedMs: done.submittedMs + 0.25,
      endedMs: done.completedMs,
      seenMs: done.completedMs + 0.5,
    }));
    const [queued, lanes, waking] = [0, 1, DEVICE_TRACKS.length - 1].map((i) => i + TRACKS.length) as [
      number,
      number,
      number,
    ];
    expect(tracksOf(events)).toEqual([
      ...TRACKS.map((track, tid) => [tid, track]),
      [queued, "device: queued"],
      [lanes, "device: lanes"],
      [waking, "device: waking JavaScript"],
    ]);
    for (const [tid, microseconds] of [
      [queued, 250],
      [waking, 500],
    ] as const) {
      const own = events.filter((event) => event.tid === tid && event.ph !== "M");
      const begins = own.filter(({ ph }) => ph === "b");
      const ends = own.filter(({ ph }) => ph === "e");
      expect(begins.map(({ name }) => name)).toEqual(["batch 0:0", "batch 0:10", "batch 0:20"]);
      begins.forEach(({ ts }, i) => {
        expect(ends[i]!.ts - ts).toBeCloseTo(microseconds, 3);
      });
    }
  });

  test("has all of them for GPU work, and the loader's alone where a device tells nothing", async () => {
    const gpu = tracksOf(await trace(() => ON_GPU)).map(([, name]) => name);
    expect(gpu).toEqual([...TRACKS, ...DEVICE_TRACKS.filter((track) => !/lanes|file queue/.test(track))]);
    expect(tracksOf(await trace(undefined)).map(([, name]) => name)).toEqual([...TRACKS]);
  });
});
