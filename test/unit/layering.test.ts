import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ERROR_CODES } from "../../src/errors.ts";
import {
  checkArrows,
  checkBarrels,
  checkCycles,
  checkEndings,
  checkFileLines,
  checkFunctionLines,
  checkGlobals,
  checkLate,
  documentedCodes,
  LONG_FUNCTION_LINES,
  unusedCodes,
} from "./layering.ts";
import { type Module, parseModule } from "./layering-parse.ts";

const root = join(import.meta.dir, "../..");

function modulesOf(folder: string): Module[] {
  if (!existsSync(join(root, folder))) return [];
  return [...new Bun.Glob("**/*.ts").scanSync(join(root, folder))]
    .sort()
    .map((name) => parseModule(`${folder}/${name}`, readFileSync(join(root, folder, name), "utf8")));
}

const source = modulesOf("src");
const scripts = [...modulesOf("datasets"), ...modulesOf("scripts")];
const tests = modulesOf("test");

describe("the repository", () => {
  test("has its sources where the rules look", () => {
    const paths = source.map(({ path }) => path);
    expect(paths).toContain("src/index.ts");
    expect(paths).toContain("src/cli/main.ts");
    expect(paths.length).toBeGreaterThan(50);
    expect(tests.length).toBeGreaterThan(20);
    const imports = source.flatMap((module) => module.imports);
    expect(imports.length).toBeGreaterThan(200);
    expect(imports.map(({ specifier }) => specifier)).toContain("./lane-worker.ts");
  });

  test("imports point one way", () => expect(checkArrows(source)).toEqual([]));
  test("imports run in no circle", () => expect(checkCycles([...source, ...scripts, ...tests])).toEqual([]));
  test("only the opener of devices loads others late", () => {
    expect(checkLate([...source, ...scripts, ...tests])).toEqual([]);
    const { imports } = source.find(({ path }) => path === "src/device/open.ts")!;
    const concrete = imports.filter(({ specifier, typeOnly }) => !typeOnly && /metal|cuda/.test(specifier));
    expect(concrete.length).toBeGreaterThan(2);
    expect(concrete.filter(({ late }) => !late)).toEqual([]);
  });
  test("pure layers reach nothing outside, and only the cli prints", () =>
    expect(checkGlobals(source)).toEqual([]));
  test("only the public API passes things on", () => expect(checkBarrels(source)).toEqual([]));
  test("paths have their ending", () => expect(checkEndings([...scripts, ...tests])).toEqual([]));
  test("no file is too long", () => expect(checkFileLines([...source, ...scripts, ...tests])).toEqual([]));
  test("no function is too long", () => {
    const long = checkFunctionLines([...source, ...scripts], LONG_FUNCTION_LINES);
    if (long.length > 0) console.warn(`longer than they should be:\n${long.join("\n")}`);
    expect(checkFunctionLines([...source, ...scripts])).toEqual([]);
  });

  test("every error code is used", () => expect(unusedCodes(source, ERROR_CODES)).toEqual([]));
  test("the README explains every error code", () => {
    const codes = documentedCodes(readFileSync(join(root, "README.md"), "utf8"));
    expect(codes.toSorted()).toEqual([...ERROR_CODES].sort());
  });
});

/** A made-up set of files, by path. */
function files(texts: Readonly<Record<string, string>>): Module[] {
  return Object.entries(texts).map(([path, text]) => parseModule(path, text));
}

/** Every file that the made-up ones import, empty. */
const TARGETS = {
  "src/types.ts": "",
  "src/errors.ts": "",
  "src/format/a.ts": "",
  "src/plan/a.ts": "",
  "src/device/device.ts": "",
  "src/device/host/a.ts": "",
  "src/device/open.ts": "",
  "src/loader/a.ts": "",
  "src/loader/open.ts": "",
  "src/index.ts": "",
  "src/cli/a.ts": "",
};

function arrow(from: string, line: string): string[] {
  return checkArrows(files({ ...TARGETS, [from]: `${line}\n` }));
}

describe("arrows", () => {
  test.each([
    ["src/errors.ts", "./types.ts"],
    ["src/format/b.ts", "./a.ts"],
    ["src/plan/b.ts", "../errors.ts"],
    ["src/device/requests.ts", "../types.ts"],
    ["src/device/null/b.ts", "../host/a.ts"],
    ["src/device/null/b.ts", "../device.ts"],
    ["src/device/open.ts", "./host/a.ts"],
    ["src/loader/b.ts", "../device/device.ts"],
    ["src/loader/b.ts", "../format/a.ts"],
    ["src/loader/open.ts", "../device/open.ts"],
    ["src/infer/b.ts", "../loader/a.ts"],
    ["src/index.ts", "./loader/open.ts"],
    ["src/cli/b.ts", "../index.ts"],
    ["src/cli/b.ts", "./a.ts"],
  ])("%s may see %s", (from, to) => {
    expect(arrow(from, `import { a } from "${to}";`)).toEqual([]);
  });

  test.each([
    ["src/types.ts", "./format/a.ts"],
    ["src/format/b.ts", "../plan/a.ts"],
    ["src/plan/b.ts", "../format/a.ts"],
    ["src/plan/b.ts", "../loader/a.ts"],
    ["src/format/b.ts", "../device/device.ts"],
    ["src/device/requests.ts", "./host/a.ts"],
    ["src/device/host/b.ts", "../open.ts"],
    ["src/device/host/b.ts", "../../loader/a.ts"],
    ["src/device/open.ts", "../loader/a.ts"],
    ["src/loader/b.ts", "../device/host/a.ts"],
    ["src/loader/b.ts", "../device/open.ts"],
    ["src/loader/b.ts", "../index.ts"],
    ["src/loader/b.ts", "../cli/a.ts"],
    ["src/infer/b.ts", "../device/host/a.ts"],
    ["src/infer/b.ts", "../device/open.ts"],
    ["src/index.ts", "./device/host/a.ts"],
    ["src/index.ts", "./cli/a.ts"],
    ["src/cli/b.ts", "../loader/a.ts"],
    ["src/cli/b.ts", "../types.ts"],
  ])("%s may not see %s", (from, to) => {
    expect(arrow(from, `import { a } from "${to}";`)).toEqual([expect.stringContaining("may not see")]);
  });

  test.each([
    ['import type { A } from "../plan/a.ts";'],
    ['import { type A, b } from "../plan/a.ts";'],
    ['import a, { b as c } from "../plan/a.ts";'],
    ['import * as a from "../plan/a.ts";'],
    ['import "../plan/a.ts";'],
    ['export { a } from "../plan/a.ts";'],
    ['export type * from "../plan/a.ts";'],
    ['import {\n  a,\n  b,\n} from "../plan/a.ts";'],
    ['const a = await import("../plan/a.ts");'],
    ['const a = require("../plan/a.ts");'],
    ['type A = import("../plan/a.ts").A;'],
    ['new Worker(new URL("../plan/a.ts", import.meta.url));'],
    [`const a = /"\\/*'/.test(\`\${{ a: "}" }}\`); import { b } from "../plan/a.ts";`],
  ])("sees %s", (line) => {
    expect(arrow("src/format/b.ts", line)).toHaveLength(1);
  });

  test.each([
    ['// import { a } from "../plan/a.ts";'],
    ['/** import { a } from "../plan/a.ts"; */'],
    ["const a = 'import { a } from \"../plan/a.ts\"';"],
    [`const a = \`import { a } from "../plan/a.ts" \${1} import("../plan/a.ts")\`;`],
    ['const from = "../plan/a.ts";'],
    ["const a = import.meta.dir;"],
  ])("does not see %s", (line) => {
    expect(arrow("src/format/b.ts", line)).toEqual([]);
  });

  test.each([
    ["src/format/b.ts", "node:fs"],
    ["src/plan/b.ts", "bun:ffi"],
    ["src/plan/b.ts", "bun"],
    ["src/errors.ts", "node:path"],
    ["src/loader/b.ts", "commander"],
    ["src/index.ts", "node:fs"],
  ])("%s may not see the package %s", (from, name) => {
    expect(arrow(from, `import a from "${name}";`)).toHaveLength(1);
  });

  test.each([
    ["src/loader/b.ts", "node:fs"],
    ["src/format/b.ts", "zod"],
    ["src/cli/b.ts", "commander"],
    ["src/device/host/b.ts", "bun:ffi"],
  ])("%s may see the package %s", (from, name) => {
    expect(arrow(from, `import a from "${name}";`)).toEqual([]);
  });

  test("a path without an ending, a missing file and a file of no layer are refused", () => {
    expect(arrow("src/plan/b.ts", 'import { a } from "./a";')).toEqual([
      "src/plan/b.ts:1: ./a has no ending",
    ]);
    expect(checkEndings(files({ "test/a.ts": 'import { a } from "./b";' }))).toHaveLength(1);
    expect(arrow("src/plan/b.ts", 'import { a } from "./nowhere.ts";')).toHaveLength(1);
    expect(arrow("src/helpers.ts", "")).toEqual(["src/helpers.ts: belongs to no layer"]);
    expect(arrow("src/utils/a.ts", "")).toHaveLength(1);
  });
});

describe("circles", () => {
  test("of two, of three and of one are found once, with their files", () => {
    const two = { "src/plan/a.ts": 'import "./b.ts";', "src/plan/b.ts": 'import "./a.ts";' };
    expect(checkCycles(files(two))).toEqual(["a circle: src/plan/a.ts -> src/plan/b.ts -> src/plan/a.ts"]);
    const three = {
      "src/plan/a.ts": 'import { b } from "./b.ts";',
      "src/plan/b.ts": 'export { c } from "./c.ts";',
      "src/plan/c.ts": 'const a = await import("./a.ts");',
    };
    expect(checkCycles(files(three))).toHaveLength(1);
    expect(checkCycles(files({ "src/plan/a.ts": 'import "./a.ts";' }))).toHaveLength(1);
  });

  test("of types alone are none, and neither is a diamond", () => {
    const types = {
      "src/plan/a.ts": 'import type { B } from "./b.ts";',
      "src/plan/b.ts": 'import "./a.ts";',
    };
    expect(checkCycles(files(types))).toEqual([]);
    const diamond = {
      "src/plan/a.ts": 'import "./b.ts"; import "./c.ts";',
      "src/plan/b.ts": 'import "./d.ts";',
      "src/plan/c.ts": 'import "./d.ts";',
      "src/plan/d.ts": "",
    };
    expect(checkCycles(files(diamond))).toEqual([]);
  });
});

test("what is required is found, but where devices are opened", () => {
  const late = 'const a = () => require("./host/a.ts") as typeof import("./host/a.ts");';
  expect(checkLate(files({ "src/device/open.ts": late }))).toEqual([]);
  expect(checkLate(files({ "src/device/b.ts": late }))).toEqual(["src/device/b.ts:1: requires ./host/a.ts"]);
});

describe("globals", () => {
  test.each([
    ["src/plan/a.ts", "const a = Date.now();"],
    ["src/plan/a.ts", "const a = performance.now();"],
    ["src/format/a.ts", "const a = Bun.file(name);"],
    ["src/errors.ts", 'console.log("a");'],
    ["src/loader/a.ts", 'console.error("a");'],
    ["src/device/host/a.ts", "if (a) console.warn(a);"],
  ])("%s: %s", (path, text) => expect(checkGlobals(files({ [path]: text }))).toHaveLength(1));

  test.each([
    ["src/cli/a.ts", 'console.log("a");'],
    ["src/loader/a.ts", "const a = performance.now();"],
    ["src/loader/a.ts", '// console.log("a");'],
    ["src/loader/a.ts", 'const a = "console.log(a)";'],
    ["src/plan/a.ts", "const a = b.Date.now;"],
  ])("%s may hold %s", (path, text) => expect(checkGlobals(files({ [path]: text }))).toEqual([]));
});

describe("barrels", () => {
  test.each([
    ['export * from "./b.ts";\nexport type { C } from "./c.ts";'],
    ['/** A file. */\nimport type { A } from "./a.ts";\nexport { b } from "./b.ts";'],
  ])("%s", (text) => {
    expect(checkBarrels(files({ "src/plan/a.ts": text }))).toHaveLength(1);
    expect(checkBarrels(files({ "src/index.ts": text }))).toEqual([]);
  });

  test.each([
    ['export { b } from "./b.ts";\nexport const a = 1;'],
    ['import { b } from "./b.ts";\nb();'],
    ["export const a = 1;"],
    [""],
  ])("not: %s", (text) => expect(checkBarrels(files({ "src/plan/a.ts": text }))).toEqual([]));
});

describe("lengths", () => {
  const body = (lines: number) => "a();\n".repeat(lines - 2);

  test("of files", () => {
    expect(checkFileLines(files({ "src/plan/a.ts": "a();\n".repeat(400) }))).toEqual([]);
    expect(checkFileLines(files({ "src/plan/a.ts": "a();\n".repeat(401) }))).toHaveLength(1);
  });

  test.each([
    ["function a() {\n", "}"],
    ["function a(): Promise<{ b: number }> {\n", "}"],
    ["function a(b: () => void): asserts b is { c: 1 }[] {\n", "}"],
    ["const a = async (b) => {\n", "};"],
    ["class A {\n  #b(c = {}): void {\n", "}\n}"],
    ["const a = { b(): string {\n", "} };"],
    [`function a() { const b = \`\${{ c: \`}\` }}\`;\n`, "}"],
  ])("of the function %j", (head, tail) => {
    expect(checkFunctionLines(files({ "src/plan/a.ts": head + body(80) + tail }))).toEqual([]);
    expect(checkFunctionLines(files({ "src/plan/a.ts": head + body(81) + tail }))).toHaveLength(1);
  });

  test.each([
    ["class A extends B<C> {\n", "}"],
    ["interface A {\n", "}"],
    ["const a = {\n", "};"],
    ["const a = b(c, {\n", "});"],
    ["type A = B & {\n", "};"],
  ])("not of %j", (head, tail) => {
    expect(checkFunctionLines(files({ "src/plan/a.ts": head + "b: c,\n".repeat(100) + tail }))).toEqual([]);
  });
});

describe("error codes", () => {
  const modules = files({
    "src/errors.ts": 'const CODES = ["A_B", "C_D", "E_F"];',
    "src/plan/a.ts": '// "C_D"\nthrow new HeadraceError("A_B", "C_D is missing");',
  });

  test("that nobody throws are found", () => {
    expect(unusedCodes(modules, ["A_B", "C_D", "E_F"])).toEqual(["C_D", "E_F"]);
  });

  test("are read from the first cells of a table", () => {
    const text = "| Code | Cause |\n| --- | --- |\n| `A_B` | x `C_D` |\nSee `E_F`.\n| `G_H` | y |\n";
    expect(documentedCodes(text)).toEqual(["A_B", "G_H"]);
  });
});
