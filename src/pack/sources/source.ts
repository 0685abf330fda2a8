/** What all sources share: how they are opened, and how they say that something is wrong with their files. */
import { HeadraceError } from "../../errors.ts";
import type { SourceWatch } from "./watch.ts";

/** How a source is opened. */
export interface SourceOptions {
  /** Names or patterns (`*`, `?`, `[…]`, `{a,b}`) of the columns or tensors to read; all where absent. What is left out
   * is neither read nor checked. */
  readonly columns?: readonly string[] | undefined;
  /** Is told of files that the names of the source do not say, before they are opened; borrowed. */
  readonly watch?: SourceWatch | undefined;
}

/** Ends what is said of a row that cannot be read. */
export const OR_SKIP = "; --bad-rows skip leaves such rows out";

/** An error of a source's contents: `place` says where, `src.parquet: row group 3`. */
export function badInput(place: string, problem: string, cause?: unknown): HeadraceError {
  const options = cause === undefined ? undefined : { cause };
  return new HeadraceError("BAD_INPUT", `${place}: ${problem}`, options);
}
