/** Gathers the record batches and dictionaries of one shard, in the order of the file, into its rows. */
import { DictionaryBatch } from "apache-arrow/fb/dictionary-batch";
import type { Message } from "apache-arrow/fb/message";
import { RecordBatch } from "apache-arrow/fb/record-batch";
import { HeadraceError } from "../errors.ts";
import type {
  ByteRange,
  ByteReader,
  ChunkTable,
  ColumnLayout,
  DictionaryLayout,
  RowGroup,
  RowsLayout,
} from "../types.ts";
import { BatchWalk } from "./arrow-batch.ts";
import { BodyBuffers, bodyCodecOf, type DecodeChunk } from "./arrow-body.ts";
import { type ArrayForm, type ColumnForm, columnForm } from "./arrow-columns.ts";
import type { ArrowMessage } from "./arrow-message.ts";
import { oneLine, quoted } from "./arrow-metadata.ts";
import type { ArrowSchema } from "./arrow-schema.ts";
import { type ArrowField, typeName } from "./arrow-types.ts";
import type { ChunkList } from "./chunk-list.ts";
import { ChunkCodec } from "./chunks.ts";

/** What is described, and how. */
export interface ArrowSource {
  readonly read: ByteReader;
  /** Bytes. */
  readonly fileLength: number;
  /** Names; all columns where absent. */
  readonly columns?: readonly string[] | undefined;
  readonly decode?: DecodeChunk | undefined;
  /** Given once a compressed body was met: buffers become chunks of it. */
  readonly chunks?: ChunkList | undefined;
}

/** The table of chunks; absent where nothing is compressed, or nothing of what is has any bytes. */
export function tableOf({ chunks }: ArrowSource): ChunkTable | undefined {
  return chunks === undefined || chunks.numChunks === 0 ? undefined : chunks.finish();
}

/** A field of the schema; `form` is absent where nobody asked for its column. */
interface Part {
  readonly field: ArrowField;
  readonly form?: ColumnForm;
}

/**
 * Takes messages as they come. Columns keep the schema's order. Dictionary layouts of one id are one array
 * that deltas extend, shared by all row groups until a replacement starts another: codes keep their meaning
 * when entries are appended, and memory stays proportional to the number of messages.
 */
export class RowsBuilder {
  readonly #read: ByteReader;
  readonly #schema: ArrowSchema;
  readonly #parts: readonly Part[];
  readonly #mayReplace: boolean;
  readonly #decode: DecodeChunk | undefined;
  readonly #chunks: ChunkList | undefined;
  readonly #dictionaryForms = new Map<bigint, { name: string; array: ArrayForm }>();
  readonly #dictionaries = new Map<bigint, DictionaryLayout[]>();
  readonly #groups: RowGroup[] = [];
  #numRows = 0;
  #numBatches = 0;
  #numDictionaryBatches = 0;
  #foundCompressed = false;

  /**
   * `columns` names those to describe; all, where it is undefined. `mayReplace` says whether a dictionary
   * may be sent again: in streams, not in files. Throws `UNSUPPORTED_TYPE` for a wanted column that cannot
   * be one, `ARROW_MESSAGE` where two wanted columns have the same name.
   */
  constructor({ read, columns, decode, chunks }: ArrowSource, schema: ArrowSchema, mayReplace: boolean) {
    this.#read = read;
    this.#decode = decode;
    this.#chunks = chunks;
    this.#schema = schema;
    this.#mayReplace = mayReplace;
    this.#parts = selectColumns(schema.fields, columns);
    for (const { form } of this.#parts) {
      if (form?.dictionary === undefined) continue;
      const { id, array } = form.dictionary;
      this.#dictionaryForms.set(id, { name: form.schema.name, array });
    }
  }

  /** Whether a compressed body was met, and no list of chunks is there for it: then the rows so far are laid out in vain. */
  get needsChunks(): boolean {
    return this.#foundCompressed && this.#chunks === undefined;
  }

  addRecordBatch({ message, buffer, body }: ArrowMessage): void {
    const what = `record batch ${this.#numBatches++}`;
    const table: RecordBatch = message.header(new RecordBatch()) ?? buffer.fail("it has no header");
    const codec = this.#parts.some((part) => part.form !== undefined)
      ? this.#codecOf(table, message, what)
      : ChunkCodec.stored;
    const walk = new BatchWalk(table, buffer, this.#body(body, codec), what);
    if (walk.length === 0 || this.needsChunks) return;
    if (!Number.isSafeInteger(this.#numRows + walk.length))
      buffer.fail(`with its ${walk.length} rows the shard has more than 2^53 - 1`);
    const columns: ColumnLayout[] = [];
    for (const { field, form } of this.#parts) {
      if (form === undefined) walk.skip(field);
      else columns.push(this.#column(walk, form, what));
    }
    walk.finish();
    this.#groups.push({ rowStart: this.#numRows, numRows: walk.length, columns });
    this.#numRows += walk.length;
  }

  addDictionaryBatch({ message, buffer, body }: ArrowMessage): void {
    const what = `dictionary batch ${this.#numDictionaryBatches++}`;
    const batch: DictionaryBatch = message.header(new DictionaryBatch()) ?? buffer.fail("it has no header");
    const id = batch.id();
    if (!this.#schema.dictionaries.has(id)) buffer.fail(`no field of the schema has its dictionary ${id}`);
    const layouts = this.#target(id, batch.isDelta(), (text) => buffer.fail(text));
    const form = this.#dictionaryForms.get(id);
    if (form === undefined) return;
    const table = batch.data() ?? buffer.fail("it has no record batch inside");
    const walk = new BatchWalk(table, buffer, this.#body(body, this.#codecOf(table, message, what)), what);
    if (walk.length === 0 || this.needsChunks) return;
    const column = walk.column(form.name, form.array);
    walk.finish();
    layouts.push({ numRows: walk.length, column });
  }

  /** The rows so far. */
  finish(): RowsLayout {
    const columns = this.#parts.flatMap((part) => (part.form === undefined ? [] : [part.form.schema]));
    return { schema: { columns }, numRows: this.#numRows, groups: this.#groups };
  }

  #codecOf(table: RecordBatch, message: Message, what: string): number {
    if (table.length() === 0n) return ChunkCodec.stored;
    const codec = bodyCodecOf(table, message, what);
    this.#foundCompressed ||= codec !== ChunkCodec.stored;
    return codec;
  }

  #body(body: ByteRange, codec: number): BodyBuffers {
    return new BodyBuffers({ read: this.#read, body, codec, chunks: this.#chunks, decode: this.#decode });
  }

  #column(walk: BatchWalk, form: ColumnForm, what: string): ColumnLayout {
    const { name, nullable } = form.schema;
    const layout = walk.column(name, form.array);
    const nullCount = layout.validity?.nullCount ?? 0;
    if (nullCount > 0 && !nullable)
      throw new HeadraceError(
        "ARROW_MESSAGE",
        `${what}: column ${quoted(name)}: ${nullCount} nulls in a column that the schema calls not nullable`,
      );
    if (form.dictionary === undefined) return layout;
    const { id } = form.dictionary;
    const dictionary = this.#dictionaries.get(id);
    // A dictionary may come later, or never, as long as no row has needed it.
    if (dictionary === undefined && nullCount < walk.length)
      throw new HeadraceError(
        "ARROW_MESSAGE",
        `${what}: column ${quoted(name)}: its dictionary ${id} has not been sent`,
      );
    return { ...layout, dictionary: dictionary ?? [] };
  }

  /** The list that a dictionary batch goes to. */
  #target(id: bigint, isDelta: boolean, fail: (text: string) => never): DictionaryLayout[] {
    const present = this.#dictionaries.get(id);
    if (isDelta) return present ?? fail(`it adds to dictionary ${id}, which has not been sent`);
    if (present !== undefined && !this.#mayReplace)
      fail(`it replaces dictionary ${id}, which the file format does not allow`);
    const layouts: DictionaryLayout[] = [];
    this.#dictionaries.set(id, layouts);
    return layouts;
  }
}

function selectColumns(fields: readonly ArrowField[], columns: readonly string[] | undefined): Part[] {
  const wanted = columns === undefined ? undefined : new Set(columns);
  const seen = new Set<string>();
  return fields.map((field): Part => {
    const { name } = field;
    if (wanted !== undefined && !wanted.has(name)) return { field };
    if (seen.has(name))
      throw new HeadraceError("ARROW_MESSAGE", `two columns of the schema have the name ${quoted(name)}`);
    seen.add(name);
    const form = columnForm(field);
    if ("unsupported" in form)
      throw new HeadraceError(
        "UNSUPPORTED_TYPE",
        `column ${quoted(name)} is ${oneLine(typeName(field))}: ${form.unsupported}; name the other columns to read them`,
      );
    return { field, form };
  });
}
