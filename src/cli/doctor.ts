/** `doctor`: what this machine has, how fast it is, and what is missing with the command that mends it. */
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import { type Device, openDevice } from "../index.ts";
import { lookAtMachine, type Machine, publishedRate } from "./machine.ts";
import { byteCount, bytesText, ExitCode, isTerminal } from "./output.ts";
import { type DiskRate, measureDisk, measureMemory, type Rate } from "./rates.ts";
import { type Remedy, reasonOf, remediesFor } from "./remedies.ts";
import { printDoctor } from "./report.ts";

/** What was asked for on the command line. */
export interface DoctorFlags {
  readonly device: string;
  readonly folder?: string;
  readonly size: number;
  readonly memory: number;
  readonly rates: boolean;
  readonly json?: true;
}

/** A device as the report has it. */
export interface DeviceReport {
  readonly name: string;
  readonly works: boolean;
  /** Of a device that works. */
  readonly capabilities?: Device["capabilities"];
  readonly facts?: Device["facts"];
  /** Of one that does not. */
  readonly reason?: string;
}

/** Rates in bytes a second. */
export interface RatesReport {
  /** Name of the device that moved the bytes. */
  readonly device: string;
  /** Bytes read and bytes written, both. */
  readonly memory: Rate;
  readonly disk: DiskRate;
  /** Of the medians: how often the disk's bytes go into the memory's. */
  readonly ratio: number;
  /** Of the chip's memory, as its maker publishes it; undefined for an unknown chip. */
  readonly published: { readonly least: number; readonly most: number } | undefined;
}

/** All that `--json` prints. */
export interface DoctorReport {
  readonly headrace: string;
  readonly machine: Machine;
  readonly devices: readonly DeviceReport[];
  readonly rates: RatesReport | undefined;
  /** Why there are no rates, where they were asked for. */
  readonly ratesReason: string | undefined;
  readonly missing: readonly Remedy[];
}

const EXAMPLES = `
Examples:
  headrace doctor
  headrace doctor --json > doctor.json             to send along with a report
  headrace doctor --folder /Volumes/Data           the rate of another disk
  headrace doctor --no-rates                       at once, without measuring
  headrace doctor --device metal                   fails where that device does not work

Exit codes: 0 the device works, 1 it does not, 2 bad usage, 130 after Ctrl-C, 143 after SIGTERM.
`;

/** The command, ready to be added to a program. */
export function doctorCommand(): Command {
  return new Command("doctor")
    .description("Say what this machine has for loading, how fast it is, and what is missing.")
    .addOption(
      new Option("--device <name>", "the device to measure with")
        .choices(["auto", "host", "metal", "cuda"])
        .default("auto"),
    )
    .option("--folder <folder>", "where the disk is measured (default: the system's temporary folder)")
    .option("--size <bytes>", "of the file that is written and read for it", byteCount, 2 ** 30)
    .option("--memory <bytes>", "of the buffer that is copied", byteCount, 2 ** 28)
    .option("--no-rates", "measure nothing")
    .option("--json", "one JSON object on stdout instead of tables")
    .addHelpText("after", EXAMPLES)
    .action(doctor);
}

async function doctor(flags: DoctorFlags): Promise<void> {
  const abort = new AbortController();
  const interrupt = (signal: NodeJS.Signals) => abort.abort(signal);
  process.on("SIGINT", interrupt).on("SIGTERM", interrupt);
  try {
    const { report, works } = await examine(flags, abort.signal);
    if (flags.json) console.log(JSON.stringify(report));
    else printDoctor(report);
    if (!works) process.exitCode = ExitCode.failed;
  } catch (error) {
    if (!abort.signal.aborted) throw error;
    console.error("headrace: interrupted; nothing that was measured stays on the disk");
    process.exitCode = abort.signal.reason === "SIGTERM" ? ExitCode.terminated : ExitCode.interrupted;
  } finally {
    process.off("SIGINT", interrupt).off("SIGTERM", interrupt);
  }
}

/** Opens every device, measures with the one asked for, closes them. */
async function examine(
  flags: DoctorFlags,
  signal: AbortSignal,
): Promise<{ report: DoctorReport; works: boolean }> {
  const machine = lookAtMachine();
  const opened = new Map<string, Device>();
  const failures = new Map<string, unknown>();
  const open = (name: string): Device | undefined => {
    try {
      const device = openDevice(name);
      opened.set(name, device);
      return device;
    } catch (error) {
      failures.set(name, error);
      return undefined;
    }
  };
  try {
    for (const name of ["host", "metal"]) open(name);
    const chosen = opened.get(flags.device) ?? (failures.has(flags.device) ? undefined : open(flags.device));
    const files = opened.get("host");
    let rates: RatesReport | undefined;
    let ratesReason: string | undefined;
    if (flags.rates && chosen !== undefined && files !== undefined) {
      try {
        rates = await measure(chosen, files, machine, flags, signal);
      } catch (error) {
        if (signal.aborted) throw error;
        ratesReason = reasonOf(error);
      }
    }
    const swift = Bun.which("swift") !== null;
    const { version, engines } = packageFacts();
    const leastBun = engines.bun.replace(/^\D+/, "");
    const metal = failures.get("metal");
    const libraryNamed = (process.env.HEADRACE_METAL_LIBRARY ?? "") !== "";
    const report: DoctorReport = {
      headrace: version,
      machine,
      devices: [...reportsOf(opened, failures), cudaReport(machine)],
      rates,
      ratesReason,
      missing: remediesFor({ machine, metal, libraryNamed, swift, leastBun }),
    };
    return { report, works: chosen !== undefined && ratesReason === undefined };
  } finally {
    for (const device of opened.values()) await device.close();
  }
}

function reportsOf(
  opened: ReadonlyMap<string, Device>,
  failures: ReadonlyMap<string, unknown>,
): DeviceReport[] {
  return ["host", "metal"].map((name) => {
    const device = opened.get(name);
    return device === undefined
      ? { name, works: false, reason: reasonOf(failures.get(name)) }
      : { name, works: true, capabilities: device.capabilities, facts: device.facts };
  });
}

function cudaReport({ nvidia }: Machine): DeviceReport {
  const seen = nvidia ? "an NVIDIA driver is loaded here" : "no NVIDIA driver is loaded here";
  return { name: "cuda", works: false, reason: `this version has none; ${seen}` };
}

async function measure(
  device: Device,
  files: Device,
  machine: Machine,
  flags: DoctorFlags,
  signal: AbortSignal,
): Promise<RatesReport> {
  const folder = flags.folder ?? tmpdir();
  say(`copying ${bytesText(flags.memory)} in memory, several times …`);
  const memory = await measureMemory(device, flags.memory, signal);
  say(`writing ${bytesText(flags.size)} to ${folder} and reading it, several times …`);
  const disk = await measureDisk(device, files, folder, flags.size, signal);
  return {
    device: device.capabilities.name,
    memory,
    disk,
    ratio: memory.median / disk.median,
    published: publishedRate(machine.chip),
  };
}

/** To somebody who waits, and nobody else. */
function say(text: string): void {
  if (isTerminal(2)) console.error(`headrace: ${text}`);
}

function packageFacts(): { version: string; engines: { bun: string } } {
  return JSON.parse(readFileSync(join(import.meta.dir, "../../package.json"), "utf8"));
}
