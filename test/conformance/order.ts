/** Barriers, events, dispatches, cancel and deadlines. */
import { expect, test } from "bun:test";
import type { Device, DeviceQueue } from "../../src/device/device.ts";
import {
  bytesOf,
  expectBytes,
  expectCode,
  expectFailed,
  listOf,
  pattern,
  patternFile,
  run,
  runWell,
  type Subject,
  type TempDir,
  testWhere,
  useRig,
} from "./harness.ts";
import { ADD, addConstants, BLOCK, BLOCK_SUMS, blockSums } from "./kernels.ts";

export function orderCases(subject: Subject): void {
  let dir: TempDir;
  let device: Device;
  let queue: DeviceQueue;
  useRig(subject, (rig) => {
    ({ dir, device, queue } = rig);
  });

  test("tickets count up, and each can be asked for often", async () => {
    const own = device.createQueue();
    const first = own.submit(listOf(() => {}));
    const second = own.submit(listOf(() => {}));
    expect([first, second]).toEqual([1, 2]);
    expect((await own.completion(second)).ticket).toBe(2);
    expect(await own.completion(first)).toEqual(await own.completion(first));
    await own.quiesced(first);
    expect(own.inFlight).toBe(0);
    expectCode("BAD_OPTION", () => own.completion(3));
    expectCode("BAD_OPTION", () => own.completion(0));
    await own.close();
  });

  test("a signal is seen by waits, promises and other queues", async () => {
    using event = device.createEvent();
    const other = device.createQueue();
    const ended: number[] = [];
    const waiting = other.submit(listOf((list) => list.wait(event, 2)));
    const reached = event.reached(2).then(() => ended.push(event.value));
    expect(other.inFlight).toBe(1);
    await runWell(queue, (list) => list.signal(event, 1));
    expect(other.inFlight).toBe(1);
    await runWell(queue, (list) => list.signal(event, 2).signal(event, 1));
    expect((await other.completion(waiting)).error).toBeUndefined();
    await reached;
    expect(ended).toEqual([2]);
    expect(event.value).toBe(2);
    await event.reached(1);
    await other.close();
  });

  test("submissions that signal each other go back and forth", async () => {
    using event = device.createEvent();
    const other = device.createQueue();
    const ping = run(queue, (list) => {
      for (let turn = 0; turn < 500; turn++) list.wait(event, 2 * turn).signal(event, 2 * turn + 1);
    });
    const pong = run(other, (list) => {
      for (let turn = 0; turn < 500; turn++) list.wait(event, 2 * turn + 1).signal(event, 2 * turn + 2);
    });
    expect((await ping).error).toBeUndefined();
    expect((await pong).error).toBeUndefined();
    expect(event.value).toBe(1000);
    await other.close();
  });

  test("bad event values are refused", () => {
    using event = device.createEvent();
    for (const value of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expectCode("BAD_OPTION", () => event.signal(value));
      expectCode("BAD_OPTION", () => queue.submit(listOf((list) => list.wait(event, value))));
      expectCode("BAD_OPTION", () => queue.submit(listOf((list) => list.signal(event, value))));
    }
    expect(event.value).toBe(0);
  });

  test("a wait that never comes ends by deadline", async () => {
    using event = device.createEvent();
    const started = performance.now();
    const completion = await run(queue, (list) => list.wait(event, 1), { timeoutMs: 30 });
    expectFailed(completion, "TIMED_OUT");
    expect(completion.error?.message).toContain("raise timeoutMs");
    expect(performance.now() - started).toBeGreaterThanOrEqual(25);
    expect(completion.completedMs - completion.submittedMs).toBeLessThan(2000);
    await queue.quiesced(completion.ticket);
  });

  test("a wait that never comes ends by cancel, and once only", async () => {
    using event = device.createEvent();
    const ticket = queue.submit(listOf((list) => list.wait(event, 1).signal(event, 5)));
    queue.cancel(ticket);
    queue.cancel(ticket);
    expectFailed(await queue.completion(ticket), "CANCELLED");
    event.signal(1);
    await Bun.sleep(1);
    expect(event.value).toBe(1);
    queue.cancel(ticket);
    expectFailed(await queue.completion(ticket), "CANCELLED");
  });

  test("closing an event fails who waits for it", async () => {
    const event = device.createEvent();
    const ticket = queue.submit(listOf((list) => list.wait(event, 1)));
    const reached = event.reached(1).catch((error: unknown) => error);
    event.close();
    expectFailed(await queue.completion(ticket), "CLOSED");
    expect(await reached).toMatchObject({ code: "CLOSED" });
    expectCode("CLOSED", () => event.signal(1));
    expect(await event.reached(1).catch((error: unknown) => error)).toMatchObject({ code: "CLOSED" });
  });

  test("a ticket that has ended well is not cancelled any more", async () => {
    const completion = await runWell(queue, () => {});
    queue.cancel(completion.ticket);
    expect((await queue.completion(completion.ticket)).error).toBeUndefined();
  });

  test("bad deadlines are refused", () => {
    for (const timeoutMs of [-1, Number.NaN]) {
      expectCode("BAD_OPTION", () =>
        queue.submit(
          listOf(() => {}),
          { timeoutMs },
        ),
      );
    }
    queue.submit(
      listOf(() => {}),
      { timeoutMs: Number.POSITIVE_INFINITY },
    );
  });

  if (!subject.movesData) return;

  test("what follows a barrier sees what came before", async () => {
    const size = 6 * 2 ** 20;
    using file = device.openFile(patternFile(dir.path, "barrier", size));
    using a = device.createBuffer(size);
    using b = device.createBuffer(size);
    using c = device.createBuffer(size);
    await runWell(queue, (list) =>
      list
        .read(file, 0, a, 0, size)
        .barrier()
        .copy(a, 0, b, 0, size)
        .barrier()
        .barrier()
        .copy(b, 0, c, 0, size),
    );
    expectBytes(bytesOf(c), pattern(size));
  });

  test("a signal follows the bytes before it", async () => {
    const size = 6 * 2 ** 20;
    using file = device.openFile(patternFile(dir.path, "signal", size, 2));
    using a = device.createBuffer(size);
    using b = device.createBuffer(size);
    using event = device.createEvent();
    const other = device.createQueue();
    const second = run(other, (list) => list.wait(event, 1).copy(a, 0, b, 0, size));
    await runWell(queue, (list) => list.read(file, 0, a, 0, size).signal(event, 1));
    expect((await second).error).toBeUndefined();
    expectBytes(bytesOf(b), pattern(size, 2));
    await other.close();
  });

  test("many submissions at once all end, each with its own bytes", async () => {
    const size = 20_000;
    const count = 600;
    using file = device.openFile(patternFile(dir.path, "many", size + count));
    const bytes = pattern(size + count);
    using buffer = device.createBuffer(size * count);
    const ended = await Promise.all(
      Array.from({ length: count }, (_, i) =>
        run(queue, (list) => list.read(file, i, buffer, i * size, size)),
      ),
    );
    expect(ended.every(({ error, bytesDone }) => error === undefined && bytesDone === size)).toBe(true);
    for (let i = 0; i < count; i++) {
      expectBytes(bytesOf(buffer, i * size, size), bytes.subarray(i, i + size));
    }
    expect(queue.inFlight).toBe(0);
  });

  const kernels = testWhere(subject.runsKernels !== false, "nothing compiles kernels");

  kernels("dispatches run in order, each after the bytes before it", async () => {
    using buffer = device.createBuffer(1000);
    using file = device.openFile(patternFile(dir.path, "in-order", 1000));
    using add = device.createPipeline(ADD);
    const constants = addConstants(3);
    const call = { pipeline: add, buffers: [{ buffer, offset: 12 }], constants, threads: 50 };
    const list = listOf((requests) =>
      requests.read(file, 0, buffer, 0, 1000).dispatch(call).dispatch(call).copy(buffer, 12, buffer, 500, 50),
    );
    const ticket = queue.submit(list);
    constants.fill(99);
    expect((await queue.completion(ticket)).error).toBeUndefined();
    const expected = pattern(1000);
    for (let i = 12; i < 62; i++) expected[i]! += 6;
    expected.copyWithin(500, 12, 62);
    expectBytes(bytesOf(buffer), expected);
  });

  kernels("threads of a group share memory and meet at barriers", async () => {
    const numBlocks = 37;
    using input = device.createBuffer(numBlocks * BLOCK * 4);
    using sums = device.createBuffer(numBlocks * 4);
    const values = new Uint32Array(input.view(0, input.byteLength));
    for (let i = 0; i < values.length; i++) values[i] = Math.imul(i, 2654435761) >>> 8;
    using pipeline = device.createPipeline(BLOCK_SUMS);
    await runWell(queue, (list) => list.dispatch(blockSums(pipeline, input, sums, numBlocks)));
    const found = new Uint32Array(sums.view(0, sums.byteLength));
    for (let block = 0; block < numBlocks; block++) {
      const wanted = values.subarray(block * BLOCK, (block + 1) * BLOCK).reduce((sum, one) => sum + one, 0);
      expect(found[block]).toBe(wanted >>> 0);
    }
  });

  const hostKernel = testWhere(subject.runsHostKernels, "its kernels are no JavaScript");

  hostKernel("a kernel's views end with its dispatch", async () => {
    using buffer = device.createBuffer(1000);
    using file = device.openFile(patternFile(dir.path, "dispatch", 1000));
    let kept: Uint8Array | undefined;
    using add = device.createPipeline({
      name: "add",
      host: ([bytes], constants, threads) => {
        kept = bytes;
        for (let i = 0; i < threads; i++) bytes![i]! += constants[0]!;
      },
    });
    const constants = Uint8Array.of(3);
    const call = { pipeline: add, buffers: [{ buffer, offset: 10 }], constants, threads: 50 };
    const list = listOf((requests) =>
      requests.read(file, 0, buffer, 0, 1000).dispatch(call).copy(buffer, 10, buffer, 500, 50),
    );
    const ticket = queue.submit(list);
    constants[0] = 99;
    expect((await queue.completion(ticket)).error).toBeUndefined();
    const expected = pattern(1000);
    for (let i = 10; i < 60; i++) expected[i]! += 3;
    expected.copyWithin(500, 10, 60);
    expectBytes(bytesOf(buffer), expected);
    expect(kept?.length).toBe(0);
  });

  hostKernel("a kernel that throws fails its ticket", async () => {
    using bad = device.createPipeline({
      name: "bad",
      host: () => {
        throw new Error("no luck");
      },
    });
    const call = { pipeline: bad, buffers: [], constants: new Uint8Array(0), threads: 1 };
    const error = expectFailed(await run(queue, (list) => list.dispatch(call)), "DEVICE_FAILED");
    expect(error.message).toContain("bad");
    expect(error.message).toContain("no luck");
  });

  hostKernel("a kernel may cancel its own ticket", async () => {
    const buffer = device.createBuffer(4096);
    let seen = -1;
    using selfish = device.createPipeline({
      name: "selfish",
      host: ([bytes]) => {
        own.cancel(1);
        buffer.close();
        bytes![5] = 1;
        seen = bytes![5]!;
      },
    });
    const own = device.createQueue();
    const call = {
      pipeline: selfish,
      buffers: [{ buffer, offset: 0 }],
      constants: new Uint8Array(0),
      threads: 1,
    };
    const ticket = own.submit(listOf((list) => list.dispatch(call)));
    expectFailed(await own.completion(ticket), "CANCELLED");
    await own.quiesced(ticket);
    expect(seen).toBe(1);
    await own.close();
  });
}
