/** What `doctor` prints for people. */

import type { DeviceReport, DoctorReport, RatesReport } from "./doctor.ts";
import { cudaRows, hasCuda } from "./doctor-cuda.ts";
import { amountText, bytesText, printable, printPairs } from "./output.ts";
import type { DiskRate, Rate } from "./rates.ts";

type Row = [name: string, value: string];

/** Capabilities and facts that are bytes. */
const BYTES = /^(?:workingSet|maxThreadgroupMemory|.*(?:Bytes|Length|Budget|Size))$/;

/** Prints machine, devices, rates, and what is missing. */
export function printDoctor(report: DoctorReport): void {
  const { machine } = report;
  const performance = machine.performanceCores;
  const sections: [title: string, rows: Row[]][] = [
    [
      "machine",
      [
        ["system", `${machine.system}, kernel ${machine.kernel}, ${machine.arch}`],
        ["chip", machine.chip ?? "unknown"],
        ["cores", `${machine.cores}${performance === undefined ? "" : `, ${performance} for performance`}`],
        ["memory", bytesText(machine.memoryBytes)],
        ["headrace", `${report.headrace} on Bun ${machine.bun}`],
        ["open files", machine.openFiles === undefined ? "no limit" : `${machine.openFiles} at most`],
      ],
    ],
    ...report.devices.map((device): [string, Row[]] => [`device ${device.name}`, deviceRows(device)]),
  ];
  if (hasCuda(report.cuda, machine.nvidia)) sections.push(["CUDA", cudaRows(report.cuda)]);
  if (report.rates !== undefined) sections.push(["rates", rateRows(report.rates)]);
  if (report.ratesReason !== undefined) sections.push(["rates", [["not measured", report.ratesReason]]]);
  const once = new Once(reasonsOf(report));
  for (const [title, rows] of sections) {
    console.log(printable(title));
    printPairs(rows.map(([name, value]) => [`  ${name}`, once.say(title, value)]));
    console.log("");
  }
  printMissing(report, once);
}

/** Has each of some reasons said once; later texts name the section that it is in. */
class Once {
  readonly #reasons: readonly string[];
  readonly #titles = new Map<string, string>();

  constructor(reasons: readonly string[]) {
    // One may be part of another.
    this.#reasons = reasons.toSorted((a, b) => b.length - a.length);
  }

  say(title: string, text: string): string {
    let said = text;
    for (const reason of this.#reasons) {
      if (!said.includes(reason)) continue;
      const earlier = this.#titles.get(reason);
      if (earlier === undefined) this.#titles.set(reason, title);
      else said = said.replace(reason, () => `see '${earlier}' above`);
    }
    return said;
  }
}

/** Why devices, parts of CUDA and rates are not here. */
function reasonsOf({ devices, cuda, ratesReason }: DoctorReport): string[] {
  const ofDevices = devices.map(({ reason }) => reason?.replace(/ \[[A-Z_]+\]$/, ""));
  const ofCuda = Object.values(cuda).map((part) => (part.found ? undefined : part.reason));
  const all = [...ofDevices, ...ofCuda, ratesReason];
  return [...new Set(all.filter((reason) => reason !== undefined))];
}

function deviceRows({ works, reason, capabilities, facts }: DeviceReport): Row[] {
  if (!works) return [["not here", reason ?? "unknown"]];
  const known = Object.entries({ ...capabilities, ...facts });
  const rows = known.map(([name, value]): Row => {
    const words = name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
    return [words, valueText(name, value)];
  });
  return [["works", "yes"], ...rows];
}

function valueText(name: string, value: unknown): string {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.join(", ") || "none";
  return BYTES.test(name) && typeof value === "number" ? bytesText(value) : String(value);
}

function rateRows({ device, memory, disk, ratio, published }: RatesReport): Row[] {
  return [
    ["measured by", `device ${device}`],
    ["memory", `${rateText(memory)}, read and written`],
    ["published", published === undefined ? "nothing known of this chip" : publishedText(published, memory)],
    ["disk", `${rateText(disk)}, ${bytesText(disk.fileBytes)} in ${disk.folder}`],
    ["disk was", diskText(disk)],
    ["ratio", `memory moves ${ratio.toPrecision(3)} bytes for each of the disk's`],
  ];
}

function rateText({ median, least, most, rounds }: Rate): string {
  return `${bytesText(median)}/s (${bytesText(least)} to ${bytesText(most)}, ${amountText(rounds, "round")})`;
}

function publishedText({ least, most }: { least: number; most: number }, { median }: Rate): string {
  const share = (rate: number) => `${Math.round((100 * median) / rate)}%`;
  if (least === most) return `${bytesText(most)}/s; measured: ${share(most)} of it`;
  const rates = `${bytesText(least)}/s to ${bytesText(most)}/s, by the number of GPU cores`;
  return `${rates}; measured: ${share(least)} to ${share(most)} of it`;
}

function diskText({ label, residentBefore }: DiskRate): string {
  const part =
    residentBefore === undefined ? "the system does not say" : `${Math.round(residentBefore * 100)}%`;
  if (label === "cold") return `cold: none of the file was in memory before a round (${part})`;
  if (label === "warm") {
    return `NOT measured: the file stayed in memory (${part}), so this is memory again; try --folder`;
  }
  return `perhaps warm: how much of the file was in memory before a round: ${part}`;
}

function printMissing({ missing, devices }: DoctorReport, once: Once): void {
  if (missing.length === 0) {
    const working = devices.filter(({ works }) => works).map(({ name }) => name);
    console.log(`nothing is missing; ${amountText(working.length, "device")}: ${working.join(", ")}`);
    return;
  }
  console.log("missing");
  for (const { problem, command } of missing) {
    console.log(`  ${printable(once.say("missing", problem))}`);
    if (command !== undefined) console.log(`    mend it by: ${command}`);
  }
}
