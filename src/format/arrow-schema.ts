/** Reads an Arrow schema from its flatbuffer into plain fields. */
import { Field } from "apache-arrow/fb/field";
import type { KeyValue } from "apache-arrow/fb/key-value";
import type { Schema as SchemaTable } from "apache-arrow/fb/schema";
import { HeadraceError } from "../errors.ts";
import { type MetadataBuffer, oneLine, quoted } from "./arrow-metadata.ts";
import { type ArrowField, parseIndexType, parseType, valueTypeName } from "./arrow-types.ts";

/** Levels of nested types; a flatbuffer whose fields contain themselves ends here. */
const MAX_DEPTH = 64;
/** Metadata versions, counted from 0: V4 (Arrow 0.8) and V5 (Arrow 1.0). */
const OLDEST_VERSION = 3;
const NEWEST_VERSION = 4;

/** A schema message or the schema of a footer. */
export interface ArrowSchema {
  readonly fields: readonly ArrowField[];
  readonly metadata: Readonly<Record<string, string>>;
  /** The first field with each dictionary id; all fields of one id have the same value type. */
  readonly dictionaries: ReadonlyMap<bigint, ArrowField>;
}

/**
 * Reads the whole schema, also the types that no column is made of. `version` is that of the footer or the
 * message, counted from 0. Throws the buffer's own code where the flatbuffer lies, `UNSUPPORTED_TYPE` for
 * big-endian data and for types without a known layout.
 */
export function parseSchema(buffer: MetadataBuffer, table: SchemaTable, version: number): ArrowSchema {
  if (version < OLDEST_VERSION || version > NEWEST_VERSION)
    buffer.fail(`its metadata version is V${version + 1}; V4 and V5 can be read`);
  const endianness = table.endianness();
  if (endianness !== 0)
    throw new HeadraceError("UNSUPPORTED_TYPE", "the data is big-endian; only little-endian can be read");
  const reader = new FieldReader(buffer, version);
  const fields: ArrowField[] = [];
  const numFields = table.fieldsLength();
  for (let i = 0; i < numFields; i++) fields.push(reader.read(table.fields(i), 0));
  return { fields, metadata: parseKeyValues(table), dictionaries: reader.dictionaries };
}

class FieldReader {
  readonly dictionaries = new Map<bigint, ArrowField>();
  readonly #entryTypes = new Map<bigint, string>();
  readonly #buffer: MetadataBuffer;
  readonly #version: number;
  #numFields = 0;

  constructor(buffer: MetadataBuffer, version: number) {
    this.#buffer = buffer;
    this.#version = version;
  }

  read(table: Field | null, depth: number): ArrowField {
    const buffer = this.#buffer;
    if (table === null) return buffer.fail("a field is missing");
    if (depth > MAX_DEPTH) return buffer.fail(`its types are nested more than ${MAX_DEPTH} deep`);
    // A table is at least four bytes: more fields than that are the same ones met again and again.
    if (++this.#numFields > buffer.byteLength / 4)
      return buffer.fail(`it has more than ${this.#numFields - 1} fields in ${buffer.byteLength} bytes`);
    const name = table.name() ?? "";
    const type = parseType(buffer, table, this.#version);
    if (type === undefined)
      throw new HeadraceError(
        "UNSUPPORTED_TYPE",
        `field ${quoted(name)} has the unknown Arrow type number ${table.typeType()}`,
      );
    const children: ArrowField[] = [];
    const numChildren = table.childrenLength();
    for (let i = 0; i < numChildren; i++) children.push(this.read(table.children(i, new Field()), depth + 1));
    const wanted = type.form === "list" || type.form === "fixed-list" ? 1 : undefined;
    if ((wanted ?? children.length) !== children.length)
      return buffer.fail(`field ${quoted(name)} is a ${type.name} with ${children.length} children, not 1`);
    if ((type.form === "fixed" || type.form === "bytes") && children.length > 0)
      return buffer.fail(`field ${quoted(name)} is a ${type.name} and has ${children.length} children`);
    const field = { name, nullable: table.nullable(), type, children };
    const encoding = table.dictionary();
    if (encoding === null) return field;
    const dictionary = { id: encoding.id(), index: parseIndexType(buffer, encoding.indexType()) };
    const encoded = { ...field, dictionary };
    this.#register(encoded, dictionary.id);
    return encoded;
  }

  #register(field: ArrowField, id: bigint): void {
    const type = valueTypeName(field);
    const known = this.#entryTypes.get(id);
    if (known === undefined) {
      this.dictionaries.set(id, field);
      this.#entryTypes.set(id, type);
    } else if (known !== type)
      this.#buffer.fail(
        `field ${quoted(field.name)} shares dictionary ${id} with another field, ` +
          `but its entries are ${oneLine(type)} for one and ${oneLine(known)} for the other`,
      );
  }
}

function parseKeyValues(table: SchemaTable): Record<string, string> {
  const entries: [string, string][] = [];
  const length = table.customMetadataLength();
  for (let i = 0; i < length; i++) {
    const entry: KeyValue | null = table.customMetadata(i);
    if (entry !== null) entries.push([entry.key() ?? "", entry.value() ?? ""]);
  }
  return Object.fromEntries(entries);
}
