/** What the benchmark of inference can be asked for. */
import { parseArgs } from "node:util";
import { UsageError } from "../cuda/options.ts";
import { DATA_FOLDER } from "../data.ts";

export const USAGE = `usage: bun test/bench/infer/bench.ts [options]
  --rows NAME,…    rows whose names begin with one of these; all without
  --device NAME    of the rows that are for a GPU: cuda without, host to try the script
  --requests N     of the rows that are for a GPU, 256 without
  --slots N        of our engine there, 256 without
  --repeats N      rounds of each side, 5 without (2 with --quick)
  --limit S        seconds that a peer may take, 100 without
  --data DIR       where model and requests are made, and where outputs go
  --outputs DIR    where infer.write-back writes, that of --data without
  --out FILE       the JSON, test/bench/results/infer.json without
  --quick          small sizes: tries the script, measures little
  --help           prints this
HEADRACE_PEERS_PYTHON names a Python with torch, transformers and safetensors.`;

export interface InferBenchOptions {
  readonly rows: readonly string[];
  readonly device: string;
  readonly requests: number;
  readonly slots: number;
  readonly repeats: number;
  readonly limitSeconds: number;
  readonly dataFolder: string;
  readonly outputFolder: string;
  readonly out: string | undefined;
  readonly quick: boolean;
  /** A process of its own for one row, by the row's name. */
  readonly case: string | undefined;
}

/** Throws {@link UsageError}. */
export function parseOptions(args: readonly string[]): InferBenchOptions {
  const values = parse(args);
  const quick = values.quick === true;
  const dataFolder = values.data ?? DATA_FOLDER;
  return {
    rows: values.rows === undefined ? [] : values.rows.split(",").filter((name) => name !== ""),
    device: values.device ?? "cuda",
    requests: whole("--requests", values.requests ?? (quick ? "32" : "256")),
    slots: whole("--slots", values.slots ?? (quick ? "16" : "256")),
    repeats: whole("--repeats", values.repeats ?? (quick ? "2" : "5")),
    limitSeconds: whole("--limit", values.limit ?? "100"),
    dataFolder,
    outputFolder: values.outputs ?? dataFolder,
    out: values.out,
    quick,
    case: values.case,
  };
}

/** The arguments that give a process of its own the same options. */
export function argumentsFor(options: InferBenchOptions, name: string): string[] {
  return [
    ...["--case", name, "--device", options.device, "--data", options.dataFolder],
    ...["--requests", String(options.requests), "--slots", String(options.slots)],
    ...["--repeats", String(options.repeats), "--limit", String(options.limitSeconds)],
    ...["--outputs", options.outputFolder],
    ...(options.quick ? ["--quick"] : []),
  ];
}

function parse(args: readonly string[]) {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  try {
    return parseArgs({
      args: [...args],
      options: {
        rows: text,
        device: text,
        requests: text,
        slots: text,
        repeats: text,
        limit: text,
        data: text,
        outputs: text,
        out: text,
        case: text,
        quick: flag,
      },
    }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function whole(name: string, text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= 1) return value;
  throw new UsageError(`${name} is ${text}; it must be a whole number from 1`);
}
