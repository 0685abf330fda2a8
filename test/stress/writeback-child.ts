/** One life of a job of outputs: `bun writeback-child.ts FOLDER SEED PACE`. Says `open` once it has the folder, goes on where the
 * job is, `PACE` rows a ms at most, and ends with 0 when the job is done. */
import { openDevice, openWriter } from "../../src/index.ts";
import { optionsOf, outputOf, randomOf, WIDTH } from "../loader/writeback-job.ts";
import { KILL_COUNTS } from "./writeback-counts.ts";

const [folder, seed, pace] = process.argv.slice(2) as [string, string, string];
const random = randomOf(Number(seed));
const device = openDevice("host", { lanes: 2 });
const writer = await openWriter(
  folder,
  optionsOf(KILL_COUNTS, {
    device,
    syncMs: 2,
    syncBytes: 20_000,
    stageBytes: 40 * WIDTH,
    maxPendingBytes: 10_000,
  }),
);
console.log("open");
const rows = writer
  .remaining()
  .flatMap(([start, end]) => Array.from({ length: end - start }, (_, i) => start + i));
// Neighbours change places, as they do in a running batch.
const order = rows.map((row, i) => [i + random(60), row] as const).sort((a, b) => a[0] - b[0]);
for (const [i, [, row]] of order.entries()) {
  if (i % Number(pace) === 0) await Bun.sleep(1);
  const output = outputOf(row);
  // Some values come in device memory, others not: the bytes are the same.
  if (output.embedding === undefined || random(2) === 0) {
    await writer.add(output);
    continue;
  }
  const buffer = device.createBuffer(4 * WIDTH);
  new Float32Array(buffer.view(0, 4 * WIDTH)).set(output.embedding);
  await writer.add({ ...output, embedding: { buffer, byteOffset: 0, release: () => buffer.close() } });
}
await writer.close();
await device.close();
