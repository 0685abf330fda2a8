import { expect, test } from "bun:test";
import { mkdirSync, readFileSync } from "node:fs";
import { writeFailure } from "../../../src/bench/write-failure.ts";
import { HeadraceError } from "../../../src/index.ts";

function thrown(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

const system = (code: string) => Object.assign(new Error(code), { code, syscall: "write" });

test("failures of the system's become errors by code, with what to do", () => {
  const cause = thrown(() => mkdirSync(import.meta.path));
  expect(writeFailure("x", cause, "do this")).toMatchObject({
    code: "IO_ERROR",
    message: "x: cannot be written: a file is there, and no folder; do this",
    cause,
  });
  for (const code of ["ENOSPC", "EDQUOT"]) {
    expect(writeFailure("x", system(code), "y")).toMatchObject({ code: "DISK_FULL" });
  }
  expect(writeFailure("x", system("EROFS"), "y")).toMatchObject({ code: "IO_ERROR" });
  expect(writeFailure("x", system("EWHAT"), "y")).toMatchObject({
    message: "x: cannot be written: EWHAT; y",
  });
});

test("all others stay as they are", () => {
  const own = new HeadraceError("IO_ERROR", "own", { cause: thrown(() => readFileSync("/none")) });
  for (const error of [
    own,
    new TypeError("a mistake"),
    Object.assign(new Error("x"), { code: "ABORT_ERR" }),
  ]) {
    expect(writeFailure("x", error, "y")).toBe(error);
  }
});
