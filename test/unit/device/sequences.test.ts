/** Recorded launches on the host and null devices. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { Device, DeviceBuffer, DeviceQueue } from "../../../src/device/device.ts";
import { openHost } from "../../../src/device/host/device.ts";
import { Syscalls } from "../../../src/device/host/syscalls.ts";
import { openNull } from "../../../src/device/null/device.ts";
import { type DispatchCall, RequestList } from "../../../src/device/requests.ts";

let device: Device;
let queue: DeviceQueue;
beforeEach(() => {
  device = openHost();
  queue = device.createQueue();
});
afterEach(() => device.close());

const withCode = (code: string) => expect.objectContaining({ code });

/** Adds the constant to each of `threads` bytes of buffer 0 and writes them to buffer 1. */
function addCall(from: DeviceBuffer, to: DeviceBuffer, add: number, threads: number): DispatchCall {
  const pipeline = device.createPipeline({
    name: "add",
    host: ([source, target], constants, count) => {
      for (let i = 0; i < count; i++) target![i] = source![i]! + constants[0]!;
    },
  });
  return {
    pipeline,
    buffers: [
      { buffer: from, offset: 0, slot: 0 },
      { buffer: to, offset: 0, slot: 3 },
    ],
    constants: Uint8Array.of(add),
    threads,
  };
}

const bytes = (buffer: DeviceBuffer) => [...new Uint8Array(buffer.view(0, buffer.byteLength))];

async function run(list: RequestList): Promise<void> {
  const { error } = await queue.completion(queue.submit(list));
  if (error !== undefined) throw error;
}

describe("sequences on the host", () => {
  test("run all launches in order, each replay with its own offsets", async () => {
    const a = device.createBuffer(8);
    new Uint8Array(a.view(0, 8)).set([1, 2, 3, 4, 5, 6, 7, 8]);
    const b = device.createBuffer(8);
    const c = device.createBuffer(8);
    const second = addCall(b, c, 100, 2);
    const fixed = { ...second, buffers: second.buffers.map(({ buffer, offset }) => ({ buffer, offset })) };
    const sequence = device.createSequence([addCall(a, b, 10, 2), fixed]);
    await run(new RequestList().replay(sequence));
    expect(bytes(b)).toEqual([11, 12, 0, 0, 0, 0, 0, 0]);
    expect(bytes(c)).toEqual([111, 112, 0, 0, 0, 0, 0, 0]);
    const list = new RequestList().replay(sequence, [{ slot: 0, offset: 4 }]).replay(sequence, [
      { slot: 3, offset: 1 },
      { slot: 3, offset: 6 },
      { slot: 0, offset: 2 },
    ]);
    await run(list);
    expect(bytes(b)).toEqual([15, 16, 0, 0, 0, 0, 13, 14]);
    expect(bytes(c)).toEqual([115, 116, 0, 0, 0, 0, 0, 0]);
  });

  test("keep constants, buffers and pipelines as they were until closed", async () => {
    const a = device.createBuffer(4);
    const b = device.createBuffer(4);
    const call = addCall(a, b, 9, 4);
    const before = device.openResources;
    const sequence = device.createSequence([call]);
    call.constants[0] = 50;
    call.pipeline.close();
    const address = a.hostAddress;
    a.close();
    await run(new RequestList().replay(sequence));
    expect(bytes(b)).toEqual([9, 9, 9, 9]);
    const syscalls = new Syscalls();
    const isMapped = () => syscalls.residentPages(address, syscalls.pageSize) >= 0;
    expect(isMapped()).toBe(true);
    sequence.close();
    expect(isMapped()).toBe(false);
    sequence.close();
    expect(() => queue.submit(new RequestList().replay(sequence))).toThrow(withCode("CLOSED"));
    b.close();
    expect(device.openResources).toBe(before - 2);
  });

  test("closed in flight: the launches still see their memory", async () => {
    const a = device.createBuffer(4);
    const b = device.createBuffer(4);
    const keep = device.createBuffer(4);
    const event = device.createEvent();
    const sequence = device.createSequence([addCall(a, b, 7, 4)]);
    const ticket = queue.submit(new RequestList().wait(event, 1).replay(sequence).copy(b, 0, keep, 0, 4));
    sequence.close();
    a.close();
    b.close();
    event.signal(1);
    expect((await queue.completion(ticket)).error).toBeUndefined();
    expect(bytes(keep)).toEqual([7, 7, 7, 7]);
  });

  test("refuse what a dispatch refuses, unknown slots, and offsets outside their buffers", async () => {
    const a = device.createBuffer(8);
    const b = device.createBuffer(8);
    const call = addCall(a, b, 1, 1);
    const sequence = device.createSequence([call]);
    const replay = (slot: number, offset: number) =>
      queue.submit(new RequestList().barrier().replay(sequence, [{ slot, offset }]));
    expect(() => replay(1, 0)).toThrow("request 1: slot 1 is none of the sequence's: 0, 3");
    expect(() => replay(0, 9)).toThrow(withCode("OUT_OF_RANGE"));
    expect(() => replay(0, -1)).toThrow(withCode("OUT_OF_RANGE"));
    expect(() => replay(0, 0.5)).toThrow(withCode("OUT_OF_RANGE"));
    expect(replay(0, 8)).toBe(1);
    const with0 = { ...call, buffers: [{ buffer: a, offset: 0, slot: -1 }] };
    expect(() => device.createSequence([with0])).toThrow(withCode("BAD_OPTION"));
    expect(() => device.createSequence([{ ...call, threads: -1 }])).toThrow(withCode("BAD_OPTION"));
    const wrong = new RequestList().signal(sequence as never, 1);
    expect(() => queue.submit(wrong)).toThrow("request 0: needs an event");
    await using other = openHost();
    const foreign = other.createQueue();
    expect(() => foreign.submit(new RequestList().replay(sequence))).toThrow(withCode("BAD_OPTION"));
    expect(() => other.createSequence([call])).toThrow(withCode("BAD_OPTION"));
    a.close();
    expect(() => device.createSequence([call])).toThrow(withCode("CLOSED"));
  });

  test("one that was forgotten gives its memory back", async () => {
    const region = (buffer: DeviceBuffer) => buffer as unknown as { region: { release(): void } };
    const b = device.createBuffer(8);
    let released = 0;
    const original = region(b).region.release.bind(region(b).region);
    region(b).region.release = () => {
      released++;
      original();
    };
    (() => {
      for (let i = 0; i < 20; i++) device.createSequence([addCall(b, b, 1, 1)]);
    })();
    for (let round = 0; round < 50 && released === 0; round++) {
      Bun.gc(true);
      await Bun.sleep(5);
    }
    expect(released).toBeGreaterThan(0);
  });
});

test("the null device records a replay with its offsets and runs nothing", async () => {
  await using nothing = openNull();
  const own = nothing.createQueue();
  const buffer = nothing.createBuffer(16);
  const pipeline = nothing.createPipeline({ name: "text only", text: "…" });
  const call = {
    pipeline,
    buffers: [{ buffer, offset: 0, slot: 2 }],
    constants: new Uint8Array(0),
    threads: 1,
  };
  const sequence = nothing.createSequence([call]);
  const list = new RequestList()
    .replay(sequence, [{ slot: 2, offset: 8 }])
    .replay(sequence)
    .replay(sequence, [{ slot: 2, offset: 4 }]);
  await own.completion(own.submit(list));
  expect(nothing.recorded[0]!.requests).toEqual([
    { op: "replay", source: sequence, offsets: [{ slot: 2, offset: 8 }] },
    { op: "replay", source: sequence, offsets: [] },
    { op: "replay", source: sequence, offsets: [{ slot: 2, offset: 4 }] },
  ]);
});
