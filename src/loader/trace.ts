/** Records what happened when, for chrome://tracing and Perfetto. */

/** The tracks of a trace, in the order in which they are shown. */
export const TRACKS = ["planning", "reads", "segments", "consumer"] as const;
export type Track = (typeof TRACKS)[number];

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
    else this.#events.push({ track, name, startMs, endMs, args });
  }

  /** The trace as JSON text in the Trace Event Format: one process, one thread a track; overlapping spans
   * of a track are asynchronous events, so that viewers stack them. */
  toJSON(): string {
    const names = TRACKS.map((track, tid) =>
      JSON.stringify({ ph: "M", pid: 1, tid, name: "thread_name", args: { name: track } }),
    );
    const events = this.#events.flatMap((event, id) => {
      const common = { name: event.name, cat: event.track, pid: 1, tid: TRACKS.indexOf(event.track) };
      const ts = event.startMs * 1000;
      if (event.track === "planning" || event.track === "consumer") {
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
