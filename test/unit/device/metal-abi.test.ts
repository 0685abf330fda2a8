/** The header is the truth: bindings, numbers and Swift's exports must say the same. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  ABI_VERSION,
  AdviceCode,
  CODEC_NONE,
  Codec,
  CompletionFlag,
  DeviceFlag,
  ElementType,
  FileFlag,
  OptionFlag,
  ROW,
  Row,
  STRUCTS,
  Status,
  StorageMode,
} from "../../../src/device/metal/abi.ts";
import { checked, SYMBOLS, VERSION_SYMBOLS } from "../../../src/device/metal/symbols.ts";
import { FIELDS, OFFSET_FIELDS, Op, RequestList } from "../../../src/device/requests.ts";
import { METAL_LIB, parseHeader } from "./headrace-header.ts";

const header = parseHeader();
const ROOT = join(import.meta.dir, "../../..");
const table: Readonly<Record<string, { readonly args: readonly string[]; readonly returns: string }>> = {
  ...VERSION_SYMBOLS,
  ...SYMBOLS,
};

/** How a C type is passed. */
function passed(type: string): string {
  if (type.includes("*")) return "ptr";
  const types: Readonly<Record<string, string>> = {
    hr_handle: "u32",
    uint32_t: "u32",
    hr_status: "i32",
    int32_t: "i32",
    uint64_t: "u64",
    double: "f64",
  };
  return types[type] ?? `unknown type ${type}`;
}

/** `{ HR_FILE_WRITE: 1 }` for `{ WRITE: 1 }`. */
function prefixed(prefix: string, values: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [`${prefix}${name}`, value]));
}

describe("headrace.h", () => {
  test("was read: functions, structs and constants", () => {
    expect(header.functions.length).toBeGreaterThan(30);
    expect(header.structs.get("hr_error")).toEqual({
      byteLength: 256,
      fields: { status: 0, os_errno: 4, message: 8 },
    });
    expect(header.structs.get("hr_dispatch")?.fields).toMatchObject({ threads: 24, group: 36, reserved: 52 });
    expect(header.constants.get("HR_CODEC_NONE")).toBe(2 ** 32 - 1);
    expect(header.constants.size).toBeGreaterThan(50);
  });

  test("the bindings have its functions, each with its types", () => {
    const wanted = header.functions.map(({ name, parameters, returns }) => [
      name,
      { args: parameters.map(passed), returns: passed(returns) },
    ]);
    expect(table as object).toEqual(Object.fromEntries(wanted));
  });

  test("each binding stands under its declaration", () => {
    const source = readFileSync(join(ROOT, "src/device/metal/symbols.ts"), "utf8");
    const found = [...source.matchAll(/^ {2}\/\/ (.*)\n {2}(hr_\w+): \{/gm)].map(([, line, name]) => [
      name!,
      line!,
    ]);
    const wanted = header.functions.map(({ name, declaration }) => [name, declaration]);
    expect(found.toSorted()).toEqual(wanted.toSorted());
  });

  test("structs have its sizes and offsets, in the order of hr_struct_sizes", () => {
    expect(Object.keys(STRUCTS)).toEqual([...header.sizesOrder]);
    expect(STRUCTS as object).toEqual(Object.fromEntries(header.structs));
  });

  test("statuses, flags and codes have its values, and none is left out", () => {
    const mine: Record<string, number> = {
      HR_ABI_VERSION: ABI_VERSION,
      HR_CODEC_NONE: CODEC_NONE,
      ...prefixed("HR_", Status),
      ...prefixed("HR_DEVICE_", DeviceFlag),
      ...prefixed("HR_OPTION_", OptionFlag),
      ...prefixed("HR_CODEC_", Codec),
      ...prefixed("HR_FILE_", FileFlag),
      ...prefixed("HR_", StorageMode),
      ...prefixed("HR_", AdviceCode),
      ...prefixed("HR_", ElementType),
      ...prefixed("HR_", CompletionFlag),
      ...Object.fromEntries(Object.entries(Op).map(([name, op]) => [`HR_${name.toUpperCase()}`, op])),
    };
    expect(mine).toEqual(Object.fromEntries(header.constants));
  });

  test("requests, offsets and completions have its rows", () => {
    expect(FIELDS * 8).toBe(STRUCTS.hr_request.byteLength);
    expect(OFFSET_FIELDS * 8).toBe(STRUCTS.hr_offset.byteLength);
    expect(ROW * 8).toBe(STRUCTS.hr_completion.byteLength);
    const fields = Object.keys(STRUCTS.hr_completion.fields).map((name) =>
      name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()),
    );
    expect(Object.keys(Row)).toEqual(fields);
    expect(Object.values(Row).map((field) => field * 8)).toEqual(Object.values(STRUCTS.hr_completion.fields));
    const objects = [{ name: "a" }, { name: "b" }] as never[];
    const list = new RequestList().copy(objects[0]!, 10, objects[1]!, 20, 30);
    expect([...list.numbers.subarray(0, FIELDS)]).toEqual([Op.copy, 0, 10, 1, 20, 30]);
    list.clear();
    list.replay(objects[0]!, [{ slot: 3, offset: 64 }]).replay(objects[1]!, [
      { slot: 4, offset: 65 },
      { slot: 5, offset: 66 },
    ]);
    expect([...list.numbers.subarray(0, 2 * FIELDS)]).toEqual([9, 0, 0, -1, 0, 1, 9, 1, 1, -1, 0, 2]);
    expect([...list.offsets.subarray(0, 3 * OFFSET_FIELDS)]).toEqual([3, 64, 4, 65, 5, 66]);
  });
});

describe("Swift", () => {
  const folder = join(METAL_LIB, "Sources/HeadraceMetal");

  test("exports every function once, and no other", () => {
    expect(existsSync(folder)).toBe(true);
    const sources = [...new Bun.Glob("**/*.swift").scanSync(folder)].map((name) =>
      readFileSync(join(folder, name), "utf8"),
    );
    const exported = sources.flatMap((text) =>
      [...text.matchAll(/@_cdecl\("(\w+)"\)\s*\n\s*public func (\w+)/g)].map(([, name]) => name!),
    );
    const attributes = sources.reduce((sum, text) => sum + text.split("@_cdecl(").length - 1, 0);
    expect(exported.toSorted()).toEqual(header.functions.map(({ name }) => name).toSorted());
    expect(attributes).toBe(exported.length);
  });
});

describe("checked calls", () => {
  const calls: unknown[][] = [];
  const record = (...args: unknown[]) => {
    calls.push(args);
    return 0;
  };
  const { hr_file_read, hr_queue_cancel } = checked(SYMBOLS, {
    ...Object.fromEntries(Object.keys(SYMBOLS).map((name) => [name, record])),
  });
  const bytes = new Uint8Array(8);

  test("pass what fits", () => {
    hr_file_read(1, 2 ** 40, 8, bytes, bytes, null);
    hr_queue_cancel(4294967295, 7, -10);
    expect(calls).toEqual([
      [1, 2 ** 40, 8, bytes, bytes, null],
      [4294967295, 7, -10],
    ]);
  });

  test.each([
    [[1, 0, 8, bytes, bytes]],
    [[1, 0, 8, undefined, bytes, null]],
    [[1, 0, 8, new Uint8Array(0), bytes, null]],
    [[1, 0, 8, 4096, bytes, null]],
    [[-1, 0, 8, bytes, bytes, null]],
    [[2 ** 32, 0, 8, bytes, bytes, null]],
    [[1, -1, 8, bytes, bytes, null]],
    [[1, 0.5, 8, bytes, bytes, null]],
    [[1, Number.NaN, 8, bytes, bytes, null]],
    [[1, 0n, 8, bytes, bytes, null]],
    [[1, 0, 8, bytes, bytes, null, 0]],
  ])("refuse call %#", (args) => {
    calls.length = 0;
    expect(() => (hr_file_read as (...all: unknown[]) => number)(...args)).toThrow("hr_file_read");
    expect(calls).toEqual([]);
  });
});
