/** Finding the system's compression libraries: by their usual names, or where the environment says. */
import { dlopen, type FFIFunction, type Library } from "bun:ffi";

/** What a library's absence says, for people. */
export interface Missing {
  readonly missing: string;
}

export interface Found<F extends Record<string, FFIFunction>> {
  readonly symbols: Library<F>["symbols"];
  /** The name by which it was opened. */
  readonly name: string;
}

const HOMEBREW = ["/opt/homebrew/lib/", "/usr/local/lib/"];

/**
 * Opens a library for the calling thread: the one that the environment's `variable` names (`none`: none at all), else
 * the first of `names` that is there. A library that lacks a symbol counts as missing. It is never closed.
 */
export function findLibrary<const F extends Record<string, FFIFunction>>(
  names: readonly string[],
  variable: string | undefined,
  functions: F,
): Found<F> | Missing {
  const named = variable === undefined ? undefined : process.env[variable];
  if (named === "none") return { missing: `${variable} is none` };
  const failures: string[] = [];
  for (const name of named === undefined || named === "" ? names : [named]) {
    try {
      return { symbols: dlopen(name, functions).symbols, name };
    } catch (error) {
      failures.push(`${name}: ${oneLine(error)}`);
    }
  }
  return { missing: failures.join("; ") };
}

/** Of `zstd`: `libzstd.so.1`, and Homebrew's `libzstd.dylib`. */
export function usualNames(stem: string): string[] {
  if (process.platform !== "darwin") return [`lib${stem}.so.1`];
  return [...HOMEBREW.map((folder) => `${folder}lib${stem}.dylib`), `lib${stem}.dylib`];
}

function oneLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split("\n")[0]!.slice(0, 200);
}
