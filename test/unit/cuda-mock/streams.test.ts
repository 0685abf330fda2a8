/** The mock of the CUDA driver keeps CUDA's rules: the order of what runs, and what a failure in it ends. */
import { describe, expect, test } from "bun:test";
import { noMock, PAGE, reason, useMock } from "./rig.ts";

describe.skipIf(noMock)(`streams in the mock of CUDA${reason}`, () => {
  const rig = useMock();

  test("streams keep their own order, and events alone order them with each other", () => {
    rig.context();
    rig.mock.configure({ maxDelayUs: 3000, pieceBytes: 512 });
    const near = rig.pinned(16 * PAGE);
    const device = rig.allocate(4 * PAGE);
    let overtaken = 0;
    for (let seed = 0; seed < 12; seed++) {
      for (const edge of [true, false]) {
        rig.mock.configure({ seed });
        const [up, down] = [rig.stream(), rig.stream()];
        const done = rig.event(2);
        near.bytes
          .fill(0)
          .subarray(0, 4 * PAGE)
          .fill(seed + 1);
        expect(rig.cuda.cuMemsetD8Async(device, 0xee, 4 * PAGE, up)).toBe(0);
        expect(rig.cuda.cuMemcpyHtoDAsync_v2(device, near.address, 4 * PAGE, up)).toBe(0);
        expect(rig.cuda.cuEventRecord(done, up)).toBe(0);
        if (edge) expect(rig.cuda.cuStreamWaitEvent(down, done, 0)).toBe(0);
        expect(rig.cuda.cuMemcpyDtoHAsync_v2(near.address + 8 * PAGE, device, 4 * PAGE, down)).toBe(0);
        expect(rig.cuda.cuStreamSynchronize(down)).toBe(0);
        const right = near.bytes.subarray(8 * PAGE, 12 * PAGE).every((byte) => byte === seed + 1);
        if (edge) expect(right).toBe(true);
        else if (!right) overtaken++;
        expect(rig.cuda.cuCtxSynchronize()).toBe(0);
        for (const one of [up, down]) expect(rig.cuda.cuStreamDestroy_v2(one)).toBe(0);
        expect(rig.cuda.cuEventDestroy_v2(done)).toBe(0);
      }
    }
    expect(overtaken).toBeGreaterThan(3);
  });

  test("calls return before the bytes move, unless host memory is not registered", () => {
    rig.context();
    rig.mock.setFaults([]);
    const device = rig.allocate(PAGE);
    const slow = rig.stream();
    const near = rig.pinned(PAGE, 3);
    rig.mock.configure({ maxDelayUs: 40_000, seed: 3 });
    let late = 0;
    for (let i = 0; i < 8; i++) {
      expect(rig.cuda.cuMemcpyHtoDAsync_v2(device, near.address, PAGE, slow)).toBe(0);
      if (rig.cuda.cuStreamQuery(slow) === 600) late++;
      expect(rig.cuda.cuMemcpyHtoDAsync_v2(device, rig.host(PAGE).address, PAGE, slow)).toBe(0);
      expect(rig.cuda.cuStreamQuery(slow)).toBe(0);
    }
    expect(late).toBeGreaterThan(2);
  });

  test("the stream without a handle waits for the others, and they for it", () => {
    rig.context();
    rig.mock.configure({ maxDelayUs: 4000, seed: 5 });
    const device = rig.allocate(PAGE);
    const near = rig.pinned(2 * PAGE);
    for (let i = 1; i <= 8; i++) {
      const one = rig.stream(0);
      const two = rig.stream(0);
      near.bytes.fill(i, 0, PAGE);
      expect(rig.cuda.cuMemcpyHtoDAsync_v2(device, near.address, PAGE, one)).toBe(0);
      expect(rig.cuda.cuMemsetD8Async(device, i + 100, PAGE / 2, 0)).toBe(0);
      expect(rig.cuda.cuMemcpyDtoHAsync_v2(near.address + PAGE, device, PAGE, two)).toBe(0);
      expect(rig.cuda.cuStreamSynchronize(two)).toBe(0);
      expect([near.bytes[PAGE], near.bytes[2 * PAGE - 1]]).toEqual([i + 100, i]);
    }
  });

  test("events: not ready, again recorded, never recorded, timed or not", async () => {
    rig.context();
    const out = new Float32Array(1);
    const slow = rig.stream();
    const [first, second, untimed] = [rig.event(), rig.event(1), rig.event(1 | 2)];
    expect(rig.cuda.cuEventQuery(first)).toBe(0);
    expect(rig.cuda.cuEventSynchronize(first)).toBe(0);
    expect(rig.cuda.cuStreamWaitEvent(slow, first, 0)).toBe(0);
    expect(rig.cuda.cuEventElapsedTime(out, first, second)).toBe(400);
    expect(rig.cuda.cuEventRecord(first, slow)).toBe(0);
    expect(rig.cuda.cuEventSynchronize(first)).toBe(0);
    await Bun.sleep(20);
    expect(rig.cuda.cuEventRecord(second, slow)).toBe(0);
    expect(rig.cuda.cuEventRecord(untimed, slow)).toBe(0);
    expect(rig.cuda.cuEventSynchronize(untimed)).toBe(0);
    expect(rig.cuda.cuEventElapsedTime_v2(out, first, second)).toBe(0);
    expect(out[0]).toBeWithin(19, 5000);
    expect(rig.cuda.cuEventElapsedTime(out, first, untimed)).toBe(400);
    // A wait is for the record that was the last when it was asked for.
    rig.mock.configure({ maxDelayUs: 30_000, seed: 2 });
    const near = rig.pinned(PAGE);
    const device = rig.allocate(PAGE);
    let pending = 0;
    for (let i = 0; i < 6; i++) {
      expect(rig.cuda.cuMemcpyHtoDAsync_v2(device, near.address, PAGE, slow)).toBe(0);
      expect(rig.cuda.cuEventRecord(second, slow)).toBe(0);
      if (rig.cuda.cuEventQuery(second) === 600) {
        pending++;
        if (rig.cuda.cuEventElapsedTime(out, first, second) !== 600)
          expect(rig.cuda.cuEventQuery(second)).toBe(0);
      }
      expect(rig.cuda.cuEventSynchronize(second)).toBe(0);
      expect(rig.cuda.cuEventQuery(second)).toBe(0);
    }
    expect(pending).toBeGreaterThan(1);
    expect(rig.cuda.cuEventCreate(new BigUint64Array(1), 64)).toBe(1);
    expect(rig.cuda.cuEventDestroy_v2(first)).toBe(0);
    expect(rig.cuda.cuEventRecord(first, slow)).toBe(400);
    rig.context();
    expect(rig.cuda.cuEventRecord(rig.event(), slow)).toBe(400);
  });

  test("memory that is freed or unregistered before its copy ran loses the context", () => {
    const lost = rig.context();
    rig.mock.configure({ maxDelayUs: 30_000, seed: 4 });
    const near = rig.pinned(PAGE);
    const device = rig.allocate(PAGE);
    const out = new BigUint64Array(1);
    const slow = rig.stream();
    for (let i = 0; i < 40; i++)
      expect(rig.cuda.cuMemcpyHtoDAsync_v2(device, near.address, PAGE, slow)).toBe(0);
    const last = rig.event();
    expect(rig.cuda.cuEventRecord(last, slow)).toBe(0);
    expect(rig.cuda.cuMemHostUnregister(near.address)).toBe(0);
    expect(rig.cuda.cuStreamSynchronize(slow)).toBe(700);
    expect(rig.mock.reports().join()).toContain("freed or unregistered");
    // From now on all calls give it; destroying works; a new context does not.
    expect([
      rig.cuda.cuCtxSynchronize(),
      rig.cuda.cuMemAlloc_v2(out, 8),
      rig.cuda.cuMemFree_v2(device),
      rig.cuda.cuEventQuery(last),
      rig.cuda.cuEventSynchronize(last),
      rig.cuda.cuStreamQuery(slow),
      rig.cuda.cuStreamCreate(out, 0),
      rig.cuda.cuMemcpyHtoDAsync_v2(device, near.address, 8, slow),
    ]).toEqual([700, 700, 700, 700, 700, 700, 700, 700]);
    expect(rig.cuda.cuCtxDestroy_v2(lost)).toBe(0);
    expect(rig.cuda.cuCtxCreate_v2(out, 0, 0)).toBe(700);
    rig.mock.configure({ contextAfterLoss: true });
    expect(rig.cuda.cuCtxCreate_v2(out, 0, 0)).toBe(0);
    expect(rig.mock.live()).toMatchObject({ contexts: 1, streams: 0, allocations: 0, abandoned: 0 });
  });

  test("cuMemFree waits for what uses the memory where that is configured", () => {
    rig.context();
    rig.mock.configure({ maxDelayUs: 10_000, seed: 4, freeWaits: true });
    const near = rig.pinned(PAGE);
    const device = rig.allocate(PAGE);
    const slow = rig.stream();
    for (let i = 0; i < 10; i++)
      expect(rig.cuda.cuMemcpyHtoDAsync_v2(device, near.address, PAGE, slow)).toBe(0);
    expect(rig.cuda.cuMemFree_v2(device)).toBe(0);
    expect(rig.cuda.cuCtxSynchronize()).toBe(0);
  });
});
