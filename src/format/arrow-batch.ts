/**
 * Walks the field nodes and buffers of one record batch (or of a dictionary batch, which is one inside) and
 * takes the byte range of every buffer that a column needs. Nodes and buffers come in the order of the
 * schema's fields, depth first, as the Arrow columnar format lays them.
 */
import type { RecordBatch } from "apache-arrow/fb/record-batch";
import { type ErrorCode, HeadraceError } from "../errors.ts";
import type { ByteRange, ColumnLayout, DType } from "../types.ts";
import type { BodyBuffers } from "./arrow-body.ts";
import type { ArrayForm } from "./arrow-columns.ts";
import { type MetadataBuffer, quoted } from "./arrow-metadata.ts";
import { type BitmapPlace, nullsUnderNullRows } from "./arrow-nulls.ts";
import type { ArrowField } from "./arrow-types.ts";

/** How far null elements are looked for under null rows, which means reading bitmaps. */
const MAX_NULL_BYTES = 2 ** 30;
const MAX_NULL_ROWS = 2 ** 28;

/** One array's length and number of nulls, in elements. */
interface Node {
  readonly length: number;
  readonly nullCount: number;
}

/** A record batch's metadata, checked, and where its body lies in the file. */
export class BatchWalk {
  /** Rows. */
  readonly length: number;
  readonly #batch: RecordBatch;
  readonly #buffer: MetadataBuffer;
  readonly #body: BodyBuffers;
  readonly #what: string;
  readonly #numNodes: number;
  readonly #numBuffers: number;
  #nextNode = 0;
  #nextBuffer = 0;
  #nextVariadic = 0;
  #column = "";

  /** `what` names the batch in messages: `record batch 3`. Throws `ARROW_MESSAGE`. */
  constructor(batch: RecordBatch, buffer: MetadataBuffer, body: BodyBuffers, what: string) {
    this.#batch = batch;
    this.#buffer = buffer;
    this.#body = body;
    this.#what = what;
    this.length = buffer.size(batch.length(), "its number of rows");
    this.#numNodes = batch.nodesLength();
    this.#numBuffers = batch.buffersLength();
  }

  /** Passes over a column that nobody asked for. Throws `ARROW_MESSAGE`, `ARROW_BUFFER`. */
  skip(field: ArrowField): void {
    this.#column = field.name;
    this.#checkRows(this.#skipArray(field));
  }

  /**
   * The layout of the next column. Throws `ARROW_MESSAGE` where nodes or buffers do not fit the schema,
   * `ARROW_BUFFER` where a buffer is outside the body or too small for its rows, `UNSUPPORTED_TYPE`
   * where elements inside lists are null, and `UNSUPPORTED_COMPRESSION` for a buffer that is too long to decode.
   */
  column(name: string, form: ArrayForm): ColumnLayout {
    this.#column = name;
    const node = this.#node();
    this.#checkRows(node);
    const bits = this.#range();
    // A bitmap without a null in it need not be there, and is not worth reading where it is.
    const rowBits = node.nullCount === 0 ? undefined : bits;
    const presence = rowBits === undefined ? {} : { validity: this.#validity(node, rowBits) };
    if (form.kind === "fixed") {
      const dtype = form.element.dtype;
      const values = this.#fixedValues(node, form, rowBits);
      return { dtype, values, bitPacked: dtype === "BOOL", ...presence };
    }
    const width = form.offsetWidth;
    const offsetsBytes = this.#product(node.length + 1, width);
    const offsets = { range: this.#place("offsets", this.#range(), offsetsBytes, node.length), width };
    if (form.kind === "bytes")
      return { dtype: "U8" as DType, values: this.#bytes(), bitPacked: false, offsets, ...presence };
    const elements = this.#node();
    if (elements.nullCount > 0) this.#failNullElements(elements.nullCount);
    this.#range();
    const values = this.#fixedValues(elements, form, undefined);
    return { dtype: form.element.dtype, values, bitPacked: false, offsets, ...presence };
  }

  /** To be called after the last column. Throws `ARROW_MESSAGE` where nodes or buffers are left. */
  finish(): void {
    const nodes = this.#numNodes - this.#nextNode;
    const buffers = this.#numBuffers - this.#nextBuffer;
    if (nodes !== 0 || buffers !== 0)
      this.#buffer.fail(`${nodes} field nodes and ${buffers} buffers are left after the schema's last field`);
    this.#body.finish((code, text) => {
      throw new HeadraceError(code, `${this.#what}: ${text}`);
    });
  }

  /** The values of `node`, which has been read with its validity, down through its fixed-size lists. */
  #fixedValues(
    node: Node,
    form: ArrayForm & { readonly kind: "fixed" | "list" },
    rowValidity: ByteRange | undefined,
  ): ByteRange {
    let perRow = 1;
    let count = node.length;
    for (const size of form.listSizes) {
      perRow *= size;
      count = this.#product(count, size);
      const child = this.#node();
      if (child.length < count)
        this.#fail(
          "ARROW_BUFFER",
          `${count} elements are needed inside its fixed-size lists, the node has ${child.length}`,
        );
      const bits = this.#range();
      if (child.nullCount > 0)
        this.#checkNulls(child, bits, { numRows: node.length, perRow, validity: rowValidity });
    }
    const numBits = this.#product(count, form.element.bits);
    return this.#place("values", this.#range(), Math.ceil(numBits / 8), node.length);
  }

  /** A null row of fixed-size lists has elements all the same, and most writers mark them null too. Nulls
   * in other rows cannot be delivered. */
  #checkNulls(
    child: Node,
    bits: ByteRange,
    rows: { numRows: number; perRow: number; validity: ByteRange | undefined },
  ): void {
    const rowBits = rows.validity ?? this.#failNullElements(child.nullCount);
    const bytes = Math.ceil(child.length / 8);
    if (bytes > MAX_NULL_BYTES || rows.numRows > MAX_NULL_ROWS)
      this.#fail(
        "UNSUPPORTED_TYPE",
        `null rows of fixed-size lists in a batch of ${rows.numRows} rows and ${child.length} elements; ` +
          `at most ${MAX_NULL_ROWS} rows and ${8 * MAX_NULL_BYTES} elements can be told from null elements`,
      );
    const hidden = nullsUnderNullRows(
      this.#bitmap(rowBits, Math.ceil(rows.numRows / 8), rows.numRows),
      this.#bitmap(bits, bytes, child.length),
      rows.numRows,
      rows.perRow,
    );
    if (hidden < child.nullCount) this.#failNullElements(child.nullCount - hidden);
  }

  #failNullElements(count: number): never {
    this.#fail("UNSUPPORTED_TYPE", `${count} null elements inside its lists; only whole rows may be null`);
  }

  #skipArray(field: ArrowField): Node {
    const node = this.#node();
    if (field.dictionary !== undefined) {
      this.#skipBuffers(2);
      return node;
    }
    const { type, children } = field;
    if (type.form === "skipped") {
      this.#skipBuffers(type.buffers);
      if (type.variadic) this.#skipBuffers(this.#variadicCount());
    } else this.#skipBuffers(type.form === "bytes" ? 3 : type.form === "fixed-list" ? 1 : 2);
    for (const child of children) this.#skipArray(child);
    return node;
  }

  #skipBuffers(count: number): void {
    // A lying count cannot make this long: it fails where the buffers end.
    for (let i = 0; i < count; i++) this.#range();
  }

  #variadicCount(): number {
    const index = this.#nextVariadic++;
    if (index >= this.#batch.variadicBufferCountsLength())
      this.#fail("ARROW_MESSAGE", "its number of view buffers is missing");
    const count = this.#batch.variadicBufferCounts(index) ?? -1n;
    return this.#buffer.size(count, "a number of view buffers");
  }

  #node(): Node {
    if (this.#nextNode >= this.#numNodes) this.#failMissing("field nodes", this.#numNodes);
    const table = this.#batch.nodes(this.#nextNode++);
    if (table === null) return this.#buffer.fail("it has no field nodes");
    const length = this.#buffer.size(table.length(), "the length of a field node");
    const nullCount = this.#buffer.size(table.nullCount(), "the null count of a field node");
    if (nullCount > length)
      this.#fail("ARROW_MESSAGE", `its field node has ${nullCount} nulls in ${length} elements`);
    return { length, nullCount };
  }

  /** The next buffer's bytes in the file. */
  #range(): ByteRange {
    if (this.#nextBuffer >= this.#numBuffers) this.#failMissing("buffers", this.#numBuffers);
    const index = this.#nextBuffer++;
    const table = this.#batch.buffers(index);
    if (table === null) return this.#buffer.fail("it has no buffers");
    const { body } = this.#body;
    const bodyLength = body.end - body.start;
    const offset = Number(table.offset());
    const length = Number(table.length());
    if (!(offset >= 0 && length >= 0 && length <= bodyLength && offset <= bodyLength - length))
      this.#fail(
        "ARROW_BUFFER",
        `buffer ${index} is bytes [${offset}, ${offset + length}) of a body of ${bodyLength} bytes`,
      );
    return { start: body.start + offset, end: body.start + offset + length };
  }

  #validity({ length, nullCount }: Node, bits: ByteRange): NonNullable<ColumnLayout["validity"]> {
    return { range: this.#place("validity", bits, Math.ceil(length / 8), length), nullCount };
  }

  /** The first `needed` bytes of a buffer, where the description has them. */
  #place(what: string, range: ByteRange, needed: number, rows: number): ByteRange {
    return this.#body.place(`${what} of ${rows} rows`, range, needed, this.#failHere);
  }

  /** All bytes of the next buffer. */
  #bytes(): ByteRange {
    return this.#body.place("values", this.#range(), undefined, this.#failHere);
  }

  #bitmap(range: ByteRange, needed: number, rows: number): BitmapPlace {
    return this.#body.bitmap(`validity of ${rows} rows`, range, needed, this.#failHere);
  }

  readonly #failHere = (code: ErrorCode, text: string): never => this.#fail(code, text);

  #product(count: number, size: number): number {
    const product = count * size;
    if (!Number.isSafeInteger(product))
      this.#fail("ARROW_BUFFER", `${count} times ${size} is more than 2^53 - 1`);
    return product;
  }

  #checkRows(node: Node): void {
    if (node.length !== this.length)
      this.#fail("ARROW_MESSAGE", `it has ${node.length} rows in a batch of ${this.length}`);
  }

  #failMissing(what: string, count: number): never {
    this.#fail("ARROW_MESSAGE", `the batch has ${count} ${what}, fewer than the schema needs`);
  }

  #fail(code: ErrorCode, text: string): never {
    throw new HeadraceError(code, `${this.#what}: column ${quoted(this.#column)}: ${text}`);
  }
}
