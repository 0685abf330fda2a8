/** Types of columns as people write them: `i64`, `f32[768]`, `i32[]`, `bool`, `utf8`. */
import { HeadraceError } from "../../errors.ts";
import { byteLengthOf } from "../../format/dtype.ts";
import type { DType } from "../../types.ts";
import type { PackField } from "../rows.ts";

/** What text can be parsed to. */
const NAMES: Readonly<Record<string, DType>> = {
  bool: "BOOL",
  i8: "I8",
  u8: "U8",
  i16: "I16",
  u16: "U16",
  i32: "I32",
  u32: "U32",
  i64: "I64",
  u64: "U64",
  f16: "F16",
  f32: "F32",
  f64: "F64",
};

/** Bytes of one row of a fixed column, at most. */
const MAX_ROW_BYTES = 2 ** 28;

/** The field `name` of the type that `text` says. Throws `BAD_OPTION`. */
export function parseFieldType(name: string, text: string): PackField {
  const bad = (why: string) =>
    new HeadraceError(
      "BAD_OPTION",
      `schema: the type of column ${JSON.stringify(name)} is ${JSON.stringify(text)}; ${why}`,
    );
  const match = /^(\w+)(?:\[([\d,\s]*)\])?$/.exec(text.trim());
  const wanted = `it must be utf8, or one of ${Object.keys(NAMES).join(", ")}, with [] for lists or [3,224,224] for a shape`;
  if (match === null) throw bad(wanted);
  const [, element, dimensions] = match;
  if (element === "utf8" && dimensions === undefined)
    return { name, kind: "utf8", dtype: "U8", shape: [], nullable: true };
  const dtype = Object.hasOwn(NAMES, element!) ? NAMES[element!] : undefined;
  if (dtype === undefined) throw bad(wanted);
  if (dimensions === undefined) return { name, kind: "fixed", dtype, shape: [], nullable: true };
  if (dimensions.trim() === "") return { name, kind: "list", dtype, shape: [], nullable: true };
  const shape = dimensions.split(",").map(Number);
  if (!shape.every((size) => Number.isSafeInteger(size) && size > 0))
    throw bad("its sizes must be whole numbers from 1");
  if (byteLengthOf(dtype, shape) > MAX_ROW_BYTES)
    throw bad(`one row would take more than ${MAX_ROW_BYTES} bytes`);
  return { name, kind: "fixed", dtype, shape, nullable: true };
}

/** The other way round. */
export function fieldTypeText({ kind, dtype, shape }: PackField): string {
  if (kind === "utf8" || kind === "binary") return kind;
  const element = dtype.toLowerCase();
  if (kind === "list") return `${element}[]`;
  return shape.length === 0 ? element : `${element}[${shape.join(",")}]`;
}

/** For messages. */
export function fieldTypeWords({ kind, dtype, shape }: PackField): string {
  if (kind === "utf8") return "text";
  const many = dtype === "BOOL" ? "booleans" : dtype.startsWith("F") ? "numbers" : "integers";
  if (kind === "list") return `lists of ${many}`;
  return shape.length === 0 ? many : `lists of ${many} of shape [${shape.join(",")}]`;
}
