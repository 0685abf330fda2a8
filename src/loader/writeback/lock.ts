/**
 * Keeps two writers out of one folder.
 *
 * A lock is a file whose name tells its owner: host, process, when that process began, and a number. A writer makes its
 * own first and looks at the others then, so that of two at once at least one sees the other and steps back. What a
 * dead process has left is removed; a process number that was given again is told by when the process began, where the
 * system says so. Nothing depends on locks of the file system, which networks lose.
 */
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { HeadraceError } from "../../errors.ts";
import { codeOf, type FileOps } from "./files.ts";

const NAME = /^lock-(.+)-(\d+)-(\d+)-([0-9a-f]+)$/;

/** A lock that is held. */
export interface FolderLock {
  release(): Promise<void>;
}

/** Takes the lock of `folder`, which exists. Throws `BUSY` while another writer has it. */
export async function lockFolder(ops: FileOps, folder: string): Promise<FolderLock> {
  const host = hostname().replace(/[^A-Za-z0-9.]/g, "_") || "host";
  const token = crypto.randomUUID().replaceAll("-", "");
  const mine = `lock-${host}-${process.pid}-${startOf(process.pid) ?? 0}-${token}`;
  const path = join(folder, mine);
  await (await ops.open(path, true)).close();
  try {
    for (const name of (await ops.list(folder)) ?? []) {
      const parts = name === mine ? null : NAME.exec(name);
      if (parts === null) continue;
      const [, owner, pid, start] = parts as unknown as [string, string, string, string];
      if (owner !== host) throw busy(folder, `process ${pid} of ${owner}`, join(folder, name));
      if (isAlive(Number(pid), Number(start))) throw busy(folder, `process ${pid}`, join(folder, name));
      await ops.remove(join(folder, name));
    }
  } catch (error) {
    await ops.remove(path).catch(() => {});
    throw error;
  }
  return { release: () => ops.remove(path) };
}

/** Whether the name is that of a lock. */
export function isLock(name: string): boolean {
  return NAME.test(name);
}

function busy(folder: string, owner: string, path: string): HeadraceError {
  return new HeadraceError(
    "BUSY",
    `${folder}: ${owner} is writing there; wait for it, or remove ${path} if that is over`,
  );
}

function isAlive(pid: number, start: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // Of another user: alive, and not ours to signal.
    return codeOf(error) === "EPERM" && isSame(pid, start);
  }
  return isSame(pid, start);
}

function isSame(pid: number, start: number): boolean {
  const now = startOf(pid);
  if (now === "ended") return false;
  return start === 0 || now === undefined || now === start;
}

/** When a process began, in the system's ticks since it started; undefined where it does not say. */
function startOf(pid: number): number | "ended" | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name in parentheses may hold anything; what follows it are the state, and numbers.
    const [state, ...rest] = text.slice(text.lastIndexOf(")") + 2).split(" ");
    // Ended, and nobody has asked how: it writes no more, and may be there for long.
    if (state === "Z" || state === "X") return "ended";
    const start = Number(rest[18]);
    return Number.isSafeInteger(start) ? start : undefined;
  } catch {
    return undefined;
  }
}
