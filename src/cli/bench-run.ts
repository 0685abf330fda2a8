/** Runs a benchmark for people: progress while it goes, records as they come, a table at its end. */
import {
  accessSync,
  appendFileSync,
  constants,
  existsSync,
  mkdirSync,
  readFileSync,
  truncateSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { BenchEvent } from "../bench/hooks.ts";
import { machineSlug } from "../bench/machine.ts";
import { type Cell, cellsOf, checkCells, guessSeconds, plannedCells } from "../bench/matrix.ts";
import type { BenchPlan } from "../bench/options.ts";
import { readRecords } from "../bench/read.ts";
import type { BenchRecord, RunRecord } from "../bench/record.ts";
import { resumedPlan } from "../bench/resume.ts";
import { runBench } from "../bench/run.ts";
import { writeFailure } from "../bench/write-failure.ts";
import { openDataset, openDevice } from "../index.ts";
import type { BenchFlags } from "./bench.ts";
import { DataFolder } from "./bench-data.ts";
import { printResult } from "./bench-table.ts";
import { amountText, ExitCode, isTerminal, printable, printLine, printTable, timeText } from "./output.ts";
import { exitCodeOf, OnSignal } from "./signals.ts";

/** `--list`. */
export async function listCells(plan: BenchPlan, flags: BenchFlags): Promise<void> {
  const cells = listed(plan);
  checkCells(plan, cells);
  const seconds = Math.round(guessSeconds(plan, cells));
  if (flags.json) {
    printLine(JSON.stringify({ cells: cells.map(({ key }) => key), rounds: plan.rounds, seconds }));
    return;
  }
  const rows = cells.map(({ key }) => [
    key.data,
    key.format,
    key.peer ?? key.path,
    key.temperature,
    key.order,
    String(key.lanes),
    key.device,
  ]);
  await printTable(["data", "format", "path", "temperature", "order", "lanes", "device"], rows);
  const trials = amountText(cells.length * (plan.rounds + 1), "trial");
  console.log(
    `\n${amountText(cells.length, "cell")}, ${trials}: about ${timeText(seconds * 1000)}, data aside`,
  );
}

/** The cells before any data is there. */
function listed(plan: BenchPlan): Cell[] {
  if (plan.source === undefined) return plannedCells(plan);
  using device = openDevice("host");
  using dataset = openDataset(plan.source, device, { strategy: "read" });
  return cellsOf(plan, [{ name: dataset.title, tensors: dataset.view === "tensors" }]);
}

/** Goes on with the run whose records are in `path`, by the settings that it has. */
export async function resumeCells(path: string, flags: BenchFlags): Promise<void> {
  const known = readRecords(path);
  const { dataFolder: folder, python } = flags;
  await runCells(resumedPlan(known, path, { folder, python }), flags, known);
}

/** Measures. A trial that delivered wrong bytes makes the exit code 1. */
export async function runCells(
  plan: BenchPlan,
  flags: BenchFlags,
  known?: readonly BenchRecord[],
): Promise<void> {
  // A dataset of one's own is looked at when the run has opened it.
  if (plan.source === undefined) checkCells(plan, plannedCells(plan));
  const abort = new AbortController();
  const file = new RecordFile(flags.out, flags.resume);
  const line = new ProgressLine();
  using data = new DataFolder(plan.folder, flags.resume === undefined ? flags.out : dirname(flags.resume));
  using _ = new OnSignal(
    (signal) => abort.abort(signal),
    () => {
      line.clear();
      data[Symbol.dispose]();
    },
  );
  for (const path of data.removed) {
    line.show({ kind: "step", text: `removed ${path}: data of a run that was killed` });
  }
  line.show({ kind: "step", text: data.text });
  try {
    const result = await runBench(
      { ...plan, folder: data.path },
      {
        command: typed(process.argv.slice(2)),
        signal: abort.signal,
        known,
        onRecord: (record) => file.append(record),
        onEvent: (event) => line.show(event),
      },
    );
    line.clear();
    if (flags.json) printLine(JSON.stringify({ ...result, results: file.path }));
    else await printResult(result, file.path!);
    if (result.failures.length > 0) process.exitCode = ExitCode.failed;
  } catch (error) {
    line.clear();
    if (!abort.signal.aborted) throw error;
    const kept =
      file.path === undefined
        ? "nothing was measured yet"
        : `go on with '${resumeCommand(file.path, flags)}'`;
    console.error(`headrace: ${printable(`interrupted; ${kept}`)}`);
    process.exitCode = exitCodeOf(abort.signal.reason);
  }
}

function resumeCommand(path: string, { dataFolder, python }: BenchFlags): string {
  const more = Object.entries({ "--data-folder": dataFolder, "--python": python });
  const words = more.flatMap(([name, value]) => (value === undefined ? [] : [name, value]));
  return typed(["bench", "--resume", path, ...words]);
}

/** As somebody would type it. */
function typed(args: readonly string[]): string {
  const words = args.map((word) =>
    /^[\w./:,=+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`,
  );
  return ["bun run", ...words].join(" ");
}

/** Takes records line by line, so that what was measured stays, however the run ends. */
class RecordFile {
  /** Known once the run's own record came. */
  path: string | undefined;
  readonly #folder: string;
  readonly #resumed: boolean;

  /** Throws `IO_ERROR` or `DISK_FULL` where nothing can be written there. */
  constructor(folder: string, resumed: string | undefined) {
    this.#folder = folder;
    this.path = resumed;
    this.#resumed = resumed !== undefined;
    // Told now, and not when the data is made and the first trial done.
    try {
      if (resumed !== undefined) cutTornLine(resumed);
      else mkdirSync(folder, { recursive: true });
      accessSync(resumed ?? folder, constants.W_OK);
    } catch (cause) {
      throw this.#failure(cause);
    }
  }

  append(record: BenchRecord): void {
    if (record.kind === "run" && this.path === undefined) this.path = this.#newPath(record);
    this.#write(`${JSON.stringify(record)}\n`);
  }

  #newPath({ machine, date }: RunRecord): string {
    const base = join(this.#folder, `${machineSlug(machine)}-${date.slice(0, 10)}`);
    for (let number = 1; ; number++) {
      const path = `${base}${number === 1 ? "" : `-${number}`}.jsonl`;
      if (!existsSync(path)) return path;
    }
  }

  #write(text: string): void {
    try {
      mkdirSync(this.#folder, { recursive: true });
      appendFileSync(this.path!, text);
    } catch (cause) {
      throw this.#failure(cause);
    }
  }

  #failure(cause: unknown): unknown {
    const hint = this.#resumed ? "go on with a copy of it elsewhere" : "name another folder by --out";
    return writeFailure(this.path ?? this.#folder, cause, hint);
  }
}

/** Takes away a last line that was cut off: what follows begins on one of its own. */
function cutTornLine(path: string): void {
  const bytes = readFileSync(path);
  const end = bytes.lastIndexOf(0x0a) + 1;
  if (end < bytes.length) truncateSync(path, end);
}

/** One line on a terminal that says what runs; elsewhere a line for each step and round. */
class ProgressLine {
  readonly #terminal = isTerminal(2);
  #round = Number.NaN;

  show(event: BenchEvent): void {
    if (event.kind === "warning") {
      this.clear();
      console.error(`headrace: ${printable(event.text)}`);
    } else if (event.kind === "step") this.#say(event.text, true);
    else this.#trial(event);
  }

  clear(): void {
    if (this.#terminal) process.stderr.write("\r\u001b[K");
  }

  #trial({ cell, round, done, total, secondsLeft }: Extract<BenchEvent, { kind: "trial" }>): void {
    const name = round < 0 ? "warm-up" : `round ${round + 1}`;
    const left = `${timeText(Math.max(1, Math.round(secondsLeft)) * 1000)} left`;
    this.#say(`${name}: ${done} of ${total} trials, ${left}: ${cell}`, round !== this.#round);
    this.#round = round;
  }

  #say(text: string, always: boolean): void {
    if (this.#terminal) {
      const width = (process.stderr.columns ?? 80) - 1;
      process.stderr.write(`\r\u001b[K${`headrace: ${printable(text)}`.slice(0, width)}`);
    } else if (always) console.error(`headrace: ${printable(text)}`);
  }
}
