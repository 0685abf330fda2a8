/** Mappings on the CUDA device: right bytes whatever of them is registered, within the budget, and none left behind. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import type { Completion, Device, DeviceBuffer } from "../../../src/device/device.ts";
import { bytesOf, expectBytes, expectFailed, listOf, pattern, runWell } from "../../conformance/harness.ts";
import { BLOCK, BLOCK_SUMS, blockSums } from "../../conformance/kernels.ts";
import { collect, openMappings } from "../../conformance/process.ts";
import {
  begin,
  type CudaRig,
  describeOverMock,
  filled,
  KIB,
  patternPart,
  SHUFFLED,
  SMALL,
  soon,
  until,
  WINDOW,
  withCuda,
} from "./cuda-rig.ts";

const NUM_WINDOWS = 6;
const LENGTH = NUM_WINDOWS * WINDOW;
/** CUDA_ERROR_UNKNOWN, and CUDA_ERROR_OUT_OF_MEMORY. */
const UNKNOWN = 999;
const OUT_OF_MEMORY = 2;
const ALWAYS = 1_000_000;

const registered = (device: Device) => device.facts.registeredBytes as number;

/** Has `[0, byteLength)` of a mapping registered. */
async function register({ mock }: CudaRig, mapping: DeviceBuffer, byteLength: number): Promise<void> {
  const before = mock.live().registeredBytes;
  mapping.advise("will-need", 0, byteLength);
  await until(() => mock.live().registeredBytes - before >= byteLength);
  // The device hears of it in a message.
  await Bun.sleep(3);
}

interface Row {
  readonly from: number;
  readonly byteLength: number;
}

/** Copies rows out of a mapping of a patterned file, one behind the other, and compares them. */
async function copyRows({ device, queue, bytes }: CudaRig, mapping: DeviceBuffer, rows: readonly Row[]) {
  const total = rows.reduce((sum, { byteLength }) => sum + byteLength, 0);
  using target = device.createBuffer(Math.max(1, total), "private");
  const expected = new Uint8Array(Math.max(1, total));
  let at = 0;
  const list = listOf((one) => {
    for (const { from, byteLength } of rows) {
      one.copy(mapping, from, target, at, byteLength);
      expected.set(patternPart(from, byteLength), at);
      at += byteLength;
    }
  });
  const { error, bytesDone } = await soon("the rows", begin(queue, list).ended);
  expect(error).toBeUndefined();
  expect(bytesDone).toBe(total);
  expectBytes(await bytes(target), expected);
}

const anyRow = fc
  .record({ from: fc.nat(LENGTH - 1), byteLength: fc.oneof(fc.nat(200), fc.nat(20_000), fc.nat(LENGTH)) })
  .map(({ from, byteLength }) => ({ from, byteLength: Math.min(byteLength, LENGTH - from) }));
const someRows = fc.array(anyRow, { minLength: 1, maxLength: 20 });
const manySmall = fc.array(fc.record({ from: fc.nat(LENGTH - 301), byteLength: fc.nat(300) }), {
  minLength: 50,
  maxLength: 60,
});

describeOverMock("mappings of the CUDA device", () => {
  for (const [name, options] of [
    ["", {}],
    [", without NVRTC", { nvrtc: false }],
  ] as const) {
    for (const config of [{}, SHUFFLED]) {
      const how = `${name}${config === SHUFFLED ? ", with shuffled streams" : ""}`;
      test(`any ranges are copied right with none, some or all of it registered${how}`, async () => {
        for (const part of [0, 2, NUM_WINDOWS]) {
          await withCuda({ options, config }, async (rig) => {
            const mapping = rig.map(rig.file("data", LENGTH));
            if (part > 0) await register(rig, mapping, part * WINDOW);
            const property = fc.asyncProperty(fc.oneof(someRows, manySmall), (rows) =>
              copyRows(rig, mapping, rows),
            );
            await fc.assert(property, { numRuns: 6 });
          });
        }
      }, 30_000);
    }
  }

  test("a mapping that begins within a page and ends within a window is copied right, again and again", async () => {
    await withCuda({ config: SHUFFLED }, async (rig) => {
      const path = rig.file("data", LENGTH);
      const [skipped, byteLength] = [5 * KIB + 3, 3 * WINDOW + 17];
      const mapping = rig.map(path, skipped, byteLength);
      for (let round = 0; round < 5; round++) {
        using target = rig.device.createBuffer(byteLength, "private");
        await runWell(rig.queue, (list) => list.copy(mapping, 0, target, 0, byteLength));
        expectBytes(await rig.bytes(target), patternPart(skipped, byteLength));
      }
      expect(registered(rig.device)).toBeGreaterThan(byteLength);
    });
  });

  test("a budget below the data is kept, pass for pass, and by several runs at once", async () => {
    const mapBudget = 2 * WINDOW;
    await withCuda({ options: { mapBudget }, config: SHUFFLED }, async (rig) => {
      const { device, mock } = rig;
      const mapping = rig.map(rig.file("data", LENGTH));
      const rows = Array.from({ length: NUM_WINDOWS }, (_, i) => ({
        from: i * WINDOW + 5,
        byteLength: WINDOW - 9,
      }));
      let most = 0;
      const look = setInterval(() => {
        most = Math.max(most, registered(device));
      }, 1);
      for (let pass = 0; pass < 3; pass++) {
        await Promise.all([copyRows(rig, mapping, rows), copyRows(rig, mapping, rows.slice(2))]);
        expect(registered(device)).toBeLessThanOrEqual(mapBudget);
      }
      clearInterval(look);
      expect(most).toBeGreaterThan(0);
      expect(most).toBeLessThanOrEqual(mapBudget);
      mapping.close();
      await until(() => mock.live().registrations <= 1 + 2 * (SMALL.lanes ?? 0));
      expect(registered(device)).toBe(0);
    });
  });

  test("a run keeps what is registered, and releases for the rest only what nobody needs", async () => {
    // More than lanes are given at once.
    const byteLength = 20 * WINDOW;
    // Slow enough for the registrar to come to windows that lanes would have taken.
    const faults = [{ call: "pread", nth: 1, times: ALWAYS, delayMs: 2 }] as const;
    await withCuda({ options: { mapBudget: 5 * WINDOW, faults } }, async (rig) => {
      const { mock } = rig;
      const all = rig.map(rig.file("data", byteLength));
      const other = rig.map(rig.file("other", 5 * WINDOW));
      const target = rig.device.createBuffer(byteLength, "private");
      const before = mock.calls("cuMemHostUnregister");
      for (let pass = 0; pass < 3; pass++) {
        await runWell(rig.queue, (list) => list.copy(all, 0, target, 0, byteLength));
      }
      expect(mock.calls("cuMemHostUnregister")).toBe(before);
      // Another mapping that is needed later takes their place.
      other.advise("will-need", 0, 5 * WINDOW);
      await until(() => mock.calls("cuMemHostUnregister") === before + 5);
    });
  });

  test("without a budget nothing is registered, and all is right", async () => {
    await withCuda({ options: { mapBudget: 0 } }, async (rig) => {
      const mapping = rig.map(rig.file("data", LENGTH));
      await copyRows(rig, mapping, [{ from: 1, byteLength: LENGTH - 1 }]);
      expect(registered(rig.device)).toBe(0);
      const error = await failingSum(rig, mapping, "UNSUPPORTED");
      expect(error).toContain("mapBudget");
      expect(error).toContain("copy it to a buffer");
    });
  });

  test("where the driver does not register, mapping is declined in its words", async () => {
    await withCuda({}, async ({ device, mock, file }) => {
      using from = device.openFile(file("data", LENGTH));
      mock.setFaults([{ call: "cuMemHostRegister_v2", code: UNKNOWN, times: ALWAYS }]);
      const answer = device.map(from, 0, LENGTH);
      expect("declined" in answer && answer.declined).toContain("CUDA_ERROR_UNKNOWN");
    });
    for (const attributes of [{ 99: 0, 113: 0 }, { 91: 0 }]) {
      await withCuda({ config: { attributes } }, async ({ device, file }) => {
        using from = device.openFile(file("data", LENGTH));
        expect(device.capabilities.canMap).toBe(false);
        expect(device.map(from, 0, LENGTH)).toHaveProperty("declined");
      });
    }
  });

  test("what is not registered from some window on is staged", async () => {
    await withCuda({ config: SHUFFLED }, async (rig) => {
      const { device, mock } = rig;
      const path = rig.file("data", LENGTH);
      using shared = filled(device, pattern(64));
      const mapping = rig.map(path);
      mock.setFaults([{ call: "cuMemHostRegister_v2", nth: 3, code: UNKNOWN, times: ALWAYS }]);
      mapping.advise("will-need", 0, LENGTH);
      await until(() => mock.calls("cuMemHostRegister_v2") >= NUM_WINDOWS + 2);
      mock.setFaults([]);
      for (let pass = 0; pass < 2; pass++)
        await copyRows(rig, mapping, [{ from: 3, byteLength: LENGTH - 3 }]);
      expect(registered(device)).toBe(2 * WINDOW);
      expect(await failingSum(rig, mapping, "UNSUPPORTED")).toContain("copy it to a buffer");
      expect(shared.closed).toBe(false);
    });
  });

  test("without a context for registering all is staged, and the device says why", async () => {
    // The device's own comes first.
    const driverFaults = [{ call: "cuCtxCreate_v2", nth: 2, code: OUT_OF_MEMORY, times: ALWAYS }];
    await withCuda({ driverFaults }, async (rig) => {
      const mapping = rig.map(rig.file("data", LENGTH));
      await copyRows(rig, mapping, [{ from: 3, byteLength: LENGTH - 3 }]);
      await until(() => rig.device.facts.registrationBroken !== undefined);
      expect(rig.device.facts.registrationBroken).toContain("CUDA_ERROR_OUT_OF_MEMORY");
      await copyRows(rig, mapping, [{ from: 3, byteLength: LENGTH - 3 }]);
      expect(registered(rig.device)).toBe(0);
      expect(await failingSum(rig, mapping, "UNSUPPORTED")).toContain("CUDA_ERROR_OUT_OF_MEMORY");
    });
  });

  test("kernels read a mapping in place, from any window on, beside copies that stage it", async () => {
    for (const config of [{}, SHUFFLED]) {
      await withCuda({ config }, async (rig) => {
        const mapping = rig.map(rig.file("data", LENGTH));
        const sums = [0, 8, 3 * WINDOW - 8].map((offset) => sum(rig, mapping, offset));
        await copyRows(rig, mapping, [{ from: 0, byteLength: LENGTH }]);
        for (const one of sums) expectSums(await soon("the sums", one.end), one);
        expect(registered(rig.device)).toBe(LENGTH);
      });
    }
  });

  test("two runs that want and take back the same windows both end well", async () => {
    await withCuda({ config: SHUFFLED }, async (rig) => {
      rig.mock.setFaults([{ call: "cuMemHostRegister_v2", times: ALWAYS, delayMs: 3 }]);
      const path = rig.file("data", LENGTH);
      for (let round = 0; round < 3; round++) {
        const mapping = rig.map(path);
        const other = rig.device.createQueue();
        const rows = [{ from: 9, byteLength: LENGTH - 9 }];
        const one = sum(rig, mapping, 0);
        await Promise.all([copyRows(rig, mapping, rows), copyRows({ ...rig, queue: other }, mapping, rows)]);
        expectSums(await soon("the sums", one.end), one);
        mapping.close();
        await other.close();
      }
    });
  });

  test("a mapping that is closed while it is wanted or registered stays for those under way", async () => {
    await withCuda({ config: SHUFFLED }, async (rig) => {
      const path = rig.file("data", LENGTH);
      for (const delayMs of [0, 1, 4, 12]) {
        rig.mock.setFaults([{ call: "cuMemHostRegister_v2", nth: 1, times: ALWAYS, delayMs: 5 }]);
        const mapping = rig.map(path);
        const one = sum(rig, mapping, 0);
        if (delayMs > 0) await Bun.sleep(delayMs);
        mapping.close();
        expectSums(await soon("the sums", one.end), one);
        await until(() => openMappings(rig.dir) === 0);
      }
      expect(registered(rig.device)).toBe(0);
    });
  });

  test("a window on its way out is released before its memory goes", async () => {
    await withCuda({ options: { mapBudget: WINDOW } }, async (rig) => {
      const { mock } = rig;
      const [first, second] = [rig.map(rig.file("a", WINDOW)), rig.map(rig.file("b", WINDOW, 2))];
      await register(rig, first, WINDOW);
      const before = mock.live().registrations;
      mock.setFaults([{ call: "cuMemHostUnregister", times: ALWAYS, delayMs: 60 }]);
      second.advise("will-need", 0, WINDOW);
      first.close();
      expect(openMappings(`${rig.dir}/a`)).toBe(1);
      await until(() => openMappings(`${rig.dir}/a`) === 0);
      expect(mock.live().registrations).toBeLessThanOrEqual(before);
      mock.setFaults([]);
    });
  });

  test("a mapping that is forgotten is released", async () => {
    await withCuda({}, async (rig) => {
      const path = rig.file("data", LENGTH);
      const before = rig.device.openResources;
      await (async () => {
        const mapping = rig.map(path);
        await register(rig, mapping, LENGTH);
        expect(openMappings(rig.dir)).toBeGreaterThan(0);
      })();
      await collect(() => rig.device.openResources === before && openMappings(rig.dir) === 0);
      expect(rig.device.openResources).toBe(before);
      expect(openMappings(rig.dir)).toBe(0);
      expect(registered(rig.device)).toBe(0);
    });
  });

  test("cancelled and closed in the middle, staged copies let go of all they had", async () => {
    await withCuda({ config: SHUFFLED }, async (rig) => {
      const { device, mock } = rig;
      mock.setFaults([{ call: "cuMemHostRegister_v2", times: ALWAYS, delayMs: 4 }]);
      const path = rig.file("data", LENGTH);
      for (const delayMs of [0, 1, 3, 8]) {
        const mapping = rig.map(path);
        const queue = device.createQueue();
        using target = device.createBuffer(LENGTH, "private");
        const one = begin(
          queue,
          listOf((list) => list.copy(mapping, 0, target, 0, LENGTH)),
        );
        const two = begin(
          queue,
          listOf((list) => list.copy(mapping, 0, target, 0, LENGTH)),
        );
        if (delayMs > 0) await Bun.sleep(delayMs);
        queue.cancel(one.ticket);
        const { error } = await soon("the end", one.ended, 500);
        if (error !== undefined) expect(error.code).toBe("CANCELLED");
        await soon("close", queue.close());
        await soon("quiet", Promise.all([one.quiet, two.quiet]));
        mapping.close();
      }
      await until(() => openMappings(rig.dir) === 0);
    });
  });
});

interface Sum {
  readonly end: Promise<Completion>;
  readonly sums: DeviceBuffer;
  readonly offset: number;
  readonly numBlocks: number;
}

/** Adds up the numbers of a mapping from `offset` on, by a kernel that reads it in place. */
function sum({ device, queue }: CudaRig, mapping: DeviceBuffer, offset: number): Sum {
  const pipeline = device.createPipeline(BLOCK_SUMS);
  const numBlocks = Math.floor((mapping.byteLength - offset) / 4 / BLOCK);
  const sums = device.createBuffer(numBlocks * 4);
  const call = blockSums(pipeline, mapping, sums, numBlocks);
  const buffers = [{ buffer: mapping, offset }, ...call.buffers.slice(1)];
  const { ended } = begin(
    queue,
    listOf((list) => list.dispatch({ ...call, buffers })),
  );
  return { end: ended, sums, offset, numBlocks };
}

function expectSums({ error }: Completion, { sums, offset, numBlocks }: Sum): void {
  expect(error).toBeUndefined();
  const expected = new Uint32Array(numBlocks);
  const bytes = patternPart(offset, numBlocks * BLOCK * 4).slice();
  BLOCK_SUMS.host!([bytes, new Uint8Array(expected.buffer)], new Uint8Array(0), numBlocks * BLOCK);
  expectBytes(bytesOf(sums), new Uint8Array(expected.buffer));
  sums.close();
}

async function failingSum(rig: CudaRig, mapping: DeviceBuffer, code: "UNSUPPORTED"): Promise<string> {
  return expectFailed(await soon("the end", sum(rig, mapping, 0).end), code).message;
}
