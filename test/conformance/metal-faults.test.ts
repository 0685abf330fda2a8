/** Failures of Metal itself, as the stand-in injects them: which code the caller gets, and what goes on working. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type Device, isDeclined, type KernelSource } from "../../src/device/device.ts";
import { type OpenDeviceOptions, openDevice } from "../../src/device/open.ts";
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
  tempDir,
} from "./harness.ts";
import { ADD, addConstants } from "./kernels.ts";
import { metalLibrary, openFaulty, openStandIn, type StandInFault } from "./metal-subjects.ts";

const library = metalLibrary();
const standIn = "missing" in library ? undefined : openStandIn(library.path);
const reason = standIn === undefined ? " (left out: they are injected into the stand-in)" : "";
let dir: ReturnType<typeof tempDir>;
beforeAll(() => {
  dir = tempDir();
});
afterAll(() => dir[Symbol.dispose]());

/** `MTLCommandBufferError.Code` */
const TIMEOUT = "2";
const PAGE_FAULT = "3";
const REMOVED = "11";

/** Runs `work` on a device that fails as told. */
async function failing(
  faults: readonly StandInFault[],
  work: (device: Device) => Promise<void>,
  options: OpenDeviceOptions = {},
): Promise<void> {
  const device = openFaulty(standIn!, options, faults);
  try {
    await work(device);
  } finally {
    await device.close();
  }
  expect(device.openResources).toBe(0);
}

/** A dispatch that adds 5 to 100 bytes. */
function addFive(device: Device) {
  const buffer = device.createBuffer(400);
  const pipeline = device.createPipeline(ADD);
  const call = { pipeline, buffers: [{ buffer, offset: 0 }], constants: addConstants(5), threads: 100 };
  return { buffer, list: listOf((list) => list.dispatch(call)) };
}

describe.skipIf(standIn === undefined)(`metal, when Metal fails${reason}`, () => {
  test.each([
    ["timeout", TIMEOUT],
    ["page fault", PAGE_FAULT],
  ])("a %s fails the ticket and leaves the device usable", (_, code) =>
    failing([{ call: "command-buffer", nth: 1, errno: code }], async (device) => {
      const queue = device.createQueue();
      const { buffer, list } = addFive(device);
      const error = expectFailed(await queue.completion(queue.submit(list)), "DEVICE_FAILED");
      expect(error.message).toContain("MTLCommandBufferError");
      expect(error.message).toContain(code);
      expect(bytesOf(buffer, 0, 4)).toEqual(new Uint8Array(4));
      expect((await queue.completion(queue.submit(list))).error).toBeUndefined();
      expect([...bytesOf(buffer, 98, 4)]).toEqual([5, 5, 0, 0]);
    }),
  );

  test("with retryOnce the same work is run again, once", () =>
    failing(
      [{ call: "command-buffer", nth: 1, errno: TIMEOUT }],
      async (device) => {
        const queue = device.createQueue();
        const { buffer, list } = addFive(device);
        expect((await queue.completion(queue.submit(list))).error).toBeUndefined();
        expect([...bytesOf(buffer, 98, 4)]).toEqual([5, 5, 0, 0]);
        standIn!.setFaults([{ call: "command-buffer", nth: 1, times: 2, errno: TIMEOUT }]);
        expectFailed(await queue.completion(queue.submit(list)), "DEVICE_FAILED");
      },
      { retryOnce: true },
    ));

  test("a device that is removed is lost for good, and still closes", () =>
    failing([{ call: "command-buffer", nth: 1, errno: REMOVED }], async (device) => {
      const queue = device.createQueue();
      const { list } = addFive(device);
      expectFailed(await queue.completion(queue.submit(list)), "DEVICE_LOST");
      expectCode("DEVICE_LOST", () => queue.submit(list));
    }));

  test("nothing is written or signalled behind a kernel whose streamed read failed", async () => {
    const path = patternFile(dir.path, "io-kernel", 50_000);
    const written = join(dir.path, "io-kernel-written");
    await failing([{ call: "io-command-buffer", nth: 1, errno: "1" }], async (device) => {
      const queue = device.createQueue();
      using stream = device.openFile(path, "stream");
      using out = device.openFile(written, "write");
      using buffer = device.createBuffer(50_000);
      using event = device.createEvent();
      using pipeline = device.createPipeline(ADD);
      const call = {
        pipeline,
        buffers: [{ buffer, offset: 0 }],
        constants: addConstants(1),
        threads: 50_000,
      };
      const ticket = () =>
        run(queue, (list) =>
          list
            .read(stream, 0, buffer, 0, 50_000)
            .dispatch(call)
            .write(buffer, 0, out, 0, 50_000)
            .signal(event, 1),
        );
      const { error } = await ticket();
      expect(error?.message).toContain(path);
      expect(error?.code).toBe("IO_ERROR");
      expect([event.value, Bun.file(written).size]).toEqual([0, 0]);
      expect((await ticket()).error).toBeUndefined();
      expect([event.value, Bun.file(written).size]).toEqual([1, 50_000]);
      expectBytes(
        bytesOf(buffer),
        pattern(50_000).map((byte) => byte + 1),
      );
    });
  });

  test("a failed MTLIO load names the file, and the next one works", async () => {
    const path = patternFile(dir.path, "io", 50_000);
    await failing([{ call: "io-command-buffer", nth: 1, errno: "1" }], async (device) => {
      const queue = device.createQueue();
      using stream = device.openFile(path, "stream");
      using buffer = device.createBuffer(50_000);
      const read = () => run(queue, (list) => list.read(stream, 0, buffer, 0, 50_000));
      const { error } = await read();
      expect(error?.message).toContain(path);
      expect(["IO_ERROR", "DEVICE_FAILED"]).toContain(error!.code);
      expect((await read()).error).toBeUndefined();
      expectBytes(bytesOf(buffer), pattern(50_000));
    });
  });

  test("memory that Metal does not give is told, and a mapping that it refuses is declined", async () => {
    const path = patternFile(dir.path, "nil", 50_000);
    await failing([{ call: "make-buffer", nth: 1, times: 2, errno: "1" }], async (device) => {
      expectCode("OUT_OF_MEMORY", () => device.createBuffer(5000));
      using file = device.openFile(path);
      const answer = device.map(file, 0, 1000);
      if (!isDeclined(answer)) throw new Error("mapped");
      expect(answer.declined).toContain(path);
      device.createBuffer(5000).close();
    });
  });
});

describe.skipIf("missing" in library)("kernels over metal", () => {
  const open = () => openDevice("metal");

  test("a text that does not compile gives the compiler's first error", async () => {
    const device = open();
    const bad: KernelSource = {
      name: "bad",
      text: "HR_KERNEL(bad, HR_OUT(0, float, x)) { x[0] = nothing; }",
    };
    const error = expectCode("BAD_KERNEL", () => device.createPipeline(bad));
    expect(error.message).toContain("bad");
    expect(error.message).toContain("nothing");
    const other = { name: "absent", text: ADD.text! };
    expect(expectCode("BAD_OPTION", () => device.createPipeline(other)).message).toContain("absent");
    await device.close();
  });

  test("function constants and threadgroups of the caller's", async () => {
    const device = open();
    const text = `
constant uint32_t FACTOR [[function_constant(0)]];
constant bool NEGATE [[function_constant(3)]];
kernel void scale(device int32_t* values [[buffer(0)]], threadgroup int32_t* shared [[threadgroup(0)]],
                  uint at [[thread_position_in_grid]], uint local [[thread_position_in_threadgroup]],
                  uint group [[threads_per_threadgroup]]) {
  shared[local] = values[at];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  int32_t other = shared[(local + 1) % group];
  values[at] = other * int32_t(FACTOR) * (NEGATE ? -1 : 1);
}
`;
    const functionConstants = [
      { index: 0, type: "uint", value: 3 },
      { index: 3, type: "bool", value: true },
    ] as const;
    using pipeline = device.createPipeline({ name: "scale", text, functionConstants });
    using buffer = device.createBuffer(64);
    new Int32Array(buffer.view(0, 64)).set(Array.from({ length: 16 }, (_, i) => i));
    const constants = new Uint8Array(0);
    const buffers = [{ buffer, offset: 0 }];
    const call = { pipeline, buffers, constants, threads: 16, threadsPerGroup: 4, threadgroupBytes: 16 };
    await runWell(device.createQueue(), (list) => list.dispatch(call));
    const wanted = Int32Array.from({ length: 16 }, (_, i) => -3 * (i % 4 === 3 ? i - 3 : i + 1));
    expect(new Int32Array(buffer.view(0, 64))).toEqual(wanted);
    const wrong = [{ index: 0, type: "uint", value: -1 }] as const;
    expectCode("BAD_OPTION", () => device.createPipeline({ name: "scale", text, functionConstants: wrong }));
    await device.close();
  });

  test("what is closed leaves no handle in the library, but for texts that are kept", async () => {
    const device = open();
    const path = patternFile(dir.path, "handles", 50_000);
    const round = async (text: string) => {
      const queue = device.createQueue();
      using file = device.openFile(path);
      using stream = device.openFile(path, "stream");
      const answer = device.map(file, 3, 5000);
      using buffer = device.createBuffer(1000);
      using event = device.createEvent();
      using pipeline = device.createPipeline({ name: "add", text });
      const call = { pipeline, buffers: [{ buffer, offset: 0 }], constants: addConstants(1), threads: 1 };
      using sequence = device.createSequence([call]);
      await runWell(queue, (list) => list.read(stream, 0, buffer, 0, 10).replay(sequence).signal(event, 1));
      if (!isDeclined(answer)) answer.close();
      await queue.close();
    };
    for (let i = 0; i < 3; i++) await round(ADD.text!);
    expect(device.facts.openHandles).toBe(1);
    for (let i = 0; i < 18; i++) await round(`${ADD.text!}// ${i}`);
    expect(device.facts.openHandles).toBe(16);
    expect(device.openResources).toBe(0);
    await device.close();
  });

  test("launches that no device takes are refused before anything runs", async () => {
    const device = open();
    const queue = device.createQueue();
    using event = device.createEvent();
    const { list } = addFive(device);
    const call = list.objects[0] as Parameters<typeof list.dispatch>[0];
    for (const change of [
      { threads: -1 },
      { threads: 1.5 },
      { threads: 2 ** 32 },
      { threadsPerGroup: 0 },
      { threadgroupBytes: -1 },
      { constants: new Uint8Array(4097) },
    ]) {
      const bad = { ...call, ...change };
      expectCode("BAD_OPTION", () =>
        queue.submit(listOf((requests) => requests.signal(event, 1).dispatch(bad))),
      );
    }
    // More than this device's own bounds.
    for (const change of [{ threadsPerGroup: 1_000_000 }, { threadgroupBytes: 2 ** 30 }]) {
      const bad = { ...call, ...change };
      expectCode("OUT_OF_RANGE", () => queue.submit(listOf((requests) => requests.dispatch(bad))));
    }
    const outside = { ...call, buffers: [{ ...call.buffers[0]!, offset: 404 }] };
    expectCode("OUT_OF_RANGE", () => queue.submit(listOf((requests) => requests.dispatch(outside))));
    expect(event.value).toBe(0);
    await runWell(queue, (requests) => requests.dispatch({ ...call, threads: 0 }));
    await device.close();
  });
});
