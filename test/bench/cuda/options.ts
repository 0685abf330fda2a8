/** What the CUDA benchmark can be asked for. */
import { parseArgs } from "node:util";
import { DATA_FOLDER } from "../data.ts";

export const USAGE = `usage: bun test/bench/cuda/bench.ts [options]
  --rows NAME,…    rows whose names begin with one of these; all without
  --size SIZE      bytes of the weights, 8GiB without (64MiB with --quick); rows of 3 KiB take half as much
  --repeats N      rounds of each side, 7 without (3 with --quick)
  --data DIR       where the data is made, and found the next time
  --out FILE       the JSON, test/bench/results/cuda.json without
  --trace DIR      one more round of each of ours, not timed, as a trace for Perfetto
  --help           prints this
  --quick          small sizes: tries the script, measures little
  --device NAME    another device than cuda, which tries the script and measures nothing of CUDA`;

export interface BenchOptions {
  readonly rows: readonly string[];
  /** Bytes of the weights, a multiple of {@link SIZE_STEP}. */
  readonly sizeBytes: number;
  readonly repeats: number;
  readonly dataFolder: string;
  readonly out: string | undefined;
  readonly traceFolder: string | undefined;
  readonly quick: boolean;
  readonly device: string;
  /** A process of its own for one row, by the row's name. */
  readonly case: string | undefined;
  /** Of the GPU that a process of its own is for. */
  readonly ordinal: number;
}

/** 64 tensors of rows of 8 KiB. */
export const SIZE_STEP = 512 * 1024;
const MIB = 2 ** 20;
const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  KIB: 2 ** 10,
  MIB,
  GIB: 2 ** 30,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
};

/** Thrown for a command line that makes no sense; the message says what does. */
export class UsageError extends Error {}

/** Throws {@link UsageError}. */
export function parseOptions(args: readonly string[]): BenchOptions {
  const values = parse(args);
  const quick = values.quick === true;
  const size = parseBytes("--size", values.size ?? (quick ? "64MiB" : "8GiB"));
  return {
    rows: values.rows === undefined ? [] : values.rows.split(",").filter((name) => name !== ""),
    sizeBytes: Math.ceil(size / SIZE_STEP) * SIZE_STEP,
    repeats: parseWhole("--repeats", values.repeats ?? (quick ? "3" : "7"), 1),
    dataFolder: values.data ?? DATA_FOLDER,
    out: values.out,
    traceFolder: values.trace,
    quick,
    device: values.device ?? "cuda",
    case: values.case,
    ordinal: parseWhole("--ordinal", values.ordinal ?? "0", 0),
  };
}

/** The arguments that give a process of its own the same options. */
export function argumentsFor(options: BenchOptions, name: string, ordinal = 0): string[] {
  return [
    ...["--case", name, "--ordinal", String(ordinal), "--device", options.device],
    ...[
      "--size",
      String(options.sizeBytes),
      "--repeats",
      String(options.repeats),
      "--data",
      options.dataFolder,
    ],
    ...(options.traceFolder === undefined ? [] : ["--trace", options.traceFolder]),
    ...(options.quick ? ["--quick"] : []),
  ];
}

function parse(args: readonly string[]) {
  const text = { type: "string" } as const;
  try {
    return parseArgs({
      args: [...args],
      options: {
        rows: text,
        size: text,
        repeats: text,
        data: text,
        out: text,
        trace: text,
        device: text,
        case: text,
        ordinal: text,
        quick: { type: "boolean" },
      },
    }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function parseWhole(name: string, text: string, least: number): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least && /^\d+$/.test(text)) return value;
  throw new UsageError(`${name} is ${text}; it must be a whole number from ${least}`);
}

/** Bytes of `8GiB`, `1.5GB` or a plain number. Throws {@link UsageError}. */
export function parseBytes(name: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const unit = UNITS[match?.[2]?.toUpperCase() ?? "none"];
  const bytes = match === null || unit === undefined ? Number.NaN : Math.round(Number(match[1]) * unit);
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new UsageError(`${name} is ${text}; it must be bytes as 8GiB, 512MiB or 1000000`);
}
