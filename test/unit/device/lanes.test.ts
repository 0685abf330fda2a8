import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { viewOf } from "../../../src/device/common/views.ts";
import { openHost } from "../../../src/device/host/device.ts";
import type { Job, JobEnd } from "../../../src/device/host/jobs.ts";
import { Lanes, type LanesOptions } from "../../../src/device/host/lanes.ts";
import { ENTRY, Field, LaneOp } from "../../../src/device/host/ring.ts";
import { Syscalls } from "../../../src/device/host/syscalls.ts";
import { RequestList } from "../../../src/device/requests.ts";
import { HeadraceError } from "../../../src/errors.ts";

const OPTIONS: LanesOptions = {
  numLanes: 2,
  numEntries: 16,
  numSlots: 2,
  pieceBytes: 4096,
  faults: undefined,
};

/** A job of `count` copies of `byteLength` bytes, one after the other. */
function copies(
  target: number,
  source: number,
  count: number,
  byteLength: number,
): [Omit<Job, "ended">, number] {
  const program = new Float64Array(count * ENTRY);
  for (let i = 0; i < count; i++) {
    program[i * ENTRY + Field.op] = LaneOp.copy;
    program[i * ENTRY + Field.fd] = -1;
    program[i * ENTRY + Field.target] = target + i * byteLength;
    program[i * ENTRY + Field.source] = source + i * byteLength;
    program[i * ENTRY + Field.byteLength] = byteLength;
  }
  const numPieces = count * Math.ceil(byteLength / OPTIONS.pieceBytes);
  return [{ program, first: 0, end: count, numPieces, lanesWanted: 2 }, count * byteLength];
}

function start(lanes: Lanes, job: Omit<Job, "ended">): Promise<JobEnd> {
  return new Promise((resolve) => lanes.start({ ...job, ended: resolve }));
}

test("more jobs than slots and more pieces than the ring holds all end", async () => {
  const syscalls = new Syscalls();
  const bytes = 4 * 2 ** 20;
  const source = syscalls.mapAnonymous(bytes);
  const target = syscalls.mapAnonymous(bytes);
  const from = new Uint8Array(viewOf(source, bytes)).map((_, i) => i * 7 + (i >> 8));
  new Uint8Array(viewOf(source, bytes)).set(from);
  const lanes = new Lanes(OPTIONS);
  const jobs = Array.from({ length: 8 }, (_, i) => {
    const [job, length] = copies(target + (i * bytes) / 8, source + (i * bytes) / 8, 8, bytes / 64);
    return start(lanes, job).then((end) => expect(end).toEqual({ bytesDone: length }));
  });
  await Promise.all(jobs);
  expect(Buffer.compare(new Uint8Array(viewOf(target, bytes)), from)).toBe(0);
  await lanes.close();
  syscalls.unmap(source, bytes);
  syscalls.unmap(target, bytes);
});

test("a lane that dies ends all jobs with DEVICE_FAILED, now and later", async () => {
  const syscalls = new Syscalls();
  const page = syscalls.mapAnonymous(8192);
  const lanes = new Lanes(OPTIONS);
  // Address 1 of length NaN is refused by the checked call in the lane, which no fault of a disk can do.
  const [job] = copies(page, page + 4096, 1, 64);
  job.program[Field.source] = Number.NaN;
  const end = await start(lanes, job);
  expect(end.failure).toBeInstanceOf(HeadraceError);
  expect(end.failure).toMatchObject({ code: "DEVICE_FAILED" });
  expect(() => lanes.start({ ...job, ended: () => {} })).toThrow("a lane has died");
  await lanes.close();
  syscalls.unmap(page, 8192);
});

test("stopping a job that has no slot yet ends it at once", async () => {
  const syscalls = new Syscalls();
  const page = syscalls.mapAnonymous(8192);
  const lanes = new Lanes({ ...OPTIONS, numSlots: 1 });
  const [job] = copies(page, page + 4096, 1, 64);
  const first = start(lanes, job);
  let ended: JobEnd | undefined;
  const second = lanes.start({
    ...job,
    ended: (end) => {
      ended = end;
    },
  });
  lanes.stop(second);
  lanes.stop(second);
  expect(ended).toEqual({ bytesDone: 0 });
  expect(await first).toEqual({ bytesDone: 64 });
  await lanes.close();
  syscalls.unmap(page, 8192);
});

/** Runs a script that has `device`, `queue` and `RequestList`; returns what it printed and how long it took. */
async function script(body: string): Promise<{ output: string; exitCode: number }> {
  const root = new URL("../../../src/device/", import.meta.url).href;
  const code = `
    import { openDevice } from "${root}open.ts";
    import { RequestList } from "${root}requests.ts";
    const device = openDevice("host", { faults: [{ call: "pread", nth: 2, delayMs: 200 }] });
    const queue = device.createQueue();
    const file = device.openFile(${JSON.stringify(import.meta.path)});
    const buffer = device.createBuffer(100);
    const list = new RequestList().read(file, 0, buffer, 0, 100);
    ${body}`;
  const child = Bun.spawn([process.execPath, "-e", code], { stdout: "pipe", stderr: "inherit" });
  const timer = setTimeout(() => child.kill(9), 10_000);
  const output = await new Response(child.stdout).text();
  const exitCode = await child.exited;
  clearTimeout(timer);
  return { output, exitCode };
}

test("lanes keep the process alive while they work and not when idle, closed or not", async () => {
  const { output, exitCode } = await script(`
    console.log((await queue.completion(queue.submit(list))).bytesDone);
    queue.completion(queue.submit(list)).then((c) => console.log("late", c.bytesDone));
  `);
  expect([output, exitCode]).toEqual(["100\nlate 100\n", 0]);
});

// Lanes beyond the cores rest while reads come from memory; one of them took the wake-up of a request that a
// working lane should have had, and the request stayed.
test("requests after the first quick long read are all taken, whichever lane was woken", async () => {
  const folder = mkdtempSync(join(tmpdir(), "headrace-lanes-"));
  const path = join(folder, "warm");
  writeFileSync(path, new Uint8Array(2 ** 22));
  for (let round = 0; round < 30; round++) {
    const device = openHost({ lanes: 8, pieceBytes: 2 ** 19 });
    const queue = device.createQueue();
    const file = device.openFile(path);
    const buffer = device.createBuffer(2 ** 22);
    const read = (byteLength: number) => {
      const list = new RequestList().read(file, 0, buffer, 0, byteLength);
      return queue.completion(queue.submit(list, { timeoutMs: 2000 }));
    };
    await Promise.all(Array.from({ length: 8 }, () => read(100)));
    await Bun.sleep(5);
    for (const byteLength of [2 ** 19, 100, 100, 2 ** 19, 100, 100, 100, 100]) {
      expect(await read(byteLength)).toMatchObject({ bytesDone: byteLength });
    }
    await device.close();
  }
  rmSync(folder, { recursive: true });
}, 20_000);
