import { expect } from "bun:test";
import { type ErrorCode, HeadraceError } from "../../../src/errors.ts";

/** Asserts that `work` throws a {@link HeadraceError} of `code` whose message holds all of `parts`. */
export function expectCode(code: ErrorCode, parts: readonly unknown[], work: () => unknown): void {
  let caught: unknown;
  try {
    work();
  } catch (error) {
    caught = error;
  }
  expect(caught).toBeInstanceOf(HeadraceError);
  const error = caught as HeadraceError;
  expect(error.code).toBe(code);
  expect(error.message).not.toContain("\n");
  for (const part of parts) expect(error.message).toContain(String(part));
}
