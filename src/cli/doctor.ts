/** `doctor`: what this machine has, how fast it is, and what is missing with the command that mends it. */
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import {
  type CudaFindings,
  type Device,
  HeadraceError,
  lookAtCuda,
  type OpenDeviceOptions,
  openDevice,
} from "../index.ts";
import { checkDisk, checkMemory, folderName, type Measured, measuredBytes } from "./doctor-checks.ts";
import { lookAtMachine, type Machine, publishedRate } from "./machine.ts";
import { bytesText, ExitCode, isTerminal, MAX_ORDINAL, ORDINAL_HELP, wholeNumber } from "./output.ts";
import { type DiskRate, measureDisk, measureMemory, type Rate } from "./rates.ts";
import { type Remedy, reasonOf, remediesFor } from "./remedies.ts";
import { printDoctor } from "./report.ts";

/** What was asked for on the command line. */
export interface DoctorFlags {
  readonly device: string;
  readonly ordinal?: number;
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
  /** The parts of CUDA, also where no device opens. */
  readonly cuda: CudaFindings;
  readonly rates: RatesReport | undefined;
  /** Why there are no rates, where they were asked for. */
  readonly ratesReason: string | undefined;
  readonly missing: readonly Remedy[];
}

/** Devices that every report tells of. */
const REPORTED = ["host", "metal", "cuda"];

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
    .option("--ordinal <number>", ORDINAL_HELP, wholeNumber(0, MAX_ORDINAL))
    .option(
      "--folder <folder>",
      "where the disk is measured (default: the system's temporary folder)",
      folderName,
    )
    .option(
      "--size <bytes>",
      "of the file that is written and read for it, 1MiB at least",
      measuredBytes,
      2 ** 30,
    )
    .option("--memory <bytes>", "of the buffer that is copied, 1MiB at least", measuredBytes, 2 ** 28)
    .option("--no-rates", "measure nothing")
    .option("--json", "one JSON object on stdout instead of tables")
    .addHelpText("after", EXAMPLES)
    .action(doctor);
}

async function doctor(flags: DoctorFlags, command: Command): Promise<void> {
  const measured = measuredOf(flags, command);
  const abort = new AbortController();
  const interrupt = (signal: NodeJS.Signals) => abort.abort(signal);
  process.on("SIGINT", interrupt).on("SIGTERM", interrupt);
  try {
    const { report, works } = await examine(flags, measured, abort.signal);
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

function measuredOf({ folder = tmpdir(), size, memory }: DoctorFlags, command: Command): Measured {
  const names = ["folder", "size", "memory"];
  const typed = new Set(names.filter((name) => command.getOptionValueSource(name) === "cli"));
  return { folder, size, memory, typed };
}

/** Devices that opened, and why others did not. */
class Devices {
  readonly opened = new Map<string, Device>();
  readonly failures = new Map<string, unknown>();
  readonly #options: OpenDeviceOptions;

  constructor(options: OpenDeviceOptions) {
    this.#options = options;
  }

  /** Each name is tried once. */
  open(name: string): Device | undefined {
    if (this.opened.has(name) || this.failures.has(name)) return this.opened.get(name);
    try {
      const device = openDevice(name, this.#options);
      this.opened.set(name, device);
      return device;
    } catch (error) {
      this.failures.set(name, error);
      return undefined;
    }
  }

  async close(): Promise<void> {
    for (const device of this.opened.values()) await device.close();
  }
}

/** Opens every device, measures with the one asked for, closes them. Throws `BAD_OPTION` for what cannot be
 * measured with, and for a GPU that is not there. */
async function examine(
  flags: DoctorFlags,
  measured: Measured,
  signal: AbortSignal,
): Promise<{ report: DoctorReport; works: boolean }> {
  if (flags.ordinal !== undefined && flags.device !== "cuda") {
    throw new HeadraceError("BAD_OPTION", "--ordinal means nothing without --device cuda");
  }
  if (flags.rates) checkDisk(measured);
  const machine = lookAtMachine();
  const devices = new Devices(flags.ordinal === undefined ? {} : { ordinal: flags.ordinal });
  try {
    for (const name of REPORTED) devices.open(name);
    const chosen = devices.open(flags.device);
    const failure = devices.failures.get(flags.device);
    if (flags.ordinal !== undefined && isBadOption(failure)) throw failure;
    const { rates, ratesReason } =
      flags.rates && chosen !== undefined
        ? await tryRates(chosen, devices, machine, measured, signal)
        : { rates: undefined, ratesReason: undefined };
    const { version, engines } = packageFacts();
    const { opened, failures } = devices;
    const cuda = lookAtCuda();
    const missing = remediesFor({
      machine,
      metal: failures.get("metal"),
      cuda,
      asked: { name: flags.device, failure },
      ratesReason,
      env: process.env,
      libraryNamed: (process.env.HEADRACE_METAL_LIBRARY ?? "") !== "",
      swift: Bun.which("swift") !== null,
      leastBun: engines.bun.replace(/^\D+/, ""),
    });
    const reports = reportsOf(opened, failures);
    const report = { headrace: version, machine, devices: reports, cuda, rates, ratesReason, missing };
    return { report, works: chosen !== undefined && ratesReason === undefined };
  } finally {
    await devices.close();
  }
}

function isBadOption(error: unknown): boolean {
  return error instanceof HeadraceError && error.code === "BAD_OPTION";
}

/** The rates, or why there are none. */
async function tryRates(
  device: Device,
  devices: Devices,
  machine: Machine,
  measured: Measured,
  signal: AbortSignal,
): Promise<Pick<DoctorReport, "rates" | "ratesReason">> {
  checkMemory(measured, device, machine.memoryBytes);
  const files = devices.opened.get("host");
  if (files === undefined) return { rates: undefined, ratesReason: reasonOf(devices.failures.get("host")) };
  try {
    return { rates: await measure(device, files, machine, measured, signal), ratesReason: undefined };
  } catch (error) {
    if (signal.aborted) throw error;
    return { rates: undefined, ratesReason: reasonOf(error) };
  }
}

function reportsOf(
  opened: ReadonlyMap<string, Device>,
  failures: ReadonlyMap<string, unknown>,
): DeviceReport[] {
  return REPORTED.map((name) => {
    const device = opened.get(name);
    return device === undefined
      ? { name, works: false, reason: reasonOf(failures.get(name)) }
      : { name, works: true, capabilities: device.capabilities, facts: device.facts };
  });
}

async function measure(
  device: Device,
  files: Device,
  machine: Machine,
  { folder, size, memory: bytes }: Measured,
  signal: AbortSignal,
): Promise<RatesReport> {
  say(`copying ${bytesText(bytes)} in memory, several times …`);
  const memory = await measureMemory(device, bytes, signal);
  say(`writing ${bytesText(size)} to ${folder} and reading it, several times …`);
  const disk = await measureDisk(device, files, folder, size, signal);
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
