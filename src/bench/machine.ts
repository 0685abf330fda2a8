/** The machine and the programs of a run, from what the system tells everybody. */
import { readFileSync, statfsSync } from "node:fs";
import { availableParallelism, cpus, freemem, loadavg, release, totalmem } from "node:os";
import { join } from "node:path";
import type { Device } from "../index.ts";
import type { RunRecord } from "./record.ts";

/** This machine, whose data lies in `folder`. Never throws: what is not known is said to be unknown. */
export function machineOf(folder: string, device: Device): RunRecord["machine"] {
  const gpu = device.capabilities.name;
  const power = process.platform === "darwin" ? powerText() : undefined;
  return {
    cpu: cpuName(),
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    os: process.platform === "darwin" ? `macOS ${outputOf("sw_vers", "-productVersion")}` : linuxName(),
    kernel: release(),
    arch: process.arch,
    disk: diskText(folder),
    memoryFreeBytes: freemem(),
    load: loadavg()[0] ?? 0,
    ...(/^host\b/.test(gpu) ? {} : { gpu }),
    ...(power === undefined ? {} : { power }),
  };
}

/** Versions of this package, of the runtime, of what decompresses, and of what the device says of its libraries. */
export function versionsOf(device: Device): Record<string, string> {
  const root = join(import.meta.dir, "../..");
  const text = textOf(join(root, "package.json"));
  const { version = "unknown", dependencies = {} } = text === "" ? {} : JSON.parse(text);
  const commit = outputOf("git", "-C", root, "rev-parse", "--short", "HEAD");
  const changed = outputOf("git", "-C", root, "status", "--porcelain", "--", "src") !== "";
  const facts = Object.entries(device.facts).filter(([name]) => /version|driver|library|runtime/i.test(name));
  return {
    headrace: commit === "" ? version : `${version} (${commit}${changed ? ", changed" : ""})`,
    bun: Bun.version,
    "apache-arrow": String(dependencies["apache-arrow"] ?? "unknown"),
    ...device.decoders?.().facts,
    ...Object.fromEntries(facts.map(([name, value]) => [name, String(value)])),
  };
}

/** Free bytes of the file system of `folder`. */
export function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

/** `intel-xeon-2-cores`: what results of this machine are filed under. */
export function machineSlug({ cpu, cores, gpu }: RunRecord["machine"]): string {
  const words = `${gpu ?? cpu}`
    .toLowerCase()
    .replaceAll(/\(r\)|\(tm\)|cpu|processor|@.*$/g, " ")
    .match(/[a-z0-9]+/g);
  return [...(words ?? ["unknown"]).slice(0, 5), cores, "cores"].join("-");
}

function cpuName(): string {
  return cpus()[0]?.model.trim() || outputOf("sysctl", "-n", "machdep.cpu.brand_string") || "unknown";
}

function linuxName(): string {
  return /^PRETTY_NAME="?([^"\n]+)"?$/m.exec(textOf("/etc/os-release"))?.[1] ?? process.platform;
}

/** File system and device: the mount with the longest path that holds the folder. */
function diskText(folder: string): string {
  if (process.platform !== "linux") return outputOf("df", "-T", folder).split("\n").at(-1) || "unknown";
  let best: string[] = [];
  for (const line of textOf("/proc/self/mounts").split("\n")) {
    const [device, place, kind] = line.split(" ");
    if (device === undefined || place === undefined || kind === undefined) continue;
    const holds = place === "/" || folder === place || folder.startsWith(`${place}/`);
    if (holds && place.length >= (best[1]?.length ?? 0)) best = [device, place, kind];
  }
  if (best.length === 0) return "unknown";
  const name = /^\/dev\/([a-z]+|nvme\d+n\d+)/.exec(best[0]!)?.[1];
  const model = name === undefined ? "" : textOf(`/sys/block/${name}/device/model`).trim();
  return `${best[2]} on ${best[0]}${model === "" ? "" : ` (${model})`}`;
}

function powerText(): string {
  const source = /'([^']+)'/.exec(outputOf("pmset", "-g", "batt"))?.[1] ?? "unknown source";
  const low = /lowpowermode\s+1/.test(outputOf("pmset", "-g")) ? ", low-power mode" : "";
  const limit = /CPU_Speed_Limit\s*=\s*(\d+)/.exec(outputOf("pmset", "-g", "therm"))?.[1];
  return `${source}${low}${limit === undefined ? "" : `, speed limit ${limit} %`}`;
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
    return Bun.spawnSync(command, { stdin: "ignore", stderr: "ignore" }).stdout.toString().trim();
  } catch {
    return "";
  }
}
