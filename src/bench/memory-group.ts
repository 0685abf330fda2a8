/** Runs processes in less memory than the machine has, by Linux's control groups, where root may make one. */
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HeadraceError } from "../index.ts";

/** A group of processes with a limit of memory, page cache included. */
export class MemoryGroup implements Disposable {
  /** A process joins by writing its number here. */
  readonly processes: string;
  readonly #folder: string;

  /** Throws `UNSUPPORTED` where no group can be made: elsewhere than on Linux, or without the right to. */
  constructor(limitBytes: number) {
    const unified = existsSync("/sys/fs/cgroup/cgroup.controllers");
    const root = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    this.#folder = join(root, `headrace-bench-${process.pid}`);
    this.processes = join(this.#folder, "cgroup.procs");
    try {
      mkdirSync(this.#folder);
      writeFileSync(join(this.#folder, unified ? "memory.max" : "memory.limit_in_bytes"), String(limitBytes));
    } catch (cause) {
      this[Symbol.dispose]();
      const { code } = cause as { code?: string };
      throw new HeadraceError(
        "UNSUPPORTED",
        `no group with ${limitBytes} bytes of memory can be made at ${root} (${code}): be root on Linux, or leave the limit out and use all memory`,
        { cause },
      );
    }
  }

  /** Once its processes have ended. */
  [Symbol.dispose](): void {
    try {
      rmdirSync(this.#folder);
    } catch {
      // Never made, or a process of it still ends: the system removes nothing that is in use, and no harm is done.
    }
  }
}
