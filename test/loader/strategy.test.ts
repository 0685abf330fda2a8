/** Which way the bytes of a shard take: what was asked for, or what the rules make of file and device. */
import { describe, expect, test } from "bun:test";
import { closeSync, fsyncSync, openSync } from "node:fs";
import { type Device, isDeclined } from "../../src/device/device.ts";
import {
  HeadraceError,
  Loader,
  type OpenOptions,
  openDataset,
  openDevice,
  type ShardPath,
} from "../../src/index.ts";
import { writeArrowDataset } from "./arrow-files.ts";
import { openTestDevice } from "./device.ts";
import { type Differences, type Double, double } from "./doubles.ts";
import { collect, expectCode, snapshot, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset } from "./safetensors-files.ts";

const temp = useTempDir();

interface Loaded extends Double {
  /** Of the shards, after each epoch. */
  readonly paths: ShardPath[][];
  readonly snapshots: ReturnType<typeof snapshot>[];
}

/** Loads the folder through a double, and makes sure that nothing stays open. */
async function load(differences: Differences, options: OpenOptions = {}): Promise<Loaded> {
  const host = openTestDevice();
  const made = double(host, differences);
  const paths: ShardPath[][] = [];
  const snapshots: ReturnType<typeof snapshot>[] = [];
  const dataset = openDataset(temp(), made.device, options);
  const loader = new Loader(dataset, made.device, options);
  for (let epoch = 0; epoch < (options.epochs ?? 1); epoch++) {
    for await (using batch of loader.epoch()) snapshots.push(snapshot(batch));
    paths.push([...dataset.paths.values()]);
  }
  await loader.close();
  dataset.close();
  expect(host.openResources).toBe(0);
  await host.close();
  return { ...made, paths, snapshots };
}

const waysOf = (paths: readonly ShardPath[]) => [...new Set(paths.map(({ strategy }) => strategy))];
const why = (paths: readonly ShardPath[]) => [...new Set(paths.map(({ reason }) => reason))].join();

describe("stream", () => {
  const canStream = { capabilities: { canStream: true } };

  for (const [kind, write] of [
    ["safetensors", () => writeDataset(temp, [30, 30], SMALL_SPECS)],
    ["arrow", () => writeArrowDataset(temp, { isNull: (s, c) => (s + c) % 6 === 0 })],
  ] as const) {
    for (const options of [{}, { seed: 3 }, { seed: 3, padTo: 4 }] as const) {
      test(`${kind} ${JSON.stringify(options)}: the bytes of map and read, all through streams`, async () => {
        write();
        const all = { batchSize: 7, ...options };
        const plain = await collect(temp(), { ...all, strategy: "read" });
        const { snapshots, reads, streams, paths } = await load(canStream, { ...all, strategy: "stream" });
        expect(snapshots).toEqual(plain);
        expect(reads.stream).toBeGreaterThan(0);
        expect(reads.plain).toBe(0);
        expect(streams.size).toBe(0);
        expect(paths[0]).toContainEqual({ strategy: "stream", reason: "asked for" });
        expect(waysOf(paths[0]!)).toEqual(["stream"]);
      });
    }
  }

  test("tensors too", async () => {
    writeDataset(temp, [30], SMALL_SPECS);
    const options = { view: "tensors", batchSize: 2 } as const;
    const { snapshots, reads } = await load(canStream, { ...options, strategy: "stream" });
    expect(snapshots).toEqual(await collect(temp(), options));
    expect(reads.plain).toBe(0);
  });

  test("shards that are closed and opened again close their streams", async () => {
    writeDataset(temp, [10, 10, 10, 10], SMALL_SPECS);
    const options = { strategy: "stream", maxOpenShards: 1, batchSize: 5, epochs: 2, prefetch: 0 } as const;
    const { snapshots, streams } = await load(canStream, options);
    expect(snapshots.length).toBe(16);
    expect(streams.size).toBe(0);
  });

  test("a device without it refuses, before any shard is opened, and says what to do", async () => {
    await using device = openDevice("host");
    const open = () => openDataset(temp("no", "such"), device, { strategy: "stream" });
    await expectCode("SOURCE_NOT_FOUND", open);
    writeDataset(temp, [10], SMALL_SPECS);
    let opened = 0;
    const { device: watched } = double(device, {});
    watched.openFile = (path, mode) => {
      opened++;
      return device.openFile(path, mode);
    };
    const asked = () => openDataset(temp(), watched, { strategy: "stream" });
    await expectCode("UNSUPPORTED", asked, "strategy stream", "host", "auto, map or read");
    expect(opened).toBe(0);
    await expectCode(
      "BAD_OPTION",
      () => openDataset(temp(), device, { strategy: "fast" as never }),
      "stream",
    );
  });

  test("a batch that comes too late is named, with the stream that it waited for", async () => {
    writeDataset(temp, [30, 30], SMALL_SPECS);
    await using host = openTestDevice();
    const { device } = double(host, canStream);
    const createQueue = device.createQueue.bind(device);
    device.createQueue = () => {
      const queue = createQueue();
      const completion = queue.completion.bind(queue);
      queue.completion = async (ticket) => ({
        ...(await completion(ticket)),
        error: new HeadraceError("TIMED_OUT", `ticket ${ticket} has not ended within 9 ms`),
      });
      return queue;
    };
    const options = { strategy: "stream", batchSize: 40, timeoutMs: 9 } as const;
    using dataset = openDataset(temp(), device, options);
    await using loader = new Loader(dataset, device, options);
    const late =
      /^batch 0:0: its \d+ requests have not ended within 9 ms \(stream, .*safetensors and 1 more\); raise/;
    const next = loader[Symbol.asyncIterator]().next();
    await expect(next).rejects.toMatchObject({ code: "TIMED_OUT", message: expect.stringMatching(late) });
  });

  test("a stream that cannot be opened leaves nothing open", async () => {
    writeDataset(temp, [10], SMALL_SPECS);
    await using host = openDevice("host");
    const { device } = double(host, canStream);
    const { openFile } = device;
    device.openFile = (path, mode) => (mode === "stream" ? host.openFile(path, mode) : openFile(path, mode));
    await expectCode("UNSUPPORTED", () => openDataset(temp(), device, { strategy: "stream" }));
    expect(host.openResources).toBe(0);
  });
});

describe("auto", () => {
  test("maps what is in memory, reads what is not, and maps it too once an epoch has brought it in", async () => {
    writeDataset(temp, [20, 20], SMALL_SPECS);
    const parts: Record<string, number> = { "part-000": 0.9, "part-001": 0.1 };
    const residentPart = (path: string) => parts[/part-00\d/.exec(path)![0]];
    const first = await load({ residentPart }, { batchSize: 5 });
    expect(first.paths[0]!.map(({ strategy }) => strategy)).toEqual(["map", "read"]);
    expect(why(first.paths[0]!)).toMatch(/^it is in memory already,most of it is not in memory/);
    expect(first.reads.plain).toBeGreaterThan(0);

    let asked = 0;
    const warming = () => (asked++ < 2 ? 0 : 1);
    const again = await load({ residentPart: warming }, { batchSize: 5, epochs: 3 });
    expect(again.paths.map(waysOf)).toEqual([["read"], ["map"], ["map"]]);
    expect(asked).toBe(4);
    const cold = await load({ residentPart: () => 0 }, { batchSize: 5, epochs: 2 });
    expect(cold.paths.map(waysOf)).toEqual([["read"], ["read"]]);
    expect(again.snapshots.slice(0, 16)).toEqual(cold.snapshots);
  });

  test("maps where nobody knows", async () => {
    writeDataset(temp, [20], SMALL_SPECS);
    const { paths } = await load({ residentPart: () => undefined });
    expect(paths[0]).toEqual([{ strategy: "map", reason: "the device maps it" }]);
  });

  test("maps what is larger than a working set that is not the host's: mappings are in the host's memory", async () => {
    writeDataset(temp, [20], SMALL_SPECS);
    await using host = openTestDevice();
    const capabilities = { workingSet: 1000, unifiedMemory: false };
    using dataset = openDataset(temp(), double(host, { residentPart: () => 1, capabilities }).device);
    expect(waysOf([...dataset.paths.values()])).toEqual(["map"]);
  });

  test("reads what the device could not keep resident, cannot map, or declines to map", async () => {
    writeDataset(temp, [20], SMALL_SPECS);
    const warm = { residentPart: () => 1 };
    const large = await load({ ...warm, capabilities: { workingSet: 1000 } });
    expect(large.paths[0]).toEqual([
      { strategy: "read", reason: "larger than what the device can keep resident" },
    ]);
    const never = await load({ ...warm, capabilities: { canMap: false } });
    expect(never.paths[0]).toEqual([{ strategy: "read", reason: "the device does not map files" }]);
    const declined = { declined: "windows of 3 GB are mapped, of at most 2" };
    const full = await load({ ...warm, map: () => declined });
    expect(full.paths[0]).toEqual([{ strategy: "read", reason: declined.declined }]);
    expect(isDeclined(declined)).toBe(true);
    expect(large.snapshots).toEqual(full.snapshots);
  });

  test("never streams unasked, and what was asked for is done whatever is in memory", async () => {
    writeDataset(temp, [20], SMALL_SPECS);
    const cold = { residentPart: () => 0, capabilities: { canStream: true, workingSet: 1 } };
    expect(waysOf((await load(cold)).paths[0]!)).toEqual(["read"]);
    const map = await load(cold, { strategy: "map", epochs: 2 });
    expect(map.paths.map(waysOf)).toEqual([["map"], ["map"]]);
    expect(waysOf((await load({ residentPart: () => 1 }, { strategy: "read" })).paths[0]!)).toEqual(["read"]);
  });
});

test("what a device says is in memory: all after writing, nothing once forgotten, all after reading", async () => {
  writeDataset(temp, [4000], SMALL_SPECS);
  await using device: Device = openTestDevice();
  using file = device.openFile(temp("part-000.safetensors"));
  expect(file.residentPart?.()).toBe(1);
  const fd = openSync(file.path, "r+");
  fsyncSync(fd);
  closeSync(fd);
  file.forgetResident?.();
  const left = file.residentPart?.() ?? 1;
  if (left > 0) {
    console.log(`skipped: this file system keeps ${left} of a forgotten file (tmpfs does)`);
    return;
  }
  const { paths } = await load({}, { batchSize: 1000 });
  expect(waysOf(paths[0]!)).toEqual(["read"]);
  file.readSync(0, file.byteLength);
  expect(file.residentPart?.()).toBe(1);
  expect(waysOf((await load({})).paths[0]!)).toEqual(["map"]);
  using empty = device.openFile(temp("empty"), "write");
  expect(empty.residentPart?.()).toBeUndefined();
  empty.forgetResident?.();
});
