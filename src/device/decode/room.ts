/** How much memory the machine has to spare: of all that is there, and of what the process's control groups allow. */
import { readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { dirname, join } from "node:path";
import type { Room } from "./cache.ts";

/** Of the memory, the part that stays for others; when they have but half of it, they get some back. */
const OTHERS = 0.25;
/** Bytes that may be taken after one look. */
const GRANT = 2 ** 26;
/** Between looks that found nothing, and between looks for a shortage. */
const PAUSE_MS = 500;

/** A whole, and what of it can be had without anybody's loss but that of cached files. */
export interface MemoryShare {
  readonly total: number;
  readonly available: number;
}

/** Gives memory away as long as a quarter of the machine's, and of each control group's, stays available. */
export class MemoryRoom implements Room {
  readonly #look: () => readonly MemoryShare[];
  readonly #now: () => number;
  #granted = 0;
  #emptyUntilMs = Number.NEGATIVE_INFINITY;
  #lookAgainMs = Number.NEGATIVE_INFINITY;

  /** `look` and `now` (in ms) for tests. */
  constructor(
    look: () => readonly MemoryShare[] = memoryShares,
    now: () => number = () => performance.now(),
  ) {
    this.#look = look;
    this.#now = now;
  }

  /** Bytes of the smallest whole: of the machine, or of a control group. */
  get total(): number {
    return Math.min(...this.#look().map(({ total }) => total));
  }

  grant(byteLength: number, promised: number): boolean {
    if (this.#granted < byteLength) {
      if (this.#now() < this.#emptyUntilMs) return false;
      this.#granted = Math.min(this.#spare(OTHERS) - promised, Math.max(GRANT, byteLength));
      if (this.#granted < byteLength) {
        this.#emptyUntilMs = this.#now() + PAUSE_MS;
        return false;
      }
    }
    this.#granted -= byteLength;
    return true;
  }

  shortage(): number {
    if (this.#now() < this.#lookAgainMs) return 0;
    this.#lookAgainMs = this.#now() + PAUSE_MS;
    return Math.max(0, -this.#spare(OTHERS / 2));
  }

  /** What is available above that part of the whole; below 0 where it is less. */
  #spare(part: number): number {
    return Math.min(...this.#look().map(({ total, available }) => Math.floor(available - total * part)));
  }
}

/** The machine's memory, and that of each control group that the process is in and that has a bound. Never throws. */
export function memoryShares(root = "/"): readonly MemoryShare[] {
  const system = systemShare(root);
  return system === undefined ? [withoutWord()] : [system, ...groupShares(root)];
}

/** Where no system says what is available: half of the memory is this process's. */
function withoutWord(): MemoryShare {
  const total = totalmem();
  return { total, available: total * (0.5 + OTHERS) - process.memoryUsage.rss() };
}

function systemShare(root: string): MemoryShare | undefined {
  const text = textOf(join(root, "proc/meminfo"));
  const field = (name: string) => Number(new RegExp(`^${name}: +(\\d+) kB$`, "m").exec(text)?.[1]) * 1024;
  const share = { total: field("MemTotal"), available: field("MemAvailable") };
  return Number.isNaN(share.total + share.available) ? undefined : share;
}

/** Lines of `/proc/self/cgroup`: `0::/path` of version 2, `4:memory:/path` of version 1. */
function groupShares(root: string): MemoryShare[] {
  const shares: MemoryShare[] = [];
  for (const line of textOf(join(root, "proc/self/cgroup")).split("\n")) {
    const [id, controllers, ...path] = line.split(":");
    const unified = id === "0" && controllers === "";
    if (!unified && !controllers?.split(",").includes("memory")) continue;
    const mount = join(root, unified ? "sys/fs/cgroup" : "sys/fs/cgroup/memory");
    // Inside a container the path may be the host's: then only its end, the container's own root, is there.
    for (let folder = join("/", path.join(":")); ; folder = dirname(folder)) {
      const share = groupShare(join(mount, folder), unified);
      if (share !== undefined) shares.push(share);
      if (folder === "/") break;
    }
  }
  return shares;
}

function groupShare(folder: string, unified: boolean): MemoryShare | undefined {
  const [most, used, cached] = unified
    ? ["memory.max", "memory.current", "inactive_file"]
    : ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"];
  const total = numberOf(textOf(join(folder, most)));
  // No bound is `max`, or nearly 2^63.
  if (total === undefined || total > totalmem()) return undefined;
  const inactive = new RegExp(`^${cached} (\\d+)$`, "m").exec(textOf(join(folder, "memory.stat")))?.[1];
  return { total, available: total - (numberOf(textOf(join(folder, used))) ?? 0) + Number(inactive ?? 0) };
}

function numberOf(text: string): number | undefined {
  return /^\d+\s*$/.test(text) ? Number(text) : undefined;
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
