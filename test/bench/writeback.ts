/**
 * What writing outputs takes: `bun run bench:writeback -- [FOLDER] [--gib N] [--pace GB/s]`.
 *
 * Blocks of vectors in device memory go through the writer, as fast as it takes them or at a pace, and the same bytes by
 * bare writes of the same device before and after: what the disk itself gives. A step waits where `addRows` asks to.
 * FOLDER defaults to one in memory, where there is one: that is the limit of the software.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Device, type DeviceBuffer, openDevice, openWriter, RequestList } from "../../src/index.ts";

const { values, positionals } = parseArgs({
  options: { gib: { type: "string", default: "2" }, pace: { type: "string", default: "0" } },
  allowPositionals: true,
});
const BLOCK_ROWS = 256;
const WIDTH = 1024;
const BLOCK_BYTES = BLOCK_ROWS * WIDTH * 4;
const NUM_SHARDS = 8;
const shardBlocks = Math.max(1, Math.round((Number(values.gib) * 2 ** 30) / BLOCK_BYTES / NUM_SHARDS));
const numBlocks = shardBlocks * NUM_SHARDS;
const parent = positionals[0] ?? (existsSync("/dev/shm") ? "/dev/shm" : tmpdir());
const folder = mkdtempSync(join(parent, "headrace-writeback-"));
const gigabytes = (numBlocks * BLOCK_BYTES) / 1e9;
const rate = (ms: number) => Number((gigabytes / (ms / 1000)).toFixed(2));

/** GB/s of bare writes, four of 16 blocks in flight, and with their bytes made durable. */
async function bare(device: Device, blocks: readonly DeviceBuffer[]): Promise<object> {
  const path = join(folder, "bare");
  const queue = device.createQueue();
  const file = device.openFile(path, "write");
  const started = performance.now();
  const tickets: number[] = [];
  const end = async () => {
    const { error } = await queue.completion(tickets.shift()!);
    if (error !== undefined) throw error;
  };
  for (let block = 0; block < numBlocks; ) {
    const list = new RequestList();
    for (let i = 0; i < 16 && block < numBlocks; i++, block++) {
      list.write(blocks[i]!, 0, file, block * BLOCK_BYTES, BLOCK_BYTES);
    }
    tickets.push(queue.submit(list));
    if (tickets.length === 4) await end();
  }
  while (tickets.length > 0) await end();
  const written = performance.now();
  tickets.push(queue.submit(new RequestList().sync(file)));
  await end();
  const synced = performance.now();
  file.close();
  await queue.close();
  rmSync(path);
  return { writeGBs: rate(written - started), durableGBs: rate(synced - started) };
}

async function writer(device: Device, free: DeviceBuffer[]): Promise<object> {
  const shardRows = shardBlocks * BLOCK_ROWS;
  const outputs = await openWriter(join(folder, "out"), {
    job: { bench: "writeback" },
    fingerprint: "0".repeat(16),
    device,
    shards: Array.from({ length: NUM_SHARDS }, (_, i) => ({
      name: `shard-${i}`,
      start: i * shardRows,
      end: (i + 1) * shardRows,
    })),
    columns: [
      { name: "embedding", kind: "fixed", dtype: "F32", length: WIDTH },
      { name: "finish", kind: "utf8" },
    ],
  });
  const paceGBs = Number(values.pace);
  const started = performance.now();
  let waits = 0;
  let waitedMs = 0;
  let worstMs = 0;
  for (let block = 0; block < numBlocks; block++) {
    const due = started + (block * BLOCK_BYTES) / 1e6 / paceGBs;
    do await new Promise(setImmediate);
    while (paceGBs > 0 && performance.now() < due);
    const buffer = free.pop() ?? device.createBuffer(BLOCK_BYTES);
    const embedding = { buffer, byteOffset: 0, release: () => free.push(buffer) };
    const asked = performance.now();
    const room = outputs.addRows(block * BLOCK_ROWS, BLOCK_ROWS, { embedding, finish: "stop" });
    if (room === undefined) continue;
    await room;
    const ms = performance.now() - asked;
    waits++;
    waitedMs += ms;
    worstMs = Math.max(worstMs, ms);
  }
  const added = performance.now();
  await outputs.close();
  return {
    addedGBs: rate(added - started),
    committedGBs: rate(performance.now() - started),
    waits,
    waitedShare: Number((waitedMs / (added - started)).toFixed(3)),
    worstMs: Number(worstMs.toFixed(1)),
    complete: outputs.summary.complete,
  };
}

const device = openDevice("host");
try {
  const blocks = Array.from({ length: 64 }, () => device.createBuffer(BLOCK_BYTES));
  for (const block of blocks) new Uint8Array(block.view(0, BLOCK_BYTES)).fill(7);
  const before = await bare(device, blocks);
  const ours = await writer(device, [...blocks]);
  console.log(
    JSON.stringify(
      { parent, gigabytes, paceGBs: Number(values.pace), before, ours, after: await bare(device, blocks) },
      null,
      2,
    ),
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
  await device.close();
}
