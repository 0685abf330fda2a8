/** What `infer` shows while it runs and prints at its end. */
import type { InferProgress, InferReport } from "../index.ts";
import { amountText, countText, isTerminal, printPairs, timeText } from "./output.ts";

/** Lines of `--progress` are this far apart, ms. */
const LINE_EVERY_MS = 5000;
/** Columns that the long form of the bar takes. */
const WIDE = 110;

/** The bar of a terminal, or with `--progress` lines in a pipe. */
export class InferProgressBar implements Disposable {
  readonly #started = performance.now();
  readonly #lines: boolean;
  readonly #silent: boolean;
  #bar: import("cli-progress").SingleBar | undefined;
  #lineMs = performance.now();
  #opening = false;
  #stopped = false;

  constructor(flags: { readonly json?: true; readonly progress?: true }) {
    const onTerminal = isTerminal(2);
    this.#lines = flags.progress === true && !onTerminal;
    this.#silent = !this.#lines && (!onTerminal || (flags.json === true && flags.progress !== true));
  }

  update(progress: InferProgress): void {
    if (this.#silent || this.#stopped) return;
    if (!this.#lines) {
      this.#draw(progress);
      return;
    }
    const now = performance.now();
    if (now - this.#lineMs < LINE_EVERY_MS) return;
    this.#lineMs = now;
    console.error(`headrace: ${this.#text(progress, now)}`);
  }

  /** Takes the bar away. Harmless when repeated. */
  stop(): void {
    this.#stopped = true;
    this.#bar?.stop();
    this.#bar = undefined;
  }

  [Symbol.dispose](): void {
    this.stop();
  }

  #text(progress: InferProgress, now: number): string {
    const { rows, resumedRows, totalRows, outputTokensPerSecond, occupancy } = progress;
    const left = totalRows - resumedRows - rows;
    const eta = rows === 0 ? "unknown" : timeText(((now - this.#started) * left) / rows);
    const done = `${countText(resumedRows + rows)}/${countText(totalRows)} rows`;
    return `${done} | ${countText(outputTokensPerSecond)} tokens/s | slots ${percent(occupancy)} | ETA ${eta}`;
  }

  #draw(progress: InferProgress): void {
    const text = this.#text(progress, performance.now());
    const done = progress.resumedRows + progress.rows;
    if (this.#bar !== undefined) this.#bar.update(done, { text });
    else if (!this.#opening) {
      this.#opening = true;
      void this.#open(progress.totalRows, done, text);
    }
  }

  /** Loads what draws only now: most runs have no terminal. */
  async #open(total: number, done: number, text: string): Promise<void> {
    const { default: cliProgress } = await import("cli-progress");
    if (this.#stopped) return;
    const wide = (process.stderr.columns ?? WIDE) >= WIDE;
    const options = {
      format: wide ? "{bar} {percentage}% | {text}" : "{percentage}% | {text}",
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: true,
      barsize: 24,
    };
    this.#bar = new cliProgress.SingleBar(options, cliProgress.Presets.shades_classic);
    this.#bar.start(total, done, { text });
  }
}

/** The closing table. */
export function printReport(report: InferReport): void {
  const { rows, resumedRows, failedRows, seconds, totalRows } = report;
  const pairs: [string, string][] = [
    ["dataset", `${report.dataset} (${amountText(totalRows, "row")}, column ${report.column})`],
    ["engine", `${report.engine} on ${report.device}`],
    ["rows", `${countText(rows)} in ${timeText(seconds * 1000)}${failedText(failedRows)}`],
  ];
  if (resumedRows > 0) {
    const failed = failedText(report.resumedFailedRows);
    pairs.push(["taken over", `${amountText(resumedRows, "row")} that were finished before${failed}`]);
  }
  if (report.remadeShards > 0) {
    pairs.push(["made again", `${amountText(report.remadeShards, "shard")}, gone or changed since`]);
  }
  pairs.push(["prompts", amountText(report.promptTokens, "token")]);
  // One that embeds makes no tokens.
  if (report.engine !== "embed") {
    const rate = `${countText(report.outputTokensPerSecond)} tokens/s`;
    pairs.push(["outputs", `${amountText(report.outputTokens, "token")}, ${rate}`]);
  }
  pairs.push(["slots in use", percent(report.occupancy)], ["waited for data", percent(report.dataWaitShare)]);
  if (report.steps > 0) {
    const first = report.engine === "embed" ? "vector after" : "first token after";
    pairs.push([report.engine === "http" ? "answer after" : first, durationsText(report.firstTokenMs)]);
    // A step over a server is no more than a look at what has come.
    if (report.engine !== "http") pairs.push(["a step takes", durationsText(report.stepMs)]);
  }
  pairs.push(["written to", report.out]);
  printPairs(pairs);
}

function durationsText({ p50, p99 }: InferReport["stepMs"]): string {
  return `${timeText(p50)} median, ${timeText(p99)} p99`;
}

function failedText(count: number): string {
  return count === 0 ? "" : `, ${countText(count)} of them failed`;
}

/** `12.3 %`: three digits, and never a rounding to all or nothing. */
function percent(share: number): string {
  const value = share * 100;
  if (value > 0 && value < 0.005) return "< 0.01 %";
  return `${value >= 99.95 ? Math.round(value) : value.toPrecision(3)} %`;
}
