/** A device whose own memory the host cannot see: batches must arrive there, whole. */
import { describe, expect, test } from "bun:test";
import {
  type Batch,
  type Column,
  type DeviceBuffer,
  HostReader,
  Loader,
  type OpenOptions,
  openDataset,
  Part,
} from "../../src/index.ts";
import { writeArrow, writeArrowDataset } from "./arrow-files.ts";
import { openTestDevice } from "./device.ts";
import { discrete, type Traffic } from "./discrete.ts";
import { bytesOf, collect, expectCode, randomBytes, useTempDir } from "./helpers.ts";
import { SMALL_SPECS, writeDataset, writePlain, writeRagged, writeRaw } from "./safetensors-files.ts";

const temp = useTempDir();

const partsOf = (batch: Batch): Part[] =>
  [
    ...[...batch.columns.values()].flatMap((c: Column) => [c, c.offsets, c.mask, c.validity]),
    batch.rowMask,
  ].filter((part) => part !== undefined);

/** Loads `source` on a device with memory of its own, and compares each part with what the host gets. */
async function expectSame(
  source: string | readonly string[],
  options: OpenOptions,
  maxMapLength?: number,
): Promise<Traffic> {
  const wanted: string[][] = [];
  await collect(source, { ...options, device: "host" }, (batch) => {
    wanted.push(
      partsOf(batch).map((p) => `${p.dtype}[${p.shape}] ${Buffer.from(bytesOf(p.view)).toString("hex")}`),
    );
  });
  const host = openTestDevice();
  const { device, traffic } = discrete(host, maxMapLength === undefined ? {} : { maxMapLength });
  const reader = new HostReader(device, { chunkBytes: 1000 });
  const dataset = openDataset(source, device, options);
  const loader = new Loader(dataset, device, options);
  const found: string[][] = [];
  for await (using batch of loader) {
    const texts: string[] = [];
    for (const part of partsOf(batch)) {
      expectPrivate(part.buffer, part);
      const bytes = bytesOf(await reader.read(part));
      texts.push(`${part.dtype}[${part.shape}] ${Buffer.from(bytes).toString("hex")}`);
    }
    found.push(texts);
  }
  expect(found).toEqual(wanted);
  await reader.close();
  expect(loader.stats.arenaBytes).toBe(traffic.sharedBytes + traffic.privateBytes);
  await loader.close();
  dataset.close();
  expect([host.openResources, traffic.sharedBytes, traffic.privateBytes, traffic.peeks]).toEqual([
    0, 0, 0, 0,
  ]);
  await host.close();
  return traffic;
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
        const traffic = await expectSame(temp(), { strategy, batchSize: 7, ...options });
        const { mapped, read, staged } = traffic;
        expect(strategy === "map" ? read + staged : mapped).toBe(0);
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
  const { device } = discrete(host);
  using dataset = openDataset(temp(), device);
  await using loader = new Loader(dataset, device);
  for await (using batch of loader) {
    const column = batch.column("text");
    for (const part of [column, column.offsets!]) {
      await expectCode("UNSUPPORTED", () => part.view, part.byteLength, "HostReader");
    }
    await expectCode("UNSUPPORTED", () => [...column.chunks()], "HostReader");
    await expectCode("UNSUPPORTED", () => column.row(0), "HostReader");
    await expectCode("UNSUPPORTED", () => column.text(0), "HostReader");
    expect(
      new Part({ view: () => new ArrayBuffer(0) } as never, "U8", [0], column.buffer, 0, 0).hostVisible,
    ).toBe(true);
    batch.release();
    await expectCode("CLOSED", () => column.view);
    await expectCode("CLOSED", () => [...column.chunks()]);
  }
  writeRaw(temp("b.safetensors"), [{ name: "none", dtype: "F32", shape: [0, 2], bytes: new Uint8Array(0) }]);
  using tensors = openDataset(temp("b.safetensors"), device, { view: "tensors" });
  await using other = new Loader(tensors, device);
  for await (using batch of other) {
    expect(batch.column("none").hostVisible).toBe(true);
    expect(batch.column("none").view.length).toBe(0);
  }
});

test("a device without room fails each time, never with half a segment", async () => {
  writeDataset(temp, [30], SMALL_SPECS);
  for (const refused of ["private", "shared"]) {
    await using host = openTestDevice();
    let refusals = 2;
    const { device } = discrete(host);
    const { createBuffer } = device;
    device.createBuffer = (byteLength, storage) => {
      if (storage === refused && refusals-- > 0) return host.createBuffer(2 ** 60);
      return createBuffer(byteLength, storage);
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
  }
});

describe("what is cut or stored in an odd way", () => {
  test("rows and tensors that lie across the windows of a mapping are copied from both", async () => {
    writePlain(temp("a.safetensors"), 40, 1500);
    for (const maxMapLength of [4096, 4097, 8192]) {
      for (const options of [{ batchSize: 7, seed: 1 }, { batchSize: 40 }, { view: "tensors" }] as const) {
        const traffic = await expectSame(temp(), { strategy: "map", ...options }, maxMapLength);
        expect([traffic.read + traffic.staged, traffic.mapped]).toEqual([0, 60_000]);
      }
    }
  });

  test("padding longer than what one request copies", async () => {
    const offsets = [0, 3, 70_000, 70_000, 70_005];
    writeRagged(temp("a.safetensors"), offsets, 70_005);
    const options = { padTo: 8, padValue: 7, batchSize: 6, lastBatch: "pad" } as const;
    for (const strategy of ["map", "read"] as const) await expectSame(temp(), { strategy, ...options });
  });
});
