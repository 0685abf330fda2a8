import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { errnoError, errnoName, nodeError } from "../../../src/device/common/errors.ts";
import { viewOf } from "../../../src/device/common/views.ts";
import { createFaultCounters, type Fault } from "../../../src/device/host/faults.ts";
import { Syscalls } from "../../../src/device/host/syscalls.ts";

const { EBADF, EINVAL, EIO, ENOMEM } = constants.errno;
let dir: string;
let path: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "headrace-syscalls-"));
  path = join(dir, "file");
  writeFileSync(path, new Uint8Array(100_000).fill(3));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function faulty(...faults: Fault[]): Syscalls {
  return new Syscalls({ faults, counters: createFaultCounters(faults) });
}

function withFile(work: (fd: number) => void): void {
  const fd = openSync(path, "r");
  try {
    work(fd);
  } finally {
    closeSync(fd);
  }
}

describe("syscalls", () => {
  test("arguments that C would misread are refused", () => {
    const calls = new Syscalls();
    const missing = undefined as unknown as number;
    const uses = [
      () => calls.pread(0, missing, 1, 0),
      () => calls.pread(0, 0, 1, 0),
      () => calls.pread(missing, 4096, 1, 0),
      () => calls.pread(0, 4096, 0.5, 0),
      () => calls.pwrite(0, 4096, 1, -1),
      () => calls.copy(0, 4096, 1),
      () => calls.copy(4096, missing, 1),
      () => calls.copy(4096, 8192, Number.NaN),
      () => calls.unmap(missing, 4096),
      () => calls.mapFile(-1, 0, 1),
      () => calls.mapAnonymous(0),
      () => viewOf(missing, 1),
    ];
    for (const use of uses) expect(use).toThrow(expect.objectContaining({ code: "DEVICE_FAILED" }));
  });

  test("failures are negative errnos of the system", () => {
    const calls = new Syscalls();
    const page = calls.mapAnonymous(4096);
    expect(calls.pread(9999, page, 10, 0)).toBe(-EBADF);
    expect(calls.pwrite(9999, page, 10, 0)).toBe(-EBADF);
    expect(calls.sync(9999)).toBe(-EBADF);
    expect(calls.fileLength(9999)).toBe(-EBADF);
    expect(calls.mapAnonymous(2 ** 46)).toBe(-ENOMEM);
    expect(calls.advise(page + 1, 10, "random")).toBe(-EINVAL);
    withFile((fd) => expect(calls.mapFile(fd, 1, 4096)).toBe(-EINVAL));
    expect(calls.unmap(page, 4096)).toBe(0);
  });

  test("a mapping becomes resident by populate, also where only will-need is known", () => {
    for (const calls of [new Syscalls(), faulty({ call: "madvise", nth: 1, errno: "EINVAL" })]) {
      withFile((fd) => {
        const address = calls.mapFile(fd, 0, 100_000);
        expect(calls.populate(address, 98_304)).toBe(0);
        expect(calls.residentPages(address, 98_304)).toBe(98_304 / calls.pageSize);
        expect(new Uint8Array(viewOf(address, 100_000))[99_999]).toBe(3);
        calls.unmap(address, 100_000);
      });
    }
    const failing = faulty({ call: "madvise", nth: 1, errno: "EIO" });
    const page = failing.mapAnonymous(4096);
    expect(failing.populate(page, 4096)).toBe(-EIO);
    failing.unmap(page, 4096);
  });

  test("faults hit the calls they name, and no others", () => {
    const calls = faulty(
      { call: "pread", nth: 2, times: 2, errno: "EIO" },
      { call: "pread", nth: 5, short: 4 },
    );
    const page = calls.mapAnonymous(4096);
    withFile((fd) => {
      const counts = Array.from({ length: 6 }, () => calls.pread(fd, page, 10, 0));
      expect(counts).toEqual([10, -EIO, -EIO, 10, 4, 10]);
      expect(calls.fileLength(fd)).toBe(100_000);
    });
    calls.unmap(page, 4096);
  });

  test("faults that cannot be injected are refused", () => {
    const bad = expect.objectContaining({ code: "BAD_OPTION" });
    expect(() => createFaultCounters([{ call: "read" as "pread", nth: 1 }])).toThrow(bad);
    expect(() => createFaultCounters([{ call: "pread", nth: 0 }])).toThrow(bad);
    expect(() => createFaultCounters([{ call: "pread", nth: 1, errno: "EWHAT" }])).toThrow(bad);
  });
});

test("a file is locked by one opening of it at a time, until that is closed", () => {
  const calls = new Syscalls();
  withFile((first) => {
    withFile((second) => {
      expect(calls.tryLock(first)).toBe(0);
      expect(calls.tryLock(first)).toBe(0);
      expect(calls.tryLock(second)).toBe(-constants.errno.EAGAIN);
    });
  });
  withFile((third) => expect(calls.tryLock(third)).toBe(0));
  expect(calls.tryLock(1_000_000)).toBe(-EBADF);
  expect(() => calls.tryLock(-1)).toThrow("flock: fd -1");
});

describe("errors", () => {
  test.each([
    ["ENOENT", "SOURCE_NOT_FOUND"],
    ["ENOTDIR", "SOURCE_NOT_FOUND"],
    ["EACCES", "SOURCE_UNREADABLE"],
    ["EISDIR", "SOURCE_UNREADABLE"],
    ["ENOSPC", "DISK_FULL"],
    ["EDQUOT", "DISK_FULL"],
    ["ENOMEM", "OUT_OF_MEMORY"],
    ["EIO", "IO_ERROR"],
    ["EMFILE", "IO_ERROR"],
  ] as const)("%s is %s", (name, code) => {
    const error = errnoError("a: reading", constants.errno[name]);
    expect(error.code).toBe(code);
    expect(error.message).toStartWith(`a: reading: ${name}`);
    expect(nodeError("b", Object.assign(new Error("x"), { code: name })).code).toBe(code);
  });

  test("unknown errnos and causes keep what is known", () => {
    expect(errnoName(4711)).toBe("errno 4711");
    expect(nodeError("c", new Error("what happened")).message).toBe("c: what happened");
  });
});
