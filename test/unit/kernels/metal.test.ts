/**
 * Every kernel text as Metal, as far as can be told without Apple's compiler: by clang, with the shading language's
 * address spaces as its own. What is held back here is what C++ and CUDA let pass: pointers into other spaces, pointers
 * that name none, names that Metal takes for itself, numbers of 64 bits in a simdgroup's exchanges, and
 * recursion.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { portableHeader } from "../../../src/kernels/portable.ts";
import { withoutComments } from "../../../src/kernels/signature.ts";
import { KERNELS } from "./every-kernel.ts";

/** Swift brings one along that is on no PATH. */
const SWIFT_CLANG = "/usr/libexec/swift/bin/clang";
const clang = Bun.which("clang") ?? (existsSync(SWIFT_CLANG) ? SWIFT_CLANG : null);
if (clang === null) console.warn("kernels as Metal: left out, there is no clang");
/** As `__METAL_VERSION__` has it: the least that the library asks for. */
const VERSION = 300;

/** Names that are types or address spaces to Metal, and would be good names for a variable to the other compilers. */
const METAL_WORDS = [
  "half",
  "bfloat",
  "uint",
  "ushort",
  "uchar",
  "ulong",
  "device",
  "constant",
  "thread",
  "threadgroup",
];

test.each(Object.entries(KERNELS))("%s has no name that Metal takes for itself", (_, { text = "" }) => {
  const words = new Set(withoutComments(text).match(/\b\w+\b/g));
  expect(METAL_WORDS.filter((word) => words.has(word))).toEqual([]);
});

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "headrace-metal-"));
  // The shading language's own headers: what they have is in the file that comes before.
  writeFileSync(join(folder, "metal_stdlib"), "");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function runClang(args: readonly string[], input: string): string {
  const path = join(folder, "kernel.cpp");
  writeFileSync(path, input);
  const { exitCode, stdout, stderr } = Bun.spawnSync([clang!, "-x", "c++", "-std=c++14", ...args, path]);
  if (exitCode !== 0) throw new Error(stderr.toString());
  return stdout.toString();
}

/** The text as the shading language has it, macros replaced. */
function preprocessed(text: string): string {
  const args = ["-E", "-undef", "-nostdinc", `-I${folder}`, `-D__METAL_VERSION__=${VERSION}`];
  return runClang(args, portableHeader + text);
}

/** Throws what clang says to a preprocessed text. */
function check(text: string): void {
  // Of C++, a variable of a function has no address space unless it is static; and constants need a value.
  const adapted = text
    .replaceAll(/([;{]\s*)threadgroup (?=[^;*&(]*\[[^;]*;)/g, "$1static threadgroup ")
    .replaceAll(/constant (\w+ \w+ \[\[function_constant)/g, "extern constant $1");
  const shim = join(import.meta.dir, "address-spaces.h");
  // Warnings are another compiler's every time.
  runClang(["-fsyntax-only", "-nostdinc", "-w", "-include", shim], adapted);
}

/** Pointers and references to types of the text or the header that do not say where they point to. */
function withoutSpace(text: string): string[] {
  const own = [...text.matchAll(/\b(?:struct|enum)\s+(\w+)/g)].map((match) => match[1]!);
  const types = [
    "float",
    "u?int(?:8|16|32|64)_t",
    "uint4?",
    "float4",
    "hr_(?:half|bfloat|uint4|float4)",
    "T",
    ...own,
  ].join("|");
  const pointers = text.matchAll(
    new RegExp(`((?:\\b\\w+\\s+)*)\\b(?:${types})\\s*(?:const\\s*)?[*&](?!&)`, "g"),
  );
  return [...pointers]
    .filter(([, before]) => !/\b(?:device|constant|threadgroup|thread)\b/.test(before!))
    .map(([found]) => found);
}

/** Functions that call themselves, directly or by others. */
function recursive(text: string): string[] {
  const bodies = new Map<string, string>();
  for (const match of text.matchAll(/\b(\w+)\s*\([^(){};]*\)\s*\{/g)) {
    let [depth, at] = [1, match.index + match[0].length];
    for (; depth > 0 && at < text.length; at++) depth += text[at] === "{" ? 1 : text[at] === "}" ? -1 : 0;
    if (!/^(?:if|for|while|switch)$/.test(match[1]!)) {
      bodies.set(match[1]!, `${bodies.get(match[1]!) ?? ""}${text.slice(match.index + match[0].length, at)}`);
    }
  }
  const reach = new Map(
    [...bodies].map(([name, body]) => [
      name,
      new Set([...body.matchAll(/\b(\w+)\b/g)].map((one) => one[1]!).filter((one) => bodies.has(one))),
    ]),
  );
  for (let grown = true; grown; ) {
    grown = false;
    for (const called of reach.values()) {
      for (const one of [...called]) {
        for (const other of reach.get(one)!) {
          grown ||= !called.has(other);
          called.add(other);
        }
      }
    }
  }
  return [...reach].filter(([name, called]) => called.has(name)).map(([name]) => name);
}

describe.skipIf(clang === null)("as Metal, by clang", () => {
  test.each(Object.entries(KERNELS))("%s", (_, { text = "" }) => {
    const whole = preprocessed(text);
    check(whole);
    expect(withoutSpace(whole)).toEqual([]);
    expect(recursive(whole)).toEqual([]);
  });

  test("what Apple's compiler refuses is refused", () => {
    const body = (text: string) => preprocessed(`HR_KERNEL(k, HR_OUT(0, float, y)) { ${text} }`);
    const refuses = (text: string, why: RegExp) => expect(() => check(body(text))).toThrow(why);
    check(body("HR_SHARED(float, s, 4); s[hr_local] = y[0]; HR_BARRIER(); y[0] = s[1];"));
    refuses("HR_SHARED(float, s, 4); HR_DEVICE float *p = s; *p = 1.0f;", /cannot initialize/);
    refuses("float one = 1.0f; HR_GROUP float *p = &one; *p = y[0];", /cannot initialize/);
    refuses("y[0] = float(HR_SHUFFLE(uint64_t(hr_local), 1u));", /deleted|no matching/);
    refuses("y[0] = HR_FLOAT_OF(uint64_t(1));", /sizes differ/);
    refuses("uint32_t half = 1; y[half] = 1.0f;", /expected/);
    refuses("HR_UNROLL y[0] = 1.0f;", /loop/);
    expect(withoutSpace(body("const float *p = y;"))).toHaveLength(1);
    const loop = "HR_FN uint32_t a(uint32_t n) { return n == 0u ? n : a(n - 1u); }\n";
    expect(recursive(preprocessed(loop))).toEqual(["a"]);
  });
});
