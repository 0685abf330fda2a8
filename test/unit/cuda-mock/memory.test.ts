/** The mock of the CUDA driver keeps CUDA's rules: devices, contexts, memory, faults, and what is counted. */
import { afterAll, describe, expect, test } from "bun:test";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MAP_SHARED, openLibc, PROT_READ } from "../../../src/device/host/libc.ts";
import { int, made, textAt } from "../../cuda-mock/symbols.ts";
import { noMock, PAGE, READ_ONLY, reason, useMock, WRITABLE } from "./rig.ts";

describe.skipIf(noMock)(`memory in the mock of CUDA${reason}`, () => {
  const rig = useMock();
  const folder = mkdtempSync(join(tmpdir(), "cuda-mock-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  test("names its devices, their memory and attributes, and errors", () => {
    rig.mock.configure({ devices: 3, totalBytes: 1 << 20, attributes: { 113: 0 } });
    const out = new BigUint64Array(1);
    expect(rig.cuda.cuDeviceGetCount(out)).toBe(3);
    expect(rig.cuda.cuInit(1)).toBe(1);
    expect(rig.cuda.cuInit(0)).toBe(0);
    expect(int((count) => rig.cuda.cuDeviceGetCount(count))).toBe(3);
    expect(int((device) => rig.cuda.cuDeviceGet(device, 2))).toBe(2);
    expect(rig.cuda.cuDeviceGet(out, 3)).toBe(101);
    const name = new Uint8Array(64);
    expect(rig.cuda.cuDeviceGetName(name, 64, 1)).toBe(0);
    expect(new TextDecoder().decode(name)).toStartWith("Mock GPU 1\0");
    expect(made((bytes) => rig.cuda.cuDeviceTotalMem_v2(bytes, 0))).toBe(1 << 20);
    const attribute = (number: number) => int((value) => rig.cuda.cuDeviceGetAttribute(value, number, 0));
    expect([91, 99, 113, 40, 75, 88].map(attribute)).toEqual([1, 1, 0, 3, 9, 0]);
    expect(rig.cuda.cuDeviceGetAttribute(out, 5000, 0)).toBe(1);
    expect(rig.cuda.cuDeviceGetPCIBusId(name, 64, 1)).toBe(0);
    expect(new TextDecoder().decode(name)).toStartWith("0000:02:00.0\0");
    expect(textAt(made((at) => rig.cuda.cuGetErrorName(713, at)))).toBe(
      "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",
    );
    expect(textAt(made((at) => rig.cuda.cuGetErrorString(700, at)))).toContain("illegal memory access");
    expect(rig.cuda.cuGetErrorName(12345, out)).toBe(1);
    rig.mock.reset();
    rig.mock.configure({ devices: 0 });
    expect(rig.cuda.cuInit(0)).toBe(100);
  });

  test("calls need a context of their thread, and one that is there", () => {
    const out = new BigUint64Array(1);
    expect(rig.cuda.cuCtxCreate_v2(out, 0, 0)).toBe(3);
    expect(rig.cuda.cuMemAlloc_v2(out, 64)).toBe(3);
    expect(rig.cuda.cuInit(0)).toBe(0);
    expect(rig.cuda.cuMemAlloc_v2(out, 64)).toBe(201);
    const first = made((at) => rig.cuda.cuCtxCreate_v2(at, 0, 0));
    rig.allocate(64);
    expect(rig.cuda.cuCtxSetCurrent(0)).toBe(0);
    expect(rig.cuda.cuMemAlloc_v2(out, 64)).toBe(201);
    expect(rig.cuda.cuCtxSetCurrent(first)).toBe(0);
    expect(rig.cuda.cuCtxDestroy_v2(first)).toBe(0);
    expect(rig.cuda.cuMemAlloc_v2(out, 64)).toBe(201);
    expect(rig.cuda.cuCtxSetCurrent(first)).toBe(201);
    expect(rig.cuda.cuCtxDestroy_v2(first)).toBe(201);
    expect(rig.cuda.cuCtxCreate_v2(out, 0, 2)).toBe(101);
    expect(rig.mock.live()).toMatchObject({ contexts: 0, allocations: 0, abandoned: 1 });
  });

  test("device memory runs out, is never zero, and is the host's to touch in no way", () => {
    rig.mock.configure({ totalBytes: 1 << 20 });
    rig.context();
    const out = new BigUint64Array(2);
    const first = rig.allocate(700_000);
    expect(rig.cuda.cuMemAlloc_v2(out, 400_000)).toBe(2);
    expect(rig.cuda.cuMemAlloc_v2(out, 0)).toBe(1);
    expect(rig.cuda.cuMemGetInfo_v2(out.subarray(0, 1), out.subarray(1))).toBe(0);
    expect(out[1]! - out[0]!).toBe(BigInt(Math.ceil(700_000 / PAGE) * PAGE));
    const bytes = rig.download(first, 700_000);
    expect(bytes.indexOf(0)).toBe(-1);
    expect(new Set(bytes.subarray(0, 7)).size).toBeGreaterThan(3);
    // A system call tells, where a plain access would end the process.
    const file = openSync(join(folder, "touch"), "w+");
    writeFileSync(file, "bytes");
    expect(openLibc().pread(file, first, 5, 0)).toBe(-1);
    closeSync(file);
    expect(rig.cuda.cuMemFree_v2(first + 4096)).toBe(1);
    expect(rig.cuda.cuMemFree_v2(first)).toBe(0);
    expect(rig.cuda.cuMemFree_v2(first)).toBe(1);
    expect(rig.cuda.cuMemsetD8Async(first, 1, 1, 0)).toBe(1);
    expect(rig.allocate(1 << 20)).not.toBe(first);
  });

  test("copies stay inside one allocation or registration, of the right kind", () => {
    rig.context();
    const device = rig.allocate(10_000);
    const other = rig.allocate(10_000);
    const near = rig.pinned(2 * PAGE, 7);
    const HtoD = rig.cuda.cuMemcpyHtoDAsync_v2;
    expect(HtoD(device + 1, near.address + 5, 2 * PAGE - 5, 0)).toBe(0);
    expect(HtoD(device, near.address, 0, 0)).toBe(0);
    expect(HtoD(device + 10_000 - 4, near.address, 5, 0)).toBe(1);
    expect(HtoD(device, near.address + 1, 2 * PAGE, 0)).toBe(1);
    expect(HtoD(device, device, 8, 0)).toBe(1);
    expect(HtoD(near.address, near.address, 8, 0)).toBe(0);
    expect(HtoD(rig.host(PAGE).address, near.address, 8, 0)).toBe(1);
    expect(HtoD(0, near.address, 8, 0)).toBe(1);
    expect(rig.cuda.cuMemcpyDtoHAsync_v2(other, device, 8, 0)).toBe(1);
    expect(rig.cuda.cuMemcpyDtoDAsync_v2(other, device, 9_999, 0)).toBe(0);
    expect(rig.cuda.cuMemcpyAsync(device, other + 4, 9_997, 0)).toBe(1);
    expect(rig.cuda.cuMemcpyAsync(device, other + 4, 64, 12345)).toBe(400);
    expect([...rig.download(other, 4)]).toEqual([0xd5, 7, 7, 7]);
    expect(rig.mock.reports().some((line) => line.includes("crosses the end"))).toBe(true);
  });

  test("registrations do not overlap, and end where their mapping does", () => {
    rig.context();
    const near = rig.host(4 * PAGE);
    const register = (page: number, pages: number, flags = WRITABLE) =>
      rig.cuda.cuMemHostRegister_v2(near.address + page * PAGE, pages * PAGE, flags);
    expect(register(0, 2)).toBe(0);
    expect(register(1, 2)).toBe(712);
    expect(register(0, 2)).toBe(712);
    expect(rig.cuda.cuMemHostRegister_v2(near.address + 2 * PAGE - 10, 20, WRITABLE)).toBe(712);
    expect(register(2, 2)).toBe(0);
    expect(rig.mock.live()).toMatchObject({ registrations: 2, registeredBytes: 4 * PAGE });
    // Neighbours are two all the same.
    const device = rig.allocate(4 * PAGE);
    expect(rig.cuda.cuMemcpyHtoDAsync_v2(device, near.address + PAGE, 2 * PAGE, 0)).toBe(1);
    expect(rig.cuda.cuMemHostUnregister(near.address + PAGE)).toBe(713);
    expect(rig.cuda.cuMemHostUnregister(near.address)).toBe(0);
    expect(rig.cuda.cuMemHostUnregister(near.address)).toBe(713);
    expect(register(0, 0)).toBe(1);
    expect(register(0, 1, 64)).toBe(1);
    expect(register(0, 1 << 20)).toBe(1);
    expect(rig.cuda.cuMemHostRegister_v2(device, PAGE, WRITABLE)).toBe(1);
    rig.mock.configure({ attributes: { 113: 0, 99: 1 } });
    expect(register(0, 1, READ_ONLY)).toBe(801);
    rig.mock.configure({ attributes: { 99: 0 } });
    expect(register(0, 1)).toBe(801);
  });

  test("file mappings register as read-only alone, up to the file's end, and are not written", () => {
    rig.context();
    const libc = openLibc();
    const file = openSync(join(folder, "mapped"), "w+");
    writeFileSync(file, new Uint8Array(3 * PAGE).fill(9));
    const at = Number(libc.mmap(8 * PAGE, PROT_READ, MAP_SHARED, file, 0));
    expect(rig.cuda.cuMemHostRegister_v2(at, 3 * PAGE, WRITABLE)).toBe(1);
    expect(rig.cuda.cuMemHostRegister_v2(at, 4 * PAGE, READ_ONLY)).toBe(1);
    expect(rig.cuda.cuMemHostRegister_v2(at, 3 * PAGE, READ_ONLY)).toBe(0);
    const device = rig.allocate(3 * PAGE);
    expect(rig.cuda.cuMemcpyHtoDAsync_v2(device, at, 3 * PAGE, 0)).toBe(0);
    expect(rig.cuda.cuMemcpyDtoHAsync_v2(at, device, 8, 0)).toBe(1);
    expect(rig.cuda.cuMemsetD8Async(at, 1, 8, 0)).toBe(1);
    expect(new Set(rig.download(device, 3 * PAGE))).toEqual(new Set([9]));
    // A file that is cut under its registration costs the process nothing, as the device holds the pages.
    ftruncateSync(file, 0);
    expect(rig.cuda.cuMemcpyHtoDAsync_v2(device, at, 3 * PAGE, 0)).toBe(0);
    expect(rig.cuda.cuStreamSynchronize(0)).toBe(0);
    expect(rig.mock.reports().some((line) => line.includes("mapped no longer"))).toBe(true);
    expect(rig.cuda.cuMemHostUnregister(at)).toBe(0);
    libc.munmap(at, 8 * PAGE);
    closeSync(file);
  });

  test("device pointers of registered memory are the host's where the device can use those", () => {
    rig.context();
    const near = rig.pinned(PAGE, 5);
    const devicePointer = (address: number) => (out: BigUint64Array) =>
      rig.cuda.cuMemHostGetDevicePointer_v2(out, address, 0);
    expect(made(devicePointer(near.address + 8))).toBe(near.address + 8);
    expect(() => made(devicePointer(near.address + PAGE))).toThrow("gave 1");
    rig.mock.configure({ attributes: { 91: 0 } });
    const alias = made(devicePointer(near.address));
    expect(alias).not.toBe(near.address);
    const device = rig.allocate(64);
    expect(rig.cuda.cuMemcpyDtoDAsync_v2(device, alias + 8, 64, 0)).toBe(0);
    expect(rig.download(device, 64)[63]).toBe(5);
  });

  test("another context uses portable memory alone without waiting", () => {
    const first = rig.context();
    const one = rig.pinned(PAGE, 1);
    const two = rig.host(PAGE, 2);
    expect(rig.cuda.cuMemHostRegister_v2(two.address, PAGE, 2)).toBe(0);
    const second = rig.context();
    expect(second).not.toBe(first);
    rig.mock.configure({ maxDelayUs: 20_000, seed: 1 });
    const out = new BigUint64Array(1);
    expect(rig.cuda.cuMemHostGetDevicePointer_v2(out, one.address, 0)).toBe(0);
    expect(rig.cuda.cuMemHostGetDevicePointer_v2(out, two.address, 0)).toBe(1);
    const device = rig.allocate(PAGE);
    const to = rig.stream();
    expect(rig.cuda.cuMemcpyHtoDAsync_v2(device, two.address, PAGE, to)).toBe(0);
    expect(rig.cuda.cuStreamQuery(to)).toBe(0);
    expect(rig.cuda.cuCtxDestroy_v2(first)).toBe(0);
    expect(rig.mock.live().registrations).toBe(0);
    expect(rig.cuda.cuMemHostUnregister(one.address)).toBe(713);
  });

  test("faults: the nth calls of a function, at once or later, and delays", () => {
    rig.context();
    const out = new BigUint64Array(1);
    rig.mock.setFaults([
      { call: "cuMemAlloc_v2", nth: 2, times: 2, code: 2 },
      { call: "cuMemGetInfo_v2", delayMs: 30 },
      { call: "cuMemsetD8Async", nth: 2, code: 719, later: true },
    ]);
    const codes = [1, 2, 3, 4].map(() => rig.cuda.cuMemAlloc_v2(out, 64));
    expect(codes).toEqual([0, 2, 2, 0]);
    const from = performance.now();
    expect(rig.cuda.cuMemGetInfo_v2(out, new BigUint64Array(1))).toBe(0);
    expect(performance.now() - from).toBeGreaterThan(29);
    const device = Number(out[0]! && made((at) => rig.cuda.cuMemAlloc_v2(at, 64)));
    expect(rig.cuda.cuMemsetD8Async(device, 1, 64, 0)).toBe(0);
    expect(rig.cuda.cuStreamSynchronize(0)).toBe(0);
    expect(rig.cuda.cuMemsetD8Async(device, 1, 64, 0)).toBe(0);
    expect(rig.cuda.cuStreamSynchronize(0)).toBe(719);
    expect(rig.mock.calls("cuMemAlloc_v2")).toBe(5);
    expect(() => rig.mock.calls("cuMemAlloc")).toThrow();
    expect(() => rig.mock.setFaults([{ call: "cuMemAlloc", code: 2 }])).toThrow();
    expect(() => rig.mock.configure({ pieceBytes: 0 })).toThrow();
  });

  test("live objects are counted, and those that a context's end clears away", () => {
    const one = rig.context();
    const device = rig.allocate(100);
    const waiting = rig.stream();
    const done = rig.event();
    const near = rig.pinned(PAGE);
    expect(rig.mock.live()).toMatchObject({
      contexts: 1,
      streams: 1,
      events: 1,
      allocations: 1,
      deviceBytes: 100,
      registrations: 1,
      registeredBytes: PAGE,
      abandoned: 0,
    });
    expect(() => rig.mock.configure({ totalBytes: 1 << 20 })).toThrow("while device memory is allocated");
    expect(rig.cuda.cuMemFree_v2(device)).toBe(0);
    expect(rig.cuda.cuStreamDestroy_v2(waiting)).toBe(0);
    expect(rig.cuda.cuStreamDestroy_v2(waiting)).toBe(400);
    expect(rig.cuda.cuMemHostUnregister(near.address)).toBe(0);
    expect(rig.cuda.cuCtxDestroy_v2(one)).toBe(0);
    expect(rig.mock.live()).toMatchObject({ contexts: 0, events: 0, abandoned: 1 });
    expect(rig.cuda.cuEventDestroy_v2(done)).toBe(201);
  });
});
