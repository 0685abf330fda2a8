/** The CUDA device when calls of the driver fail: once, anywhere, or for good. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { openCuda } from "../../../src/device/cuda/device.ts";
import type { DeviceBuffer, Pipeline } from "../../../src/device/device.ts";
import { HeadraceError } from "../../../src/errors.ts";
import {
  bytesOf,
  expectBytes,
  expectCode,
  expectFailed,
  listOf,
  pattern,
} from "../../conformance/harness.ts";
import { ADD } from "../../conformance/kernels.ts";
import {
  addCall,
  type CudaRig,
  describeOverMock,
  expectNothingLive,
  filled,
  KIB,
  patternPart,
  soon,
  theMock,
  until,
  WINDOW,
  withCuda,
} from "./cuda-rig.ts";

/** A failure of the driver that leaves the context as it is. */
const UNKNOWN = 999;
/** CUDA_ERROR_ILLEGAL_ADDRESS: nothing works afterwards. */
const ILLEGAL_ADDRESS = 700;

const FUNCTIONS = [
  "cuCtxSetCurrent",
  "cuMemAlloc_v2",
  "cuMemFree_v2",
  "cuMemHostRegister_v2",
  "cuMemHostUnregister",
  "cuMemcpyAsync",
  "cuMemcpyHtoDAsync_v2",
  "cuMemcpyDtoHAsync_v2",
  "cuMemsetD8Async",
  "cuStreamCreate",
  "cuStreamDestroy_v2",
  "cuStreamWaitEvent",
  "cuStreamSynchronize",
  "cuEventCreate",
  "cuEventRecord",
  "cuEventQuery",
  "cuEventSynchronize",
  "cuModuleLoadData",
  "cuModuleGetFunction",
  "cuFuncGetAttribute",
  "cuLaunchKernel",
] as const;

/** So that a sweep over all calls is short. */
const FEW_CALLS = { lanes: 1, pieceBytes: WINDOW };

const LENGTH = 2 * WINDOW;
const ROW = 1 * KIB;
const NUM_ROWS = 40;

/** Some of all that a device does. Gives the first failure; what succeeded must be right. */
async function someOfAll(rig: CudaRig): Promise<HeadraceError | undefined> {
  const { device, queue, dir } = rig;
  const made: { close(): void }[] = [];
  const keep = <T extends { close(): void }>(one: T): T => {
    made.push(one);
    return one;
  };
  try {
    const from = keep(device.openFile(join(dir, "from")));
    const mapped = device.map(from, 0, LENGTH);
    if ("declined" in mapped) throw new HeadraceError("UNSUPPORTED", mapped.declined);
    keep(mapped);
    const hidden = keep(device.createBuffer(LENGTH, "private"));
    const rows = keep(device.createBuffer(NUM_ROWS * ROW, "private"));
    const shared = keep(device.createBuffer(LENGTH));
    const to = keep(device.openFile(join(dir, "to"), "write"));
    const pipeline = keep(device.createPipeline(ADD));
    await submit(rig, { from, mapped, hidden, rows, shared, to, pipeline });
    const expected = pattern(LENGTH).map((byte) => byte + 3);
    expectBytes(bytesOf(shared), expected);
    expectBytes(new Uint8Array(readFileSync(join(dir, "to"))), expected);
    const rowBytes = keep(device.createBuffer(NUM_ROWS * ROW));
    const ticket = queue.submit(listOf((list) => list.copy(rows, 0, rowBytes, 0, NUM_ROWS * ROW)));
    const { error } = await soon("the rows", queue.completion(ticket));
    if (error !== undefined) return error;
    for (let row = 0; row < NUM_ROWS; row++) {
      expectBytes(bytesOf(rowBytes, row * ROW, ROW), patternPart(row * 6 * KIB + 1, ROW));
    }
    return undefined;
  } catch (error) {
    if (error instanceof HeadraceError) return error;
    throw error;
  } finally {
    for (const one of made) one.close();
  }
}

interface Used {
  readonly from: ReturnType<CudaRig["device"]["openFile"]>;
  readonly to: Used["from"];
  readonly mapped: DeviceBuffer;
  readonly hidden: DeviceBuffer;
  readonly rows: DeviceBuffer;
  readonly shared: DeviceBuffer;
  readonly pipeline: Pipeline;
}

async function submit({ queue }: CudaRig, used: Used): Promise<void> {
  const { from, to, mapped, hidden, rows, shared, pipeline } = used;
  const tickets = [
    // Through lanes, and out of the mapping: the same bytes twice.
    listOf((list) => list.read(from, 0, hidden, 0, LENGTH).barrier().copy(mapped, 0, hidden, 0, LENGTH)),
    listOf((list) => {
      for (let row = 0; row < NUM_ROWS; row++) list.copy(mapped, row * 6 * KIB + 1, rows, row * ROW, ROW);
    }),
  ].map((list) => queue.submit(list));
  for (const ticket of tickets) {
    const { error } = await soon("a first ticket", queue.completion(ticket));
    await soon("its quiet", queue.quiesced(ticket));
    if (error !== undefined) throw error;
  }
  const last = queue.submit(
    listOf((list) =>
      list
        .dispatch(addCall(pipeline, hidden, 1))
        .copy(hidden, 0, shared, 0, LENGTH)
        .barrier()
        .dispatch(addCall(pipeline, shared, 2))
        .copy(shared, 0, hidden, 0, LENGTH)
        .barrier()
        .write(hidden, 0, to, 0, LENGTH),
    ),
  );
  const { error } = await soon("the last ticket", queue.completion(last));
  await soon("its quiet", queue.quiesced(last));
  if (error !== undefined) throw error;
}

describeOverMock("the CUDA device, when the driver fails", () => {
  test("an NVRTC that is named and cannot be loaded is told at once, and nothing is opened", () => {
    const { mock, path } = theMock();
    mock.reset();
    const failure = (open: () => unknown) => {
      expect(open).toThrow(HeadraceError);
      const error = expectCode("DEVICE_UNAVAILABLE", open);
      expect(mock.live().contexts).toBe(0);
      return error.message;
    };
    const byOption = failure(() => openCuda({ library: path, nvrtc: "/nope.so" }));
    expect(byOption).toMatch(/^device cuda: NVRTC: .*\/nope\.so.*; correct or leave out the option nvrtc$/);
    const before = process.env.HEADRACE_NVRTC_LIBRARY;
    process.env.HEADRACE_NVRTC_LIBRARY = "/nowhere.so";
    try {
      const byVariable = failure(() => openCuda({ library: path }));
      expect(byVariable).toMatch(/\/nowhere\.so.*; correct or unset HEADRACE_NVRTC_LIBRARY$/);
    } finally {
      if (before === undefined) delete process.env.HEADRACE_NVRTC_LIBRARY;
      else process.env.HEADRACE_NVRTC_LIBRARY = before;
    }
  });

  for (const call of FUNCTIONS) {
    test(`a call of ${call} that fails once, whichever, fails what needs it and nothing else`, async () => {
      for (let nth = 1, met = true; met; nth++) {
        await withCuda({ mayReport: true, options: FEW_CALLS }, async (rig) => {
          rig.file("from", LENGTH);
          const before = rig.mock.calls(call);
          rig.mock.setFaults([{ call, nth, code: UNKNOWN }]);
          const error = await someOfAll(rig);
          met = rig.mock.calls(call) - before >= nth;
          if (!met) expect(error).toBeUndefined();
          if (error !== undefined) {
            expect(error.message).not.toContain("\n");
            expect(error.message).toContain("CUDA_ERROR_UNKNOWN");
            expect(["DEVICE_FAILED", "UNSUPPORTED"]).toContain(error.code);
          }
          rig.mock.setFaults([]);
          const again = await someOfAll(rig);
          expect(again).toBeUndefined();
          // No memory was given back that something in a stream was still using.
          expect(rig.mock.reports().filter((line) => line.includes(" ran when "))).toEqual([]);
          // What the driver would not free goes with the context.
          // Where lanes send their first bytes stays.
          if (call !== "cuMemFree_v2") expect(rig.mock.live()).toMatchObject({ allocations: 1 });
        });
      }
    }, 60_000);
  }

  test("copies before one that fails have ended when the ticket is quiet", async () => {
    await withCuda(
      { config: { maxDelayUs: 20_000, seed: 2 }, mayReport: true },
      async ({ device, queue, mock }) => {
        using shared = filled(device, pattern(LENGTH));
        for (let nth = 1; nth <= 6; nth++) {
          const hidden = device.createBuffer(LENGTH, "private");
          mock.setFaults([{ call: "cuMemcpyAsync", nth, code: UNKNOWN }]);
          const list = listOf((one) => {
            for (let i = 0; i < 6; i++) one.copy(shared, i * KIB, hidden, i * KIB, KIB);
          });
          const ticket = queue.submit(list);
          await soon("its quiet", queue.quiesced(ticket));
          expectFailed(await queue.completion(ticket), "DEVICE_FAILED");
          hidden.close();
        }
        expect(mock.reports().filter((line) => line.includes(" ran when "))).toEqual([]);
      },
    );
  });

  for (const during of ["cuMemcpyAsync", "cuLaunchKernel", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2"]) {
    test(`a context that is lost in ${during} ends all tickets, and the device says so from then on`, async () => {
      for (const config of [{}, { maxDelayUs: 300, pieceBytes: 3000, seed: 5 }]) {
        await withCuda({ config, mayReport: true }, (rig) => loseContext(rig, during));
      }
    });
  }

  test("a lost context does not take other devices with it where CUDA still works", async () => {
    await withCuda({ config: { contextAfterLoss: true }, mayReport: true }, async (rig) => {
      await loseContext(rig, "cuMemcpyAsync");
      const next = rig.open();
      const queue = next.createQueue();
      const hidden = next.createBuffer(4 * KIB, "private");
      const shared = filled(next, pattern(4 * KIB));
      const back = next.createBuffer(4 * KIB);
      const ticket = queue.submit(
        listOf((list) =>
          list
            .copy(shared, 0, hidden, 0, 4 * KIB)
            .barrier()
            .copy(hidden, 0, back, 0, 4 * KIB),
        ),
      );
      expect((await soon("the copy", queue.completion(ticket))).error).toBeUndefined();
      expectBytes(bytesOf(back), pattern(4 * KIB));
      await next.close();
    });
  });

  test("after a loss that CUDA does not get over, opening a device says what to do", async () => {
    await withCuda({ mayReport: true }, async (rig) => {
      await loseContext(rig, "cuMemcpyAsync");
      const error = expectCode("DEVICE_LOST", () => rig.open());
      expect(error.message).toContain("new process");
    });
  });

  test("a call that fails when the device is opened says so, and leaves nothing behind", async () => {
    const { mock, path } = theMock();
    const opening = [
      "cuInit",
      "cuDriverGetVersion",
      "cuDeviceGetCount",
      "cuDeviceGet",
      "cuDeviceGetName",
      "cuDeviceTotalMem_v2",
      "cuDeviceGetAttribute",
      "cuDeviceGetPCIBusId",
      "cuCtxCreate_v2",
      "cuCtxSetCurrent",
      "cuStreamCreate",
    ];
    for (const call of opening) {
      for (let nth = 1, failed = true; failed; nth++) {
        mock.reset();
        mock.setFaults([{ call, nth, code: UNKNOWN }]);
        const tried = await tryOpening(path);
        failed = tried !== undefined;
        if (nth === 1) expect(`${call} ${failed}`).toBe(`${call} true`);
        if (tried === undefined) continue;
        expect(tried.message).toContain("CUDA_ERROR_UNKNOWN");
        expectNothingLive(mock);
      }
    }
  });
});

/** Has the next such call put something into a stream that loses the context, with much else under way. */
async function loseContext(
  { device, queue, mock, file, map, hidden }: CudaRig,
  during: string,
): Promise<void> {
  const path = file("lost", 4 * WINDOW);
  const from = device.openFile(path);
  const to = device.openFile(`${path}.copy`, "write");
  const mapped = map(path);
  const target = await hidden(4 * WINDOW, 3);
  const pipeline = device.createPipeline(ADD);
  const event = device.createEvent();
  const other = device.createQueue();
  mock.setFaults([{ call: during, code: ILLEGAL_ADDRESS, later: true }]);
  const lists = [
    listOf((list) => list.wait(event, 1).copy(mapped, 0, target, 0, 64)),
    listOf((list) => list.copy(mapped, 0, target, 0, 4 * WINDOW)),
    listOf((list) => list.read(from, 0, target, 0, 4 * WINDOW)),
    listOf((list) => list.dispatch(addCall(pipeline, target, 1)).copy(target, 0, target, WINDOW, WINDOW)),
    listOf((list) => list.write(target, 0, to, 0, 4 * WINDOW)),
  ];
  const tickets = lists.flatMap((list, index) => {
    const on = index % 2 === 0 ? queue : other;
    try {
      const ticket = on.submit(list);
      return [{ ended: on.completion(ticket), quiet: on.quiesced(ticket) }];
    } catch (error) {
      // Only what comes behind the loss.
      expect((error as HeadraceError).code).toBe("DEVICE_LOST");
      return [];
    }
  });
  const ends = await soon("the end of all tickets", Promise.all(tickets.map(({ ended }) => ended)));
  await soon("their quiet", Promise.all(tickets.map(({ quiet }) => quiet)));
  const codes = ends.map(({ error }) => error?.code ?? "none");
  expect(codes).toContain("DEVICE_LOST");
  // What had ended before the loss had ended well.
  expect(codes.filter((code) => code !== "DEVICE_LOST" && code !== "none")).toEqual([]);
  expect(codes[0]).toBe("DEVICE_LOST");
  for (const { error } of ends) if (error !== undefined) expect(error.message).toContain("ILLEGAL_ADDRESS");
  expectCode("DEVICE_LOST", () => queue.submit(listOf((list) => list.signal(event, 2))));
  expectCode("DEVICE_LOST", () => device.createBuffer(64, "private"));
  expectCode("DEVICE_LOST", () => device.createBuffer(64));
  expectCode("DEVICE_LOST", () => device.map(from, 0, WINDOW));
  expectCode("DEVICE_LOST", () => device.createPipeline(ADD));
  expect(device.facts).toBeDefined();
  await soon("close", device.close());
}

async function tryOpening(path: string): Promise<HeadraceError | undefined> {
  const { mock } = theMock();
  try {
    await openCuda({ library: path, nvrtc: path, lanes: 2 }).close();
    return undefined;
  } catch (error) {
    // Workers were on their way by then.
    await until(() => mock.live().contexts === 0);
    await Bun.sleep(15);
    if (error instanceof HeadraceError) return error;
    throw error;
  }
}
