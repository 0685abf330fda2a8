/** Kernel texts in their C++ form, made by the machine's compiler and run thread by thread. */
import { dlopen, ptr } from "bun:ffi";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FunctionConstant, KernelSource } from "../../../src/device/device.ts";
import { portableHeader } from "../../../src/kernels/portable.ts";

/** The compiler's path, or null. */
export const compiler: string | null = Bun.which("g++") ?? Bun.which("clang++");
if (compiler === null) console.warn("kernels as C++: left out, there is neither g++ nor clang++");

/** The header with loads and stores that end the process unless they are aligned, as a GPU's would. */
export const checkedHeader: string = [
  "  memcpy(&value, at, sizeof value);",
  "{ memcpy(at, &value, sizeof value); }",
].reduce((header, line) => {
  if (!header.includes(line)) throw new Error(`the header has no \`${line}\``);
  const check = "if (reinterpret_cast<uint64_t>(at) % sizeof value != 0) __builtin_trap();";
  return header.replace(line, line.replace("memcpy", `${check} memcpy`));
}, portableHeader);

/** Runs a kernel: addresses of its buffers, its constants, and how many threads are asked for. */
export type RunKernel = (addresses: readonly number[], constants: Uint8Array, threads: number) => void;

export interface Compiled extends Disposable {
  readonly run: RunKernel;
}

/** Kernels in the order they were given in. */
export interface CompiledAll extends Disposable {
  readonly runs: readonly RunKernel[];
}

/** What `-D` has to say about function constants, as the devices do. */
export function constantDefines(constants: readonly FunctionConstant[] = []): string[] {
  return constants.map(({ index, value }) => `-DHR_FUNCTION_CONSTANT_${index}=${value}`);
}

/** Compiles `source` with all warnings as errors. A threadgroup is one thread, and more threads than were asked for
 * run, which have to do nothing. */
export function compileKernel(source: KernelSource): Compiled {
  const { runs, [Symbol.dispose]: dispose } = compileKernels([source]);
  return { run: runs[0]!, [Symbol.dispose]: dispose };
}

/** {@link compileKernel} for several, in one go. */
export function compileKernels(sources: readonly KernelSource[]): CompiledAll {
  const folder = mkdtempSync(join(tmpdir(), "headrace-cxx-"));
  const path = join(folder, "kernel.cpp");
  const library = join(folder, "kernel.so");
  writeFileSync(path, checkedHeader + sources.map(entryOf).join(""));
  const command = [compiler!, "-std=c++14", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"];
  const flags = ["-Wno-unused-parameter", "-ffp-contract=off", "-shared", "-fPIC", "-o", library];
  const { exitCode, stderr } = Bun.spawnSync([...command, ...flags, path]);
  if (exitCode !== 0) throw new Error(`${sources[0]?.name} does not compile: ${stderr}`);
  const { symbols, close } = dlopen(
    library,
    Object.fromEntries(
      sources.map((_, index) => [`run${index}`, { args: ["ptr", "ptr", "u32"], returns: "void" } as const]),
    ),
  );
  const runs = sources.map(
    (_, index): RunKernel =>
      (addresses, constants, threads) => {
        const table = BigUint64Array.from(addresses, BigInt);
        const values = new Uint8Array(new ArrayBuffer(Math.max(16, constants.length)));
        values.set(constants);
        symbols[`run${index}`]!(ptr(table), ptr(values), threads);
      },
  );
  return {
    runs,
    [Symbol.dispose]: () => {
      close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A text in a namespace of its own, with its constants, and a loop over the threads by the arguments that the text
 * says the kernel has. */
function entryOf({ name, text, functionConstants = [] }: KernelSource, number: number): string {
  const head = new RegExp(`HR_KERNEL\\(${name},([^{]*)\\{`).exec(text!);
  if (head === null) throw new Error(`the text has no kernel ${name}`);
  const pattern = /HR_(IN|OUT|CONSTANTS)\((\d+), (\w+), \w+\)/g;
  const args = [...head[1]!.matchAll(pattern)].map(([, kind, index, type]) =>
    kind === "CONSTANTS" ? `*(const ${type} *)constants` : `(${type} *)buffers[${index}]`,
  );
  const defines = functionConstants.map(({ index, value }) => {
    const macro = `HR_FUNCTION_CONSTANT_${index}`;
    return `#undef ${macro}\n#define ${macro} ${value}\n`;
  });
  return `
${defines.join("")}namespace kernel${number} {
#line 1 "${name}"
${text}
extern "C" void run${number}(void **buffers, const void *constants, uint32_t threads) {
  for (uint32_t i = 0; i < threads + 300; i++) ${name}(${args.join(", ")}, i, threads, 0, i, 1);
}
}
`;
}
