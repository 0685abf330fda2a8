/** A library that is missing or does not fit is an error that says what, where, and how to mend it. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ABI_VERSION, STRUCTS } from "../../../src/device/metal/abi.ts";
import { openMetal } from "../../../src/device/metal/device.ts";
import { readImage } from "../../../src/device/metal/image.ts";
import { findLibrary, libraryPlaces } from "../../../src/device/metal/library.ts";
import { encodeOptions, type MetalOptions } from "../../../src/device/metal/options.ts";
import { HeadraceError } from "../../../src/errors.ts";
import { parseHeader } from "./headrace-header.ts";

const VARIABLE = "HEADRACE_METAL_LIBRARY";
/** What mends a library that the option names. */
const LEAVE_OUT = "correct or leave out the option library";
const compiler = Bun.which("cc") ?? Bun.which("gcc") ?? Bun.which("clang");
const sizes: readonly number[] = Object.values(STRUCTS).map(({ byteLength }) => byteLength);
const saved = process.env[VARIABLE];
let dir: string;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "headrace-library-"));
  delete process.env[VARIABLE];
});
afterAll(() => {
  rmSync(dir, { recursive: true, force: true });
  if (saved !== undefined) process.env[VARIABLE] = saved;
});

interface Fake {
  readonly version?: number;
  readonly sizes?: readonly number[];
  readonly without?: string;
  /** A variable that no library has. */
  readonly needs?: string;
}

/** A library with every function of the header, which all answer 0. */
function fake(
  name: string,
  { version = ABI_VERSION, sizes: said = sizes, without, needs }: Fake = {},
): string {
  const special = ["hr_abi_version", "hr_struct_sizes", "hr_clock_ms", without];
  const others = parseHeader()
    .functions.filter((one) => !special.includes(one.name))
    .map((one) => `int ${one.name}(void) { return 0; }`);
  const source = `
unsigned hr_abi_version(void) { return ${version}; }
double hr_clock_ms(void) { return 0; }
unsigned hr_struct_sizes(unsigned *out, unsigned capacity) {
  static const unsigned sizes[] = { ${said.join(", ")} };
  for (unsigned i = 0; i < capacity && i < ${said.length}; i++) out[i] = sizes[i];
  return ${said.length};
}
${others.join("\n")}
${needs === undefined ? "" : `extern int ${needs}; int *needed = &${needs};`}
`;
  const path = join(dir, name);
  writeFileSync(`${path}.c`, source);
  const built = Bun.spawnSync([compiler!, "-shared", "-fPIC", "-o", path, `${path}.c`]);
  if (built.exitCode !== 0) throw new Error(built.stderr.toString());
  return path;
}

/** Opening fails with `DEVICE_UNAVAILABLE` and all of `parts`, on one line. */
function expectUnavailable(library: string | undefined, ...parts: readonly (string | number)[]): void {
  let caught: unknown;
  try {
    openMetal(library === undefined ? {} : { library });
  } catch (error) {
    caught = error;
  }
  if (!(caught instanceof HeadraceError)) throw new Error(`got ${String(caught)}`);
  expect(caught.code).toBe("DEVICE_UNAVAILABLE");
  expect(caught.message).not.toContain("\n");
  // Every library here is named, and none is the package's own.
  expect(caught.message).not.toContain("bun run native");
  for (const part of parts) expect(caught.message).toContain(String(part));
}

describe("finding the library", () => {
  test("the option comes before the environment, and either is the only place looked at", () => {
    const [one, two] = [join(dir, "one"), join(dir, "two")];
    for (const path of [one, two]) writeFileSync(path, "");
    process.env[VARIABLE] = two;
    try {
      expect(findLibrary(one)).toEqual({ path: one, named: true });
      expect(findLibrary(undefined)).toEqual({ path: two, named: true });
      process.env[VARIABLE] = join(dir, "gone");
      expectUnavailable(undefined, join(dir, "gone"), "is not there", `correct or unset ${VARIABLE}`);
      expectUnavailable(join(dir, "lost"), join(dir, "lost"), "is not there", LEAVE_OUT);
      mkdirSync(join(dir, "folder"));
      expectUnavailable(join(dir, "folder"), "is a folder", LEAVE_OUT);
      process.env[VARIABLE] = join(dir, "folder");
      expectUnavailable(undefined, "is a folder", `correct or unset ${VARIABLE}`);
    } finally {
      delete process.env[VARIABLE];
    }
  });

  test.skipIf(process.platform === "darwin")("without either it needs a Mac", () => {
    expectUnavailable(undefined, "needs a Mac", process.platform, "host");
  });

  test("the package, its folder and the executable's are looked at", () => {
    const name = `libHeadraceMetal.${process.platform === "darwin" ? "dylib" : "so"}`;
    expect(libraryPlaces("/lib/headrace/src/device/metal", "/opt/bin/bun")).toEqual([
      `/lib/headrace/metal-lib/.build/release/${name}`,
      `/lib/headrace/${name}`,
      `/lib/${name}`,
      `/opt/bin/${name}`,
    ]);
  });
});

describe.skipIf(compiler === null)("a library that does not fit", () => {
  test("of another version", () => {
    const path = fake("newer.so", { version: ABI_VERSION + 1 });
    expectUnavailable(path, path, `version ${ABI_VERSION + 1}`, `${ABI_VERSION} is needed`, LEAVE_OUT);
  });

  test("with a struct of another size, or with more or fewer structs", () => {
    const names = Object.keys(STRUCTS);
    const at = names.indexOf("hr_request");
    const path = fake("sizes.so", { sizes: sizes.with(at, 64) });
    expectUnavailable(path, path, "hr_request has 64 bytes", "48 are needed", LEAVE_OUT);
    expectUnavailable(fake("fewer.so", { sizes: sizes.slice(1) }), `${sizes.length - 1} structs`);
    expectUnavailable(fake("more.so", { sizes: [...sizes, 8] }), `${sizes.length + 1} structs`);
  });

  test("without a function, or without Metal", () => {
    const path = fake("partial.so", { without: "hr_queue_submit" });
    expectUnavailable(path, path, "hr_queue_submit", LEAVE_OUT);
    const empty = fake("no-device.so");
    expectUnavailable(empty, empty, "no device");
  });

  test.skipIf(process.platform !== "linux")("for another processor, or for none", () => {
    const bytes = readFileSync(fake("native.so"));
    expect(readImage(join(dir, "native.so"))?.architectures).toEqual([process.arch]);
    const other = process.arch === "x64" ? 183 : 62;
    bytes.writeUInt16LE(other, 18);
    const path = join(dir, "other.so");
    writeFileSync(path, bytes);
    expectUnavailable(path, path, process.arch === "x64" ? "arm64" : "x64", process.arch, LEAVE_OUT);
    bytes.writeUInt16LE(8, 18);
    writeFileSync(path, bytes);
    expectUnavailable(path, "machine 0x8");
    writeFileSync(
      path,
      "not a library, but long enough to be looked at as one; it has no magic number at all",
    );
    expectUnavailable(path, path, "no library of this system");
    writeFileSync(path, "short");
    expectUnavailable(path, "no library of this system");
  });

  test("that the system cannot load", () => {
    const path = fake("broken.so", { needs: "nowhere_to_be_found" });
    expectUnavailable(path, path, "cannot be loaded", LEAVE_OUT);
  });
});

describe.skipIf(compiler === null || process.platform !== "linux")("a library on Linux", () => {
  test("that is cut off, at any length, is told as such and does not end the process", () => {
    const path = fake("whole.so");
    const bytes = readFileSync(path);
    expect(readImage(path)).toMatchObject({ byteLength: bytes.length });
    expect(readImage(path)!.neededBytes).toBeLessThanOrEqual(bytes.length);
    const cut = join(dir, "cut.so");
    for (const length of [64, 100, 4096, bytes.length >> 1, bytes.length - 1]) {
      writeFileSync(cut, bytes.subarray(0, length));
      expectUnavailable(cut, cut, "is not whole", `it has ${length} bytes`, "are needed", LEAVE_OUT);
    }
    // Without section headers, the segments alone tell it.
    bytes.writeBigUInt64LE(0n, 40);
    bytes.writeUInt16LE(0, 60);
    writeFileSync(cut, bytes.subarray(0, 4096));
    expectUnavailable(cut, "is not whole: it has 4096 bytes");
  });

  test("whose Swift is not there", () => {
    // A name of Swift's form that no machine has.
    const runtime = join(dir, "libswiftNowhere.so");
    const path = join(dir, "swift.so");
    writeFileSync(`${path}.c`, "int x;");
    for (const args of [
      ["-o", runtime],
      ["-Wl,--no-as-needed", "-o", path, `-L${dir}`, "-lswiftNowhere"],
    ]) {
      const built = Bun.spawnSync([compiler!, "-shared", "-fPIC", `${path}.c`, ...args]);
      expect(built.stderr.toString()).toBe("");
    }
    rmSync(runtime);
    expectUnavailable(
      path,
      path,
      "libswiftNowhere",
      "the Swift that it was built with",
      "`scripts/linux-swift`",
    );
  });
});

describe("a Mach-O file", () => {
  test("needs all of its segments, and a fat file its slice for arm64", () => {
    const path = join(dir, "mach");
    const thin = Buffer.alloc(200);
    thin.writeUInt32BE(0xcffaedfe, 0);
    thin.writeUInt32LE(0x0100000c, 4);
    thin.writeUInt32LE(2, 16);
    thin.writeUInt32LE(16 + 72, 20);
    thin.writeUInt32LE(0x1b, 32);
    thin.writeUInt32LE(16, 36);
    thin.writeUInt32LE(0x19, 48);
    thin.writeUInt32LE(72, 52);
    thin.writeBigUInt64LE(4096n, 48 + 40);
    thin.writeBigUInt64LE(500n, 48 + 48);
    writeFileSync(path, thin);
    expect(readImage(path, "darwin")).toEqual({
      architectures: ["arm64"],
      byteLength: 200,
      neededBytes: 4596,
    });
    const fat = Buffer.alloc(100);
    const slices = [0x01000007, 3, 9000, 900, 0, 0x0100000c, 0, 4096, 800, 0];
    for (const [i, value] of [0xcafebabe, 2, ...slices].entries()) fat.writeUInt32BE(value, 4 * i);
    writeFileSync(path, fat);
    expect(readImage(path, "darwin")).toEqual({
      architectures: ["x64", "arm64"],
      byteLength: 100,
      neededBytes: 4896,
    });
    expect(readImage(path, "linux")).toBeUndefined();
  });
});

describe("options", () => {
  const field = (
    options: MetalOptions,
    name: keyof typeof STRUCTS.hr_device_options.fields,
    wide = false,
  ) => {
    const view = new DataView(encodeOptions(options).buffer as ArrayBuffer);
    const at = STRUCTS.hr_device_options.fields[name];
    return wide ? Number(view.getBigUint64(at, true)) : view.getUint32(at, true);
  };

  test("are all zero by default", () => {
    expect([...encodeOptions({})].every((byte) => byte === 0)).toBe(true);
  });

  test("reach their fields", () => {
    expect(field({ lanes: 5 }, "lanes")).toBe(5);
    expect(field({ writeLanes: 2 }, "write_lanes")).toBe(2);
    expect(field({ pieceBytes: 2 ** 30 }, "piece_bytes", true)).toBe(2 ** 30);
    expect(field({ inlineCopyBytes: 0 }, "inline_copy_bytes", true)).toBe(1);
    expect(field({ mapBudget: 2 ** 40 }, "map_budget", true)).toBe(2 ** 40);
    expect(field({ keepAliveMs: 700 }, "keep_alive_ms", true)).toBe(700);
    const fileQueues = {
      queues: 3,
      maxCommands: 4,
      maxCommandBuffers: 5,
      priority: "low",
      serial: true,
      scratchBytes: 2 ** 33,
    } as const;
    expect(field({ fileQueues }, "io_queues")).toBe(3);
    expect(field({ fileQueues }, "io_max_commands")).toBe(4);
    expect(field({ fileQueues }, "io_max_command_buffers")).toBe(5);
    expect(field({ fileQueues }, "io_priority")).toBe(2);
    expect(field({ fileQueues }, "io_serial")).toBe(1);
    expect(field({ fileQueues }, "io_scratch_bytes", true)).toBe(2 ** 33);
    expect(field({ retryOnce: true }, "flags")).toBe(1);
    expect(field({ gpuAhead: false }, "flags")).toBe(16);
    expect(field({ gpuAhead: true }, "flags")).toBe(0);
    expect(field({ residency: false }, "flags")).toBe(2);
    expect(field({ sync: "barrier" }, "flags")).toBe(4);
    expect(field({ sync: "full", residency: true }, "flags")).toBe(8);
  });

  test.each<[object]>([
    [{ lanes: 0 }],
    [{ lanes: 65 }],
    [{ writeLanes: 17 }],
    [{ pieceBytes: 4095 }],
    [{ pieceBytes: 2 ** 30 + 1 }],
    [{ inlineCopyBytes: -1 }],
    [{ keepAliveMs: 0.5 }],
    [{ ordinal: -1 }],
    [{ sync: "never" }],
    [{ completions: "callback" }],
    [{ stream: { codec: "zip" } }],
    [{ stream: { chunkBytes: 100 } }],
    [{ fileQueues: { queues: 17 } }],
    [{ fileQueues: { priority: "urgent" } }],
  ])("%j is refused before any library is looked for", (options) => {
    expect(() => openMetal(options)).toThrow(expect.objectContaining({ code: "BAD_OPTION" }));
  });
});
