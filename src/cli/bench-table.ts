/** What `bench` prints at its end. */
import type { CeilingRecord, CellRecord, Quantiles } from "../bench/record.ts";
import type { BenchResult } from "../bench/run.ts";
import { amountText, bytesText, printable, printPairs, printTable, timeText } from "./output.ts";

/** Prints machine, ceilings, every cell and what has no figures. */
export async function printResult(result: BenchResult, path: string): Promise<void> {
  const { run, ceilings, cells, failures } = result;
  const { machine } = run;
  printPairs([
    ["machine", `${machine.cpu}, ${amountText(machine.cores, "core")}, ${bytesText(machine.memoryBytes)}`],
    ["system", `${machine.os}, kernel ${machine.kernel}, load ${machine.load.toFixed(2)}`],
    ...(machine.gpu === undefined ? [] : [["device", machine.gpu] as const]),
    ["disk", machine.disk],
    ...ceilings.map((ceiling) => [`ceiling ${ceiling.name}`, ceilingText(ceiling)] as const),
  ]);
  const measured = cells.filter(({ skipped }) => skipped === undefined);
  if (measured.length > 0) {
    console.log("");
    await printTable(HEAD, measured.map(rowOf));
    console.log("\nrates are of values delivered: median, and the bootstrap 95 % interval of the median");
  }
  printSkipped(cells);
  printUnproven(measured);
  if (failures.length > 0) {
    console.log(`\n${amountText(failures.length, "trial")} FAILED:`);
    for (const { cell, error } of failures) console.log(`  ${printable(`${cell}: ${error}`)}`);
  }
  console.log(`\nresults: ${printable(path)}; draw them with 'headrace bench report ${printable(path)}'`);
}

const HEAD = [
  "data",
  "format",
  "path",
  "order",
  "was",
  "lanes",
  "GB/s",
  "interval",
  "of ceiling",
  "size",
  "CPU s/GB",
  "p95 batch",
  "busy",
  "peak",
];

function rowOf(record: CellRecord): string[] {
  const { cell, gigabytesPerSecond, ceiling, batchMs, busyShare } = record;
  const request = cell.requestBytes === undefined ? "" : ` × ${bytesText(cell.requestBytes)}`;
  return [
    cell.data,
    cell.format,
    cell.peer ?? cell.path,
    cell.order,
    cell.temperature,
    `${cell.lanes}${request}`,
    rate(gigabytesPerSecond.median),
    intervalText(gigabytesPerSecond),
    ceiling === undefined ? "-" : `${Math.round(100 * ceiling.part)}% ${ceiling.name}`,
    `${Math.round(100 / record.compression)}%`,
    record.cpuSecondsPerGigabyte.toPrecision(2),
    timeText(batchMs[3] ?? 0),
    busyShare === undefined ? "-" : `${Math.round(100 * busyShare.median)}%`,
    bytesText(record.peakRssBytes),
  ];
}

function ceilingText({ gigabytesPerSecond, note }: CeilingRecord): string {
  return `${rate(gigabytesPerSecond.median)} GB/s (${intervalText(gigabytesPerSecond)}), ${note}`;
}

function intervalText({ low, high }: Quantiles): string {
  return `${rate(low)} to ${rate(high)}`;
}

function rate(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/** Cells without figures, those with the same reason in one line. */
function printSkipped(cells: readonly CellRecord[]): void {
  const groups = Map.groupBy(
    cells.filter(({ skipped }) => skipped !== undefined),
    ({ skipped }) => skipped!,
  );
  for (const [reason, members] of groups) {
    const names = [...new Set(members.map(({ cell }) => `${cell.format} by ${cell.peer ?? cell.path}`))];
    console.log(`\nskipped ${printable(names.join(", "))}: ${printable(reason)}`);
  }
}

function printUnproven(cells: readonly CellRecord[]): void {
  for (const { cell, unproven = 0, rounds } of cells) {
    if (unproven === 0) continue;
    const counts = cell.temperature === "warm" ? "all count as warm" : `${rounds} others count`;
    console.log(`\nnot proven cold: ${amountText(unproven, "trial")} of ${printable(cell.id)}; ${counts}`);
  }
}
