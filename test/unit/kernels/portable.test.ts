/** The portable kernel header as C++ and, with CUDA's words played by macros, as CUDA; the Metal form is proven by the
 * Swift tests, which run it. */

import { dlopen, ptr } from "bun:ffi";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GROUP_SIZE, portableHeader } from "../../../src/kernels/portable.ts";
import { ADD, BLOCK_SUMS } from "../../conformance/kernels.ts";

const compiler = Bun.which("g++") ?? Bun.which("clang++");
if (compiler === null) console.warn("portable kernels: left out, there is neither g++ nor clang++");

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "headrace-kernels-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function compile(name: string, text: string, flags: readonly string[]): { ok: boolean; said: string } {
  const path = join(folder, `${name}.cpp`);
  writeFileSync(path, text);
  const command = [compiler!, "-std=c++14", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"];
  const { exitCode, stderr } = Bun.spawnSync([...command, "-Wno-unused-parameter", ...flags, path]);
  return { ok: exitCode === 0, said: stderr.toString() };
}

/** Threadgroups of one system thread each that take turns: CUDA's words, as far as the header uses them. */
const CUDA = `
#define __CUDACC__ 1
#define __device__
#define __global__
#define __shared__ static
#define __launch_bounds__(n)
#include <math.h>
#include <stdint.h>
#include <string.h>
struct Place { uint32_t x; };
static Place threadIdx, blockIdx, blockDim;
static inline uint32_t __float_as_uint(float v) { uint32_t b; memcpy(&b, &v, 4); return b; }
static inline float __uint_as_float(uint32_t b) { float v; memcpy(&v, &b, 4); return v; }
template <typename T> static inline T __shfl_down_sync(uint32_t, T v, uint32_t) { return v; }
template <typename T> static inline T __shfl_sync(uint32_t, T v, int) { return v; }
static inline void __syncthreads() {}
`;

describe.skipIf(compiler === null)("the portable header", () => {
  test("has the group size that the text has", () => {
    expect(portableHeader).toContain(`#define HR_GROUP_SIZE ${GROUP_SIZE}\n`);
    expect(portableHeader.endsWith('#line 1 "kernel"\n')).toBe(true);
  });

  const texts = { add: ADD.text!, block_sums: BLOCK_SUMS.text! };
  for (const [name, text] of Object.entries(texts)) {
    test(`makes ${name} C++ and CUDA without a warning`, () => {
      expect(compile(name, portableHeader + text, ["-fsyntax-only"])).toEqual({ ok: true, said: "" });
      expect(compile(name, CUDA + portableHeader + text, ["-fsyntax-only"])).toEqual({ ok: true, said: "" });
    });
  }

  test("counts lines of the text in errors", () => {
    const { ok, said } = compile("wrong", `${portableHeader}HR_FN int f() {\n  return nowhere;\n}\n`, []);
    expect(ok).toBe(false);
    expect(said).toContain("kernel:2:");
  });

  test("takes function constants from the device", () => {
    const text = `${portableHeader}HR_FUNCTION_CONSTANT(3, uint32_t, N);\nstatic_assert(N == 5, "");\n`;
    expect(compile("constant", text, ["-fsyntax-only", "-DHR_FUNCTION_CONSTANT_3=5"]).ok).toBe(true);
    expect(compile("constant", text, ["-fsyntax-only", "-DHR_FUNCTION_CONSTANT_3=6"]).ok).toBe(false);
  });

  for (const form of ["C++", "CUDA"] as const) {
    test(`adds the same as the host, as ${form}`, () => {
      const loop =
        form === "CUDA"
          ? "blockDim.x = 256; blockIdx.x = i / 256; threadIdx.x = i % 256; add(b, *(const Add *)c, n);"
          : "add(b, *(const Add *)c, i, n, i % 256, i / 256, 256);";
      const entry = `extern "C" void run(uint8_t *b, const void *c, uint32_t n) {
        for (uint32_t i = 0; i < (n + 255) / 256 * 256; i++) { ${loop} }
      }`;
      const library = join(folder, `add-${form === "CUDA" ? "cuda" : "cxx"}.so`);
      const source = (form === "CUDA" ? CUDA : "") + portableHeader + ADD.text! + entry;
      expect(compile("run", source, ["-shared", "-fPIC", "-o", library])).toEqual({ ok: true, said: "" });
      const { symbols, close } = dlopen(library, { run: { args: ["ptr", "ptr", "u32"], returns: "void" } });
      const bytes = new Uint8Array(new ArrayBuffer(1000)).map((_, i) => i * 7);
      const expected = bytes.slice();
      const constants = Uint8Array.of(9, 0, 0, 0);
      ADD.host!([expected], constants, 700);
      symbols.run(ptr(bytes), ptr(constants), 700);
      expect(bytes).toEqual(expected);
      close();
    });
  }
});
