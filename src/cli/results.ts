/** Which results of a benchmark are meant. */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { HeadraceError } from "../index.ts";

/** Where `bench` puts results unless it is told otherwise. */
const RESULTS_FOLDER = "results";

export const RESULTS_HELP = `what 'headrace bench' wrote: JSON lines (default: the newest in ${RESULTS_FOLDER}/)`;

/** The file that was named, or the newest of the folder. Throws `SOURCE_NOT_FOUND` where there is none. */
export function resultsPath(named: string | undefined): string {
  if (named !== undefined) return named;
  let newest: { path: string; time: number } | undefined;
  for (const name of namesIn(RESULTS_FOLDER)) {
    if (!name.endsWith(".jsonl")) continue;
    const path = join(RESULTS_FOLDER, name);
    const time = statSync(path).mtimeMs;
    if (newest === undefined || time > newest.time) newest = { path, time };
  }
  if (newest !== undefined) return newest.path;
  const text = `no results in ${RESULTS_FOLDER}/; name a file, or run 'headrace bench' first`;
  throw new HeadraceError("SOURCE_NOT_FOUND", text);
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
