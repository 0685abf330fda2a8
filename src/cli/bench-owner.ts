/** Names of folders by which it can be told whether the process that made them still runs. */
import { createHash } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";

/** `place-pid-start`: where process numbers mean what they mean here, the number, and when it was given to that process. */
const OWNER = /^([0-9a-f]{8})-(\d+)-([0-9a-f]{8})-/;

/** The beginning of a name that nothing but this process gives. */
export function ownerPrefix(): string {
  return `${placeHere()}-${process.pid}-${startOf(process.pid)}-`;
}

/** Whether the process that gave `name` its beginning has ended, for all that is known: never of one on another machine, in
 * another container, or that cannot be seen. */
export function ownerIsGone(name: string): boolean {
  const [, place, pid, start] = OWNER.exec(name) ?? [];
  if (place === undefined || place !== placeHere()) return false;
  if (!runs(Number(pid))) return true;
  // The number may have been given to another since.
  const now = startOf(Number(pid));
  return now !== UNKNOWN && start !== UNKNOWN && now !== start;
}

function runs(pid: number): boolean {
  // One that has ended keeps its number until its parent asks how.
  if (statOf(pid)[STATE] === "Z") return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

/** The machine and, on Linux, the set of process numbers that this process sees, whose name the first such set of every machine
 * has. */
function placeHere(): string {
  return hash([textOr(hostname), machineId(), textOr(() => readlinkSync("/proc/self/ns/pid"))]);
}

/** What tells this machine from another of its name; empty where the system has nothing of the kind. */
function machineId(): string {
  if (process.platform === "darwin") return printed(["sysctl", "-n", "kern.uuid"]);
  return textOr(() => readFileSync("/etc/machine-id", "utf8")).trim();
}

const UNKNOWN = "00000000";

/** When process `pid` began, as the system tells it; {@link UNKNOWN} where it does not. */
function startOf(pid: number): string {
  if (process.platform === "linux") {
    const ticks = statOf(pid)[TICKS];
    const boot = textOr(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8"));
    return ticks === undefined ? UNKNOWN : hash([boot, ticks]);
  }
  const found = printed(["ps", "-o", "lstart=", "-p", String(pid)]);
  return found === "" ? UNKNOWN : hash([found]);
}

const STATE = 0;
/** Since the system began. */
const TICKS = 19;

/** What Linux tells of a process behind its name, which stands in parentheses and may hold anything; else nothing. */
function statOf(pid: number): string[] {
  const stat = textOr(() => readFileSync(`/proc/${pid}/stat`, "utf8"));
  return stat === "" ? [] : stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}

/** What `command` prints, the same whatever time zone and language the user has; nothing where it cannot be run. */
function printed(command: string[]): string {
  const env = { ...process.env, LC_ALL: "C", TZ: "UTC" };
  return textOr(() => Bun.spawnSync(command, { env, stderr: "ignore" }).stdout.toString()).trim();
}

function textOr(read: () => string): string {
  try {
    return read();
  } catch {
    return "";
  }
}

function hash(parts: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 8);
}
