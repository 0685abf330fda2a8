/** What becomes of decodings that lanes refuse, or note failures of. */
import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DecodePool } from "../../../src/device/decode/pool.ts";
import { CHUNK_FAILED, FailureTexts } from "../../../src/device/decode/records.ts";
import { Run } from "../../../src/device/decode/run.ts";
import { openHost } from "../../../src/device/host/device.ts";
import type { Job } from "../../../src/device/host/jobs.ts";
import { Lanes } from "../../../src/device/host/lanes.ts";
import { HeadraceError } from "../../../src/errors.ts";
import { type MadeFile, makeChunkFile } from "./chunk-files.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "headrace-decode-lanes-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const host = openHost();

function makeOne(): MadeFile {
  return makeChunkFile(join(folder, "a.bin"), [{ codec: "zstd", byteLength: 50_000 }]);
}

describe("what lanes note of a failure", () => {
  /** A decoding of one chunk whose lanes are played by the test; all in the same slot of the ring. */
  function begin(failures: FailureTexts) {
    const made = makeOne();
    const task = { file: { path: made.path, table: made.table }, chunk: 0 };
    const run = new Run({ tasks: [task], lanesWanted: 1 } as never, failures, undefined, () => {});
    let end: Job["ended"] | undefined;
    run.begin({
      start: (job) => {
        end = (how) => job.ended(how);
        return { job, slot: 0, request: 0, cutBytes: 0, piecesLeft: 0, over: false };
      },
      stop: () => end!({ bytesDone: 0 }),
      close: async () => {},
    });
    return { run, end: end! };
  }

  test("of a decoding that was cancelled meanwhile is not told of the next one", async () => {
    const failures = new FailureTexts(1);
    const first = begin(failures);
    failures.note(0, 7, "UNSUPPORTED_COMPRESSION", "of the first");
    first.run.cancel();
    expect((await first.run.ended).error?.code).toBe("CANCELLED");
    const second = begin(failures);
    failures.note(0, 0, "BAD_CHUNK", "of the second");
    second.end({ bytesDone: 0, failure: { code: CHUNK_FAILED, request: 0, done: 0, fileOffset: 0 } });
    const { error } = await second.run.ended;
    expect(error?.code).toBe("BAD_CHUNK");
    expect(error?.message).toContain("of the second");
  });
});

test("closing after a lane has died does not wait for what could not begin", async () => {
  const made = makeOne();
  const pool = new DecodePool({ deviceName: "test", lanes: 2, retain: () => () => {} });
  using file = pool.open(made.path, made.table);
  using target = host.createBuffer(made.bytes.length);
  const broken = new HeadraceError("DEVICE_FAILED", "a lane has died");
  const start = spyOn(Lanes.prototype, "start").mockImplementation(() => {
    throw broken;
  });
  try {
    expect(() => pool.start([{ file, byteOffset: 0, byteLength: 50_000, target, targetOffset: 0 }])).toThrow(
      broken,
    );
  } finally {
    start.mockRestore();
  }
  expect(await Promise.race([pool.close().then(() => "closed"), Bun.sleep(2000)])).toBe("closed");
});
