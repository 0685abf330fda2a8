import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { cudaRemedies, cudaRows } from "../../src/cli/doctor-cuda.ts";
import { remediesFor } from "../../src/cli/remedies.ts";
import type { CudaFindings } from "../../src/index.ts";
import { HeadraceError, openDevice, openLoader } from "../../src/index.ts";
import { buildCudaMock } from "../cuda-mock/mock.ts";
import { DATASETS, MAIN, ROOT, spawn } from "./process.ts";

const built = buildCudaMock();
const path = "path" in built ? built.path : "";

/** `doctor` with CUDA's libraries named: an empty name is one that is not set. */
async function doctor(libraries: { driver?: string; nvrtc?: string; gds?: string }, ...args: string[]) {
  const { driver = "", nvrtc = "", gds = "" } = libraries;
  const child = Bun.spawn([process.execPath, "src/cli/main.ts", "doctor", "--no-rates", ...args], {
    cwd: ROOT,
    env: {
      ...process.env,
      HEADRACE_CUDA_LIBRARY: driver,
      HEADRACE_NVRTC_LIBRARY: nvrtc,
      HEADRACE_CUFILE_LIBRARY: gds,
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { code: await child.exited, out, err };
}

describe.skipIf(path === "")("doctor over the mock", () => {
  const all = { driver: path, nvrtc: path, gds: path };

  test("names driver, GPUs, NVRTC and cuFile, for people and as JSON", async () => {
    const { code, out } = await doctor(all, "--device", "cuda");
    expect(code).toBe(0);
    expect(out).toMatch(/^CUDA\n {2}driver +(?:[\d.]+, )?CUDA 13\.0, .+libcuda-mock\.so$/m);
    expect(out).toMatch(/^ {2}GPU 1 +Mock GPU 1, 1\.07 GB, compute capability 9\.0, 0000:02:00\.0$/m);
    expect(out).toMatch(/^ {2}NVRTC +\d+\.\d+, .+libcuda-mock\.so$/m);
    expect(out).toMatch(/^ {2}GPUDirect Storage +nvidia-fs is (?:not )?loaded, .+libcuda-mock\.so$/m);
    expect(out).toMatch(/^device cuda\n {2}works +yes$/m);
    const report = JSON.parse((await doctor(all, "--json")).out);
    expect(report.cuda).toMatchObject({
      driver: { found: true, path, cuda: "13.0" },
      gpus: { found: true, list: [{ ordinal: 0, name: "Mock GPU 0" }, { ordinal: 1 }] },
      nvrtc: { found: true, path },
      gds: { found: true, path },
    });
    expect(report.devices[2]).toMatchObject({
      name: "cuda",
      works: true,
      facts: { computeCapability: "9.0" },
    });
  });

  test("--ordinal names the GPU, and has to be one that is there", async () => {
    const chosen = await doctor(all, "--device", "cuda", "--ordinal", "1", "--json");
    expect(chosen.code).toBe(0);
    expect(JSON.parse(chosen.out).devices[2]).toMatchObject({
      works: true,
      capabilities: { name: "Mock GPU 1" },
      facts: { ordinal: 1 },
    });
    const bad = await doctor(all, "--device", "cuda", "--ordinal", "2");
    expect(bad).toMatchObject({ code: 2, out: "", err: expect.stringContaining("0 to 1") });
    const alone = await doctor(all, "--ordinal", "1");
    expect(alone).toMatchObject({ code: 2, err: expect.stringContaining("--device cuda [BAD_OPTION]") });
    const beyond = await doctor(all, "--device", "cuda", "--ordinal", "256");
    expect(beyond).toMatchObject({ code: 2, err: expect.stringContaining("from 0 to 255; see") });
  });

  test("load takes --ordinal and openLoader device options", async () => {
    const run = (...args: string[]) =>
      spawn([process.execPath, MAIN, "load", ...args], ROOT, { HEADRACE_CUDA_LIBRARY: path }).ended;
    const { code, out } = await run("--limit", "64", "--json", "--device", "cuda", "--ordinal", "1");
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ device: "Mock GPU 1", samples: 64 });
    const alone = await run("--ordinal", "1");
    expect(alone).toMatchObject({ code: 2, err: expect.stringContaining("nothing without --device cuda") });
    const there = await run("--device", "cuda", "--ordinal", "2");
    expect(there).toMatchObject({ code: 2, err: expect.stringContaining("ordinal 2 is not there") });
    const source = join(DATASETS, "prose");
    const deviceOptions = { library: path, ordinal: 1 };
    await using loader = await openLoader(source, { device: "cuda", deviceOptions });
    expect(loader.device.facts.ordinal).toBe(1);
    await using host = openDevice("host");
    const both = openLoader(source, { device: host, deviceOptions });
    await expect(both).rejects.toMatchObject({
      code: "BAD_OPTION",
      message: expect.stringContaining("host"),
    });
    expect(host.openResources).toBe(0);
  });

  test("says what is missing, and what has to be typed", async () => {
    const none = "/no/such/library.so";
    const { code, out } = await doctor({ ...all, nvrtc: none, gds: none }, "--json");
    expect(code).toBe(0);
    const { missing, cuda } = JSON.parse(out);
    expect(cuda).toMatchObject({ nvrtc: { found: false }, gds: { found: false } });
    expect(missing).toEqual([
      {
        problem: expect.stringMatching(/^kernels cannot be compiled for CUDA: .*\/no\/such\/library\.so/),
        command: "unset HEADRACE_NVRTC_LIBRARY",
      },
    ]);
    const text = (await doctor({ ...all, nvrtc: none })).out;
    const { reason } = cuda.nvrtc;
    expect(text.split(reason).length - 1).toBe(1);
    expect(text).toContain("see 'device cuda' above");
  });

  test("a driver that is named and not there is said once, with its name to be unset", async () => {
    const { code, out } = await doctor({ driver: "/no/such/library.so" }, "--device", "cuda", "--json");
    expect(code).toBe(1);
    const { missing, cuda } = JSON.parse(out);
    expect(cuda.gpus).toEqual({ found: false, reason: "there is no driver" });
    expect(missing).toEqual([
      {
        problem: expect.stringMatching(/^device cuda was asked for, .*library\.so.*\[DEVICE_UNAVAILABLE\]$/),
        command: "unset HEADRACE_CUDA_LIBRARY",
      },
    ]);
    const text = (await doctor({ driver: "/no/such/library.so" }, "--device", "cuda")).out;
    expect(text.match(/no\/such/g)?.length).toBe(1);
    expect(text).toContain(
      "device cuda was asked for, and does not work: see 'device cuda' above [DEVICE_UNAVAILABLE]\n    mend it by: unset",
    );
    expect((await doctor({ driver: "/no/such/library.so" })).out).toContain("nothing is missing");
  });
});

const ABSENT = { found: false, reason: "it is gone" } as const;
const NO_NVRTC = { ...ABSENT, install: "pip install it" };
const ALL: CudaFindings = {
  driver: { found: true, path: "libcuda.so.1", cuda: "13.0", version: "580.65" },
  gpus: { found: true, list: [] },
  nvrtc: { found: true, path: "libnvrtc.so.13", version: "13.0" },
  gds: { found: true, path: "libcufile.so.0", nvidiaFs: true },
};

describe("what is missing of CUDA", () => {
  const lines = (findings: Partial<CudaFindings>, env = {}) =>
    cudaRemedies({ ...ALL, ...findings }, env).map(({ problem, command }) => `${problem} => ${command}`);

  test("each part with its command, the gravest alone", () => {
    expect(lines({})).toEqual([]);
    expect(lines({ driver: ABSENT, gpus: ABSENT, nvrtc: NO_NVRTC })).toEqual(["it is gone => undefined"]);
    expect(lines({ gpus: ABSENT, nvrtc: NO_NVRTC })).toEqual(["it is gone => nvidia-smi"]);
    expect(lines({ nvrtc: NO_NVRTC, gds: ABSENT })).toEqual([
      "kernels cannot be compiled for CUDA: it is gone => pip install it",
    ]);
    expect(lines({ gds: { found: true, path: "x", nvidiaFs: false } })).toEqual([]);
    expect(lines({ gpus: ABSENT }, { HEADRACE_CUDA_LIBRARY: "x" })).toEqual([
      "it is gone => unset HEADRACE_CUDA_LIBRARY",
    ]);
  });

  test("is of no interest on a machine without NVIDIA's driver, unless it is asked for", () => {
    const machine = {
      system: "Debian GNU/Linux 12",
      kernel: "6",
      arch: "x64",
      chip: undefined,
      cores: 2,
      performanceCores: undefined,
      memoryBytes: 1e9,
      bun: "1.4.5",
      openFiles: undefined,
      translated: false,
      nvidia: false,
    };
    const cuda = { ...ALL, driver: ABSENT, gpus: ABSENT };
    const known = { machine, metal: undefined, cuda, libraryNamed: false, swift: false, leastBun: "1.4.5" };
    expect(remediesFor(known)).toEqual([]);
    // Nor where a library lies around and nothing answers it.
    expect(remediesFor({ ...known, cuda: { ...ALL, gpus: ABSENT } })).toEqual([]);
    expect(remediesFor({ ...known, machine: { ...machine, nvidia: true } })).toEqual([
      { problem: "it is gone" },
    ]);
    const failure = new HeadraceError("DEVICE_UNAVAILABLE", "device cuda: it is gone");
    expect(remediesFor({ ...known, asked: { name: "cuda", failure } })).toEqual([
      {
        problem: "device cuda was asked for, and does not work: device cuda: it is gone [DEVICE_UNAVAILABLE]",
      },
    ]);
    // A failure of another kind is told beside the parts that lack.
    const lost = new HeadraceError("DEVICE_LOST", "the context is gone");
    const some = { ...known, cuda: { ...ALL, nvrtc: NO_NVRTC }, asked: { name: "cuda", failure: lost } };
    expect(remediesFor(some).map(({ problem }) => problem)).toEqual([
      "kernels cannot be compiled for CUDA: it is gone",
      "device cuda was asked for, and does not work: the context is gone [DEVICE_LOST]",
    ]);
  });

  test("rows name the parts that are there, and why others are not", () => {
    expect(cudaRows(ALL)).toEqual([
      ["driver", "580.65, CUDA 13.0, libcuda.so.1"],
      ["NVRTC", "13.0, libnvrtc.so.13"],
      ["GPUDirect Storage", "nvidia-fs is loaded, libcufile.so.0"],
    ]);
    expect(cudaRows({ driver: ABSENT, gpus: ABSENT, nvrtc: NO_NVRTC, gds: ABSENT })).toEqual(
      ["driver", "GPUs", "NVRTC", "GPUDirect Storage"].map((name) => [name, "not here: it is gone"]),
    );
  });
});
