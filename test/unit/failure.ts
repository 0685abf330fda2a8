/** What tests ask of calls that must fail. */
import { HeadraceError } from "../../src/errors.ts";

/** What `work` throws; an error of its own if that is no HeadraceError. */
export function failureOf(work: () => unknown): HeadraceError {
  try {
    work();
  } catch (error) {
    if (error instanceof HeadraceError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}
