/**
 * A mock of the CUDA driver, NVRTC, cuFile and cuBLAS in one shared library, compiled when a test first asks for it, by the
 * machine's C++ compiler ($CXX, else c++, g++ or clang++) into a cache in the folder for temporary files. The device
 * runs over it as over the real libraries: give its path for all of them. What it does beyond CUDA's own functions is
 * bound here. One process has one mock, shared by all its threads.
 */
import { dlopen } from "bun:ffi";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Where the library is, or why there is none. */
export type BuiltMock = { readonly path: string } | { readonly missing: string };

/** All can be left out; what is left out stays as it is. Sizes are in bytes. */
export interface MockConfig {
  /** 2 at first. */
  readonly devices?: number;
  /** Memory of each device; 1 GiB at first. Can change while no device memory is allocated. */
  readonly totalBytes?: number;
  /** As cuDriverGetVersion gives it; 13000 at first. */
  readonly driverVersion?: number;
  readonly nvrtcMajor?: number;
  readonly nvrtcMinor?: number;
  /** 13 at first. */
  readonly cublasMajor?: number;
  /** Decides delays, and the order of a kernel's blocks. */
  readonly seed?: number;
  /** Operations of streams wait for up to so long, some streams much longer than others; 0, at first, is not at all. */
  readonly maxDelayUs?: number;
  /** Copies move so much at a time, with a delay between; 1 MiB at first. */
  readonly pieceBytes?: number;
  /** Whether a context can be made after one was lost; false at first, as on real machines. */
  readonly contextAfterLoss?: boolean;
  /** cuMemFree waits for the device; false at first: memory that is freed too early then loses the context. */
  readonly freeWaits?: boolean;
  /** Whether kernels and products of cuBLAS do nothing, for measurements of those who launch them; false at first. */
  readonly idle?: boolean;
  /** Whether cuFileDriverOpen works; true at first. */
  readonly gds?: boolean;
  /** Whether cuFile tells of its kernel module; true at first. */
  readonly nvidiaFs?: boolean;
  /** Of all devices, by CUdevice_attribute's numbers; those of an H100 at first. */
  readonly attributes?: Readonly<Record<number, number>>;
}

/** The nth call of a function, counted from 1 over all threads from when the faults are set, and those after it. */
export interface MockFault {
  /** `cuMemAlloc_v2`, `nvrtcCompileProgram`, … */
  readonly call: string;
  readonly nth?: number;
  /** How many calls fail; 1 unless given. */
  readonly times?: number;
  /** What the call returns: a CUresult, nvrtcResult, cublasStatus_t or CUfileOpError; of cuFileRead and cuFileWrite, below 200, an
   * errno. With 0 the call is only delayed. */
  readonly code?: number;
  /** The call succeeds, and what it puts into a stream fails when it runs, which loses the context. */
  readonly later?: boolean;
  readonly delayMs?: number;
}

const LIVE = [
  "contexts",
  "streams",
  "events",
  "modules",
  "allocations",
  "deviceBytes",
  "registrations",
  "registeredBytes",
  "programs",
  "fileHandles",
  "fileBuffers",
  /** cuFileDriverOpen's without a cuFileDriverClose. */
  "fileDriver",
  "graphs",
  /** Executable ones. */
  "graphExecs",
  /** Of cuBLAS. */
  "blasHandles",
  /** Streams, events, modules, graphs, allocations and registrations that were left when their context was destroyed. */
  "abandoned",
] as const;

/** Numbers of what is there now. */
export type MockLive = Readonly<Record<(typeof LIVE)[number], number>>;

export interface CudaMock {
  /** As right after loading. No other thread may use the library meanwhile. */
  reset(): void;
  configure(config: MockConfig): void;
  /** Replaces all faults. */
  setFaults(faults: readonly MockFault[]): void;
  live(): MockLive;
  /** Calls of a function since the last reset. */
  calls(name: string): number;
  /** Why calls and kernels failed since the last reset, in words. */
  reports(): string[];
}

/** Compiles the mock unless it is there already. Takes seconds the first time, and nothing after. */
export function buildCudaMock(): BuiltMock {
  if (process.platform !== "linux")
    return { missing: `the mock needs Linux, and this is ${process.platform}` };
  const folder = import.meta.dir;
  const sources = readdirSync(folder)
    .filter((name) => /\.(cpp|h)$/.test(name) && name !== "selftest.cpp")
    .sort();
  const compiler = findCompiler();
  if (compiler === undefined) {
    return { missing: "no C++ compiler: set CXX, or install c++, g++ or clang++" };
  }
  const hash = createHash("sha256").update(`${compiler}\0${process.arch}\0`);
  for (const name of sources)
    hash
      .update(name)
      .update("\0")
      .update(readFileSync(join(folder, name)));
  const all = join(tmpdir(), `headrace-cuda-mock-${process.getuid?.() ?? 0}`);
  const cache = join(all, hash.digest("hex").slice(0, 24));
  mkdirSync(cache, { recursive: true, mode: 0o700 });
  if (statSync(all).uid !== process.getuid?.()) return { missing: `${all} belongs to another user` };
  const path = join(cache, "libcuda-mock.so");
  if (existsSync(path)) return { path };
  return compile(compiler, folder, sources, path);
}

function findCompiler(): string | undefined {
  const named = process.env.CXX;
  const candidates = named !== undefined && named !== "" ? [named] : ["c++", "g++", "clang++"];
  return candidates.map((name) => Bun.which(name)).find((path) => path !== null) ?? undefined;
}

/** As one text, which takes a fraction of the time; renamed when it is whole, so that processes may race. */
function compile(compiler: string, folder: string, sources: readonly string[], path: string): BuiltMock {
  const made = `${path}.${process.pid}`;
  const text = sources
    .filter((name) => name.endsWith(".cpp"))
    .map((name) => `#include ${JSON.stringify(join(folder, name))}\n`)
    .join("");
  const command = [compiler, "-x", "c++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-fPIC", "-shared"];
  command.push("-fvisibility=hidden", "-pthread", `-DMOCK_COMPILER=${JSON.stringify(compiler)}`);
  const ran = Bun.spawnSync([...command, "-o", made, "-", "-ldl"], {
    stdin: Buffer.from(text),
    stderr: "pipe",
  });
  if (ran.exitCode !== 0) {
    rmSync(made, { force: true });
    return { missing: `${compiler} does not compile the mock: ${ran.stderr.toString().slice(0, 2000)}` };
  }
  renameSync(made, path);
  return { path };
}

const SYMBOLS = {
  // void mock_reset();
  mock_reset: { args: [], returns: "void" },
  // int mock_configure(const char *text);
  mock_configure: { args: ["ptr"], returns: "i32" },
  // int mock_set_faults(const char *text);
  mock_set_faults: { args: ["ptr"], returns: "i32" },
  // void mock_live(uint64_t counts[]);
  mock_live: { args: ["ptr"], returns: "void" },
  // int64_t mock_calls(const char *name);
  mock_calls: { args: ["ptr"], returns: "i64" },
  // uint64_t mock_reports(char *text, uint64_t capacity);
  mock_reports: { args: ["ptr", "u64"], returns: "u64" },
} as const;

/** Binds what tests say to the mock. */
export function openCudaMock(path: string): CudaMock {
  const { symbols } = dlopen(path, SYMBOLS);
  return {
    reset: () => symbols.mock_reset(),
    configure: (config) => {
      const code = symbols.mock_configure(cstring(configText(config)));
      if (code === -2)
        throw new Error("the mock's totalBytes cannot change while device memory is allocated");
      if (code !== 0) throw new Error(`the mock does not know all of ${JSON.stringify(config)}`);
    },
    setFaults: (faults) => {
      const lines = faults.map(({ call, nth = 1, times = 1, code = 0, later = false, delayMs = 0 }) =>
        [call, nth, times, code, later ? 1 : 0, Math.round(delayMs * 1000)].join(" "),
      );
      if (symbols.mock_set_faults(cstring(lines.join("\n"))) !== 0) {
        throw new Error(`the mock does not know all of ${JSON.stringify(faults)}`);
      }
    },
    live: () => {
      const counts = new BigUint64Array(LIVE.length);
      symbols.mock_live(counts);
      return Object.fromEntries(LIVE.map((name, index) => [name, Number(counts[index])])) as MockLive;
    },
    calls: (name) => {
      const count = Number(symbols.mock_calls(cstring(name)));
      if (count < 0) throw new Error(`the mock has no ${name}`);
      return count;
    },
    reports: () => {
      const text = new Uint8Array(65536);
      const length = Number(symbols.mock_reports(text, text.length));
      const all = new TextDecoder().decode(text.subarray(0, Math.min(length, text.length)));
      return all.split("\n").filter((line) => line !== "");
    },
  };
}

function cstring(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}

function configText({ attributes = {}, ...numbers }: MockConfig): string {
  const lines = Object.entries(numbers).map(([name, value]) => `${name} ${Number(value)}`);
  for (const [number, value] of Object.entries(attributes)) lines.push(`attribute.${number} ${value}`);
  return lines.join("\n");
}
