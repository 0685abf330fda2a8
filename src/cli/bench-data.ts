/** Where a benchmark's data lies. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { HeadraceError } from "../index.ts";

/** A folder that was named and stays, or a fresh one below that of the results, which goes when it is disposed: their disk is
 * one that data is kept on, where the system's temporary folder may be memory. */
export class DataFolder implements Disposable {
  readonly path: string;
  readonly stays: boolean;

  /** Throws `IO_ERROR` where it cannot be made. */
  constructor(named: string | undefined, results: string) {
    this.stays = named !== undefined;
    const parent = named ?? results;
    try {
      mkdirSync(parent, { recursive: true });
      this.path = named ?? mkdtempSync(join(resolve(results), ".bench-data-"));
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      const option = named === undefined ? "--out" : "--data-folder";
      const text = `${parent}: cannot be written (${code}); name another folder by ${option}`;
      throw new HeadraceError(code === "ENOSPC" || code === "EDQUOT" ? "DISK_FULL" : "IO_ERROR", text, {
        cause,
      });
    }
  }

  /** For the people who wait. */
  get text(): string {
    return this.stays
      ? `data lies in ${this.path}, and stays`
      : `data lies in ${this.path} until the run ends; --data-folder keeps it for the next`;
  }

  [Symbol.dispose](): void {
    if (!this.stays) rmSync(this.path, { recursive: true, force: true, maxRetries: 3 });
  }
}
