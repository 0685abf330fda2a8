/** Records what happened when, for chrome://tracing and Perfetto. */

/** The loader's tracks, in the order in which they are shown. */
export const TRACKS = ["planning", "reads", "segments", "consumer"] as const;

/** What happens to a ticket inside a device that tells of it, layer by layer; shown below {@link TRACKS}, and only
 * where a span was recorded. */
export const DEVICE_TRACKS = [
  "device: queued",
  "device: lanes",
  "device: encoding",
  "device: committing",
  "device: scheduling",
  "device: file queue",
  "device: driver",
  "device: on the GPU",
  "device: ending",
  "device: waking JavaScript",
] as const;

/** What an inference job does, one after the other; shown at the end, and only where a span was recorded. */
export const INFER_TRACKS = ["infer: waits", "infer: steps"] as const;

export type Track = (typeof TRACKS)[number] | (typeof DEVICE_TRACKS)[number] | (typeof INFER_TRACKS)[number];

const ALL_TRACKS: readonly Track[] = [...TRACKS, ...DEVICE_TRACKS, ...INFER_TRACKS];
/** Tracks of one thread, whose spans never overlap. */
const OF_ONE_THREAD: readonly Track[] = ["planning", "consumer", ...INFER_TRACKS];

/** Takes spans; times are `performance.now()` in ms. */
export interface Tracer {
  span(
    track: Track,
    name: string,
    startMs: number,
    endMs: number,
    args?: Readonly<Record<string, unknown>>,
  ): void;
}

interface Event {
  readonly track: Track;
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
  readonly args: Readonly<Record<string, unknown>> | undefined;
}

/** Keeps the first `maxEvents` spans in memory until they are written out. */
export class TraceRecorder implements Tracer {
  readonly #events: Event[] = [];
  readonly #maxEvents: number;
  readonly #used = new Set<Track>(TRACKS);
  #dropped = 0;

  /** Default: a million spans, about 200 MB of JSON. */
  constructor(maxEvents = 1_000_000) {
    this.#maxEvents = maxEvents;
  }

  /** Spans that came after the bound. */
  get dropped(): number {
    return this.#dropped;
  }

  span(
    track: Track,
    name: string,
    startMs: number,
    endMs: number,
    args?: Readonly<Record<string, unknown>>,
  ): void {
    if (this.#events.length >= this.#maxEvents) this.#dropped++;
    else {
      this.#used.add(track);
      this.#events.push({ track, name, startMs, endMs, args });
    }
  }

  /** The trace as JSON text in the Trace Event Format: one process, one thread a track; overlapping spans
   * of a track are asynchronous events, so that viewers stack them. */
  toJSON(): string {
    const names = ALL_TRACKS.filter((track) => this.#used.has(track)).map((track) => {
      const tid = ALL_TRACKS.indexOf(track);
      return JSON.stringify({ ph: "M", pid: 1, tid, name: "thread_name", args: { name: track } });
    });
    const events = this.#events.flatMap((event, id) => {
      const common = { name: event.name, cat: event.track, pid: 1, tid: ALL_TRACKS.indexOf(event.track) };
      const ts = event.startMs * 1000;
      if (OF_ONE_THREAD.includes(event.track)) {
        const dur = (event.endMs - event.startMs) * 1000;
        return [JSON.stringify({ ...common, ph: "X", ts, dur, args: event.args })];
      }
      return [
        JSON.stringify({ ...common, ph: "b", id, ts, args: event.args }),
        JSON.stringify({ ...common, ph: "e", id, ts: event.endMs * 1000 }),
      ];
    });
    return `{"displayTimeUnit":"ms","otherData":{"dropped":${this.#dropped}},"traceEvents":[\n${[...names, ...events].join(",\n")}\n]}\n`;
  }
}
