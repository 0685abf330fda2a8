/** Outputs that come in device memory: on any device, in blocks and row by row, with devices and disks that fail. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { type Device, type OutputColumn, openLoader, openWriter, RequestList } from "../../src/index.ts";
import { DEVICE, openTestDevice } from "./device.ts";
import { expectCode, useTempDir } from "./helpers.ts";
import { optionsOf, outputOf, randomOf, shuffled, WIDTH } from "./writeback-job.ts";

const temp = useTempDir();
const VECTORS: readonly OutputColumn[] = [
  { name: "vector", kind: "fixed", dtype: "F32", length: 64 },
  { name: "finish", kind: "utf8" },
  { name: "label", kind: "fixed", dtype: "I32" },
];
const ROW_BYTES = 256;
const COUNTS = [300, 700];
const TOTAL = 1000;

/** What a row's vector holds. */
function vectorOf(row: number): Float32Array {
  return Float32Array.from({ length: 64 }, (_, i) => row + i / 64);
}

/** A buffer of the device that holds `values`, in memory the host may not see. */
async function bufferOf(device: Device, values: Float32Array, storage: "shared" | "private") {
  const shared = device.createBuffer(values.byteLength, "shared");
  new Float32Array(shared.view(0, values.byteLength)).set(values);
  if (storage === "shared") return shared;
  const buffer = device.createBuffer(values.byteLength, "private");
  const queue = device.createQueue();
  const { error } = await queue.completion(
    queue.submit(new RequestList().copy(shared, 0, buffer, 0, values.byteLength)),
  );
  await queue.close();
  shared.close();
  if (error !== undefined) throw error;
  return buffer;
}

function blockOf(start: number, count: number): Float32Array {
  const values = new Float32Array(64 * count);
  for (let i = 0; i < count; i++) values.set(vectorOf(start + i), 64 * i);
  return values;
}

async function expectVectors(folder: string): Promise<void> {
  await using loader = await openLoader(folder, { device: "host", batchSize: TOTAL });
  for await (using batch of loader) {
    const { view } = batch.column("vector");
    [...batch.column("row").view].forEach((id, i) => {
      const row = Number(id);
      expect([...view.subarray(64 * i, 64 * i + 64)].map(Number)).toEqual([...vectorOf(row)]);
      expect(Number(batch.column("label").view[i])).toBe(7);
      expect(batch.column("finish").text(i)).toBe("stop");
    });
    expect(batch.numSamples).toBe(TOTAL);
  }
}

describe(`on ${DEVICE}`, () => {
  for (const storage of ["shared", "private"] as const) {
    for (const format of ["arrow", "safetensors"] as const) {
      for (const order of ["input", "completion"] as const) {
        test(`blocks in ${storage} memory, to ${format}, in order of ${order}`, async () => {
          const device = openTestDevice();
          const writer = await openWriter(temp("out"), {
            ...optionsOf(COUNTS, {
              format,
              order,
              device,
              stageBytes: 40 * ROW_BYTES,
              syncBytes: 90 * ROW_BYTES,
            }),
            columns: VECTORS,
          });
          let released = 0;
          const blocks = [...COUNTS.keys()].flatMap((s) => {
            const [start, end] = s === 0 ? [0, 300] : [300, 1000];
            // One is longer than a staging buffer.
            return Array.from({ length: Math.ceil((end - start) / 97) }, (_, i) => {
              const from = start + 97 * i;
              return [from, Math.min(97, end - from)] as const;
            });
          });
          for (const [start, count] of shuffled(blocks, randomOf(3))) {
            const buffer = await bufferOf(device, blockOf(start, count), storage);
            const release = () => {
              released++;
              buffer.close();
            };
            const vector = { buffer, byteOffset: 0, release };
            await writer.addRows(start, count, { vector, finish: "stop", label: 7 });
          }
          await writer.close();
          expect(released).toBe(blocks.length);
          expect(writer.summary).toMatchObject({ rows: TOTAL, complete: true });
          await expectVectors(temp("out"));
          expect(device.openResources).toBe(0);
          await device.close();
        });
      }
    }
  }

  test("the same bytes as from JavaScript's memory, and after every resume", async () => {
    const rows = shuffled(
      Array.from({ length: 40 }, (_, i) => i),
      randomOf(5),
    );
    const plain = await openWriter(temp("plain"), optionsOf([25, 15]));
    for (const row of rows) await plain.add(outputOf(row));
    await plain.close();
    const device = openTestDevice();
    for (let at = 0; at < rows.length; at += 7) {
      const writer = await openWriter(
        temp("out"),
        optionsOf([25, 15], { device, stageBytes: 3 * 4 * WIDTH }),
      );
      expect(writer.summary.resumedRows).toBe(at);
      for (const row of rows.slice(at, at + 7)) {
        const output = outputOf(row);
        if (output.embedding === undefined) {
          await writer.add(output);
          continue;
        }
        const buffer = await bufferOf(device, Float32Array.from([9, ...output.embedding, 9]), "private");
        const embedding = { buffer, byteOffset: 4, length: WIDTH, release: () => buffer.close() };
        await writer.add({ ...output, embedding });
      }
      await writer.close();
    }
    expect(device.openResources).toBe(0);
    await device.close();
    const names = readdirSync(temp("plain"));
    expect(readdirSync(temp("out"))).toEqual(names);
    for (const name of names)
      expect(readFileSync(temp("out", name))).toEqual(readFileSync(temp("plain", name)));
  });

  test("blocks go where places were left free, in order of completion", async () => {
    const device = openTestDevice();
    const options = { ...optionsOf([6], { order: "completion", device }), columns: VECTORS };
    let released = 0;
    const add = async (writer: Awaited<ReturnType<typeof openWriter>>, start: number, count: number) => {
      const buffer = await bufferOf(device, blockOf(start, count), "shared");
      const release = () => {
        released++;
        buffer.close();
      };
      const vector = { buffer, byteOffset: 0, release };
      await writer.addRows(start, count, { vector, finish: "stop", label: 7 });
    };
    const first = await openWriter(temp("out"), options);
    await add(first, 0, 2);
    await first.flush();
    await add(first, 4, 1);
    await first.close();
    const second = await openWriter(temp("out"), options);
    expect(second.remaining()).toEqual([
      [2, 4],
      [5, 6],
    ]);
    await add(second, 2, 2);
    await add(second, 5, 1);
    await second.close();
    expect(released).toBe(4);
    await using loader = await openLoader(temp("out"), { device: "host", batchSize: 6 });
    for await (using batch of loader) {
      expect([...batch.column("row").view].map(Number)).toEqual([0, 1, 4, 2, 3, 5]);
      expect([...batch.column("vector").view].filter((_, i) => i % 64 === 0).map(Number)).toEqual([
        0, 1, 4, 2, 3, 5,
      ]);
    }
    await device.close();
  });
});

describe.skipIf(DEVICE !== "host")("fails as documented, and goes on afterwards:", () => {
  for (const [fault, code, text, kept] of [
    [{ call: "pwrite", nth: 3, errno: "ENOSPC" }, "DISK_FULL", "ENOSPC", 20],
    [{ call: "pwrite", nth: 2, errno: "EIO" }, "IO_ERROR", "EIO", 10],
    [{ call: "sync", nth: 2, errno: "EIO" }, "IO_ERROR", "EIO", 10],
  ] as const) {
    test(`${fault.call} ${fault.errno}`, async () => {
      const failing = openTestDevice({ faults: [fault] });
      const options = { ...optionsOf([TOTAL], { stageBytes: 10 * ROW_BYTES }), columns: VECTORS };
      const writer = await openWriter(temp("out"), { ...options, device: failing });
      let released = 0;
      let added = 0;
      const fill = async () => {
        for (let row = 0; row < TOTAL; row += 10) {
          const buffer = await bufferOf(failing, blockOf(row, 10), "shared");
          added++;
          const vector = { buffer, byteOffset: 0, release: () => released++ };
          await writer.addRows(row, 10, { vector, finish: "stop", label: 7 });
          await writer.flush();
        }
      };
      await expectCode(code, fill, text, "part-0-01234567.arrow.part");
      await writer.close();
      expect(released).toBe(added);
      await failing.close();
      const device = openTestDevice();
      const next = await openWriter(temp("out"), { ...options, device });
      const [[, done] = [0, 0]] = next.finished();
      expect(done).toBe(kept);
      const buffer = await bufferOf(device, blockOf(done, TOTAL - done), "shared");
      await next.addRows(done, TOTAL - done, { vector: { buffer, byteOffset: 0 }, finish: "stop", label: 7 });
      await next.close();
      await device.close();
      await expectVectors(temp("out"));
    });
  }
});
