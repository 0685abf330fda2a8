/** Work at random, and ends at bad moments, for every device alike. */
import { expect } from "bun:test";
import { join } from "node:path";
import type { Device, DeviceBuffer, DeviceQueue, Ticket } from "../../src/device/device.ts";
import { RequestList } from "../../src/device/requests.ts";
import { bytesOf, expectBytes, expectMapped, pattern, patternFile } from "../conformance/harness.ts";

export interface RandomWork {
  /** Where the file of the work is made. */
  readonly folder: string;
  /** Bytes of that file. */
  readonly byteLength: number;
  readonly rounds: number;
}

/**
 * Reads and copies out of mappings, into shared and private memory, under garbage collection, cancels and deadlines,
 * with files and mappings closed while they are in use. Each ticket must end once, and good ones with their bytes.
 * Throws with the seed.
 */
export async function workAtRandom(
  device: Device,
  { folder, byteLength, rounds }: RandomWork,
): Promise<void> {
  const path = patternFile(folder, "random", byteLength);
  const bytes = pattern(byteLength);
  const queue = device.createQueue();
  const seed = Date.now() % 2 ** 31;
  const random = generator(seed);
  let ended = 0;
  let good = 0;
  const round = async (index: number): Promise<void> => {
    const file = device.openFile(path);
    const mapping = expectMapped(device.map(file, 0, byteLength));
    const offset = random(byteLength);
    const length = random(byteLength - offset);
    const target = device.createBuffer(length + 1, random(3) === 0 ? "private" : "shared");
    const list = new RequestList();
    if (index % 2 === 0) list.read(file, offset, target, 0, length);
    else list.copy(mapping, offset, target, 0, length);
    const ticket = queue.submit(list, random(4) === 0 ? { timeoutMs: random(5) } : {});
    file.close();
    mapping.close();
    if (random(5) === 0) queue.cancel(ticket);
    const { error } = await queue.completion(ticket);
    ended++;
    if (error !== undefined) expect(["CANCELLED", "TIMED_OUT"]).toContain(error.code);
    else {
      good++;
      await expectHeld(device, queue, target, bytes.subarray(offset, offset + length));
      target.close();
    }
    await queue.quiesced(ticket);
  };
  const running: Promise<void>[] = [];
  try {
    for (let index = 0; index < rounds; index++) {
      running.push(round(index));
      if (index % 50 === 49) Bun.gc(index % 200 === 199);
      if (running.length >= 20) await running.shift();
    }
    await Promise.all(running);
    expect(ended).toBe(rounds);
    expect(good).toBeGreaterThan(rounds / 4);
    expect(queue.inFlight).toBe(0);
  } catch (error) {
    await Promise.allSettled(running);
    throw new Error(`seed ${seed}`, { cause: error });
  }
}

async function expectHeld(
  device: Device,
  queue: DeviceQueue,
  buffer: DeviceBuffer,
  bytes: Uint8Array,
): Promise<void> {
  if (buffer.storage === "shared") return expectBytes(bytesOf(buffer, 0, bytes.length), bytes);
  using back = device.createBuffer(bytes.length + 1);
  const ticket = queue.submit(new RequestList().copy(buffer, 0, back, 0, bytes.length));
  expect((await queue.completion(ticket)).error).toBeUndefined();
  expectBytes(bytesOf(back, 0, bytes.length), bytes);
}

/** Whole numbers from 0 up to a bound, the same for the same seed. */
function generator(seed: number): (bound: number) => number {
  let state = seed;
  return (bound) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return (state >>> 8) % bound;
  };
}

/** Opens a device and closes it, with reads of `path` in flight where `inFlight` says so: all of them must end. */
export async function closeOne(device: Device, path: string, inFlight: boolean): Promise<void> {
  const tickets: [DeviceQueue, Ticket][] = [];
  if (inFlight) {
    const queue = device.createQueue();
    const file = device.openFile(path);
    const buffer = device.createBuffer(file.byteLength);
    const list = new RequestList().read(file, 0, buffer, 0, file.byteLength);
    for (let i = 0; i < 10; i++) tickets.push([queue, queue.submit(list)]);
  }
  await device.close();
  expect(device.openResources).toBe(0);
  for (const [queue, ticket] of tickets) {
    const { error } = await queue.completion(ticket);
    if (error !== undefined) expect(error.code).toBe("CANCELLED");
  }
}

/** How a process ends that has a device open: the way, its exit code, and what it says. */
export const EXITS = [
  ["idle", 0, ""],
  ["event", 0, ""],
  ["ends", 0, "100000"],
  ["exit", 0, ""],
  ["closing", 0, ""],
  ["throws", 1, ""],
] as const;

/** Runs `child.ts` and checks how it ends; `args` name the device. */
export async function expectExit(
  [way, code, out]: (typeof EXITS)[number],
  folder: string,
  ...args: string[]
): Promise<void> {
  const path = patternFile(folder, `child-${way}-${args.join("-")}`.replaceAll("/", "_"), 100_000);
  const script = join(import.meta.dir, "child.ts");
  const started = performance.now();
  const child = Bun.spawn([process.execPath, script, way, path, ...args], { stderr: "pipe" });
  const [text, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  expect({ code: child.exitCode, signal: child.signalCode, out: text.trim() }).toEqual({
    code,
    signal: null,
    out,
  });
  if (way === "throws") expect(errors).toContain("on purpose");
  else expect(errors).toBe("");
  expect(performance.now() - started).toBeLessThan(10_000);
}
