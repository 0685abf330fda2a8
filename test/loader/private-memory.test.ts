/** A device whose own memory the host cannot see: batches must arrive there, whole. */
import { describe, expect, test } from "bun:test";
import {
  type Batch,
  type Column,
  type Device,
  type DeviceBuffer,
  Loader,
  type OpenOptions,
  openDataset,
  Part,
  RequestList,
} from "../../src/index.ts";
import { writeArrow, writeArrowDataset } from "./arrow-files.ts";
import { openTestDevice } from "./device.ts";
import { bytesOf, collect, expectCode, idsOf, randomBytes, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset, writeRaw } from "./safetensors-files.ts";

const temp = useTempDir();

/** The host device, but for saying that its shared memory is not the device's own. */
function discrete(host: Device): Device {
  return {
    capabilities: { ...host.capabilities, name: "discrete", unifiedMemory: false },
    openFile: (path, mode) => host.openFile(path, mode),
    map: (file, byteOffset, byteLength) => host.map(file, byteOffset, byteLength),
    createBuffer: (byteLength, storage) => host.createBuffer(byteLength, storage),
    createEvent: () => host.createEvent(),
    createQueue: () => host.createQueue(),
    createPipeline: (source) => host.createPipeline(source),
    createSequence: (calls) => host.createSequence(calls),
    facts: host.facts,
    get openResources() {
      return host.openResources;
    },
    close: () => host.close(),
    [Symbol.dispose]: () => host[Symbol.dispose](),
  };
}

/** Copies what the host cannot see to where it can. */
class Reader {
  readonly #device: Device;
  readonly #queue;

  constructor(device: Device) {
    this.#device = device;
    this.#queue = device.createQueue();
  }

  async read(part: Part): Promise<Uint8Array> {
    if (part.byteLength === 0) return new Uint8Array(0);
    using target = this.#device.createBuffer(part.byteLength);
    const list = new RequestList().copy(part.buffer, part.byteOffset, target, 0, part.byteLength);
    const { error } = await this.#queue.completion(this.#queue.submit(list));
    if (error !== undefined) throw error;
    return bytesOf(new Uint8Array(target.view(0, part.byteLength)));
  }

  async close(): Promise<void> {
    await this.#queue.close();
  }
}

const partsOf = (batch: Batch): Part[] =>
  [
    ...[...batch.columns.values()].flatMap((c: Column) => [c, c.offsets, c.mask, c.validity]),
    batch.rowMask,
  ].filter((part) => part !== undefined);

async function expectSame(source: string, options: OpenOptions): Promise<void> {
  const wanted: string[][] = [];
  await collect(source, { ...options, device: "host" }, (batch) => {
    wanted.push(
      partsOf(batch).map((p) => `${p.dtype}[${p.shape}] ${Buffer.from(bytesOf(p.view)).toString("hex")}`),
    );
  });
  const host = openTestDevice();
  const device = discrete(host);
  const reader = new Reader(device);
  const dataset = openDataset(source, device, options);
  const loader = new Loader(dataset, device, options);
  const found: string[][] = [];
  for await (using batch of loader) {
    const texts: string[] = [];
    for (const part of partsOf(batch)) {
      expectPrivate(part.buffer, part);
      texts.push(`${part.dtype}[${part.shape}] ${Buffer.from(await reader.read(part)).toString("hex")}`);
    }
    found.push(texts);
  }
  expect(found).toEqual(wanted);
  await loader.close();
  dataset.close();
  await reader.close();
  expect(host.openResources).toBe(0);
  await host.close();
}

function expectPrivate(buffer: DeviceBuffer, part: Part): void {
  expect([buffer.storage, buffer.hostAddress]).toEqual(["private", 0]);
  expect(part.hostVisible).toBe(part.byteLength === 0);
}

describe("batches arrive in private memory with the right bytes", () => {
  for (const strategy of ["map", "read"] as const) {
    for (const options of [
      {},
      { seed: 1 },
      { seed: 1, padTo: 4, padValue: 3 },
      { lastBatch: "pad" },
    ] as const) {
      test(`arrow, ${strategy}, ${JSON.stringify(options)}`, async () => {
        writeArrowDataset(temp, { isNull: (s, c) => (s + c) % 6 === 0 });
        await expectSame(temp(), { strategy, batchSize: 7, ...options });
      });
    }

    test(`safetensors rows and tensors, ${strategy}`, async () => {
      writeDataset(temp, [30, 30], SMALL_SPECS);
      await expectSame(temp(), { strategy, batchSize: 16, epochs: 2, seed: 2 });
      await expectSame(temp("part-000.safetensors"), { strategy, view: "tensors", batchSize: 2 });
    });

    test(`scalars, nothing at all and misaligned tensors, ${strategy}`, async () => {
      writeRaw(temp("a.safetensors"), [
        { name: "odd", dtype: "U8", shape: [3], bytes: randomBytes(3, 1) },
        { name: "w", dtype: "F32", shape: [2, 2], bytes: new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer) },
        { name: "none", dtype: "F32", shape: [0, 2], bytes: new Uint8Array(0) },
        { name: "s", dtype: "F32", shape: [], bytes: new Uint8Array(Float32Array.of(5).buffer) },
      ]);
      for (const batchSize of [1, 4]) await expectSame(temp(), { strategy, batchSize });
    });
  }
});

test("views say that the host cannot see them; empty parts are just empty", async () => {
  writeArrow(temp("a.arrow"), { batches: [4] });
  await using host = openTestDevice();
  const device = discrete(host);
  using dataset = openDataset(temp(), device);
  await using loader = new Loader(dataset, device);
  for await (using batch of loader) {
    const column = batch.column("text");
    for (const part of [column, column.offsets!]) await expectCode("UNSUPPORTED", () => part.view);
    await expectCode("UNSUPPORTED", () => [...column.chunks()]);
    await expectCode("UNSUPPORTED", () => column.row(0));
    expect(
      new Part({ view: () => new ArrayBuffer(0) } as never, "U8", [0], column.buffer, 0, 0).hostVisible,
    ).toBe(true);
  }
  writeRaw(temp("b.safetensors"), [{ name: "none", dtype: "F32", shape: [0, 2], bytes: new Uint8Array(0) }]);
  using tensors = openDataset(temp("b.safetensors"), device, { view: "tensors" });
  await using other = new Loader(tensors, device);
  for await (using batch of other) {
    expect(batch.column("none").hostVisible).toBe(true);
    expect(batch.column("none").view.length).toBe(0);
  }
});

test("a device without room for a second copy fails with OUT_OF_MEMORY each time, never with half a segment", async () => {
  writeDataset(temp, [30], SMALL_SPECS);
  await using host = openTestDevice();
  let refusals = 2;
  const device = discrete(host);
  device.createBuffer = (byteLength, storage) => {
    if (storage === "private" && refusals-- > 0) return host.createBuffer(2 ** 60);
    return host.createBuffer(byteLength, storage);
  };
  using dataset = openDataset(temp(), device);
  await using loader = new Loader(dataset, device, { batchSize: 10, prefetch: 0 });
  const ids: number[] = [];
  const run = async () => {
    for await (using batch of loader) ids.push(...batch.sampleIds);
  };
  await expectCode("OUT_OF_RANGE", run);
  await expectCode("OUT_OF_RANGE", run);
  await run();
  expect(ids).toEqual(Array.from({ length: 30 }, (_, i) => i));
  expect(idsOf([]).length).toBe(0);
});
