/** The arena: bounded, reused, and never further ahead than asked for. */
import { describe, expect, test } from "bun:test";
import { type Device, type OpenOptions, RequestList } from "../../src/index.ts";
import { openLoader, openTestDevice } from "./device.ts";
import { collect, expectCode, idsOf, take, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset, writePlain } from "./safetensors-files.ts";

const temp = useTempDir();
const range = (count: number) => Array.from({ length: count }, (_, i) => i);

describe("memory", () => {
  test("a batch over memoryBytes is refused with the numbers, and a smaller one is not", async () => {
    writePlain(temp("a.safetensors"), 64, 2 ** 16);
    const options: OpenOptions = { strategy: "read", prefetch: 0, memoryBytes: 3 * 2 ** 20 };
    expect(idsOf(await collect(temp(), { ...options, batchSize: 32 }))).toEqual(range(64));
    await expectCode(
      "BATCH_TOO_LARGE",
      () => collect(temp(), { ...options, batchSize: 64 }),
      64 * 2 ** 16,
      3 * 2 ** 20,
      "memoryBytes",
    );
  });

  test("the least memory that would do is said, and is enough; smaller batches are advised where they help", async () => {
    writePlain(temp("a.safetensors"), 64, 2 ** 16);
    const message = async (batchSize: number, prefetch: number, memoryBytes: number) => {
      const options: OpenOptions = { strategy: "read", prefetch, batchSize };
      const text = await expectCode("BATCH_TOO_LARGE", () => collect(temp(), { ...options, memoryBytes }));
      const least = Number(/memoryBytes of at least (\d+)$/.exec(text)?.[1]);
      expect(idsOf(await collect(temp(), { ...options, memoryBytes: least }))).toEqual(range(64));
      await expectCode("BATCH_TOO_LARGE", () => collect(temp(), { ...options, memoryBytes: least - 1 }));
      return { text, least };
    };
    const tiny = await message(1, 2, 2 ** 20);
    expect(tiny.text).not.toContain("smaller batches");
    expect(tiny.text).toContain("a lower prefetch or");
    const alone = await message(1, 0, 20_000);
    expect(alone.text).not.toMatch(/smaller batches|prefetch/);
    const rounded = await message(17, 1, 3 * 2 ** 20);
    expect(rounded.text).not.toContain("smaller batches");
    const large = await message(20, 2, 3 * 2 ** 20);
    expect(large.text).toContain("use smaller batches or a lower prefetch or");
    expect(tiny.least).toBe(3 * alone.least);
    expect([rounded.least, large.least]).toEqual([4 * 2 ** 20, 6 * 2 ** 20]);
  });

  test("the arena does not grow over 200 batches of about one size", async () => {
    writeDataset(temp, [400], SMALL_SPECS);
    await using loader = await openLoader(temp(), { strategy: "read", batchSize: 4, seed: 1, epochs: 2 });
    const sizes = new Set<number>();
    let batches = 0;
    for await (using _ of loader) if (++batches > 3) sizes.add(loader.stats.arenaBytes);
    expect(batches).toBe(200);
    expect(sizes.size).toBe(1);
    expect([...sizes][0]! % (3 * 2 ** 20)).toBe(0);
  });

  for (const prefetch of [0, 1, 4]) {
    test(`a slow consumer finds at most prefetch + 1 batches prepared (${prefetch})`, async () => {
      writePlain(temp("a.safetensors"), 200);
      let planned = 0;
      let most = 0;
      const tracer = { span: (track: string) => void (track === "planning" && planned++) };
      await using loader = await openLoader(temp(), { strategy: "read", batchSize: 5, prefetch, tracer });
      let taken = 0;
      for await (using _ of loader) {
        taken++;
        await Bun.sleep(1);
        most = Math.max(most, planned - taken + 1);
      }
      expect(taken).toBe(40);
      expect(most).toBe(prefetch + 1);
    });
  }

  test("an allocation that fails is told, and the next loop tries again", async () => {
    writePlain(temp("a.safetensors"), 20);
    await using host = openTestDevice();
    let failures = 1;
    const device: Device = Object.create(host, {
      createBuffer: {
        value: (byteLength: number, storage?: "shared" | "private") => {
          if (failures-- > 0) return host.createBuffer(2 ** 60);
          return host.createBuffer(byteLength, storage);
        },
      },
      openFile: { value: host.openFile.bind(host) },
      createQueue: { value: host.createQueue.bind(host) },
      map: { value: host.map.bind(host) },
      capabilities: { value: host.capabilities },
    });
    await using loader = await openLoader(temp(), { strategy: "read", device, batchSize: 10 });
    await expectCode("OUT_OF_RANGE", () => take(loader));
    expect(idsOf(await take(loader))).toEqual(range(20));
  });

  test("a column's buffer can be copied on the device", async () => {
    const data = writePlain(temp("a.safetensors"), 32);
    await using device = openTestDevice();
    await using loader = await openLoader(temp(), { device, batchSize: 8 });
    using target = device.createBuffer(128);
    const queue = device.createQueue();
    for await (using batch of loader) {
      const { buffer, byteOffset, byteLength } = batch.column("x");
      const ticket = queue.submit(new RequestList().copy(buffer, byteOffset, target, 0, byteLength));
      expect((await queue.completion(ticket)).error).toBeUndefined();
      const at = batch.sampleIds[0]! * 16;
      expect(Buffer.from(target.view(0, 128)).equals(data.subarray(at, at + 128))).toBe(true);
    }
    await queue.close();
  });
});
