/** Where a benchmark's data lies. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { writeFailure } from "../bench/write-failure.ts";
import { ownerIsGone, ownerPrefix } from "./bench-owner.ts";

const PREFIX = ".bench-data-";

/** A folder that was named and stays, or a fresh one below that of the results, which goes when it is disposed: their disk is
 * one that data is kept on, where the system's temporary folder may be memory. What a run left there that was killed goes
 * first. */
export class DataFolder implements Disposable {
  readonly path: string;
  readonly stays: boolean;
  /** Folders of runs that were killed, which are gone now. */
  readonly removed: readonly string[] = [];

  /** Throws `DISK_FULL` or `IO_ERROR` where it cannot be made. */
  constructor(named: string | undefined, results: string) {
    this.stays = named !== undefined;
    const parent = named ?? results;
    try {
      mkdirSync(parent, { recursive: true });
      if (named === undefined) this.removed = removeLeftovers(resolve(results));
      this.path = named ?? mkdtempSync(join(resolve(results), `${PREFIX}${ownerPrefix()}`));
    } catch (cause) {
      const option = named === undefined ? "--out" : "--data-folder";
      throw writeFailure(parent, cause, `name another folder by ${option}`);
    }
  }

  /** For the people who wait. */
  get text(): string {
    return this.stays
      ? `data lies in ${this.path}, and stays`
      : `data lies in ${this.path} until the run ends; --data-folder keeps it for the next`;
  }

  [Symbol.dispose](): void {
    if (!this.stays) remove(this.path);
  }
}

/** Removes the data of runs in `folder` that came to no end of their own, and gives the paths. */
function removeLeftovers(folder: string): string[] {
  const left = readdirSync(folder, { withFileTypes: true }).filter(
    (entry) =>
      entry.isDirectory() && entry.name.startsWith(PREFIX) && ownerIsGone(entry.name.slice(PREFIX.length)),
  );
  const paths = left.map(({ name }) => join(folder, name));
  return paths.filter((path) => {
    try {
      remove(path);
      return true;
    } catch {
      // Another user's: it stands in nobody's way.
      return false;
    }
  });
}

function remove(path: string): void {
  rmSync(path, { recursive: true, force: true, maxRetries: 3 });
}
