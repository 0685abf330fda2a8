/** Sequences of the CUDA device as graphs of the driver's. */
import { expect, test } from "bun:test";
import { bindGraphs } from "../../../src/device/cuda/graph-symbols.ts";
import type { Device, DeviceBuffer, Pipeline } from "../../../src/device/device.ts";
import { type DispatchCall, RequestList } from "../../../src/device/requests.ts";
import { bytesOf, expectCode, runWell } from "../../conformance/harness.ts";
import { ADD, addConstants } from "../../conformance/kernels.ts";
import { begin, describeOverMock, KIB, SHUFFLED, until, withCuda } from "./cuda-rig.ts";

/** Has `add` raise the first byte of `buffer`, `count` times. */
function raising(add: Pipeline, buffer: DeviceBuffer, count: number, slot?: number): DispatchCall[] {
  const binding = slot === undefined ? { buffer, offset: 0 } : { buffer, offset: 0, slot };
  const call = { pipeline: add, buffers: [binding], constants: addConstants(1), threads: 1 };
  return new Array(count).fill(call);
}

async function firstByte(rig: { bytes(buffer: DeviceBuffer): Promise<Uint8Array> }, buffer: DeviceBuffer) {
  return (await rig.bytes(buffer))[0];
}

describeOverMock("sequences of the CUDA device", () => {
  test("are one launch, whatever they hold, and plain launches with other offsets", () =>
    withCuda({}, async (rig) => {
      const { device, queue, mock } = rig;
      const add = device.createPipeline(ADD);
      const buffer = await rig.hidden(KIB);
      using sequence = device.createSequence(raising(add, buffer, 50, 3));
      expect(device.facts.graphs).toBe(true);
      const before = mock.calls("cuLaunchKernel");
      for (let i = 0; i < 3; i++) await runWell(queue, (list) => list.replay(sequence));
      expect(mock.calls("cuLaunchKernel")).toBe(before);
      expect(mock.calls("cuGraphLaunch")).toBe(3);
      expect(await firstByte(rig, buffer)).toBe(150);
      await runWell(queue, (list) => list.replay(sequence, [{ slot: 3, offset: 1 }]));
      expect(mock.calls("cuLaunchKernel")).toBe(before + 50);
      expect([...(await rig.bytes(buffer)).subarray(0, 3)]).toEqual([150, 50, 0]);
    }));

  test("are launched one by one without graphs, by option or where the driver has none", async () => {
    expect(bindGraphs("libc.so.6")).toBeUndefined();
    for (const [options, driverFaults] of [
      [{ graphs: false }, []],
      [{}, [{ call: "cuStreamBeginCapture_v2", code: 801, times: 100 }]],
    ] as const) {
      await withCuda({ options, driverFaults: [...driverFaults] }, async (rig) => {
        const { device, queue, mock } = rig;
        const buffer = await rig.hidden(KIB);
        using sequence = device.createSequence(raising(device.createPipeline(ADD), buffer, 5));
        expect(device.facts.graphs).toBe(false);
        await runWell(queue, (list) => list.replay(sequence).replay(sequence));
        expect(mock.calls("cuLaunchKernel")).toBe(10);
        expect(mock.calls("cuGraphLaunch")).toBe(0);
        expect(await firstByte(rig, buffer)).toBe(10);
      });
    }
  });

  test("what a launch would refuse is refused when they are made", async () => {
    for (const graphs of [true, false]) {
      await withCuda({ options: { graphs } }, async (rig) => {
        const { device, queue } = rig;
        const buffer = await rig.hidden(KIB);
        const [call] = raising(device.createPipeline(ADD), buffer, 1) as [DispatchCall];
        const refused = (change: Partial<DispatchCall>, code: "BAD_OPTION" | "OUT_OF_RANGE") =>
          expectCode(code, () => device.createSequence([call, { ...call, ...change }]));
        refused({ threadsPerGroup: 2000 }, "BAD_OPTION");
        refused({ threadgroupBytes: 2 ** 20 }, "BAD_OPTION");
        refused({ threads: 2 ** 33 }, "OUT_OF_RANGE");
        using none = device.createSequence([{ ...call, threads: 0 }]);
        using empty = device.createSequence([]);
        await runWell(queue, (list) => list.replay(none).replay(empty));
        expect(await firstByte(rig, buffer)).toBe(0);
      });
    }
  });

  const making = [
    ["cuStreamBeginCapture_v2", "OUT_OF_MEMORY"],
    ["cuLaunchKernel", "OUT_OF_MEMORY"],
    ["cuStreamEndCapture", "OUT_OF_MEMORY"],
    ["cuGraphInstantiateWithFlags", "OUT_OF_MEMORY"],
  ] as const;
  for (const [call, code] of making) {
    test(`${call} that fails is told, leaves nothing behind, and the next one works`, () =>
      withCuda({ mayReport: true }, async (rig) => {
        const { device, queue, mock } = rig;
        const buffer = await rig.hidden(KIB);
        const calls = raising(device.createPipeline(ADD), buffer, 3);
        mock.setFaults([{ call, nth: 1, code: 2 }]);
        expectCode(code, () => device.createSequence(calls));
        expect(mock.live()).toMatchObject({ graphs: 0, graphExecs: 0 });
        using sequence = device.createSequence(calls);
        await runWell(queue, (list) => list.replay(sequence));
        expect(await firstByte(rig, buffer)).toBe(3);
      }));
  }

  test("a launch that fails ends its ticket alone", () =>
    withCuda({}, async (rig) => {
      const { device, queue, mock } = rig;
      const buffer = await rig.hidden(KIB);
      using sequence = device.createSequence(raising(device.createPipeline(ADD), buffer, 3));
      mock.setFaults([{ call: "cuGraphLaunch", code: 2 }]);
      const { error } = await queue.completion(queue.submit(new RequestList().replay(sequence)));
      expect(error?.code).toBe("OUT_OF_MEMORY");
      expect(error?.message).toContain("cuGraphLaunch");
      await runWell(queue, (list) => list.replay(sequence));
      expect(await firstByte(rig, buffer)).toBe(3);
    }));

  test("a graph that goes astray names the kernels of its sequence", () =>
    withCuda({ config: { contextAfterLoss: true }, mayReport: true }, async (rig) => {
      const { device, queue } = rig;
      const text = "HR_KERNEL(astray, HR_OUT(0, uint32_t, to)) { to[hr_thread + (1u << 28)] = 1u; }";
      const buffer = await rig.hidden(KIB);
      const call = { buffers: [{ buffer, offset: 0 }], constants: new Uint8Array(0), threads: 1 };
      const add = raising(device.createPipeline(ADD), buffer, 1);
      const sequence = device.createSequence([
        ...add,
        { ...call, pipeline: device.createPipeline({ name: "astray", text }) },
      ]);
      const { error } = await queue.completion(queue.submit(new RequestList().replay(sequence)));
      expect(error?.code).toBe("DEVICE_LOST");
      expect(error?.message).toMatch(/; kernels of this ticket: add, astray$/);
      sequence.close();
    }));

  test("graphs go when their sequence is closed and nothing replays it, and with their device", () =>
    withCuda({ config: SHUFFLED }, async (rig) => {
      const { device, queue, mock } = rig;
      const add = device.createPipeline(ADD);
      const buffer = device.createBuffer(KIB);
      const sequence = device.createSequence(raising(add, buffer, 20));
      const replays = Array.from({ length: 5 }, () => begin(queue, new RequestList().replay(sequence)));
      sequence.close();
      buffer.close();
      expect(mock.live().graphExecs).toBe(1);
      for (const { ended } of replays) expect((await ended).error).toBeUndefined();
      await Promise.all(replays.map(({ quiet }) => quiet));
      expect(mock.live().graphExecs).toBe(0);
      device.createSequence(raising(add, device.createBuffer(KIB), 2));
      expect(mock.live().graphExecs).toBe(1);
    }));

  test("one that was forgotten gives its graph back", () =>
    withCuda({}, async ({ device, mock }) => {
      const add = device.createPipeline(ADD);
      const make = () => void device.createSequence(raising(add, device.createBuffer(KIB), 2));
      for (let i = 0; i < 20; i++) make();
      expect(mock.live().graphExecs).toBe(20);
      await until(() => {
        Bun.gc(true);
        return mock.live().graphExecs < 10;
      });
    }));

  test("mappings are registered before a graph that uses them runs", () =>
    withCuda({ options: { mapBudget: 128 * KIB } }, async (rig) => {
      const { device, queue } = rig;
      const text = `HR_KERNEL(sum, HR_IN(0, uint8_t, from), HR_OUT(1, uint32_t, to)) {
        to[hr_thread] = uint32_t(from[hr_thread]) + 1u;
      }`;
      const pipeline = device.createPipeline({ name: "sum", text });
      const out = await rig.hidden(4 * KIB);
      const sequences = ["a.bin", "b.bin"].map((name, seed) => {
        const mapping = rig.map(rig.file(name, KIB, seed));
        const buffers = [mapping, out].map((buffer) => ({ buffer, offset: 0 }));
        return {
          mapping,
          sequence: device.createSequence([
            { pipeline, buffers, constants: new Uint8Array(0), threads: KIB },
          ]),
        };
      });
      // Only one window fits at a time.
      for (let round = 0; round < 3; round++) {
        for (const { mapping, sequence } of sequences) {
          await runWell(queue, (list) => list.replay(sequence));
          const expected = Uint32Array.from(bytesOf(mapping), (byte) => byte + 1);
          expect(new Uint32Array((await rig.bytes(out)).buffer)).toEqual(expected);
        }
      }
    }));

  test("small copies around a replay are in order with it", () =>
    withCuda({ config: SHUFFLED }, async (rig) => {
      const { device, queue, mock } = rig;
      const [input, output] = [device.createBuffer(4 * KIB), device.createBuffer(4 * KIB)];
      const inner = await rig.hidden(4 * KIB);
      using sequence = device.createSequence(raising(device.createPipeline(ADD), inner, 3));
      const bytes = new Uint8Array(input.view(0, 4 * KIB));
      const waits = mock.calls("cuStreamWaitEvent");
      for (let round = 0; round < 20; round++) {
        bytes.fill(round);
        const step = (list: RequestList) =>
          list
            .copy(input, 0, inner, 0, 4 * KIB)
            .replay(sequence)
            .copy(inner, 0, output, 0, 4 * KIB);
        await runWell(queue, step);
        expect([...bytesOf(output, 0, 2)]).toEqual([round + 3, round]);
      }
      // One stream has all of it.
      expect(mock.calls("cuStreamWaitEvent")).toBe(waits);
    }));

  test("work that takes longer than is worth asking after is still told of", () =>
    withCuda({ config: { maxDelayUs: 30_000, seed: 5 } }, async (rig) => {
      const { device, queue } = rig;
      const buffer = await rig.hidden(KIB);
      using sequence = device.createSequence(raising(device.createPipeline(ADD), buffer, 1));
      for (let i = 0; i < 30; i++) await runWell(queue, (list) => list.replay(sequence));
      rig.mock.configure({ maxDelayUs: 0 });
      for (let i = 0; i < 30; i++) await runWell(queue, (list) => list.replay(sequence));
      expect(await firstByte(rig, buffer)).toBe(60);
    }));
});

/** Faults at every call of making, replaying and closing: whatever fails, nothing is left and nothing hangs. */
describeOverMock("sequences under faults", () => {
  const work = async (device: Device) => {
    const queue = device.createQueue();
    const add = device.createPipeline(ADD);
    const buffer = device.createBuffer(KIB);
    const sequence = device.createSequence(raising(add, buffer, 2));
    const list = new RequestList().replay(sequence).replay(sequence);
    const { error } = await queue.completion(queue.submit(list));
    if (error !== undefined) throw error;
    sequence.close();
    return bytesOf(buffer, 0, 1)[0];
  };
  for (const call of [
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphDestroy",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
  ]) {
    test(call, async () => {
      for (const nth of [1, 2]) {
        await withCuda({ mayReport: true }, async ({ device, mock }) => {
          expect(await work(device)).toBe(4);
          mock.setFaults([{ call, nth, code: 999 }]);
          const outcome = await work(device).then(String, (error) => error.code);
          expect(["4", "DEVICE_FAILED"]).toContain(outcome);
          mock.setFaults([]);
          expect(await work(device)).toBe(4);
        });
      }
    });
  }
});
