import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LaunchArguments } from "../../../src/device/cuda/arguments.ts";
import { OutCell } from "../../../src/device/cuda/cells.ts";
import { type CudaDriver, initDriver, openDriver } from "../../../src/device/cuda/driver.ts";
import {
  type CuFile,
  closeGdsDriver,
  deregisterFile,
  deregisterMemory,
  gdsRead,
  gdsWrite,
  openCuFile,
  openGdsDriver,
  registerFile,
  registerMemory,
} from "../../../src/device/cuda/gds.ts";
import { CudaCompiler, type CudaPipeline } from "../../../src/device/cuda/pipeline.ts";
import type { KernelSource } from "../../../src/device/device.ts";
import { HostContext } from "../../../src/device/host/context.ts";
import { Syscalls } from "../../../src/device/host/syscalls.ts";
import { ADD } from "../../conformance/kernels.ts";
import { buildCudaMock, type CudaMock, openCudaMock } from "../../cuda-mock/mock.ts";
import { type HostMemory, hostMemory } from "../../cuda-mock/symbols.ts";
import { failureOf } from "../failure.ts";

const built = buildCudaMock();
const path = "path" in built ? built.path : "";
if ("missing" in built) console.log(`skipped: ${built.missing}`);
const folder = mkdtempSync(join(tmpdir(), "headrace-cuda-pipeline-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** All that a kernel is told, put where it can be read: addresses, constants, and the number of threads. */
const TELL: KernelSource = {
  name: "tell",
  text: `
HR_FUNCTION_CONSTANT(2, uint32_t, base);
struct Seven { uint8_t bytes[7]; };
HR_KERNEL(tell, HR_OUT(0, uint32_t, out), HR_IN(1, uint8_t, first), HR_IN(2, uint8_t, last), HR_CONSTANTS(3, Seven, c)) {
  if (hr_thread != 0) return;
  out[0] = base + uint32_t(last - first);
  out[1] = hr_threads;
  for (uint32_t i = 0; i < 7; i++) out[2 + i] = c.bytes[i];
}
`,
  functionConstants: [{ index: 2, type: "uint", value: 1000 }],
};

describe.skipIf(path === "")("over the mock", () => {
  let mock: CudaMock;
  let driver: CudaDriver;
  let context: number;
  let stream: number;
  const memory: HostMemory[] = [];
  const cell = new OutCell();
  const host = new HostContext("Mock", new Syscalls());

  const made = (result: number): number => {
    expect(result).toBe(0);
    return cell.u64;
  };
  const allocate = (byteLength: number) => made(driver.symbols.cuMemAlloc_v2(cell.clear(), byteLength));
  const compiler = (parts: Partial<ConstructorParameters<typeof CudaCompiler>[0]> = {}) =>
    new CudaCompiler({
      driver,
      nvrtc: path,
      computeCapability: 90,
      driverVersion: 13_000,
      makeCurrent: () => expect(driver.symbols.cuCtxSetCurrent(context)).toBe(0),
      ...parts,
    });
  /** The bytes of device memory. */
  function download(address: number, byteLength: number): Uint8Array {
    const to = hostMemory(4096);
    memory.push(to);
    expect(driver.symbols.cuMemcpyDtoHAsync_v2(to.address, address, byteLength, stream)).toBe(0);
    expect(driver.symbols.cuStreamSynchronize(stream)).toBe(0);
    return to.bytes.slice(0, byteLength);
  }
  const launch = ({ functionHandle }: CudaPipeline, table: number, blocks: number, threads: number) =>
    driver.symbols.cuLaunchKernel(functionHandle, blocks, 1, 1, threads, 1, 1, 0, stream, table, 0);

  beforeAll(() => {
    mock = openCudaMock(path);
    driver = openDriver(path);
  });
  function start(): void {
    mock.reset();
    initDriver(driver);
    context = made(driver.symbols.cuCtxCreate_v2(cell.clear(), 0, 0));
    stream = made(driver.symbols.cuStreamCreate(cell.clear(), 1));
  }
  afterEach(() => {
    mock.reset();
    for (const one of memory.splice(0)) one.free();
  });

  test("a kernel gets its buffers, its constants and the number of threads", () => {
    start();
    const kernels = compiler();
    const tell = kernels.compile(host, TELL);
    const add = kernels.compile(host, ADD);
    expect(tell).toMatchObject({ name: "tell", maxThreadsPerBlock: 256, closed: false, context: host });
    const out = allocate(4096);
    const bytes = allocate(4096);
    expect(driver.symbols.cuMemsetD8Async(bytes, 250, 4096, stream)).toBe(0);
    const args = new LaunchArguments();
    // The same memory for one launch after the other, with fewer arguments and fewer constants.
    let table = args.start(3, Uint8Array.of(1, 2, 3, 4, 5, 6, 7), 41);
    for (const [i, address] of [out, bytes, bytes + 40].entries()) args.setBuffer(i, address);
    expect(launch(tell, table, 1, 41)).toBe(0);
    table = args.start(1, Uint8Array.of(9), 300);
    args.setBuffer(0, bytes);
    expect(launch(add, table, 2, 256)).toBe(0);
    table = args.start(3, Uint8Array.of(8), 1);
    for (const [i, address] of [out + 64, bytes, bytes + 7].entries()) args.setBuffer(i, address);
    expect(launch(tell, table, 1, 1)).toBe(0);

    const told = new Uint32Array(download(out, 100).buffer);
    expect([...told.subarray(0, 9)]).toEqual([1040, 41, 1, 2, 3, 4, 5, 6, 7]);
    // What is left of other launches is gone.
    expect([...told.subarray(16, 25)]).toEqual([1007, 1, 8, 0, 0, 0, 0, 0, 0]);
    expect([...download(bytes, 302).subarray(298)]).toEqual([3, 3, 250, 250]);
    expect(mock.reports()).toEqual([]);
  });

  test("more buffers than any launch before, and what no launch can have", () => {
    start();
    const buffers = Array.from({ length: 40 }, (_, i) => i);
    const text = `HR_KERNEL(many, HR_OUT(0, uint32_t, out), ${buffers
      .slice(1)
      .map((i) => `HR_IN(${i}, uint32_t, b${i})`)
      .join(", ")}) { if (hr_thread == 0) { out[0] = hr_threads; ${buffers
      .slice(1)
      .map((i) => `out[${i}] = uint32_t(b${i} - out);`)
      .join(" ")} } }`;
    const many = compiler().compile(host, { name: "many", text });
    const out = allocate(4096);
    const args = new LaunchArguments();
    args.start(1, new Uint8Array(0), 1);
    const table = args.start(40, new Uint8Array(0), 2 ** 32 - 1);
    for (const i of buffers) args.setBuffer(i, out + i * 4);
    expect(launch(many, table, 1, 1)).toBe(0);
    const told = [...new Uint32Array(download(out, 160).buffer)];
    expect(told).toEqual([2 ** 32 - 1, ...buffers.slice(1)]);
    expect(failureOf(() => args.start(0, new Uint8Array(0), 2 ** 32)).code).toBe("OUT_OF_RANGE");
    expect(failureOf(() => args.start(0, new Uint8Array(0), 0.5)).code).toBe("OUT_OF_RANGE");
    expect(failureOf(() => args.start(0, new Uint8Array(4097), 1)).code).toBe("OUT_OF_RANGE");
  });

  test("function constants are checked before anything is compiled", () => {
    start();
    const kernels = compiler();
    const none = failureOf(() => kernels.compile(host, { name: "tell", text: TELL.text! }));
    expect(none.code).toBe("BAD_KERNEL");
    expect(none.message).toEndWith("give functionConstants index 2");
    const functionConstants = [...TELL.functionConstants!, { index: 5, type: "bool", value: true } as const];
    const extra = failureOf(() => kernels.compile(host, { ...TELL, functionConstants }));
    expect({ code: extra.code, message: extra.message }).toEqual({
      code: "BAD_OPTION",
      message: expect.stringContaining("constant 5 is not in its text, which has 2"),
    });
  });

  test("each text is compiled once for the same constants, and all is unloaded at the end", () => {
    start();
    const kernels = compiler();
    const first = kernels.compile(host, TELL);
    expect(kernels.compile(host, { ...TELL }).module).toBe(first.module);
    const other = { ...TELL, functionConstants: [{ index: 2, type: "uint", value: 1 } as const] };
    expect(kernels.compile(host, other).module).not.toBe(first.module);
    expect(mock.calls("nvrtcCompileProgram")).toBe(2);
    first.close();
    expect(first.closed).toBe(true);
    expect(mock.live()).toMatchObject({ modules: 2, programs: 0 });
    kernels.close();
    kernels.close();
    expect(mock.live().modules).toBe(0);
  });

  test("what does not compile, is not there, or does not load", () => {
    start();
    const kernels = compiler();
    const bad = failureOf(() => kernels.compile(host, { name: "k", text: "\nint x = nope;\n" }));
    expect(bad.code).toBe("BAD_KERNEL");
    expect(bad.message).toMatch(/^kernel k: line 2: .*nope/);
    expect(bad.message).not.toContain("\n");
    const none = failureOf(() => kernels.compile(host, { ...ADD, name: "subtract" }));
    expect(none).toMatchObject({
      code: "BAD_KERNEL",
      message: "kernel subtract: its text has no HR_KERNEL of that name",
    });
    expect(failureOf(() => kernels.compile(host, { name: "k" })).code).toBe("UNSUPPORTED");
    mock.setFaults([{ call: "cuModuleLoadData", code: 222 }]);
    const refused = failureOf(() => kernels.compile(host, TELL));
    expect(refused.code).toBe("BAD_KERNEL");
    expect(refused.message).toMatch(/^kernel tell: cuModuleLoadData of \d+ bytes: .*UNSUPPORTED_PTX_VERSION/);
    mock.setFaults([{ call: "nvrtcCompileProgram", code: 7 }]);
    const parts = failureOf(() => kernels.compile(host, TELL));
    expect(parts.code).toBe("UNSUPPORTED");
    expect(parts.message).toContain("libnvrtc-builtins of the same version");
    mock.setFaults([{ call: "nvrtcCreateProgram", code: 1 }]);
    expect(failureOf(() => kernels.compile(host, TELL)).code).toBe("OUT_OF_MEMORY");
    // Nothing of these failures stays.
    expect(mock.live()).toMatchObject({ programs: 0, modules: 1 });
    expect(kernels.compile(host, TELL).name).toBe("tell");
  });

  test("without NVRTC there are no kernels, and that is said", () => {
    start();
    const kernels = compiler({ nvrtc: false });
    const error = failureOf(() => kernels.compile(host, ADD));
    expect(error.code).toBe("UNSUPPORTED");
    expect(error.message).toBe("kernel add: needs NVRTC to be compiled: the option nvrtc is false");
    kernels.close();
  });

  test("threadgroup memory is asked for where it is much, and no more than there is", () => {
    start();
    const add = compiler().compile(host, ADD);
    add.allowGroupBytes(40 * 1024);
    expect(mock.calls("cuFuncSetAttribute")).toBe(0);
    add.allowGroupBytes(100 * 1024);
    add.allowGroupBytes(90 * 1024);
    expect(mock.calls("cuFuncSetAttribute")).toBe(1);
    const error = failureOf(() => add.allowGroupBytes(2 ** 24));
    expect(error.code).toBe("BAD_OPTION");
    expect(error.message).toContain("kernel add: 16777216 bytes of threadgroup memory");
    mock.setFaults([{ call: "cuFuncSetAttribute", code: 700 }]);
    expect(failureOf(() => add.allowGroupBytes(120 * 1024)).code).toBe("DEVICE_LOST");
  });

  describe("GPUDirect Storage", () => {
    const opened = () => {
      const cufile = openCuFile({ library: path });
      if ("declined" in cufile) throw new Error(cufile.declined);
      return cufile;
    };
    const noErrno = () => {
      throw new Error("errno was not to be asked for");
    };
    function withFile(work: (cufile: CuFile, handle: number, file: string) => void): void {
      const file = join(folder, "file");
      writeFileSync(
        file,
        Uint8Array.from({ length: 300 }, (_, i) => i),
      );
      const fd = openSync(file, "r+");
      const cufile = opened();
      expect(openGdsDriver(cufile)).toHaveProperty("mode");
      try {
        const handle = registerFile(cufile, fd);
        if (typeof handle !== "number") throw new Error(handle.declined);
        work(cufile, handle, file);
        deregisterFile(cufile, handle);
      } finally {
        closeGdsDriver(cufile);
        closeSync(fd);
      }
      expect(mock.live()).toMatchObject({ fileHandles: 0, fileBuffers: 0, fileDriver: 0 });
      expect(mock.reports()).toEqual([]);
    }

    test("bytes go between file and device memory", () => {
      start();
      withFile((cufile, handle, file) => {
        const base = allocate(4096);
        expect(registerMemory(cufile, base, 4096)).toBeUndefined();
        const read = { handle, base, memoryOffset: 16, byteLength: 100, fileOffset: 150 };
        expect(gdsRead(cufile, read, noErrno)).toBe(100);
        expect([...download(base + 16, 100)]).toEqual(
          Array.from({ length: 100 }, (_, i) => 150 + i).map((x) => x & 255),
        );
        expect(gdsRead(cufile, { ...read, fileOffset: 290 }, noErrno)).toBe(10);
        expect(gdsRead(cufile, { ...read, fileOffset: 300 }, noErrno)).toBe(0);
        expect(driver.symbols.cuMemsetD8Async(base, 7, 4096, stream)).toBe(0);
        expect(driver.symbols.cuStreamSynchronize(stream)).toBe(0);
        const written = { handle, base, memoryOffset: 0, byteLength: 20, fileOffset: 290 };
        expect(gdsWrite(cufile, written, noErrno)).toBe(20);
        const bytes = readFileSync(file);
        expect([bytes.length, bytes[289], bytes[290], bytes[309]]).toEqual([310, 33, 7, 7]);
        deregisterMemory(cufile, base);
      });
    });

    test("each refusal says why, and nothing is thrown", () => {
      start();
      const cufile = opened();
      mock.configure({ gds: false });
      expect(openGdsDriver(cufile)).toEqual({
        declined: "cuFileDriverOpen: this platform has no GPUDirect Storage (5007)",
      });
      mock.configure({ gds: true });
      withFile((_, handle, file) => {
        const base = allocate(4096);
        const transfer = { handle, base, memoryOffset: 0, byteLength: 8192, fileOffset: 0 };
        expect(gdsRead(cufile, transfer, noErrno)).toEqual({
          declined: "cuFileRead: the range leaves the memory that was allocated (5014)",
        });
        mock.setFaults([{ call: "cuFileRead", code: 5008 }]);
        expect(gdsRead(cufile, { ...transfer, byteLength: 1 }, noErrno)).toEqual({
          declined: "cuFileRead: the file system has no GPUDirect Storage (5008)",
        });
        const pipe = openSync("/dev/null", "r");
        expect(registerFile(cufile, pipe)).toEqual({
          declined: "cuFileHandleRegister: the file is of a kind that cannot be read directly (5018)",
        });
        closeSync(pipe);
        const reader = openSync(file, "r");
        const readOnly = registerFile(cufile, reader) as number;
        const write = { handle: readOnly, base, memoryOffset: 0, byteLength: 1, fileOffset: 0 };
        expect(gdsWrite(cufile, write, () => 9)).toEqual({ declined: "cuFileWrite: EBADF" });
        deregisterFile(cufile, readOnly);
        closeSync(reader);
        expect(registerMemory(cufile, base + 4096, 4096)?.declined).toMatch(
          /^cuFileBufRegister: .+ \(50\d\d\)$/,
        );
        mock.setFaults([{ call: "cuFileHandleRegister", code: 4711 }]);
        expect(registerFile(cufile, 0)).toEqual({ declined: "cuFileHandleRegister: cuFile error 4711" });
      });
    });

    test("CUDA's own failure comes with its name", () => {
      mock.reset();
      // Nobody has initialised the driver.
      expect(openGdsDriver(opened())).toEqual({
        declined: "cuFileDriverOpen: CUDA failed (5011): CUDA_ERROR_NOT_INITIALIZED (3)",
      });
    });
  });
});

test("a machine without cuFile is told where it comes from", () => {
  const surroundings = { env: {}, local: folder, home: folder, arch: "x64" };
  const answer = openCuFile({ surroundings, names: ["libno-such-cufile.so.0"] });
  expect(answer).toEqual({
    declined:
      "there is no libcufile.so.0; install it (nvidia-gds), or set HEADRACE_CUFILE_LIBRARY to its path",
  });
  const named = openCuFile({
    surroundings: { ...surroundings, env: { HEADRACE_CUFILE_LIBRARY: "/no/such.so" } },
  });
  expect(named).toEqual({ declined: expect.stringContaining("/no/such.so: ") });
});
