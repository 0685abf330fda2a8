import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OutCell } from "../../../src/device/cuda/cells.ts";
import { CUBLAS_SYMBOLS } from "../../../src/device/cuda/cublas.ts";
import { DRIVER_VARIABLE, initDriver, openDriver } from "../../../src/device/cuda/driver.ts";
import { cudaError, endsProcess, errorName, isSticky } from "../../../src/device/cuda/errors.ts";
import { CUFILE_SYMBOLS, PROPERTIES_SYMBOLS } from "../../../src/device/cuda/gds-symbols.ts";
import { GRAPH_SYMBOLS } from "../../../src/device/cuda/graph-symbols.ts";
import {
  capabilitiesOf,
  factsOf,
  listCudaDevices,
  mappingRegistration,
  readCudaInfo,
  readKernelVersion,
} from "../../../src/device/cuda/info.ts";
import { ARCHITECTURE_SYMBOLS, CUBIN_SYMBOLS, NVRTC_SYMBOLS } from "../../../src/device/cuda/nvrtc.ts";
import { type CudaOptions, resolveOptions } from "../../../src/device/cuda/options.ts";
import { checkedFunctions, DRIVER_SYMBOLS, type Signature } from "../../../src/device/cuda/symbols.ts";
import { buildCudaMock, openCudaMock } from "../../cuda-mock/mock.ts";
import { failureOf } from "../failure.ts";

const folder = mkdtempSync(join(tmpdir(), "headrace-cuda-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const built = buildCudaMock();
const path = "path" in built ? built.path : "";
if ("missing" in built) console.log(`skipped: ${built.missing}`);

/** The declaration above each entry of the tables in a file. */
function declarations(file: string): Map<string, { returns: string; args: string[] }> {
  const text = readFileSync(join(import.meta.dir, "../../../src/device/cuda", file), "utf8");
  const found = new Map<string, { returns: string; args: string[] }>();
  for (const [, returns, name, args, entry] of text.matchAll(
    /^ *\/\/ ((?:const )?\w+ \*?)\s*(\w+)\((.*)\);\n *(\w+):/gm,
  )) {
    if (entry === "args") continue;
    expect(entry).toBe(name!);
    found.set(name!, { returns: returns!.trim(), args: args === "void" ? [] : args!.split(",") });
  }
  return found;
}

const OPAQUE =
  /^(?:CUcontext|CUstream|CUevent|CUmodule|CUfunction|CUgraph|CUgraphExec|cublasHandle_t|cudaStream_t|nvrtcProgram|CUfileHandle_t)$/;

/** What an argument of C may be in a table. */
function kindsOf(argument: string): string[] {
  const type = argument
    .trim()
    .replace(/\s*\w+$/, "")
    .trim();
  if (type.endsWith("**") || /\* const \*$/.test(type)) return ["nullable", "bytes"];
  if (type.endsWith("*")) return ["bytes", "pointer"];
  if (OPAQUE.test(type)) return ["pointer", "nullable"];
  if (type === "CUdeviceptr") return ["device"];
  if (type === "size_t" || type === "off_t") return ["size"];
  if (type === "unsigned long long") return ["size"];
  // A char is passed as an int is.
  return type.startsWith("unsigned") ? ["u32"] : ["i32"];
}

describe("the tables of functions", () => {
  const tables: [file: string, table: Readonly<Record<string, Signature>>][] = [
    ["symbols.ts", DRIVER_SYMBOLS],
    ["nvrtc.ts", { ...NVRTC_SYMBOLS, ...ARCHITECTURE_SYMBOLS, ...CUBIN_SYMBOLS }],
    ["graph-symbols.ts", GRAPH_SYMBOLS],
    ["cublas.ts", CUBLAS_SYMBOLS],
    ["gds-symbols.ts", { ...CUFILE_SYMBOLS, ...PROPERTIES_SYMBOLS }],
  ];
  test.each(tables)("%s fits its declarations", (file, table) => {
    const declared = declarations(file);
    expect([...declared.keys()].sort()).toEqual(Object.keys(table).sort());
    const RETURNS = {
      status: /Result|CUresult|cublasStatus_t/,
      address: /\*/,
      count: /ssize_t/,
      pair: /CUfileError_t/,
    };
    for (const [name, { args, returns = "status" }] of Object.entries(table)) {
      const c = declared.get(name)!;
      expect([name, c.args.length]).toEqual([name, args.length]);
      for (const [i, kind] of args.entries()) expect(kindsOf(c.args[i]!)).toContain(kind);
      if (returns === "nothing") expect(c.returns).toBe("void");
      else expect(c.returns).toMatch(RETURNS[returns]);
    }
  });

  test("a call that C would misunderstand is refused", () => {
    const calls: unknown[][] = [];
    const table = { f: { args: ["bytes", "size", "pointer", "nullable", "u32", "i32", "device"] } } as const;
    const { f } = checkedFunctions(table, { f: (...args: unknown[]) => calls.push(args) });
    const bytes = new Uint8Array(8);
    const good = [bytes, 0, 1, 0, 2 ** 32 - 1, -1, 2 ** 47] as const;
    f(...good);
    expect(calls).toEqual([[...good]]);
    for (const [index, values] of Object.entries({
      0: [new Uint8Array(0), null, 5],
      1: [-1, 0.5, undefined],
      2: [0, Number.NaN, "1"],
      3: [-1, null],
      4: [-1, 2 ** 32],
      5: [2 ** 31, 0.1],
      6: [0, 2 ** 53],
    })) {
      for (const value of values) {
        const args = good.with(Number(index) as 0, value as never) as unknown as typeof good;
        expect(failureOf(() => f(...args)).code).toBe("BAD_OPTION");
      }
    }
    expect(failureOf(() => (f as unknown as () => void)()).message).toBe(
      "f cannot be called with 0 of 7 arguments",
    );
    expect(calls).toHaveLength(1);
  });
});

describe("the driver's library", () => {
  test("one that is named has to be it", () => {
    const text = join(folder, "text.so");
    writeFileSync(text, "no library");
    const error = failureOf(() => openDriver(text));
    expect(error.code).toBe("DEVICE_UNAVAILABLE");
    expect(error.message).toMatch(/^device cuda: .*text\.so.*; correct or leave out the option library$/);
    expect(failureOf(() => openDriver(join(folder, "none.so"))).message).toContain("none.so");
    // A library, and another one.
    if (process.platform === "linux") {
      expect(failureOf(() => openDriver("libc.so.6")).message).toMatch(/cu\w+.*option library$/);
    }
  });

  test("the environment names one too", () => {
    const before = process.env[DRIVER_VARIABLE];
    process.env[DRIVER_VARIABLE] = join(folder, "none.so");
    try {
      expect(failureOf(() => openDriver()).message).toMatch(
        /none\.so.*; correct or unset HEADRACE_CUDA_LIBRARY$/,
      );
    } finally {
      if (before === undefined) delete process.env[DRIVER_VARIABLE];
      else process.env[DRIVER_VARIABLE] = before;
    }
  });
});

describe("failures", () => {
  test.each([
    [2, "OUT_OF_MEMORY", false],
    [1, "DEVICE_FAILED", false],
    [100, "DEVICE_UNAVAILABLE", false],
    [218, "BAD_KERNEL", false],
    [222, "BAD_KERNEL", false],
    [801, "UNSUPPORTED", false],
    [999, "DEVICE_FAILED", false],
    [4711, "DEVICE_FAILED", false],
    [214, "DEVICE_LOST", true],
    [709, "DEVICE_LOST", true],
    [710, "DEVICE_LOST", true],
    [700, "DEVICE_LOST", true],
    [702, "DEVICE_LOST", true],
    [719, "DEVICE_LOST", true],
    [721, "DEVICE_LOST", true],
    [810, "DEVICE_LOST", true],
  ] as const)("%d is %s", (result, code, sticky) => {
    const error = cudaError(undefined, "cuCall of 4096 bytes", result);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(new RegExp(`^cuCall of 4096 bytes: CUDA.* \\(${result}\\)`));
    expect(isSticky(result)).toBe(sticky);
    if (sticky) expect(error.message).toContain(endsProcess(result) ? "in a new process" : "open it again");
  });

  test("what NVIDIA says ends the process, and what the context alone", () => {
    const all = Array.from({ length: 1000 }, (_, result) => result);
    expect(all.filter(endsProcess)).toEqual([226, 700, 702, 714, 715, 716, 717, 718, 719, 721, 810, 911]);
    expect(all.filter((result) => isSticky(result) && !endsProcess(result))).toEqual([214, 220, 709, 710]);
    expect(isSticky(0)).toBe(false);
  });

  test.skipIf(path === "")("the driver's own words come first", () => {
    const driver = openDriver(path);
    for (const result of [1, 2, 100, 201, 218, 400, 600, 700, 712, 713, 719, 801, 999]) {
      expect(errorName(driver, result)).toBe(errorName(undefined, result));
    }
    expect(errorName(driver, 4711)).toBe("CUDA error");
    const said = cudaError(driver, "cuStreamSynchronize", 700).message;
    expect(said).toMatch(/^cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS \(700\): .+; close the device/);
  });
});

describe("options", () => {
  test("have defaults within their bounds", () => {
    const settings = resolveOptions();
    expect(settings).toMatchObject({
      ordinal: 0,
      pieceBytes: 2 ** 22,
      sliceBuffers: 2,
      windowBytes: 2 ** 26,
    });
    expect(settings).toMatchObject({
      direct: false,
      gds: false,
      inlineCopyBytes: 2 ** 20,
      ringEntries: 4096,
      graphs: true,
    });
    expect(settings.lanes).toBeGreaterThanOrEqual(4);
    expect(settings.lanes).toBeLessThanOrEqual(16);
    expect(settings.mapBudget).toBeGreaterThan(0);
    expect(settings.library).toBeUndefined();
    expect(resolveOptions({ nvrtc: false, gds: "compatibility" })).toMatchObject({
      nvrtc: false,
      gds: "compatibility",
    });
    const { library: _library, nvrtc: _nvrtc, cublas: _cublas, ...rest } = settings;
    expect(resolveOptions(rest)).toEqual(settings);
  });

  const bounds: [name: keyof CudaOptions, least: number, most: number][] = [
    ["ordinal", 0, 255],
    ["lanes", 1, 64],
    ["pieceBytes", 4096, 2 ** 30],
    ["sliceBuffers", 2, 8],
    ["mapBudget", 0, 2 ** 46],
    ["windowBytes", 65_536, 2 ** 30],
    ["inlineCopyBytes", 0, 2 ** 30],
    ["ringEntries", 16, 2 ** 24],
  ];
  test.each(bounds)("%s lies from %d to %d", (name, least, most) => {
    expect(resolveOptions({ [name]: least })[name]).toBe(least);
    expect(resolveOptions({ [name]: most })[name]).toBe(most);
    for (const value of [least - 1, most + 1, least + 0.5, Number.NaN, "8" as unknown as number]) {
      const error = failureOf(() => resolveOptions({ [name]: value }));
      expect(error.code).toBe("BAD_OPTION");
      expect(error.message).toBe(`${name} ${value} is not an integer from ${least} to ${most}`);
    }
  });

  test.each<[message: string, options: unknown]>([
    ["windowBytes 65537 is no multiple of 65536", { windowBytes: 65_537 }],
    ["ringEntries 48 is not a power of two", { ringEntries: 48 }],
    ["direct 1 is neither true nor false", { direct: 1 }],
    ["gds yes is neither true nor false", { gds: "yes" }],
    ['library "" can name no library', { library: "" }],
    ['nvrtc "a\\u0000b" can name no library', { nvrtc: "a\0b" }],
    ["nvrtc true can name no library", { nvrtc: true }],
  ])("%s", (message, options) => {
    expect(failureOf(() => resolveOptions(options as CudaOptions))).toMatchObject({
      code: "BAD_OPTION",
      message,
    });
  });
});

describe.skipIf(path === "")("what a GPU says of itself", () => {
  const mock = path === "" ? undefined! : openCudaMock(path);
  const driver = path === "" ? undefined! : openDriver(path);
  const info = () => {
    initDriver(driver);
    return readCudaInfo(driver, 1);
  };
  afterAll(() => mock.reset());

  test("name, memory, bus and what it can", () => {
    mock.reset();
    mock.configure({ totalBytes: 3 * 2 ** 30, driverVersion: 12_040 });
    expect(info()).toMatchObject({
      ordinal: 1,
      name: "Mock GPU 1",
      computeCapability: 90,
      driverVersion: 12_040,
      totalMemory: 3 * 2 ** 30,
      pciBusId: "0000:02:00.0",
      readOnly: true,
      hostPointer: true,
      copyEngines: 3,
    });
    expect(listCudaDevices(driver).map(({ name }) => name)).toEqual(["Mock GPU 0", "Mock GPU 1"]);
    const capabilities = capabilitiesOf(info(), resolveOptions({ lanes: 7 }), 4096);
    expect(capabilities).toMatchObject({ name: "Mock GPU 1", unifiedMemory: false, canMap: true, lanes: 7 });
    expect(capabilities).toMatchObject({
      workingSet: 3 * 2 ** 30,
      pageSize: 4096,
      canStream: false,
      codecs: [],
    });
    const facts = factsOf(
      info(),
      driver,
      { nvrtc: undefined, reason: "it is gone" },
      { freeMemoryBytes: 5, gds: "no" },
    );
    expect(facts).toMatchObject({
      library: path,
      cuda: "12.4",
      computeCapability: "9.0",
      registration: "read-only",
    });
    expect(facts).toMatchObject({ nvrtc: "none: it is gone", freeMemoryBytes: 5, gds: "no" });
  });

  test("mappings are declined where host memory cannot be registered, or has another address", () => {
    mock.reset();
    expect(mappingRegistration(info())).toEqual({ refused: undefined, flags: 11 });
    mock.configure({ attributes: { 113: 0 } });
    expect(mappingRegistration(info())).toEqual({ refused: undefined, flags: 3 });
    expect(factsOf(info(), driver, { nvrtc: undefined, reason: "" }).registration).not.toBe("read-only");
    mock.configure({ attributes: { 113: 0, 99: 0 } });
    expect(mappingRegistration(info()).refused).toBe("Mock GPU 1 cannot register host memory");
    mock.configure({ attributes: { 113: 1, 99: 1, 91: 0 } });
    expect(mappingRegistration(info()).refused).toContain("at other addresses");
    expect(capabilitiesOf(info(), resolveOptions(), 4096).canMap).toBe(false);
  });

  test("an ordinal that is not there, and calls that fail", () => {
    mock.reset();
    initDriver(driver);
    const error = failureOf(() => readCudaInfo(driver, 2));
    expect(error.code).toBe("BAD_OPTION");
    expect(error.message).toContain("ordinal 2 is not there: the driver shows 2 GPUs, 0 to 1");
    mock.setFaults([{ call: "cuDeviceTotalMem_v2", code: 999 }]);
    expect(failureOf(() => readCudaInfo(driver, 0)).message).toMatch(
      /^device cuda: cuDeviceTotalMem of GPU 0: CUDA_ERROR_UNKNOWN \(999\)/,
    );
    mock.setFaults([{ call: "cuInit", code: 100 }]);
    const none = failureOf(() => initDriver(driver));
    expect(none.code).toBe("DEVICE_UNAVAILABLE");
    expect(none.message).toMatch(/^device cuda: cuInit: CUDA_ERROR_NO_DEVICE \(100\).*use host$/);
    mock.setFaults([{ call: "cuInit", code: 999 }]);
    expect(failureOf(() => initDriver(driver)).code).toBe("DEVICE_UNAVAILABLE");
  });
});

test("the version of the driver's part in the kernel", () => {
  const file = join(folder, "version");
  writeFileSync(
    file,
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version: 12\n",
  );
  expect(readKernelVersion(file)).toBe("580.65.06");
  writeFileSync(file, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104  Sat Aug 19\n");
  expect(readKernelVersion(file)).toBe("535.104");
  expect(readKernelVersion(join(folder, "none"))).toBeUndefined();
});

test("answers of C keep their sign and their 53 bits", () => {
  const cell = new OutCell();
  new DataView(cell.bytes.buffer).setBigInt64(0, -2n, true);
  expect(cell.i32).toBe(-2);
  expect(failureOf(() => cell.u64).code).toBe("DEVICE_FAILED");
  new DataView(cell.clear().buffer).setBigUint64(0, 2n ** 53n - 1n, true);
  expect(cell.u64).toBe(Number.MAX_SAFE_INTEGER);
  expect(cell.clear().every((byte) => byte === 0)).toBe(true);
});
