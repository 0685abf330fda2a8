/** Sequences: dispatches that are checked once and run often, with other offsets where slots say so. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Device, DeviceBuffer, DeviceQueue, Pipeline } from "../../src/device/device.ts";
import type { DispatchCall } from "../../src/device/requests.ts";
import { bytesOf, expectBytes, expectCode, listOf, pattern, runWell, type Subject } from "./harness.ts";
import { ADD, addConstants } from "./kernels.ts";

const SIZE = 4096;

export function sequenceCases(subject: Subject): void {
  let device: Device;
  let queue: DeviceQueue;
  let add: Pipeline;
  beforeAll(() => {
    device = subject.open();
    queue = device.createQueue();
    add = device.createPipeline(ADD);
  });
  afterAll(() => device.close());

  function filled(): DeviceBuffer {
    const buffer = device.createBuffer(SIZE);
    new Uint8Array(buffer.view(0, SIZE)).set(pattern(SIZE));
    return buffer;
  }

  /** Adds `amount` to 100 bytes. */
  function call(buffer: DeviceBuffer, amount: number, offset: number, slot?: number): DispatchCall {
    const binding = slot === undefined ? { buffer, offset } : { buffer, offset, slot };
    return { pipeline: add, buffers: [binding], constants: addConstants(amount), threads: 100 };
  }

  test("slots that are none, and offsets outside, are refused", async () => {
    using buffer = filled();
    using event = device.createEvent();
    using sequence = device.createSequence([call(buffer, 1, 0, 3)]);
    const refused = (code: "BAD_OPTION" | "OUT_OF_RANGE", slot: number, offset: number) =>
      expectCode(code, () =>
        queue.submit(listOf((list) => list.signal(event, 1).replay(sequence, [{ slot, offset }]))),
      );
    refused("BAD_OPTION", 4, 0);
    refused("BAD_OPTION", -1, 0);
    refused("BAD_OPTION", 0.5, 0);
    refused("OUT_OF_RANGE", 3, SIZE + 4);
    refused("OUT_OF_RANGE", 3, -4);
    refused("OUT_OF_RANGE", 3, Number.NaN);
    expect(event.value).toBe(0);
    expectCode("OUT_OF_RANGE", () => device.createSequence([call(buffer, 1, SIZE + 4)]));
    expectCode("BAD_OPTION", () => device.createSequence([call(buffer, 1, 0, -2)]));
    expectCode("BAD_OPTION", () => queue.submit(listOf((list) => list.replay(buffer as never))));
    expectCode("BAD_OPTION", () =>
      queue.submit(listOf((list) => list.copy(sequence as never, 0, buffer, 0, 1))),
    );
    await runWell(queue, (list) => list.replay(sequence));
  });

  test("of another device are refused, and a closed one is closed", async () => {
    const other = subject.open();
    using buffer = filled();
    using sequence = device.createSequence([call(buffer, 1, 0)]);
    expectCode("BAD_OPTION", () => other.createQueue().submit(listOf((list) => list.replay(sequence))));
    expectCode("BAD_OPTION", () => other.createSequence([call(buffer, 1, 0)]));
    await other.close();
    sequence.close();
    sequence.close();
    expectCode("CLOSED", () => queue.submit(listOf((list) => list.replay(sequence))));
  });

  if (!subject.movesData) return;

  test("run in order, with the offsets they were made with or others", async () => {
    using buffer = filled();
    const expected = pattern(SIZE);
    const raise = (from: number, by: number) => {
      for (let i = from; i < from + 100; i++) expected[i]! += by;
    };
    using sequence = device.createSequence([
      call(buffer, 1, 0, 0),
      call(buffer, 10, 400, 7),
      call(buffer, 100, 800),
    ]);
    await runWell(queue, (list) =>
      list
        .replay(sequence)
        .replay(sequence, [{ slot: 7, offset: 1200 }])
        .replay(sequence, [
          { slot: 0, offset: 1600 },
          { slot: 7, offset: 2000 },
          { slot: 0, offset: 2400 },
        ]),
    );
    for (const [first, second] of [
      [0, 400],
      [0, 1200],
      [2400, 2000],
    ] as const) {
      raise(first, 1);
      raise(second, 10);
      raise(800, 100);
    }
    expectBytes(bytesOf(buffer), expected);
  });

  test("see what came before in the submission, and what follows sees them", async () => {
    using source = filled();
    using buffer = device.createBuffer(SIZE);
    using out = device.createBuffer(SIZE);
    using event = device.createEvent();
    using sequence = device.createSequence([call(buffer, 5, 0, 0)]);
    await runWell(queue, (list) =>
      list
        .copy(source, 0, buffer, 0, SIZE)
        .replay(sequence, [{ slot: 0, offset: 8 }])
        .dispatch(call(buffer, 7, 8))
        .signal(event, 1)
        .copy(buffer, 0, out, 0, SIZE),
    );
    const expected = pattern(SIZE);
    for (let i = 8; i < 108; i++) expected[i]! += 12;
    expectBytes(bytesOf(out), expected);
    expect(event.value).toBe(1);
  });

  test("keep what they use, whatever is closed, until they are closed themselves", async () => {
    const buffer = filled();
    using out = device.createBuffer(SIZE);
    const pipeline = device.createPipeline(ADD);
    const constants = addConstants(2);
    const made = {
      pipeline,
      buffers: [
        { buffer, offset: 0 },
        { buffer: out, offset: 0 },
      ],
      constants,
      threads: 9,
    };
    const sequence = device.createSequence([{ ...made, buffers: [{ buffer: out, offset: 4, slot: 1 }] }]);
    const unused = device.createSequence([{ ...made, buffers: [{ buffer, offset: 0 }] }]);
    constants.fill(77);
    pipeline.close();
    buffer.close();
    await runWell(queue, (list) => list.replay(sequence).replay(unused));
    expect([...bytesOf(out, 0, 16)]).toEqual([0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0]);
    const ticket = queue.submit(listOf((list) => list.replay(sequence).replay(unused)));
    sequence.close();
    unused.close();
    expect((await queue.completion(ticket)).error).toBeUndefined();
    await queue.quiesced(ticket);
    expect(bytesOf(out, 4, 1)[0]).toBe(4);
  });

  test("are replayed thousands of times", async () => {
    using buffer = device.createBuffer(SIZE);
    using sequence = device.createSequence([call(buffer, 1, 0, 0)]);
    const expected = new Uint8Array(SIZE);
    const list = listOf((requests) => {
      for (let i = 0; i < 2000; i++) {
        const offset = 4 * ((i * 37) % 999);
        requests.replay(sequence, [{ slot: 0, offset }]);
        for (let at = offset; at < offset + 100; at++) expected[at]! += 1;
      }
    });
    const { error } = await queue.completion(queue.submit(list));
    expect(error).toBeUndefined();
    expectBytes(bytesOf(buffer), expected);
  });
}
