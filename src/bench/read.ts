/** Reads what a benchmark left: JSON lines, see `record.ts`. */
import { readFileSync } from "node:fs";
import * as v from "valibot";
import { HeadraceError } from "../index.ts";
import { type BenchRecord, RECORD_VERSION } from "./record.ts";

/** Longest file that is read; one run of 1000 cells has less than a hundredth. */
const MAX_BYTES = 2 ** 28;
/** Longest name or note. */
const MAX_TEXT = 100_000;

const text = v.pipe(v.string(), v.maxLength(MAX_TEXT));
const amount = v.pipe(v.number(), v.finite(), v.minValue(0));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const part = v.pipe(v.number(), v.finite(), v.minValue(0), v.maxValue(1));
const temperature = v.picklist(["cold", "warm"]);

const quantiles = v.object({ median: amount, p5: amount, p95: amount, low: amount, high: amount });
const batchMs = v.pipe(v.array(amount), v.maxLength(6));

const cellKey = v.object({
  id: text,
  data: text,
  format: text,
  path: text,
  temperature,
  order: v.picklist(["sequential", "block-shuffled", "random"]),
  lanes: count,
  requestBytes: v.optional(amount),
  device: text,
  peer: v.optional(text),
});

const run = v.object({
  kind: v.literal("run"),
  version: v.literal(RECORD_VERSION),
  date: text,
  command: text,
  machine: v.object({
    cpu: text,
    cores: count,
    memoryBytes: amount,
    os: text,
    kernel: text,
    arch: text,
    disk: text,
    memoryFreeBytes: amount,
    load: amount,
    gpu: v.optional(text),
    power: v.optional(text),
  }),
  versions: v.record(text, text),
  settings: v.record(text, v.union([text, v.number(), v.boolean(), v.array(text)])),
});

const ceiling = v.object({
  kind: v.literal("ceiling"),
  name: text,
  gigabytesPerSecond: quantiles,
  note: text,
});

const trial = v.object({
  kind: v.literal("trial"),
  cell: text,
  round: v.pipe(v.number(), v.safeInteger(), v.minValue(-1)),
  seconds: amount,
  openSeconds: amount,
  bytes: amount,
  fileBytes: amount,
  checksum: text,
  rehearsal: v.optional(v.object({ bytes: amount, seconds: amount, error: v.optional(text) })),
  residency: v.optional(part),
  temperature,
  cpuSeconds: amount,
  minorFaults: amount,
  majorFaults: amount,
  peakRssBytes: amount,
  wiredBytes: v.optional(amount),
  batchMs,
  numBatches: count,
  busy: v.optional(v.object({ computeMs: amount, share: amount })),
  error: v.optional(text),
});

const cell = v.object({
  kind: v.literal("cell"),
  cell: cellKey,
  rounds: count,
  gigabytesPerSecond: quantiles,
  cpuSecondsPerGigabyte: amount,
  minorFaultsPerGigabyte: amount,
  majorFaultsPerGigabyte: amount,
  peakRssBytes: amount,
  wiredBytes: v.optional(amount),
  batchMs,
  busyShare: v.optional(quantiles),
  compression: amount,
  residency: v.optional(part),
  ceiling: v.optional(v.object({ name: text, part: amount })),
  ratios: v.optional(v.array(v.object({ against: text, ratio: quantiles }))),
  skipped: v.optional(text),
});

const record = v.variant("kind", [run, ceiling, trial, cell]);

/**
 * Reads the records of one run. A last line that was cut off, as an interrupted run leaves it, is passed over; fields that
 * are not known are dropped. Throws `SOURCE_NOT_FOUND` where there is no such file, and `BAD_RESULTS` with the number of
 * the line that is malformed or of another version, or where the first is not that of a run.
 */
export function readRecords(path: string): readonly BenchRecord[] {
  return parseRecords(textOf(path), path);
}

/** The same of a text; `path` names it in messages. */
export function parseRecords(all: string, path: string): readonly BenchRecord[] {
  const lines = all.split("\n");
  // What stands behind the last line feed is a line that was not finished, or nothing.
  const torn = lines.length - 1;
  const records: BenchRecord[] = [];
  for (const [i, line] of lines.entries()) {
    if (line.trim() === "") continue;
    const value = jsonOf(line);
    if (value === undefined && i === torn) break;
    records.push(recordOf(value, `${path}: line ${i + 1}`, records.length));
  }
  if (records.length > 0) return records;
  throw new HeadraceError("BAD_RESULTS", `${path}: holds no record; it must be what 'headrace bench' wrote`);
}

function jsonOf(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function recordOf(value: unknown, where: string, before: number): BenchRecord {
  const bad = (problem: string) => new HeadraceError("BAD_RESULTS", `${where}: ${problem}`);
  if (value === undefined) throw bad("no JSON; it must be what 'headrace bench' wrote");
  const { kind, version } = (value ?? {}) as { kind?: unknown; version?: unknown };
  if (kind === "run" && version !== RECORD_VERSION) {
    const found = JSON.stringify(version) ?? "none";
    throw bad(`has version ${found}, and this program reads ${RECORD_VERSION}; measure again, or update`);
  }
  if (before === 0 && kind !== "run") throw bad("the first record must be that of a run");
  if (before > 0 && kind === "run") throw bad("a second run begins; give each run a file of its own");
  const parsed = v.safeParse(record, value);
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  throw bad(`${v.getDotPath(issue) ?? "the record"}: ${issue.message}`);
}

function textOf(path: string): string {
  try {
    const file = readFileSync(path);
    if (file.length <= MAX_BYTES) return file.toString("utf8");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") {
      throw new HeadraceError("SOURCE_NOT_FOUND", `${path}: no such file; 'headrace bench' writes one`, {
        cause,
      });
    }
    const text = code === "EISDIR" ? "is a folder; name one of its .jsonl files" : message;
    throw new HeadraceError("SOURCE_UNREADABLE", `${path}: ${text}`, { cause });
  }
  throw new HeadraceError("BAD_RESULTS", `${path}: longer than ${MAX_BYTES} bytes, which no run writes`);
}
