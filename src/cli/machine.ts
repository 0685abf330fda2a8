/** What `doctor` says of the machine itself, from what the system tells everybody. */
import { readFileSync, statfsSync } from "node:fs";
import { availableParallelism, release, totalmem } from "node:os";

/** The machine, as the report has it. */
export interface Machine {
  /** `macOS 15.1`, `Debian GNU/Linux 12 (bookworm)`. */
  readonly system: string;
  readonly kernel: string;
  /** Of this process: `arm64`, `x64`. */
  readonly arch: string;
  /** `Apple M3 Max`; undefined where the system does not say. */
  readonly chip: string | undefined;
  readonly cores: number;
  /** Apple silicon alone. */
  readonly performanceCores: number | undefined;
  readonly memoryBytes: number;
  readonly bun: string;
  /** Descriptors that a process may have open; undefined for any number. */
  readonly openFiles: number | undefined;
  /** Whether an arm64 Mac runs this process as x64. */
  readonly translated: boolean;
  /** Whether the NVIDIA driver is loaded. */
  readonly nvidia: boolean;
}

/** Looks at this machine. Never throws: what is not known is left out. */
export function lookAtMachine(): Machine {
  const mac = process.platform === "darwin" ? parseSysctl(outputOf("sysctl", ...SYSCTLS)) : undefined;
  const performanceCores = Number(mac?.get("hw.perflevel0.physicalcpu") ?? Number.NaN);
  return {
    system: mac === undefined ? linuxName() : `macOS ${mac.get("kern.osproductversion") ?? "?"}`,
    kernel: release(),
    arch: process.arch,
    chip: mac === undefined ? parseCpuinfo(textOf("/proc/cpuinfo")) : mac.get("machdep.cpu.brand_string"),
    cores: availableParallelism(),
    performanceCores: performanceCores > 0 ? performanceCores : undefined,
    memoryBytes: totalmem(),
    bun: Bun.version,
    openFiles: parseLimit(outputOf("sh", "-c", "ulimit -n")),
    translated: mac?.get("sysctl.proc_translated") === "1",
    nvidia: textOf("/proc/driver/nvidia/version") !== "",
  };
}

const SYSCTLS = [
  "machdep.cpu.brand_string",
  "hw.perflevel0.physicalcpu",
  "kern.osproductversion",
  "sysctl.proc_translated",
];

/** `name: value` lines; names that this system lacks are missing. */
export function parseSysctl(text: string): Map<string, string> {
  const pairs = text.split("\n").flatMap((line) => {
    const at = line.indexOf(":");
    return at < 0 ? [] : [[line.slice(0, at).trim(), line.slice(at + 1).trim()] as const];
  });
  return new Map(pairs);
}

/** The processor's name in Linux's own list. */
export function parseCpuinfo(text: string): string | undefined {
  return /^(?:model name|Model|cpu model)\s*:\s*(.+)$/m.exec(text)?.[1]?.trim();
}

/** What `ulimit -n` prints. */
export function parseLimit(text: string): number | undefined {
  const value = Number(text.trim());
  return text.trim() !== "" && Number.isSafeInteger(value) ? value : undefined;
}

function linuxName(): string {
  return /^PRETTY_NAME="?([^"\n]+)"?$/m.exec(textOf("/etc/os-release"))?.[1] ?? process.platform;
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function outputOf(...command: string[]): string {
  try {
    return Bun.spawnSync(command, { stdin: "ignore", stderr: "ignore" }).stdout.toString();
  } catch {
    return "";
  }
}

/** Bytes that can be written below `folder`; undefined where that is not known. */
export function freeBytes(folder: string): number | undefined {
  try {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  } catch {
    return undefined;
  }
}

/**
 * Bytes a second that memory moves, in GB/s, as Apple publishes it for each chip on apple.com (its technical
 * specifications and press releases). Where a chip comes with several, by its number of GPU cores, the least and
 * the most.
 */
const PUBLISHED_GB_PER_S: Readonly<Record<string, readonly [least: number, most: number]>> = {
  "Apple M1": [68.25, 68.25],
  "Apple M1 Pro": [200, 200],
  "Apple M1 Max": [400, 400],
  "Apple M1 Ultra": [800, 800],
  "Apple M2": [100, 100],
  "Apple M2 Pro": [200, 200],
  "Apple M2 Max": [400, 400],
  "Apple M2 Ultra": [800, 800],
  "Apple M3": [100, 100],
  "Apple M3 Pro": [150, 150],
  "Apple M3 Max": [300, 400],
  "Apple M3 Ultra": [819, 819],
  "Apple M4": [120, 120],
  "Apple M4 Pro": [273, 273],
  "Apple M4 Max": [410, 546],
  "Apple M5": [153, 153],
  "Apple M5 Pro": [307, 307],
  "Apple M5 Max": [460, 614],
};

/** The published rate of a chip's memory in bytes a second, least and most. */
export function publishedRate(chip: string | undefined): { least: number; most: number } | undefined {
  const found = PUBLISHED_GB_PER_S[chip?.trim() ?? ""];
  return found === undefined ? undefined : { least: found[0] * 1e9, most: found[1] * 1e9 };
}
