/** The mock of the CUDA driver keeps CUDA's rules: what the device's tests over it rely on. */
import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MAP_SHARED, openLibc, PROT_READ } from "../../src/device/host/libc.ts";
import { buildCudaMock, type CudaMock, openCudaMock } from "../cuda-mock/mock.ts";
import {
  bindCuda,
  type CudaSymbols,
  type HostMemory,
  hostMemory,
  int,
  made,
  textAt,
} from "../cuda-mock/symbols.ts";

const built = buildCudaMock();
const reason = "missing" in built ? ` (left out: ${built.missing})` : "";
const PAGE = 4096;
const NON_BLOCKING = 1;
const READ_ONLY = 1 | 2 | 8;
const WRITABLE = 1 | 2;

describe.skipIf("missing" in built)(`the mock of the CUDA driver${reason}`, () => {
  let cuda: CudaSymbols;
  let mock: CudaMock;
  const memory: HostMemory[] = [];
  const folder = mkdtempSync(join(tmpdir(), "cuda-mock-"));

  beforeEach(() => {
    if ("missing" in built) return;
    cuda ??= bindCuda(built.path);
    mock ??= openCudaMock(built.path);
    mock.reset();
    for (const one of memory.splice(0)) one.free();
  });
  afterAll(() => {
    mock?.reset();
    rmSync(folder, { recursive: true });
  });

  function host(byteLength: number, fill = 0): HostMemory {
    const one = hostMemory(byteLength);
    one.bytes.fill(fill);
    memory.push(one);
    return one;
  }
  function pinned(byteLength: number, fill = 0): HostMemory {
    const one = host(byteLength, fill);
    expect(cuda.cuMemHostRegister_v2(one.address, byteLength, WRITABLE)).toBe(0);
    return one;
  }
  function context(device = 0): number {
    expect(cuda.cuInit(0)).toBe(0);
    return made((out) => cuda.cuCtxCreate_v2(out, 0, device));
  }
  const stream = () => made((out) => cuda.cuStreamCreate(out, NON_BLOCKING));
  const event = (flags = 0) => made((out) => cuda.cuEventCreate(out, flags));
  const allocate = (bytes: number) => made((out) => cuda.cuMemAlloc_v2(out, bytes));
  function download(address: number, byteLength: number): Uint8Array {
    const to = host(Math.ceil(byteLength / PAGE) * PAGE);
    expect(cuda.cuMemcpyDtoHAsync_v2(to.address, address, byteLength, 0)).toBe(0);
    return to.bytes.subarray(0, byteLength);
  }

  test("names its devices, their memory and attributes, and errors", () => {
    mock.configure({ devices: 3, totalBytes: 1 << 20, attributes: { 113: 0 } });
    const out = new BigUint64Array(1);
    expect(cuda.cuDeviceGetCount(out)).toBe(3);
    expect(cuda.cuInit(1)).toBe(1);
    expect(cuda.cuInit(0)).toBe(0);
    expect(int((count) => cuda.cuDeviceGetCount(count))).toBe(3);
    expect(int((device) => cuda.cuDeviceGet(device, 2))).toBe(2);
    expect(cuda.cuDeviceGet(out, 3)).toBe(101);
    const name = new Uint8Array(64);
    expect(cuda.cuDeviceGetName(name, 64, 1)).toBe(0);
    expect(new TextDecoder().decode(name)).toStartWith("Mock GPU 1\0");
    expect(made((bytes) => cuda.cuDeviceTotalMem_v2(bytes, 0))).toBe(1 << 20);
    const attribute = (number: number) => int((value) => cuda.cuDeviceGetAttribute(value, number, 0));
    expect([91, 99, 113, 40, 75, 88].map(attribute)).toEqual([1, 1, 0, 3, 9, 0]);
    expect(cuda.cuDeviceGetAttribute(out, 5000, 0)).toBe(1);
    expect(cuda.cuDeviceGetPCIBusId(name, 64, 1)).toBe(0);
    expect(new TextDecoder().decode(name)).toStartWith("0000:02:00.0\0");
    expect(textAt(made((at) => cuda.cuGetErrorName(713, at)))).toBe("CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED");
    expect(textAt(made((at) => cuda.cuGetErrorString(700, at)))).toContain("illegal memory access");
    expect(cuda.cuGetErrorName(12345, out)).toBe(1);
    mock.reset();
    mock.configure({ devices: 0 });
    expect(cuda.cuInit(0)).toBe(100);
  });

  test("calls need a context of their thread, and one that is there", () => {
    const out = new BigUint64Array(1);
    expect(cuda.cuCtxCreate_v2(out, 0, 0)).toBe(3);
    expect(cuda.cuMemAlloc_v2(out, 64)).toBe(3);
    expect(cuda.cuInit(0)).toBe(0);
    expect(cuda.cuMemAlloc_v2(out, 64)).toBe(201);
    const first = made((at) => cuda.cuCtxCreate_v2(at, 0, 0));
    allocate(64);
    expect(cuda.cuCtxSetCurrent(0)).toBe(0);
    expect(cuda.cuMemAlloc_v2(out, 64)).toBe(201);
    expect(cuda.cuCtxSetCurrent(first)).toBe(0);
    expect(cuda.cuCtxDestroy_v2(first)).toBe(0);
    expect(cuda.cuMemAlloc_v2(out, 64)).toBe(201);
    expect(cuda.cuCtxSetCurrent(first)).toBe(201);
    expect(cuda.cuCtxDestroy_v2(first)).toBe(201);
    expect(cuda.cuCtxCreate_v2(out, 0, 2)).toBe(101);
    expect(mock.live()).toMatchObject({ contexts: 0, allocations: 0, abandoned: 1 });
  });

  test("device memory runs out, is never zero, and is the host's to touch in no way", () => {
    mock.configure({ totalBytes: 1 << 20 });
    context();
    const out = new BigUint64Array(2);
    const first = allocate(700_000);
    expect(cuda.cuMemAlloc_v2(out, 400_000)).toBe(2);
    expect(cuda.cuMemAlloc_v2(out, 0)).toBe(1);
    expect(cuda.cuMemGetInfo_v2(out.subarray(0, 1), out.subarray(1))).toBe(0);
    expect(out[1]! - out[0]!).toBe(BigInt(Math.ceil(700_000 / PAGE) * PAGE));
    const bytes = download(first, 700_000);
    expect(bytes.indexOf(0)).toBe(-1);
    expect(new Set(bytes.subarray(0, 7)).size).toBeGreaterThan(3);
    // A system call tells, where a plain access would end the process.
    const file = openSync(join(folder, "touch"), "w+");
    writeFileSync(file, "bytes");
    expect(openLibc().pread(file, first, 5, 0)).toBe(-1);
    closeSync(file);
    expect(cuda.cuMemFree_v2(first + 4096)).toBe(1);
    expect(cuda.cuMemFree_v2(first)).toBe(0);
    expect(cuda.cuMemFree_v2(first)).toBe(1);
    expect(cuda.cuMemsetD8Async(first, 1, 1, 0)).toBe(1);
    expect(allocate(1 << 20)).not.toBe(first);
  });

  test("copies stay inside one allocation or registration, of the right kind", () => {
    context();
    const device = allocate(10_000);
    const other = allocate(10_000);
    const near = pinned(2 * PAGE, 7);
    const HtoD = cuda.cuMemcpyHtoDAsync_v2;
    expect(HtoD(device + 1, near.address + 5, 2 * PAGE - 5, 0)).toBe(0);
    expect(HtoD(device, near.address, 0, 0)).toBe(0);
    expect(HtoD(device + 10_000 - 4, near.address, 5, 0)).toBe(1);
    expect(HtoD(device, near.address + 1, 2 * PAGE, 0)).toBe(1);
    expect(HtoD(device, device, 8, 0)).toBe(1);
    expect(HtoD(near.address, near.address, 8, 0)).toBe(0);
    expect(HtoD(host(PAGE).address, near.address, 8, 0)).toBe(1);
    expect(HtoD(0, near.address, 8, 0)).toBe(1);
    expect(cuda.cuMemcpyDtoHAsync_v2(other, device, 8, 0)).toBe(1);
    expect(cuda.cuMemcpyDtoDAsync_v2(other, device, 9_999, 0)).toBe(0);
    expect(cuda.cuMemcpyAsync(device, other + 4, 9_997, 0)).toBe(1);
    expect(cuda.cuMemcpyAsync(device, other + 4, 64, 12345)).toBe(400);
    expect([...download(other, 4)]).toEqual([0xd5, 7, 7, 7]);
    expect(mock.reports().some((line) => line.includes("crosses the end"))).toBe(true);
  });

  test("registrations do not overlap, and end where their mapping does", () => {
    context();
    const near = host(4 * PAGE);
    const register = (page: number, pages: number, flags = WRITABLE) =>
      cuda.cuMemHostRegister_v2(near.address + page * PAGE, pages * PAGE, flags);
    expect(register(0, 2)).toBe(0);
    expect(register(1, 2)).toBe(712);
    expect(register(0, 2)).toBe(712);
    expect(cuda.cuMemHostRegister_v2(near.address + 2 * PAGE - 10, 20, WRITABLE)).toBe(712);
    expect(register(2, 2)).toBe(0);
    expect(mock.live()).toMatchObject({ registrations: 2, registeredBytes: 4 * PAGE });
    // Neighbours are two all the same.
    const device = allocate(4 * PAGE);
    expect(cuda.cuMemcpyHtoDAsync_v2(device, near.address + PAGE, 2 * PAGE, 0)).toBe(1);
    expect(cuda.cuMemHostUnregister(near.address + PAGE)).toBe(713);
    expect(cuda.cuMemHostUnregister(near.address)).toBe(0);
    expect(cuda.cuMemHostUnregister(near.address)).toBe(713);
    expect(register(0, 0)).toBe(1);
    expect(register(0, 1, 64)).toBe(1);
    expect(register(0, 1 << 20)).toBe(1);
    expect(cuda.cuMemHostRegister_v2(device, PAGE, WRITABLE)).toBe(1);
    mock.configure({ attributes: { 113: 0, 99: 1 } });
    expect(register(0, 1, READ_ONLY)).toBe(801);
    mock.configure({ attributes: { 99: 0 } });
    expect(register(0, 1)).toBe(801);
  });

  test("file mappings register as read-only alone, up to the file's end, and are not written", () => {
    context();
    const libc = openLibc();
    const file = openSync(join(folder, "mapped"), "w+");
    writeFileSync(file, new Uint8Array(3 * PAGE).fill(9));
    const at = Number(libc.mmap(8 * PAGE, PROT_READ, MAP_SHARED, file, 0));
    expect(cuda.cuMemHostRegister_v2(at, 3 * PAGE, WRITABLE)).toBe(1);
    expect(cuda.cuMemHostRegister_v2(at, 4 * PAGE, READ_ONLY)).toBe(1);
    expect(cuda.cuMemHostRegister_v2(at, 3 * PAGE, READ_ONLY)).toBe(0);
    const device = allocate(3 * PAGE);
    expect(cuda.cuMemcpyHtoDAsync_v2(device, at, 3 * PAGE, 0)).toBe(0);
    expect(cuda.cuMemcpyDtoHAsync_v2(at, device, 8, 0)).toBe(1);
    expect(cuda.cuMemsetD8Async(at, 1, 8, 0)).toBe(1);
    expect(new Set(download(device, 3 * PAGE))).toEqual(new Set([9]));
    // A file that is cut under its registration costs the process nothing, as the device holds the pages.
    ftruncateSync(file, 0);
    expect(cuda.cuMemcpyHtoDAsync_v2(device, at, 3 * PAGE, 0)).toBe(0);
    expect(cuda.cuStreamSynchronize(0)).toBe(0);
    expect(mock.reports().some((line) => line.includes("mapped no longer"))).toBe(true);
    expect(cuda.cuMemHostUnregister(at)).toBe(0);
    libc.munmap(at, 8 * PAGE);
    closeSync(file);
  });

  test("device pointers of registered memory are the host's where the device can use those", () => {
    context();
    const near = pinned(PAGE, 5);
    const devicePointer = (address: number) => (out: BigUint64Array) =>
      cuda.cuMemHostGetDevicePointer_v2(out, address, 0);
    expect(made(devicePointer(near.address + 8))).toBe(near.address + 8);
    expect(() => made(devicePointer(near.address + PAGE))).toThrow("gave 1");
    mock.configure({ attributes: { 91: 0 } });
    const alias = made(devicePointer(near.address));
    expect(alias).not.toBe(near.address);
    const device = allocate(64);
    expect(cuda.cuMemcpyDtoDAsync_v2(device, alias + 8, 64, 0)).toBe(0);
    expect(download(device, 64)[63]).toBe(5);
  });

  test("another context uses portable memory alone without waiting", () => {
    const first = context();
    const one = pinned(PAGE, 1);
    const two = host(PAGE, 2);
    expect(cuda.cuMemHostRegister_v2(two.address, PAGE, 2)).toBe(0);
    const second = context();
    expect(second).not.toBe(first);
    mock.configure({ maxDelayUs: 20_000, seed: 1 });
    const out = new BigUint64Array(1);
    expect(cuda.cuMemHostGetDevicePointer_v2(out, one.address, 0)).toBe(0);
    expect(cuda.cuMemHostGetDevicePointer_v2(out, two.address, 0)).toBe(1);
    const device = allocate(PAGE);
    const to = stream();
    expect(cuda.cuMemcpyHtoDAsync_v2(device, two.address, PAGE, to)).toBe(0);
    expect(cuda.cuStreamQuery(to)).toBe(0);
    expect(cuda.cuCtxDestroy_v2(first)).toBe(0);
    expect(mock.live().registrations).toBe(0);
    expect(cuda.cuMemHostUnregister(one.address)).toBe(713);
  });

  test("streams keep their own order, and events alone order them with each other", () => {
    context();
    mock.configure({ maxDelayUs: 3000, pieceBytes: 512 });
    const near = pinned(16 * PAGE);
    const device = allocate(4 * PAGE);
    let overtaken = 0;
    for (let seed = 0; seed < 12; seed++) {
      for (const edge of [true, false]) {
        mock.configure({ seed });
        const [up, down] = [stream(), stream()];
        const done = event(2);
        near.bytes
          .fill(0)
          .subarray(0, 4 * PAGE)
          .fill(seed + 1);
        expect(cuda.cuMemsetD8Async(device, 0xee, 4 * PAGE, up)).toBe(0);
        expect(cuda.cuMemcpyHtoDAsync_v2(device, near.address, 4 * PAGE, up)).toBe(0);
        expect(cuda.cuEventRecord(done, up)).toBe(0);
        if (edge) expect(cuda.cuStreamWaitEvent(down, done, 0)).toBe(0);
        expect(cuda.cuMemcpyDtoHAsync_v2(near.address + 8 * PAGE, device, 4 * PAGE, down)).toBe(0);
        expect(cuda.cuStreamSynchronize(down)).toBe(0);
        const right = near.bytes.subarray(8 * PAGE, 12 * PAGE).every((byte) => byte === seed + 1);
        if (edge) expect(right).toBe(true);
        else if (!right) overtaken++;
        expect(cuda.cuCtxSynchronize()).toBe(0);
        for (const one of [up, down]) expect(cuda.cuStreamDestroy_v2(one)).toBe(0);
        expect(cuda.cuEventDestroy_v2(done)).toBe(0);
      }
    }
    expect(overtaken).toBeGreaterThan(3);
  });

  test("calls return before the bytes move, unless host memory is not registered", () => {
    context();
    mock.setFaults([]);
    const device = allocate(PAGE);
    const slow = stream();
    const near = pinned(PAGE, 3);
    mock.configure({ maxDelayUs: 40_000, seed: 3 });
    let late = 0;
    for (let i = 0; i < 8; i++) {
      expect(cuda.cuMemcpyHtoDAsync_v2(device, near.address, PAGE, slow)).toBe(0);
      if (cuda.cuStreamQuery(slow) === 600) late++;
      expect(cuda.cuMemcpyHtoDAsync_v2(device, host(PAGE).address, PAGE, slow)).toBe(0);
      expect(cuda.cuStreamQuery(slow)).toBe(0);
    }
    expect(late).toBeGreaterThan(2);
  });

  test("the stream without a handle waits for the others, and they for it", () => {
    context();
    mock.configure({ maxDelayUs: 4000, seed: 5 });
    const device = allocate(PAGE);
    const near = pinned(2 * PAGE);
    for (let i = 1; i <= 8; i++) {
      const one = made((out) => cuda.cuStreamCreate(out, 0));
      const two = made((out) => cuda.cuStreamCreate(out, 0));
      near.bytes.fill(i, 0, PAGE);
      expect(cuda.cuMemcpyHtoDAsync_v2(device, near.address, PAGE, one)).toBe(0);
      expect(cuda.cuMemsetD8Async(device, i + 100, PAGE / 2, 0)).toBe(0);
      expect(cuda.cuMemcpyDtoHAsync_v2(near.address + PAGE, device, PAGE, two)).toBe(0);
      expect(cuda.cuStreamSynchronize(two)).toBe(0);
      expect([near.bytes[PAGE], near.bytes[2 * PAGE - 1]]).toEqual([i + 100, i]);
    }
  });

  test("events: not ready, again recorded, never recorded, timed or not", async () => {
    context();
    const out = new Float32Array(1);
    const slow = stream();
    const [first, second, untimed] = [event(), event(1), event(1 | 2)];
    expect(cuda.cuEventQuery(first)).toBe(0);
    expect(cuda.cuEventSynchronize(first)).toBe(0);
    expect(cuda.cuStreamWaitEvent(slow, first, 0)).toBe(0);
    expect(cuda.cuEventElapsedTime(out, first, second)).toBe(400);
    expect(cuda.cuEventRecord(first, slow)).toBe(0);
    expect(cuda.cuEventSynchronize(first)).toBe(0);
    await Bun.sleep(20);
    expect(cuda.cuEventRecord(second, slow)).toBe(0);
    expect(cuda.cuEventRecord(untimed, slow)).toBe(0);
    expect(cuda.cuEventSynchronize(untimed)).toBe(0);
    expect(cuda.cuEventElapsedTime_v2(out, first, second)).toBe(0);
    expect(out[0]).toBeWithin(19, 5000);
    expect(cuda.cuEventElapsedTime(out, first, untimed)).toBe(400);
    // A wait is for the record that was the last when it was asked for.
    mock.configure({ maxDelayUs: 30_000, seed: 2 });
    const near = pinned(PAGE);
    const device = allocate(PAGE);
    let pending = 0;
    for (let i = 0; i < 6; i++) {
      expect(cuda.cuMemcpyHtoDAsync_v2(device, near.address, PAGE, slow)).toBe(0);
      expect(cuda.cuEventRecord(second, slow)).toBe(0);
      if (cuda.cuEventQuery(second) === 600) {
        pending++;
        if (cuda.cuEventElapsedTime(out, first, second) !== 600) expect(cuda.cuEventQuery(second)).toBe(0);
      }
      expect(cuda.cuEventSynchronize(second)).toBe(0);
      expect(cuda.cuEventQuery(second)).toBe(0);
    }
    expect(pending).toBeGreaterThan(1);
    expect(cuda.cuEventCreate(new BigUint64Array(1), 64)).toBe(1);
    expect(cuda.cuEventDestroy_v2(first)).toBe(0);
    expect(cuda.cuEventRecord(first, slow)).toBe(400);
    context();
    expect(cuda.cuEventRecord(event(), slow)).toBe(400);
  });

  test("memory that is freed or unregistered before its copy ran loses the context", () => {
    const lost = context();
    mock.configure({ maxDelayUs: 30_000, seed: 4 });
    const near = pinned(PAGE);
    const device = allocate(PAGE);
    const out = new BigUint64Array(1);
    const slow = stream();
    for (let i = 0; i < 40; i++) expect(cuda.cuMemcpyHtoDAsync_v2(device, near.address, PAGE, slow)).toBe(0);
    const last = event();
    expect(cuda.cuEventRecord(last, slow)).toBe(0);
    expect(cuda.cuMemHostUnregister(near.address)).toBe(0);
    expect(cuda.cuStreamSynchronize(slow)).toBe(700);
    expect(mock.reports().join()).toContain("freed or unregistered");
    // From now on all calls give it; destroying works; a new context does not.
    expect([
      cuda.cuCtxSynchronize(),
      cuda.cuMemAlloc_v2(out, 8),
      cuda.cuMemFree_v2(device),
      cuda.cuEventQuery(last),
      cuda.cuEventSynchronize(last),
      cuda.cuStreamQuery(slow),
      cuda.cuStreamCreate(out, 0),
      cuda.cuMemcpyHtoDAsync_v2(device, near.address, 8, slow),
    ]).toEqual([700, 700, 700, 700, 700, 700, 700, 700]);
    expect(cuda.cuCtxDestroy_v2(lost)).toBe(0);
    expect(cuda.cuCtxCreate_v2(out, 0, 0)).toBe(700);
    mock.configure({ contextAfterLoss: true });
    expect(cuda.cuCtxCreate_v2(out, 0, 0)).toBe(0);
    expect(mock.live()).toMatchObject({ contexts: 1, streams: 0, allocations: 0, abandoned: 0 });
  });

  test("cuMemFree waits for what uses the memory where that is configured", () => {
    context();
    mock.configure({ maxDelayUs: 10_000, seed: 4, freeWaits: true });
    const near = pinned(PAGE);
    const device = allocate(PAGE);
    const slow = stream();
    for (let i = 0; i < 10; i++) expect(cuda.cuMemcpyHtoDAsync_v2(device, near.address, PAGE, slow)).toBe(0);
    expect(cuda.cuMemFree_v2(device)).toBe(0);
    expect(cuda.cuCtxSynchronize()).toBe(0);
  });

  test("faults: the nth calls of a function, at once or later, and delays", () => {
    context();
    const out = new BigUint64Array(1);
    mock.setFaults([
      { call: "cuMemAlloc_v2", nth: 2, times: 2, code: 2 },
      { call: "cuMemGetInfo_v2", delayMs: 30 },
      { call: "cuMemsetD8Async", nth: 2, code: 719, later: true },
    ]);
    const codes = [1, 2, 3, 4].map(() => cuda.cuMemAlloc_v2(out, 64));
    expect(codes).toEqual([0, 2, 2, 0]);
    const from = performance.now();
    expect(cuda.cuMemGetInfo_v2(out, new BigUint64Array(1))).toBe(0);
    expect(performance.now() - from).toBeGreaterThan(29);
    const device = Number(out[0]! && made((at) => cuda.cuMemAlloc_v2(at, 64)));
    expect(cuda.cuMemsetD8Async(device, 1, 64, 0)).toBe(0);
    expect(cuda.cuStreamSynchronize(0)).toBe(0);
    expect(cuda.cuMemsetD8Async(device, 1, 64, 0)).toBe(0);
    expect(cuda.cuStreamSynchronize(0)).toBe(719);
    expect(mock.calls("cuMemAlloc_v2")).toBe(5);
    expect(() => mock.calls("cuMemAlloc")).toThrow();
    expect(() => mock.setFaults([{ call: "cuMemAlloc", code: 2 }])).toThrow();
    expect(() => mock.configure({ pieceBytes: 0 })).toThrow();
  });

  test("live objects are counted, and those that a context's end clears away", () => {
    const one = context();
    const device = allocate(100);
    const waiting = stream();
    const done = event();
    const near = pinned(PAGE);
    expect(mock.live()).toMatchObject({
      contexts: 1,
      streams: 1,
      events: 1,
      allocations: 1,
      deviceBytes: 100,
      registrations: 1,
      registeredBytes: PAGE,
      abandoned: 0,
    });
    expect(() => mock.configure({ totalBytes: 1 << 20 })).toThrow("while device memory is allocated");
    expect(cuda.cuMemFree_v2(device)).toBe(0);
    expect(cuda.cuStreamDestroy_v2(waiting)).toBe(0);
    expect(cuda.cuStreamDestroy_v2(waiting)).toBe(400);
    expect(cuda.cuMemHostUnregister(near.address)).toBe(0);
    expect(cuda.cuCtxDestroy_v2(one)).toBe(0);
    expect(mock.live()).toMatchObject({ contexts: 0, events: 0, abandoned: 1 });
    expect(cuda.cuEventDestroy_v2(done)).toBe(201);
  });
});
