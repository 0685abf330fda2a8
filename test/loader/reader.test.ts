/** Parts of batches, read to the host wherever they are. */
import { describe, expect, test } from "bun:test";
import {
  type Batch,
  type Device,
  HostReader,
  Loader,
  type OpenOptions,
  openDataset,
  openDevice,
  Part,
} from "../../src/index.ts";
import { ViewScope } from "../../src/loader/batch.ts";
import { openTestDevice } from "./device.ts";
import { discrete } from "./discrete.ts";
import { bytesOf, expectCode, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset, writePlain } from "./safetensors-files.ts";

const temp = useTempDir();
const ROWS = 10;
const ROW_BYTES = 100;

/** One batch with all rows of one column, whose bytes are `data`. */
async function withBatch(
  apart: boolean,
  work: (batch: Batch, device: Device, data: Uint8Array) => Promise<unknown>,
  options: OpenOptions = {},
): Promise<void> {
  const data = writePlain(temp("a.safetensors"), ROWS, ROW_BYTES);
  const host = openTestDevice();
  const device = apart ? discrete(host).device : host;
  const dataset = openDataset(temp(), device);
  const loader = new Loader(dataset, device, { batchSize: ROWS, ...options });
  for await (using batch of loader) await work(batch, device, data);
  await loader.close();
  dataset.close();
  expect(host.openResources).toBe(0);
  await host.close();
}

async function piecesOf(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const pieces: Uint8Array[] = [];
  for await (const piece of chunks) pieces.push(piece.slice());
  return pieces;
}

describe("chunks", () => {
  for (const chunkBytes of [1, 7, 999, 1000, 1001, 2 ** 20]) {
    test(`are all bytes in order, ${chunkBytes} at a time`, async () => {
      await withBatch(true, async (batch, device, data) => {
        await using reader = new HostReader(device, { chunkBytes });
        for (let round = 0; round < 2; round++) {
          const pieces = await piecesOf(reader.chunks(batch.column("x")));
          expect(Buffer.concat(pieces).equals(data)).toBe(true);
          const lengths = pieces.map((piece) => piece.length);
          expect(lengths.slice(0, -1).every((length) => length === chunkBytes)).toBe(true);
          expect(pieces.length).toBe(Math.ceil(data.length / chunkBytes));
        }
      });
    });
  }

  test("of memory that the host sees are that memory, without a queue or a copy", async () => {
    await withBatch(false, async (batch, device, data) => {
      const before = device.openResources;
      await using reader = new HostReader(device, { chunkBytes: 7 });
      const column = batch.column("x");
      for await (const piece of reader.chunks(column)) {
        expect(Buffer.from(piece).equals(data)).toBe(true);
        expect(device.openResources).toBe(before);
      }
      batch.release();
      await expectCode("CLOSED", () => piecesOf(reader.chunks(column)));
    });
  });

  test("a loop that is left early gives its memory back", async () => {
    await withBatch(true, async (batch, device, data) => {
      await using reader = new HostReader(device, { chunkBytes: 64 });
      let resources = 0;
      for (let round = 0; round < 5; round++) {
        for await (const piece of reader.chunks(batch.column("x"))) {
          expect(Buffer.from(piece).equals(data.subarray(0, 64))).toBe(true);
          break;
        }
        resources ||= device.openResources;
        expect(device.openResources).toBe(resources);
      }
    });
  });

  test("two at a time do not meet", async () => {
    await withBatch(true, async (batch, device, data) => {
      await using reader = new HostReader(device, { chunkBytes: 64 });
      const column = batch.column("x");
      const both = await Promise.all([piecesOf(reader.chunks(column)), piecesOf(reader.chunks(column))]);
      for (const pieces of both) expect(Buffer.concat(pieces).equals(data)).toBe(true);
    });
  });
});

describe("read", () => {
  test("gives arrays of the type that views have, which outlive the batch", async () => {
    writeDataset(temp, [6], SMALL_SPECS);
    const texts: string[][] = [];
    for (const apart of [false, true]) {
      await using host = openTestDevice();
      const device = apart ? discrete(host).device : host;
      using dataset = openDataset(temp(), device);
      await using loader = new Loader(dataset, device, { batchSize: 6 });
      await using reader = new HostReader(device);
      for await (const batch of loader) {
        const arrays = await Promise.all([...batch.columns.values()].map((column) => reader.read(column)));
        if (!apart) {
          const views = [...batch.columns.values()].map((column) => column.view);
          expect(arrays.map(bytesOf)).toEqual(views.map(bytesOf));
          expect(arrays.map((a) => a.constructor.name)).toEqual(views.map((v) => v.constructor.name));
        }
        batch.release();
        texts.push(arrays.map((array) => `${array.constructor.name} ${array.join()}`));
      }
    }
    expect(texts[0]!.every((text) => text.length > 30)).toBe(true);
    expect(texts[1]).toEqual(texts[0]!);
  });

  test("of nothing is empty, and of more than an array holds is refused", async () => {
    await withBatch(true, async (batch, device) => {
      await using reader = new HostReader(device);
      const { buffer } = batch.column("x");
      const scope = new ViewScope(device, () => "a batch");
      expect((await reader.read(new Part(scope, "F32", [0], buffer, 0, 0))).length).toBe(0);
      const large = new Part(scope, "U8", [2 ** 32 + 1], buffer, 0, 2 ** 32 + 1);
      await expectCode("UNSUPPORTED", () => reader.read(large), 2 ** 32 + 1, "chunks");
    });
  });
});

describe("what goes wrong", () => {
  test("bad options", async () => {
    await using host = openTestDevice();
    for (const chunkBytes of [0, -1, 1.5, Number.NaN, 2 ** 30 + 1]) {
      await expectCode("BAD_OPTION", () => new HostReader(host, { chunkBytes }), "chunkBytes", chunkBytes);
    }
  });

  test("a batch that is released ends the reading of it, at once or between pieces", async () => {
    await withBatch(true, async (batch, device) => {
      await using reader = new HostReader(device, { chunkBytes: 64 });
      const column = batch.column("x");
      const late = async () => {
        for await (const _ of reader.chunks(column)) batch.release();
      };
      await expectCode("CLOSED", late, "released");
      await expectCode("CLOSED", () => reader.read(column), "released");
    });
    for (const chunkBytes of [64, 4096]) {
      await withBatch(true, async (batch, device) => {
        await using reader = new HostReader(device, { chunkBytes });
        const reading = reader.read(batch.column("x"));
        batch.release();
        await expectCode("CLOSED", () => reading, "released");
      });
    }
  });

  test("a reader that is closed reads no more, and leaves nothing", async () => {
    await withBatch(true, async (batch, device) => {
      const before = device.openResources;
      const reader = new HostReader(device, { chunkBytes: 64 });
      const column = batch.column("x");
      await reader.read(column);
      const iterator = reader.chunks(column);
      expect((await iterator.next()).value!.length).toBe(64);
      await Promise.all([reader.close(), reader.close()]);
      await expectCode("CLOSED", () => iterator.next(), "reader");
      await expectCode("CLOSED", () => reader.read(column), "reader");
      await reader.close();
      expect(device.openResources).toBe(before);
    });
  });

  test("a copy that fails is told, and the next one works", async () => {
    await withBatch(true, async (batch, device, data) => {
      await using reader = new HostReader(device, { chunkBytes: 64 });
      const column = batch.column("x");
      const { createBuffer } = device;
      let calls = 0;
      device.createBuffer = (byteLength, storage) =>
        createBuffer(++calls === 2 ? 2 ** 60 : byteLength, storage);
      await expectCode("OUT_OF_RANGE", () => reader.read(column));
      expect(calls).toBe(2);
      expect(Buffer.from(bytesOf(await reader.read(column))).equals(data)).toBe(true);
    });
  });

  for (const apart of [true, false]) {
    test(`a batch of another device is refused, host-visible: ${!apart}`, async () => {
      await withBatch(apart, async (batch, device) => {
        await using other = openTestDevice();
        await using stranger = new HostReader(other);
        const { name } = other.capabilities;
        const both = [
          `is of device ${device.capabilities.name}`,
          apart ? `works with device ${name}` : `another device ${name}`,
        ];
        await expectCode("BAD_OPTION", () => stranger.read(batch.column("x")), "batch", ...both);
        expect(other.openResources).toBe(0);
      });
    });
  }

  test("a loader with another device than its dataset's is refused before it takes anything", async () => {
    writePlain(temp("a.safetensors"), ROWS, ROW_BYTES);
    await using host = openTestDevice();
    await using other = openDevice("null");
    using dataset = openDataset(temp("a.safetensors"), host);
    const message = await expectCode("BAD_OPTION", () => new Loader(dataset, other), dataset.title);
    expect(message).toContain(
      `is of device ${host.capabilities.name}, and this loader works with device null`,
    );
    expect(other.openResources).toBe(0);
  });
});
