/** Compressed files of a test's own, pools that decode them, and what is asked of those. */
import { afterEach, beforeEach } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DecodePool, type PoolOptions } from "../../../src/device/decode/pool.ts";
import type { ChunkFile, DecodeRequest } from "../../../src/device/decode.ts";
import type { DeviceBuffer } from "../../../src/device/device.ts";
import { openHost } from "../../../src/device/host/device.ts";
import { createFaultCounters, type Fault } from "../../../src/device/host/faults.ts";
import { type MadeChunk, type MadeFile, makeChunkFile } from "./chunk-files.ts";

export const KIB = 1024;

/** Files in a folder that is there for each test, and a device for their targets. */
export function useDecodeRig() {
  let folder = "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "headrace-decode-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));
  return {
    host: openHost(),
    make: (chunks: readonly MadeChunk[], name = "a.bin", seed = 1): MadeFile =>
      makeChunkFile(join(folder, name), chunks, seed),
    openPool,
  };
}

function openPool(options: Partial<PoolOptions> = {}, faults: readonly Fault[] = []): DecodePool {
  const plan = faults.length === 0 ? undefined : { faults, counters: createFaultCounters(faults) };
  return new DecodePool({ deviceName: "test", lanes: 2, faults: plan, retain: () => () => {}, ...options });
}

export function evenly(count: number, byteLength = 50_000, codec: MadeChunk["codec"] = "zstd"): MadeChunk[] {
  return Array.from({ length: count }, () => ({ codec, byteLength }));
}

/** The same range of a file and of a buffer. */
export function range(file: ChunkFile, target: DeviceBuffer, start: number, end: number): DecodeRequest {
  return { file, byteOffset: start, byteLength: end - start, target, targetOffset: start };
}

/** Ends well; the bytes that were decoded. */
export async function run(pool: DecodePool, ...requests: DecodeRequest[]): Promise<number> {
  const { error, decodedBytes } = await pool.start(requests).ended;
  if (error !== undefined) throw error;
  return decodedBytes;
}

export function bytesOf(buffer: DeviceBuffer, start: number, end: number): Buffer {
  return Buffer.from(new Uint8Array(buffer.view(start, end - start)));
}
