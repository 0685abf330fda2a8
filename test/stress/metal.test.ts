/** The Metal device under load, closes at bad moments, and the garbage collector; nothing may be left of it. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import type { Device } from "../../src/device/device.ts";
import { type OpenDeviceOptions, openDevice } from "../../src/device/open.ts";
import { RequestList } from "../../src/device/requests.ts";
import { bytesOf, expectBytes, expectMapped, pattern, patternFile, tempDir } from "../conformance/harness.ts";
import { metalLibrary, openStandIn } from "../conformance/metal-subjects.ts";
import { collect, openDescriptors, openMappings } from "../conformance/process.ts";
import { closeOne, EXITS, expectExit, workAtRandom } from "./work.ts";

const library = metalLibrary();
const standIn = "missing" in library ? undefined : openStandIn(library.path);
const reason = "missing" in library ? ` (left out: ${library.missing})` : "";
let dir: ReturnType<typeof tempDir>;
beforeAll(() => {
  dir = tempDir();
});
afterAll(() => dir[Symbol.dispose]());

/** What the process holds; the stand-in's objects too. */
function held() {
  return {
    descriptors: openDescriptors(),
    mappings: openMappings(dir.path),
    threads: ownThreads(),
    live: standIn?.live() ?? [],
  };
}

/** Threads of the library, which bear its name. Those of the runtime and of Dispatch are pools that stay. */
function ownThreads(): number {
  if (process.platform !== "linux") return 0;
  const names = readdirSync("/proc/self/task").map((thread) => {
    try {
      return readFileSync(`/proc/self/task/${thread}/comm`, "utf8");
    } catch {
      return "";
    }
  });
  return names.filter((name) => name.startsWith("headrace")).length;
}

/** Waits until no more is held than before: threads and Workers end a moment after they were told to. */
async function expectHeld(before: ReturnType<typeof held>): Promise<void> {
  const noMore = () => {
    const now = held();
    return (
      now.descriptors <= before.descriptors &&
      now.mappings <= before.mappings &&
      now.threads <= before.threads &&
      now.live.every((count, i) => count <= before.live[i]!)
    );
  };
  await collect(noMore);
  const now = held();
  if (!noMore()) expect(now).toEqual(before);
}

/** Opens a device, works and closes once, so that what the runtime keeps for itself is there. */
async function warm(options: OpenDeviceOptions = {}): Promise<void> {
  const device = openDevice("metal", options);
  const queue = device.createQueue();
  await queue.completion(queue.submit(new RequestList()));
  await device.close();
}

const WAYS = ["wake", "worker"] as const;

describe.skipIf("missing" in library)(`metal under stress${reason}`, () => {
  test.skipIf(process.platform !== "linux")("threads of the library are seen while it works", async () => {
    const device = openDevice("metal", { lanes: 3 });
    const queue = device.createQueue();
    const buffer = device.createBuffer(100);
    const file = device.openFile(import.meta.path);
    await queue.completion(queue.submit(new RequestList().read(file, 0, buffer, 0, 100)));
    expect(ownThreads()).toBeGreaterThan(0);
    await device.close();
    await collect(() => ownThreads() === 0);
    expect(ownThreads()).toBe(0);
  });

  test.each(WAYS)("100,000 submissions of many queues, some of which close meanwhile (%s)", async (way) => {
    await warm({ completions: way });
    const before = held();
    const path = patternFile(dir.path, "submissions", 65_536);
    const device = openDevice("metal", { completions: way, inlineCopyBytes: 0 });
    const file = device.openFile(path);
    const buffer = device.createBuffer(65_536);
    let ended = 0;
    const rounds = 200;
    for (let round = 0; round < rounds; round++) {
      const queues = Array.from({ length: 5 }, () => device.createQueue());
      const checks: Promise<unknown>[] = [];
      for (let i = 0; i < 500; i++) {
        const queue = queues[i % 5]!;
        const at = (i * 4096) % 65_536;
        const list = new RequestList();
        if (i % 3 === 0) list.copy(buffer, at, buffer, (at + 4096) % 65_536, 4096);
        else list.read(file, at, buffer, at, 4096);
        const done = queue.completion(queue.submit(list)).then(({ error }) => {
          if (error !== undefined && error.code !== "CANCELLED") throw error;
          ended++;
        });
        checks.push(done);
      }
      if (round % 4 === 0) await queues[2]!.close();
      await Promise.all(checks);
      await Promise.all(queues.map((queue) => queue.close()));
    }
    expect(ended).toBe(rounds * 500);
    expect(device.openResources).toBe(2);
    await device.close();
    await expectHeld(before);
  });

  test("four Workers with devices of their own, next to one that opens and closes", async () => {
    const path = patternFile(dir.path, "workers", 300_000);
    await warm();
    const before = held();
    const workers = Array.from(
      { length: 4 },
      () => new Worker(new URL("./metal-worker.ts", import.meta.url)),
    );
    const results = workers.map((worker) => {
      const { promise, resolve, reject } = Promise.withResolvers<number>();
      worker.onmessage = (event: MessageEvent<number>) => resolve(event.data);
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage({ path, rounds: 30 });
      return promise;
    });
    let over = false;
    const opening = (async () => {
      while (!over) await warm();
    })();
    expect(await Promise.all(results)).toEqual([1200, 1200, 1200, 1200]);
    over = true;
    await opening;
    for (const worker of workers) worker.terminate();
    await expectHeld(before);
  });

  test.each(WAYS)("1,000 devices opened and closed, 100 of them in flight (%s)", async (completions) => {
    const path = patternFile(dir.path, "devices", 200_000);
    const once = (inFlight: boolean) => closeOne(openDevice("metal", { completions }), path, inFlight);
    await once(true);
    const before = held();
    for (let cycle = 0; cycle < (completions === "wake" ? 1000 : 200); cycle++) await once(cycle % 10 === 0);
    await expectHeld(before);
  });

  test("what was forgotten goes, however much of it, and the device works on", async () => {
    const path = patternFile(dir.path, "forgotten", 100_000);
    await warm();
    const before = held();
    const device = openDevice("metal");
    const queue = device.createQueue();
    for (let round = 0; round < 40; round++) {
      await forget(device, path);
      Bun.gc(true);
      await Bun.sleep(0);
    }
    await collect(() => device.openResources === 1);
    expect(device.openResources).toBe(1);
    expect(openMappings(dir.path)).toBe(before.mappings);
    const buffer = device.createBuffer(100_000);
    const file = device.openFile(path);
    const { error } = await queue.completion(
      queue.submit(new RequestList().read(file, 0, buffer, 0, 100_000)),
    );
    expect(error).toBeUndefined();
    expectBytes(bytesOf(buffer), pattern(100_000));
    await device.close();
    await expectHeld(before);
  });

  test("random work, cancels, deadlines and collections: each ticket ends once, good ones with their bytes", async () => {
    await warm();
    const before = held();
    const device = openDevice("metal", { lanes: 3, pieceBytes: 65_536, inlineCopyBytes: 4096 });
    await workAtRandom(device, { folder: dir.path, byteLength: 2 ** 20, rounds: 3000 });
    await device.close();
    await expectHeld(before);
  });
});

describe.skipIf("missing" in library)(`processes that end with metal open${reason}`, () => {
  describe.each(["wake", "worker", "auto"])("completions by %s", (completions) => {
    for (const exit of EXITS) test(exit[0], () => expectExit(exit, dir.path, "metal", completions));
  });
});

/** Opens and submits without closing anything. */
async function forget(device: Device, path: string): Promise<void> {
  const queue = device.createQueue();
  for (let i = 0; i < 20; i++) {
    const file = device.openFile(path);
    const mapping = expectMapped(device.map(file, i, 50_000));
    const buffer = device.createBuffer(50_000);
    const event = device.createEvent();
    new Uint8Array(mapping.view(0, 100))[0];
    queue.submit(new RequestList().copy(mapping, 0, buffer, 0, 50_000).signal(event, 1));
  }
  await queue.close();
}
