/** What becomes of decodings that lanes refuse, or note failures of. */
import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OpenChunks } from "../../../src/device/decode/file.ts";
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
    const run = new Run({ tasks: [task], lanesWanted: 1 } as never, failures, undefined, () => {}, 0);
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

test("what cannot be asked of the lanes leaves no place in use", async () => {
  const made = makeChunkFile(join(folder, "three.bin"), Array(3).fill({ codec: "zstd", byteLength: 50_000 }));
  await using pool = new DecodePool({ deviceName: "test", lanes: 2, retain: () => () => {} });
  using file = pool.open(made.path, made.table);
  using target = host.createBuffer(made.bytes.length);
  const failure = new HeadraceError("IO_ERROR", "no mapping");
  const wanted = { file, byteOffset: 10, byteLength: made.bytes.length - 20, target, targetOffset: 10 };
  let calls = 0;
  const mapped = spyOn(OpenChunks.prototype, "mapped").mockImplementation(() => {
    if (++calls === 3) throw failure;
    return 0;
  });
  try {
    expect(() => pool.start([wanted])).toThrow(failure);
  } finally {
    mapped.mockRestore();
  }
  expect(pool.cachedBytes).toBe(0);
  expect((await pool.start([wanted]).ended).error).toBeUndefined();
  const bytes = Buffer.from(new Uint8Array(target.view(10, wanted.byteLength)));
  expect(bytes.equals(made.bytes.subarray(10, 10 + wanted.byteLength))).toBe(true);
});

test.if(process.platform === "linux")("lanes that end give their memory back", async () => {
  const length = 15 * 2 ** 20;
  const made = makeChunkFile(
    join(folder, "long.bin"),
    Array(2).fill({ codec: "lz4Frame", byteLength: length }),
  );
  using target = host.createBuffer(made.bytes.length);
  // Memory that is not of files; the bound leaves room for what the runtime takes for itself.
  const mapped = () =>
    Number(/^VmData:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))![1]) * 1024;
  const useOnce = async () => {
    await using pool = new DecodePool({
      deviceName: "test",
      lanes: 2,
      cacheBytes: 0,
      retain: () => () => {},
    });
    using file = pool.open(made.path, made.table);
    const parts = [0, length].map((at) => ({
      file,
      byteOffset: at + 1,
      byteLength: 100,
      target,
      targetOffset: at + 1,
    }));
    expect((await pool.start(parts).ended).decodedBytes).toBe(made.bytes.length);
  };
  await useOnce();
  const before = mapped();
  for (let round = 0; round < 12; round++) await useOnce();
  expect(mapped() - before).toBeLessThan(8 * length);
});
