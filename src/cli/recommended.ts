/** Where figures of this machine are kept, and how commands take them up. */
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { type Dataset, HeadraceError, parseRecommended, type Recommended } from "../index.ts";
import { printable } from "./output.ts";

/** What commands that load have for it. */
export interface RecommendedFlags {
  /** A file's path, or false for none. */
  readonly recommended?: string | boolean;
}

export const RECOMMENDED_HELP =
  "measured figures for --strategy auto, made by 'headrace bench recommend --save' (default: those of this user, where there are)";

/** Where `bench recommend --save` puts figures, and where commands look for them. */
export function defaultRecommendedPath(
  env: Readonly<Record<string, string | undefined>> = process.env,
): string {
  const config = env.XDG_CONFIG_HOME;
  return join(
    config === undefined || config === "" ? join(homedir(), ".config") : config,
    "headrace/recommended.json",
  );
}

/** Figures and where they came from. */
export interface KeptFigures {
  readonly path: string;
  readonly recommended: Recommended;
}

/** The figures that were asked for, or those of this user, or none; where this user's cannot be read, says so on stderr and
 * gives none: nobody asked for them. Of a file that was named throws `SOURCE_NOT_FOUND`, `SOURCE_UNREADABLE`, and `BAD_RESULTS`
 * where it is damaged. */
export function readRecommended({ recommended: asked }: RecommendedFlags): KeptFigures | undefined {
  if (asked === false) return undefined;
  if (typeof asked === "string") return figuresIn(asked);
  const path = defaultRecommendedPath();
  if (!existsSync(path)) return undefined;
  try {
    return figuresIn(path);
  } catch (error) {
    const { message } = error as Error;
    console.error(
      `headrace: its figures are not used: ${printable(message)}; with --no-recommended none are looked for`,
    );
    return undefined;
  }
}

function figuresIn(path: string): KeptFigures {
  try {
    return { path, recommended: parseRecommended(readFileSync(path, "utf8")) };
  } catch (error) {
    if (error instanceof HeadraceError) throw error.within(path);
    const { code, message } = error as NodeJS.ErrnoException;
    throw new HeadraceError(
      code === "ENOENT" ? "SOURCE_NOT_FOUND" : "SOURCE_UNREADABLE",
      `${path}: cannot be read: ${message}`,
    );
  }
}

/** Says on stderr that `kept` was not used for `dataset`, and why. Where it was, the reason for each path has its figures. */
export function warnUnused(dataset: Dataset, kept: KeptFigures | undefined): void {
  const { measured } = dataset;
  if (kept === undefined || measured === undefined || measured.used) return;
  console.error(`headrace: ${printable(kept.path)}: its figures are not used: ${printable(measured.reason)}`);
}
