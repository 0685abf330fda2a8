/** What `infer` shows while it runs and prints at its end. */
import type { InferProgress, InferReport } from "../index.ts";
import { amountText, countText, printPairs, timeText } from "./output.ts";
import { TextBar } from "./text-bar.ts";

export class InferProgressBar extends TextBar {
  updateRows(progress: InferProgress): void {
    const { rows, resumedRows, totalRows, outputTokensPerSecond, occupancy } = progress;
    this.update(resumedRows + rows, totalRows, (ms) => {
      const left = totalRows - resumedRows - rows;
      const eta = rows === 0 ? "unknown" : timeText((ms * left) / rows);
      const done = `${countText(resumedRows + rows)}/${countText(totalRows)} rows`;
      return `${done} | ${countText(outputTokensPerSecond)} tokens/s | slots ${percent(occupancy)} | ETA ${eta}`;
    });
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
