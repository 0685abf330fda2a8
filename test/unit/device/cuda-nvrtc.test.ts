import { dlopen } from "bun:ffi";
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { compileKernel, constantText, firstError } from "../../../src/device/cuda/compile.ts";
import { findLibraries, type Surroundings } from "../../../src/device/cuda/find.ts";
import { type Nvrtc, openNvrtc, versionText } from "../../../src/device/cuda/nvrtc.ts";
import type { FunctionConstant } from "../../../src/device/device.ts";
import { ADD, BLOCK_SUMS } from "../../conformance/kernels.ts";
import { failureOf } from "../failure.ts";

const folder = realpathSync(mkdtempSync(join(tmpdir(), "headrace-nvrtc-")));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Makes empty files below a fresh folder. */
function tree(name: string, ...files: string[]): string {
  const root = join(folder, name);
  for (const file of files) {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), "");
  }
  return root;
}

function around(root: string, env: Surroundings["env"] = {}, arch = "x64"): Surroundings {
  return { env, local: join(root, "usr/local"), home: join(root, "home"), arch };
}

/** Paths below `root` of what is found. */
function found(root: string, env?: Surroundings["env"], arch?: string): string[] {
  return findLibraries("libnvrtc.so", around(root, env, arch)).map((path) => path.slice(root.length + 1));
}

describe("the search", () => {
  test("takes toolkits by their version, the chosen one first, and no other library", () => {
    const root = tree(
      "toolkits",
      "usr/local/cuda-9.2/lib64/libnvrtc.so.9.2",
      "usr/local/cuda-12.4/lib64/libnvrtc.so.12",
      "usr/local/cuda-12.4/lib64/libnvrtc-builtins.so.12.4",
      "usr/local/cuda-12.4/lib64/libnvrtc.so.12.static",
      "usr/local/cuda-13/targets/x86_64-linux/lib/libnvrtc.so.13",
      "usr/local/cuda-11.8/targets/sbsa-linux/lib/libnvrtc.so.11.2",
      "usr/local/cudnn/lib64/libnvrtc.so.13",
    );
    symlinkSync("cuda-12.4", join(root, "usr/local/cuda"));
    expect(found(root)).toEqual([
      "usr/local/cuda/lib64/libnvrtc.so.12",
      "usr/local/cuda-13/targets/x86_64-linux/lib/libnvrtc.so.13",
      "usr/local/cuda-9.2/lib64/libnvrtc.so.9.2",
    ]);
    expect(found(root, {}, "arm64")).toContain("usr/local/cuda-11.8/targets/sbsa-linux/lib/libnvrtc.so.11.2");
  });

  test("takes what the environment names before anything else", () => {
    const root = tree(
      "named",
      "usr/local/cuda-12.4/lib64/libnvrtc.so.12",
      "opt/one/lib/libnvrtc.so.11.2",
      "opt/two/lib64/libnvrtc.so.13",
    );
    const env = { CUDA_HOME: join(root, "opt/one"), CUDA_PATH: join(root, "opt/two") };
    expect(found(root, env)).toEqual([
      "opt/one/lib/libnvrtc.so.11.2",
      "opt/two/lib64/libnvrtc.so.13",
      "usr/local/cuda-12.4/lib64/libnvrtc.so.12",
    ]);
    expect(found(root, { CUDA_HOME: "" })).toEqual(["usr/local/cuda-12.4/lib64/libnvrtc.so.12"]);
  });

  test("takes the newest of a folder, and a file that several names lead to once", () => {
    const root = tree("links", "opt/lib64/libnvrtc.so.9.2", "opt/lib64/libnvrtc.so.10.1.105");
    for (const link of ["libnvrtc.so.10.1", "libnvrtc.so"]) {
      symlinkSync("libnvrtc.so.10.1.105", join(root, "opt/lib64", link));
    }
    expect(found(root, { CUDA_HOME: join(root, "opt") })).toEqual([
      "opt/lib64/libnvrtc.so.10.1.105",
      "opt/lib64/libnvrtc.so.9.2",
    ]);
  });

  test("takes Python's packages: of the environment, of conda, of python3 on the path, of the user", () => {
    const wheel = "lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12";
    const root = tree(
      "python",
      `venv/${wheel}`,
      `conda/${wheel}`,
      "conda/lib/libnvrtc.so.12.4",
      "system/lib/python3/dist-packages/nvidia/cu13/lib/libnvrtc.so.13",
      "system/bin/python3.12",
      "home/.local/lib/python3.12/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
      `other/${wheel}`,
    );
    mkdirSync(join(root, "bin"));
    symlinkSync("../system/bin/python3.12", join(root, "bin/python3"));
    Bun.spawnSync(["chmod", "+x", join(root, "system/bin/python3.12")]);
    const env = {
      VIRTUAL_ENV: join(root, "venv"),
      CONDA_PREFIX: join(root, "conda"),
      PATH: join(root, "bin"),
    };
    expect(found(root, env)).toEqual([
      `venv/${wheel}`,
      `conda/${wheel}`,
      "conda/lib/libnvrtc.so.12.4",
      "system/lib/python3/dist-packages/nvidia/cu13/lib/libnvrtc.so.13",
      "home/.local/lib/python3.12/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
    ]);
    expect(found(root, {})).toEqual([
      "home/.local/lib/python3.12/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
    ]);
  });
});

/** Why there is no NVRTC; the empty string where there is one. */
function reason(...args: Parameters<typeof openNvrtc>): string {
  const search = openNvrtc(...args);
  return search.nvrtc === undefined ? search.reason : "";
}

describe("what cannot be used", () => {
  const broken = join(folder, "broken.so");
  writeFileSync(broken, "no library");

  test("says which, and how to go on", () => {
    expect(reason({ library: false })).toBe("the option nvrtc is false");
    expect(reason({ library: broken })).toMatch(/broken\.so: .+; correct or leave out the option nvrtc$/);
    const surroundings = around(folder, { HEADRACE_NVRTC_LIBRARY: broken });
    expect(reason({ surroundings })).toMatch(/broken\.so: .+; correct or unset HEADRACE_NVRTC_LIBRARY$/);
    const other = reason({ library: "libc.so.6" });
    expect(other).toContain("nvrtc");
    expect(other).not.toContain("\n");
  });

  test("a machine without one says where it was looked for", () => {
    const text = reason({ surroundings: around(tree("empty", "x")), names: ["libno-such-nvrtc.so.13"] });
    expect(text).toMatch(
      /^no libnvrtc\.so\.\* in the system's search path, CUDA_HOME, .+; install one \(pip/,
    );
  });

  test("a file that is found and does not load is named", () => {
    const root = tree("cut", "usr/local/cuda/lib64/libnvrtc.so.12");
    const text = reason({ surroundings: around(root), names: [] });
    expect(text).toContain(join(root, "usr/local/cuda/lib64/libnvrtc.so.12"));
  });
});

describe("function constants", () => {
  test.each([
    ["bool", true, "true"],
    ["bool", false, "false"],
    ["int", -1, "(-1)"],
    ["int", -(2 ** 31), "(-2147483647-1)"],
    ["uint", 2 ** 32 - 1, "4294967295u"],
    ["float", 0.1, "(1.00000001e-1f)"],
    ["float", -0, "(-0.0f)"],
    ["float", Number.POSITIVE_INFINITY, "__builtin_bit_cast(float,2139095040u)"],
    ["float", 1e300, "__builtin_bit_cast(float,2139095040u)"],
    ["bool", 1, undefined],
    ["int", 2 ** 31, undefined],
    ["int", 0.5, undefined],
    ["uint", -1, undefined],
    ["float", true, undefined],
  ] as const)("%s %p is %p", (type, value, text) => expect(constantText(type, value)).toBe(text));

  test("every finite float comes back from its text", () => {
    fc.assert(
      fc.property(fc.float({ noNaN: true, noDefaultInfinity: true }), (value) => {
        const text = constantText("float", value)!;
        expect(Math.fround(Number.parseFloat(text.replace("(", "")))).toBe(value);
      }),
    );
  });
});

test("the first error of a log, with its line in the text", () => {
  expect(
    firstError('kernel(2): error: identifier "nope" is undefined\n  x\n  ^\n\nkernel(3): error: more'),
  ).toBe('line 2: identifier "nope" is undefined');
  expect(firstError("portable.h(9): warning #1-D: a\nportable.h(12): error #20-D: b: c\n")).toBe(
    "portable.h line 12: b: c",
  );
  expect(firstError("\n  nvrtc: error: invalid value for --gpu-architecture (-arch)\n")).toBe(
    "nvrtc: error: invalid value for --gpu-architecture (-arch)",
  );
  expect(firstError("")).toBe("does not compile, and the compiler does not say why");
});

test("versions", () => {
  expect([11020, 12090, 13000].map(versionText)).toEqual(["11.2", "12.9", "13.0"]);
});

const search = openNvrtc();
const real = search.nvrtc !== undefined && !isMock(search.nvrtc.path);
if (!real)
  console.log(`skipped: no NVRTC here: ${search.nvrtc === undefined ? search.reason : "it is a mock"}`);

function isMock(library: string): boolean {
  try {
    dlopen(library, { mock_reset: { args: [], returns: "void" } });
    return true;
  } catch {
    return false;
  }
}

const decoder = new TextDecoder();
const TARGET = { computeCapability: 90, driverVersion: 99_000 };

describe.skipIf(!real)("the compiler", () => {
  const nvrtc = search.nvrtc as Nvrtc;
  const ptx = (source: Parameters<typeof compileKernel>[1], target = TARGET) =>
    decoder.decode(compileKernel(nvrtc, source, target));
  const kernel = (body: string, ...functionConstants: FunctionConstant[]) => ({
    name: "k",
    text: `${functionConstants
      .map(({ index, type }) => {
        const cType = { bool: "bool", int: "int32_t", uint: "uint32_t", float: "float" }[type];
        return `HR_FUNCTION_CONSTANT(${index}, ${cType}, c${index});`;
      })
      .join(" ")}\nHR_KERNEL(k, HR_IN(0, float, from), HR_OUT(1, float, to)) {\n${body}\n}\n`,
    functionConstants,
  });
  test("gives PTX for the GPU, with the entry's plain name, its arguments in order, and a final zero", () => {
    const text = ptx(ADD as { name: string; text: string });
    expect(text.endsWith("\0")).toBe(true);
    expect(text).toMatch(/^\.target sm_90\b/m);
    const [, parameters] = /\.visible \.entry add\(([^)]*)\)/.exec(text) ?? [];
    expect(parameters?.match(/\.param \S+(?: \S+ \.b8)?/g)?.map((one) => one.split(" ")[1])).toEqual([
      ".u64",
      ".align",
      ".u32",
    ]);
    expect(text).toMatch(/\.maxntid 256\b/);
    expect(ptx(BLOCK_SUMS as { name: string; text: string })).toMatch(/bar\.sync/);
  });

  test("neither contracts nor approximates", () => {
    const text = ptx(kernel("to[0] = from[0] * from[1] + from[2]; to[1] = from[0] / from[1];"));
    expect(text).toMatch(/mul(?:\.rn)?\.f32/);
    expect(text).toMatch(/add(?:\.rn)?\.f32/);
    expect(text).toMatch(/div\.rn\.f32/);
    expect(text).not.toMatch(/fma|\.ftz|\.approx/);
  });

  test("function constants keep their bits", () => {
    const bits = (value: number) => new Uint32Array(Float32Array.of(value).buffer)[0]!;
    const values = [
      0.1,
      -0,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      1.401298464324817e-45,
      -3.4028234663852886e38,
    ];
    for (const value of values) {
      const text = ptx(kernel("to[0] = c3;", { index: 3, type: "float", value }));
      const stored = /mov\.(?:b|u|f)32 \s*%[rf]\d+, (?:0f([0-9A-F]{8})|(-?\d+));/.exec(text);
      const got = stored?.[1] === undefined ? Number(stored?.[2]) >>> 0 : Number.parseInt(stored[1], 16);
      expect(got).toBe(bits(value));
    }
    const least = { index: 0, type: "int", value: -(2 ** 31) } as const;
    expect(ptx(kernel("to[0] = float(c0);", least))).toMatch(/0fCF000000|-822083584/);
    const off = { index: 1, type: "bool", value: false } as const;
    expect(ptx(kernel("if (c1) to[7] = 1.0f;", off))).not.toContain("st.global");
    const wrong = { index: 0, type: "uint", value: -1 } as const;
    expect(failureOf(() => ptx(kernel("", wrong)))).toMatchObject({
      code: "BAD_OPTION",
      message: "kernel k: function constant 0: -1 is no uint",
    });
  });

  test("says what is wrong in one line, counted in the text, and keeps the rest", () => {
    const error = failureOf(() => ptx({ name: "k", text: "\nHR_FN int f() {\n  return nope;\n}\n}\n" }));
    expect(error.code).toBe("BAD_KERNEL");
    expect(error.message).toMatch(/^kernel k: line 3: identifier "nope" is undefined \(NVRTC \d+\.\d+\)$/);
    expect((error.cause as Error).message).toContain("kernel(3): error");
    expect(failureOf(() => ptx({ name: "k", text: "a\0b" })).code).toBe("BAD_KERNEL");
  });

  test("gives machine code where the driver is older, and what the compiler has for a GPU that it does not know", () => {
    const older = { ...TARGET, driverVersion: nvrtc.version - 10 };
    expect(compileKernel(nvrtc, ADD as never, older).subarray(0, 4)).toEqual(
      Uint8Array.of(0x7f, 0x45, 0x4c, 0x46),
    );
    const newest = nvrtc.architectures.at(-1)!;
    expect(ptx(ADD as never, { ...TARGET, computeCapability: 999 })).toContain(`.target sm_${newest}`);
    const untold = { ...nvrtc, architectures: [] };
    expect(decoder.decode(compileKernel(untold, ADD as never, TARGET))).toContain(".target sm_90");
    const old = failureOf(() => ptx(ADD as never, { ...TARGET, computeCapability: 20 }));
    expect(old.code).toBe("UNSUPPORTED");
    expect(old.message).toContain("and this GPU has 2.0; set HEADRACE_NVRTC_LIBRARY");
  });

  test("is taken where it is no newer than the driver, or of the same major version", () => {
    const surroundings = around(tree("driver", "x"), { CUDA_HOME: dirname(dirname(nvrtc.path)) });
    if (!nvrtc.path.includes("/")) return console.log("skipped: the loader alone knows where NVRTC is");
    const open = (driverVersion: number) => openNvrtc({ surroundings, names: [], driverVersion });
    expect(open(nvrtc.version).nvrtc?.path).toBe(nvrtc.path);
    expect(open(nvrtc.version - 10).nvrtc?.path).toBe(nvrtc.path);
    const text = reason({ surroundings, names: [], driverVersion: 10_020 });
    expect(text).toContain("and the driver takes CUDA 10.2 at most");
  });
});
