/** Who may use what after which close, and what is left behind: nothing. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Device, DeviceQueue } from "../../src/device/device.ts";
import {
  expectCode,
  expectFailed,
  expectMapped,
  listOf,
  patternFile,
  run,
  runWell,
  type Subject,
  tempDir,
  testWhere,
  withDevice,
} from "./harness.ts";
import { ADD } from "./kernels.ts";
import { collect, openDescriptors, openMappings } from "./process.ts";

/** Opens files and mappings without closing them. Returns a view of one of the mappings. */
function forgetAllButOneView(device: Device, path: string): Uint8Array {
  let held = new Uint8Array(0);
  for (let i = 0; i < 30; i++) {
    const mapping = expectMapped(device.map(device.openFile(path), 0, 50_000));
    const view = new Uint8Array(mapping.view(100, 1000), 50);
    if (i === 20) held = view;
  }
  return held;
}

export function lifetimeCases(subject: Subject): void {
  let dir: ReturnType<typeof tempDir>;
  beforeAll(() => {
    dir = tempDir();
  });
  afterAll(() => dir[Symbol.dispose]());

  function withQueue(work: (device: Device, queue: DeviceQueue) => Promise<void>): Promise<void> {
    return withDevice(subject.open(), (device) => work(device, device.createQueue()));
  }

  const kernels = testWhere(subject.runsKernels !== false, "nothing compiles kernels");

  kernels("every method after close throws CLOSED, and closing twice is harmless", () =>
    withQueue(async (device, queue) => {
      const file = device.openFile(patternFile(dir.path, "closed", 5000));
      const mapping = expectMapped(device.map(file, 0, 5000));
      const buffer = device.createBuffer(100);
      const event = device.createEvent();
      const pipeline = device.createPipeline(ADD);
      expect(device.openResources).toBe(4);
      const call = {
        pipeline,
        buffers: [{ buffer, offset: 0 }],
        constants: Uint8Array.of(1, 0, 0, 0),
        threads: 1,
      };
      const sequence = device.createSequence([call]);
      for (const closable of [file, mapping, buffer, event, pipeline, sequence]) {
        closable.close();
        closable.close();
      }
      expect(device.openResources).toBe(1);
      expect([mapping.closed, buffer.closed]).toEqual([true, true]);
      using live = device.createBuffer(100);
      const uses = [
        () => file.checkLength(),
        () => file.readSync(0, 1),
        () => device.map(file, 0, 1),
        () => mapping.view(0, 1),
        () => mapping.advise("random", 0, 1),
        () => buffer.view(0, 0),
        () => buffer.advise("random", 0, 1),
        () => event.signal(1),
        () => queue.submit(listOf((list) => list.read(file, 0, live, 0, 1))),
        () => queue.submit(listOf((list) => list.copy(mapping, 0, live, 0, 1))),
        () => queue.submit(listOf((list) => list.copy(live, 0, buffer, 0, 1))),
        () => queue.submit(listOf((list) => list.signal(event, 1))),
        () => queue.submit(listOf((list) => list.dispatch(call))),
        () => device.createSequence([call]),
        () => queue.submit(listOf((list) => list.replay(sequence))),
      ];
      for (const use of uses) expectCode("CLOSED", use);
      expect(queue.inFlight).toBe(0);
      await queue.close();
      await queue.close();
      expectCode("CLOSED", () => queue.submit(listOf(() => {})));
    }),
  );

  test("a closed device closes all it made and makes nothing more", async () => {
    const device = subject.open();
    const file = device.openFile(patternFile(dir.path, "all", 5000));
    const buffer = device.createBuffer(100);
    const mapping = expectMapped(device.map(file, 0, 5000));
    const queue = device.createQueue();
    const event = device.createEvent();
    const ticket = queue.submit(listOf((list) => list.wait(event, 1)));
    const view = new Uint8Array(mapping.view(0, 5000));
    await device.close();
    await device.close();
    expect(device.openResources).toBe(0);
    expect([view.length, buffer.closed, mapping.closed]).toEqual([0, true, true]);
    expect((await queue.completion(ticket)).error).toBeDefined();
    const uses = [
      () => device.openFile(dir.path),
      () => device.map(file, 0, 1),
      () => device.createBuffer(1),
      () => device.createEvent(),
      () => device.createQueue(),
      () => device.createPipeline(ADD),
      () => device.createSequence([]),
      () => file.checkLength(),
      () => buffer.view(0, 1),
      () => event.signal(1),
      () => queue.submit(listOf(() => {})),
    ];
    for (const use of uses) expectCode("CLOSED", use);
  });

  test("close detaches every view that is left", () =>
    withQueue(async (device) => {
      const file = device.openFile(patternFile(dir.path, "views", 50_000));
      for (const buffer of [expectMapped(device.map(file, 7, 40_000)), device.createBuffer(40_000)]) {
        const views = Array.from({ length: 500 }, (_, i) => new Uint8Array(buffer.view(i, 100), 10));
        // The caller may let go of one early.
        (views[3]!.buffer as ArrayBuffer).transfer(0);
        expect(views[4]!.length).toBe(90);
        buffer.close();
        expect(views.every((view) => view.length === 0)).toBe(true);
      }
      file.close();
    }));

  test("objects of another device are refused, and nothing of that submission happens", () =>
    withQueue(async (device, queue) => {
      await withQueue(async (other) => {
        using file = other.openFile(patternFile(dir.path, "foreign", 100));
        using theirs = other.createBuffer(100);
        using mine = device.createBuffer(100);
        using event = device.createEvent();
        expectCode("BAD_OPTION", () => device.map(file, 0, 100));
        expectCode("BAD_OPTION", () =>
          queue.submit(listOf((list) => list.signal(event, 1).read(file, 0, mine, 0, 1))),
        );
        expectCode("BAD_OPTION", () =>
          queue.submit(listOf((list) => list.signal(event, 1).copy(theirs, 0, mine, 0, 1))),
        );
        expect(event.value).toBe(0);
        expect(queue.inFlight).toBe(0);
      });
    }));

  test("memory and files closed in flight stay until the ticket ends", () =>
    withQueue(async (device, queue) => {
      const size = 8 * 2 ** 20;
      const path = patternFile(dir.path, "in-flight", size);
      for (let round = 0; round < 5; round++) {
        const file = device.openFile(path);
        const mapping = expectMapped(device.map(file, 0, size));
        const buffer = device.createBuffer(size);
        const copied = device.createBuffer(size);
        const ticket = queue.submit(
          listOf((list) => list.read(file, 0, buffer, 0, size).copy(mapping, 0, copied, 0, size)),
        );
        for (const closable of [file, mapping, buffer, copied]) closable.close();
        expect((await queue.completion(ticket)).error).toBeUndefined();
        await queue.quiesced(ticket);
      }
    }));

  test("closing the queue or the device in flight cancels and waits", async () => {
    const device = subject.open();
    const size = 8 * 2 ** 20;
    const file = device.openFile(patternFile(dir.path, "closing", size));
    const buffer = device.createBuffer(size * 4);
    const queue = device.createQueue();
    const tickets = Array.from({ length: 50 }, () =>
      queue.submit(listOf((list) => list.read(file, 0, buffer, 0, size))),
    );
    const closing = device.close();
    for (const ticket of tickets) {
      const { error } = await queue.completion(ticket);
      if (error !== undefined) expectFailed(await queue.completion(ticket), "CANCELLED");
    }
    await closing;
    expect(queue.inFlight).toBe(0);
    expect(device.openResources).toBe(0);
  });

  test("opening and closing 1000 times leaves no descriptor and no mapping", async () => {
    const path = patternFile(dir.path, "cycles", 50_000);
    // What the first one leaves for those behind it is there from now on.
    await subject.open().close();
    const before = { descriptors: openDescriptors(), mappings: openMappings(dir.path) };
    const device = subject.open();
    for (let cycle = 0; cycle < 1000; cycle++) {
      using file = device.openFile(path);
      using mapping = expectMapped(device.map(file, cycle, 10_000));
      using buffer = device.createBuffer(10_000);
      mapping.view(0, 10);
      buffer.view(0, 10);
    }
    expect(device.openResources).toBe(0);
    await device.close();
    for (let cycle = 0; cycle < 50; cycle++) await subject.open().close();
    expect({ descriptors: openDescriptors(), mappings: openMappings(dir.path) }).toEqual(before);
  }, 60_000);

  test("devices that have worked leave no descriptor and no thread", async () => {
    const path = patternFile(dir.path, "workers", 200_000);
    const once = () =>
      withQueue(async (device, queue) => {
        using file = device.openFile(path);
        using buffer = device.createBuffer(200_000);
        await runWell(queue, (list) => list.read(file, 0, buffer, 0, 200_000));
      });
    await once();
    const before = openDescriptors();
    for (let cycle = 0; cycle < 10; cycle++) await once();
    // The runtime gives a Worker's own descriptors back a moment after it has ended.
    for (let wait = 0; wait < 100 && openDescriptors() > before; wait++) await Bun.sleep(10);
    expect(openDescriptors()).toBeLessThanOrEqual(before);
  });

  test("what was forgotten is given back, but not under a view that is still held", async () => {
    const path = patternFile(dir.path, "forgotten", 50_000);
    const before = { descriptors: openDescriptors(), mappings: openMappings(dir.path) };
    const device = subject.open();
    const held = forgetAllButOneView(device, path);
    await collect(() => openMappings(dir.path) <= before.mappings + 1);
    if (process.platform === "linux") expect(openMappings(dir.path)).toBe(before.mappings + 1);
    expect(held.reduce((sum, byte) => sum + byte, 0)).toBeGreaterThan(0);
    await device.close();
    expect(openMappings(dir.path)).toBe(before.mappings);
    expect(held.length).toBe(0);
    // Fewer where collecting ended what earlier tests had left to it.
    expect(openDescriptors()).toBeLessThanOrEqual(before.descriptors);
    expect(device.openResources).toBe(0);
  });

  test("completions of old tickets are forgotten in the end, newer ones are kept", () =>
    withQueue(async (_, queue) => {
      const first = queue.submit(listOf(() => {}));
      for (let i = 0; i < 20_000; i++) queue.submit(listOf(() => {}));
      expectCode("BAD_OPTION", () => queue.completion(first));
      expect((await queue.completion(first + 19_000)).error).toBeUndefined();
      expect((await run(queue, () => {})).ticket).toBe(first + 20_001);
    }));
}
