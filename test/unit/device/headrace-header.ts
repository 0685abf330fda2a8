/** Reads `headrace.h` as far as its own style goes: functions, enums, defines and structs with their layout. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

export const METAL_LIB = join(import.meta.dir, "../../../metal-lib");

export interface CFunction {
  readonly name: string;
  /** The declaration on one line, as in the header. */
  readonly declaration: string;
  readonly returns: string;
  /** Types alone, with their stars. */
  readonly parameters: readonly string[];
}

export interface CStruct {
  readonly byteLength: number;
  readonly fields: Readonly<Record<string, number>>;
}

export interface Header {
  readonly functions: readonly CFunction[];
  readonly constants: ReadonlyMap<string, number>;
  readonly structs: ReadonlyMap<string, CStruct>;
  /** The structs that the comment of `hr_struct_sizes` lists, in order. */
  readonly sizesOrder: readonly string[];
}

const SIZES: Readonly<Record<string, number>> = {
  char: 1,
  uint8_t: 1,
  uint32_t: 4,
  int32_t: 4,
  hr_handle: 4,
  hr_status: 4,
  uint64_t: 8,
  double: 8,
};

export function parseHeader(text = readFileSync(headerPath(), "utf8")): Header {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "");
  return {
    functions: parseFunctions(code),
    constants: parseConstants(code),
    structs: parseStructs(code),
    sizesOrder: parseOrder(text),
  };
}

function headerPath(): string {
  return join(METAL_LIB, "Sources/CHeadrace/include/headrace.h");
}

function parseFunctions(code: string): CFunction[] {
  return [...code.matchAll(/^(\w+) (hr_\w+)\(([^)]*)\);/gm)].map(([whole, returns, name, list]) => ({
    name: name!,
    declaration: whole.replace(/\s+/g, " "),
    returns: returns!,
    parameters:
      list!.trim() === "void"
        ? []
        : list!.split(",").map((one) => one.trim().replace(/\w+$/, "").replace(/\s+/g, " ").trim()),
  }));
}

function parseConstants(code: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const [, name, value] of code.matchAll(/^#define (HR_\w+) (\w+)$/gm)) found.set(name!, number(value!));
  for (const [, body] of code.matchAll(/^enum \{([^}]*)\};/gm)) {
    for (const [, name, value] of body!.matchAll(/(HR_\w+) = (-?\w+)/g)) found.set(name!, number(value!));
  }
  return found;
}

function number(text: string): number {
  const value = Number(text.replace(/u$/, ""));
  if (Number.isNaN(value)) throw new Error(`${text} is no number`);
  return value;
}

function parseStructs(code: string): Map<string, CStruct> {
  const found = new Map<string, CStruct>();
  for (const [, body, name] of code.matchAll(/^typedef struct \{([^}]*)\} (\w+);/gm)) {
    found.set(name!, layout(body!));
  }
  return found;
}

/** By the rules of all 64-bit systems here: natural alignment, size rounded up to the widest field's. */
function layout(body: string): CStruct {
  const fields: Record<string, number> = {};
  let at = 0;
  let widest = 1;
  for (const line of body.split(";")) {
    const [, type, stars, names] = /^\s*(?:const )?(\w+) (\*?)([\s\S]+)$/.exec(line) ?? [];
    if (type === undefined) continue;
    const size = stars === "*" ? 8 : SIZES[type];
    if (size === undefined) throw new Error(`${type} is of unknown size`);
    widest = Math.max(widest, size);
    for (const one of names!.split(",")) {
      const [, name, count] = /^\s*(\w+)(?:\[(\d+)\])?\s*$/.exec(one)!;
      at = Math.ceil(at / size) * size;
      fields[name!] = at;
      at += size * Number(count ?? 1);
    }
  }
  return { byteLength: Math.ceil(at / widest) * widest, fields };
}

function parseOrder(text: string): string[] {
  const [, list] = /Sizes in bytes of: ([^.]*)\./.exec(text)!;
  return list!.split(/[\s,*]+/).filter((name) => name.startsWith("hr_"));
}
