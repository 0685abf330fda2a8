/** Lives of CUDA devices: several at once, in Workers, closed at any moment, or never. */
import { afterEach, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { OutCell } from "../../../src/device/cuda/cells.ts";
import { CudaContext } from "../../../src/device/cuda/context.ts";
import { initDriver, openDriver } from "../../../src/device/cuda/driver.ts";
import { Poll } from "../../../src/device/cuda/poll.ts";
import { Registrar } from "../../../src/device/cuda/registrar.ts";
import { Events, Streams } from "../../../src/device/cuda/streams.ts";
import { Waiters } from "../../../src/device/cuda/waiters.ts";
import { Syscalls } from "../../../src/device/host/syscalls.ts";
import { bytesOf, expectBytes, expectCode, listOf, pattern, runWell } from "../../conformance/harness.ts";
import { ADD } from "../../conformance/kernels.ts";
import { openDescriptors } from "../../conformance/process.ts";
import {
  addCall,
  begin,
  type CudaRig,
  describeOverMock,
  expectNothingLive,
  filled,
  KIB,
  SHUFFLED,
  soon,
  theMock,
  until,
  WINDOW,
  withCuda,
} from "./cuda-rig.ts";

const LENGTH = 4 * WINDOW;

/** A little of everything on one device. */
async function work({ device, queue, file, map, dir }: CudaRig, name: string): Promise<void> {
  const path = file(name, LENGTH);
  using from = device.openFile(path);
  using to = device.openFile(join(dir, `${name}.copy`), "write");
  using mapped = map(path);
  using hidden = device.createBuffer(LENGTH, "private");
  using add = device.createPipeline(ADD);
  await runWell(queue, (list) =>
    list
      .read(from, 0, hidden, 0, LENGTH)
      .copy(mapped, 0, hidden, 0, LENGTH / 2)
      .barrier()
      .dispatch(addCall(add, hidden, 1))
      .barrier()
      .write(hidden, 0, to, 0, LENGTH),
  );
  expectBytes(
    new Uint8Array(readFileSync(to.path)),
    pattern(LENGTH).map((byte) => byte + 1),
  );
}

const threads = () => readdirSync("/proc/self/task").length;
const mappings = () => readFileSync("/proc/self/maps", "utf8").split("\n").length;

describeOverMock("lives of CUDA devices", () => {
  afterEach(() => {
    theMock().mock.setFaults([]);
  });

  test("two GPUs, and two devices of one, work at once, and one that is not there is named", async () => {
    await withCuda({ config: { ...SHUFFLED, devices: 2 } }, async (rig) => {
      const others = [rig.open({ ordinal: 1 }), rig.open({ ordinal: 1 }), rig.open({ ordinal: 0 })];
      expect(others.map(({ facts }) => facts.ordinal)).toEqual([1, 1, 0]);
      const rigs = [rig, ...others.map((device) => ({ ...rig, device, queue: device.createQueue() }))];
      const pipelines = rigs.map(({ device }) => device.createPipeline(ADD));
      const buffers = rigs.map(({ device }, i) => filled(device, pattern(40 * KIB, i)));
      const hidden = rigs.map(({ device }) => device.createBuffer(40 * KIB, "private"));
      for (let round = 1; round <= 5; round++) {
        // Every call of one device comes right after calls of the others.
        const ends = rigs.map(({ queue }, i) => {
          const list = listOf((one) =>
            one
              .copy(buffers[i]!, 0, hidden[i]!, 0, 40 * KIB)
              .barrier()
              .dispatch(addCall(pipelines[i]!, hidden[i]!, i + 1))
              .copy(hidden[i]!, 0, buffers[i]!, 0, 40 * KIB),
          );
          return begin(queue, list).ended;
        });
        for (const { error } of await soon("the ends", Promise.all(ends))) expect(error).toBeUndefined();
        for (const [i, buffer] of buffers.entries()) {
          expectBytes(
            bytesOf(buffer),
            pattern(40 * KIB, i).map((byte) => byte + round * (i + 1)),
          );
        }
      }
      expectCode("BAD_OPTION", () =>
        rigs[0]!.queue.submit(listOf((one) => one.copy(buffers[1]!, 0, hidden[0]!, 0, 1))),
      );
      for (const other of others) await other.close();
      await work(rig, "after");
      expect(expectCode("BAD_OPTION", () => rig.open({ ordinal: 2 })).message).toContain("2 GPUs, 0 to 1");
    });
  });

  test("Workers open devices of their own", async () => {
    await withCuda({}, async (rig) => {
      const { path } = theMock();
      const workers = [0, 1, 0].map((ordinal) => {
        const worker = new Worker(new URL("./cuda-in-worker.ts", import.meta.url));
        const answer = new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = ({ message }) => reject(new Error(message));
        });
        worker.postMessage({ library: path, ordinal });
        return { worker, answer };
      });
      await work(rig, "beside");
      const answers = await soon("the answers", Promise.all(workers.map(({ answer }) => answer)), 8000);
      expect(answers).toEqual(["right", "right", "right"]);
      for (const { worker } of workers) worker.terminate();
    });
  }, 10_000);

  test("a device that is closed at any moment ends all tickets, and gives everything back", async () => {
    for (const delayMs of [0, 0.5, 1, 2, 4, 8, 16, 32]) {
      const config = { maxDelayUs: 3000, pieceBytes: 10_000, seed: Math.round(delayMs * 2) };
      await withCuda({ config }, async ({ device, queue, mock, dir, file, map }) => {
        mock.setFaults([{ call: "cuMemHostRegister_v2", times: 1000, delayMs: 2 }]);
        const path = file("data", LENGTH);
        const from = device.openFile(path);
        const to = device.openFile(join(dir, "copy"), "write");
        const mapped = map(path);
        const hidden = device.createBuffer(LENGTH, "private");
        const add = device.createPipeline(ADD);
        const event = device.createEvent();
        const other = device.createQueue();
        const lists = [
          listOf((list) => list.copy(mapped, 0, hidden, 0, LENGTH)),
          listOf((list) => list.read(from, 0, hidden, 0, LENGTH).dispatch(addCall(add, hidden, 1))),
          listOf((list) => list.write(hidden, 0, to, 0, LENGTH)),
          listOf((list) => list.wait(event, 1).copy(mapped, 0, hidden, 0, LENGTH)),
        ];
        const tickets = lists.map((list, i) => begin(i % 2 === 0 ? queue : other, list));
        if (delayMs > 0) await Bun.sleep(delayMs);
        await soon("close", device.close());
        const ends = await soon("the ends", Promise.all(tickets.map(({ ended }) => ended)));
        for (const { error } of ends) if (error !== undefined) expect(error.code).toBe("CANCELLED");
        await soon("quiet", Promise.all(tickets.map(({ quiet }) => quiet)));
        expectNothingLive(mock);
        expectCode("CLOSED", () => device.createBuffer(1));
      });
    }
  });

  test("close comes also while the device is not ready, and whoever waits for that goes on", async () => {
    await withCuda({}, async (rig) => {
      for (const delayMs of [0, 1, 3]) {
        const device = rig.open();
        const ready = Promise.resolve(device.ready?.());
        if (delayMs > 0) await Bun.sleep(delayMs);
        await soon("close", device.close());
        await soon("ready", ready);
      }
    });
  });

  test("opening and closing often leaves no thread, mapping, descriptor or object of the driver", async () => {
    const round = () => withCuda({}, (rig) => work(rig, "round"));
    for (let i = 0; i < 3; i++) await round();
    const before = [threads(), mappings(), openDescriptors()];
    for (let i = 0; i < 47; i++) await round();
    await Bun.sleep(50);
    const after = [threads(), mappings(), openDescriptors()];
    // The runtime's own threads and heaps come and go.
    expect(after[0]! - before[0]!).toBeLessThan(10);
    expect(after[1]! - before[1]!).toBeLessThan(40);
    expect(after[2]! - before[2]!).toBeLessThan(6);
  }, 120_000);

  test("work again and again on one device makes nothing more of the driver's", async () => {
    await withCuda({}, async (rig) => {
      const { registrations } = rig.mock.live();
      for (let i = 0; i < 3; i++) await work(rig, "round");
      await until(() => rig.mock.live().registrations <= registrations);
      const before = rig.mock.live();
      for (let i = 0; i < 20; i++) await work(rig, "round");
      // What was mapped is released behind its close.
      await until(() => rig.mock.live().registrations <= before.registrations);
      const { events, ...after } = rig.mock.live();
      const { events: eventsBefore, ...rest } = before;
      expect(after).toEqual(rest);
      expect(events).toBeLessThan(eventsBefore + 4);
    });
  });

  test("an idle device takes no time of a processor", async () => {
    await withCuda({}, async (rig) => {
      await work(rig, "first");
      await Bun.sleep(100);
      let least = Number.POSITIVE_INFINITY;
      // The runtime's own threads may have something to do, but not always.
      for (let round = 0; round < 3 && least >= 90_000; round++) {
        const before = process.cpuUsage();
        await Bun.sleep(300);
        const { user, system } = process.cpuUsage(before);
        least = Math.min(least, user + system);
      }
      // A lane or waiter that polls would take most of the 300,000 µs, each time.
      expect(least).toBeLessThan(90_000);
    });
  });

  for (const mode of ["wait", "leave", "exit"]) {
    test(`a process that never closes its device ends by itself: ${mode}`, async () => {
      await withCuda({}, async ({ file }) => {
        const script = join(import.meta.dir, "cuda-process.ts");
        const command = [process.execPath, script, theMock().path, file("data", LENGTH), mode];
        const child = Bun.spawn(command, { stdout: "pipe", stderr: "pipe" });
        const code = await soon("its end", child.exited, 8000).finally(() => child.kill());
        expect(await new Response(child.stderr).text()).toBe("");
        expect(code).toBe(0);
        // Work that was begun keeps the process until it is done.
        expect(await new Response(child.stdout).text()).toBe(mode === "exit" ? "" : "well\n");
      });
    }, 10_000);
  }

  test("a Worker that dies takes nobody with it", async () => {
    const { mock, path } = theMock();
    mock.reset();
    const driver = openDriver(path);
    initDriver(driver);
    const context = CudaContext.create(driver, "mock", 0, new Syscalls());
    // What the Workers cannot load.
    const parts = { deviceName: "mock", syscalls: context.syscalls, handle: context.handle };
    const broken = new CudaContext({ ...parts, driver: { ...driver, path: "/nowhere/libcuda.so" } });
    const waiters = new Waiters({ library: broken.driver.path, context: broken.handle });
    const streams = new Streams({
      context: broken,
      events: new Events(broken),
      waiters,
      poll: new Poll(broken),
    });
    const made = new OutCell();
    expect(driver.symbols.cuMemAlloc_v2(made.clear(), 4096)).toBe(0);
    for (let round = 0; round < 2; round++) {
      expect(driver.symbols.cuMemsetD8Async(made.u64, round, 4096, streams.upload.handle)).toBe(0);
      const error = await soon("the failure", new Promise((resolve) => streams.upload.whenDone(resolve)));
      expect(error).toMatchObject({ code: "DEVICE_FAILED" });
      expect(driver.symbols.cuStreamQuery(streams.upload.handle)).toBe(0);
    }
    streams.close();
    await soon("close", waiters.close());
    const registrar = new Registrar({
      library: "/nowhere/libcuda.so",
      device: 0,
      windowBytes: WINDOW,
      budget: LENGTH,
      flags: 11,
    });
    registrar.start();
    await soon("ready", registrar.ready);
    expect(registrar.broken).toContain("/nowhere/libcuda.so");
    await soon("close", registrar.close());
    driver.symbols.cuMemFree_v2(made.u64);
    context.destroy();
    expectNothingLive(mock);
  });
});
