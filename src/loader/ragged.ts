/** Ragged columns: samples of differing lengths, as values and offsets, or brought to one length. */
import { paddedLength, type SegmentLayout } from "../plan/collate.ts";
import type { ColumnSchema } from "../types.ts";
import { type Column, Part } from "./batch.ts";
import { ColumnBase, type CostUnit, layoutOf, type MappedPlace } from "./columns.ts";
import { readOffsets } from "./integers.ts";
import { padElement } from "./pad.ts";
import { Padding } from "./padding.ts";
import type { BatchRows, Span } from "./spans.ts";
import type { Target } from "./target.ts";

/** Reads the list offsets of a batch into one array: for each span `count + 1` of them, one after another. */
class OffsetReader {
  /** Offsets of all spans. */
  values = new Float64Array(0);
  /** Elements of all rows together, and of the longest. */
  total = 0;
  longest = 0;
  readonly #column: ColumnSchema;
  readonly #position: number;
  readonly #itemBytes: number;

  constructor(column: ColumnSchema, position: number, itemBytes: number) {
    this.#column = column;
    this.#position = position;
    this.#itemBytes = itemBytes;
  }

  read(spans: readonly Span[]): void {
    const last = spans.at(-1);
    const needed = last === undefined ? 0 : last.outRow + last.count + spans.length;
    if (this.values.length < needed) this.values = new Float64Array(needed * 2);
    this.total = 0;
    this.longest = 0;
    let at = 0;
    for (let s = 0; s < spans.length; s++) {
      const { shard, row, count, group } = spans[s]!;
      const own = group.columns[shard.columnOf[this.#position]!]!;
      const out = this.values.subarray(at, at + count + 1);
      readOffsets(shard, this.#column.name, own, this.#itemBytes, row, count, out, group.rowStart);
      for (let i = 0; i < count; i++) {
        const length = out[i + 1]! - out[i]!;
        if (length > this.longest) this.longest = length;
      }
      this.total += out[count]! - out[0]!;
      at += count + 1;
    }
  }

  /** Adds to `out` for each row its length, rounded up to a multiple of `multiple` and at least `least`, times
   * `perElement`, plus `perRow`. */
  addCosts(
    spans: readonly Span[],
    multiple: number,
    least: number,
    perElement: number,
    perRow: number,
    out: Float64Array,
  ): void {
    this.read(spans);
    let at = 0;
    for (const { outRow, count } of spans) {
      for (let i = 0; i < count; i++) {
        const length = this.values[at + i + 1]! - this.values[at + i]!;
        const counted = Math.max(least, Math.ceil(length / multiple) * multiple);
        out[outRow + i]! += counted * perElement + perRow;
      }
      at += count + 1;
    }
  }
}

/** Samples of differing lengths, as values and offsets. */
export class RaggedColumn extends ColumnBase {
  readonly #reader: OffsetReader;
  #offsetsAt = 0;
  /** A section. */
  #values = 0;
  #place: MappedPlace | undefined;

  constructor(column: ColumnSchema, position: number) {
    super(column, position);
    this.#reader = new OffsetReader(column, position, this.itemBytes);
  }

  measure(rows: BatchRows, target: Target, layout: SegmentLayout): void {
    this.validity.measure(rows, layout);
    this.#reader.read(rows.spans);
    this.#offsetsAt = layout.computed((rows.size + 1) * this.#offsetWidth());
    this.#place = undefined;
    const [span] = rows.spans;
    if (span !== undefined && rows.spans.length === 1) {
      const { start } = layoutOf(span, this.position).values;
      const from = start + this.#reader.values[0]! * this.itemBytes;
      this.#place = this.mapping(target, span, from, from + this.#reader.total * this.itemBytes);
    }
    this.#values = this.#place === undefined ? layout.section(this.#reader.total * this.itemBytes) : 0;
  }

  fill(rows: BatchRows, target: Target): Column {
    const { total } = this.#reader;
    const validity = this.validity.fill(rows, target);
    const offsets = this.#fillOffsets(rows, target);
    const at = target.placeOf(this.#values);
    if (this.#place === undefined) this.#gatherValues(rows.spans, target, at);
    const shape = [total, ...this.column.shape];
    return this.make(target, this.#place, at, shape, total * this.itemBytes, {
      validity,
      offsets,
    });
  }

  addCosts(spans: readonly Span[], unit: CostUnit, out: Float64Array): void {
    const bytes = unit === "bytes";
    this.#reader.addCosts(spans, 1, 0, bytes ? this.itemBytes : 1, bytes ? 4 : 0, out);
  }

  #offsetWidth(): 4 | 8 {
    return this.#reader.total >= 2 ** 31 ? 8 : 4;
  }

  #fillOffsets(rows: BatchRows, target: Target): Part {
    const width = this.#offsetWidth();
    const { values } = this.#reader;
    const out =
      width === 4
        ? new Int32Array(target.host(), this.#offsetsAt, rows.size + 1)
        : new BigInt64Array(target.host(), this.#offsetsAt, rows.size + 1);
    const put = (row: number, value: number) => {
      out[row] = (width === 4 ? value : BigInt(value)) as never;
    };
    let total = 0;
    let at = 0;
    put(0, 0);
    for (const { count, outRow } of rows.spans) {
      const shift = total - values[at]!;
      for (let i = 1; i <= count; i++) put(outRow + i, values[at + i]! + shift);
      total = values[at + count]! + shift;
      at += count + 1;
    }
    for (let row = rows.real.end + 1; row <= rows.size; row++) put(row, total);
    const dtype = width === 4 ? "I32" : "I64";
    const length = (rows.size + 1) * width;
    return new Part(target.scope, dtype, [rows.size + 1], target.device, this.#offsetsAt, length);
  }

  #gatherValues(spans: readonly Span[], target: Target, valuesAt: number): void {
    const { values } = this.#reader;
    let at = 0;
    let to = valuesAt;
    for (let s = 0; s < spans.length; s++) {
      const span = spans[s]!;
      const first = values[at]!;
      const byteLength = (values[at + span.count]! - first) * this.itemBytes;
      const { start } = layoutOf(span, this.position).values;
      target.gather.add(span.shard, start + first * this.itemBytes, byteLength, to);
      to += byteLength;
      at += span.count + 1;
    }
  }
}

/** Samples of differing lengths, brought to one length, with a mask. */
export class PaddedColumn extends ColumnBase {
  readonly #reader: OffsetReader;
  readonly #multiple: number;
  readonly #padding: Padding;
  #width = 0;
  /** A section. */
  #values = 0;
  #maskAt = 0;

  constructor(
    column: ColumnSchema,
    position: number,
    pad: { readonly multiple: number; readonly value: number },
  ) {
    super(column, position);
    this.#reader = new OffsetReader(column, position, this.itemBytes);
    this.#multiple = pad.multiple;
    this.#padding = new Padding(column.dtype, padElement(column, pad.value));
  }

  measure(rows: BatchRows, _target: Target, layout: SegmentLayout): void {
    this.validity.measure(rows, layout);
    this.#reader.read(rows.spans);
    this.#width = paddedLength(this.#reader.longest, this.#multiple);
    const rowBytes = this.#width * this.itemBytes;
    this.#values = layout.section(rows.size * rowBytes);
    this.#maskAt = layout.computed(rows.size * this.#width);
    this.#padding.measure(Math.max(1, rows.size - rows.real.end) * rowBytes, layout);
  }

  fill(rows: BatchRows, target: Target): Column {
    const width = this.#width;
    const rowBytes = width * this.itemBytes;
    const byteLength = rows.size * rowBytes;
    const validity = this.validity.fill(rows, target);
    const valuesAt = target.placeOf(this.#values);
    const mask = new Uint8Array(target.host(), this.#maskAt, rows.size * width);
    mask.fill(1);
    this.#padding.begin(target, valuesAt, byteLength);
    this.#fillRows(rows.spans, target, valuesAt, mask);
    this.#padding.fill(rows.real.end * rowBytes, byteLength);
    this.#padding.end();
    mask.fill(0, rows.real.end * width);
    const maskPart = new Part(
      target.scope,
      "U8",
      [rows.size, width],
      target.device,
      this.#maskAt,
      mask.length,
    );
    const shape = [rows.size, width, ...this.column.shape];
    return this.make(target, undefined, valuesAt, shape, byteLength, { validity, mask: maskPart });
  }

  /** Asks for the rows and pads behind each. */
  #fillRows(spans: readonly Span[], target: Target, valuesAt: number, mask: Uint8Array): void {
    const { itemBytes } = this;
    const width = this.#width;
    const rowBytes = width * itemBytes;
    const padding = this.#padding;
    const offsets = this.#reader.values;
    let at = 0;
    for (const span of spans) {
      const { start } = layoutOf(span, this.position).values;
      const { shard, count, outRow } = span;
      const to = valuesAt + outRow * rowBytes;
      target.gather.addEach(shard, start, offsets, at, count, itemBytes, to, rowBytes);
      for (let i = 0; i < count; i++, at++) {
        const next = (outRow + i + 1) * width;
        const tail = next - width + offsets[at + 1]! - offsets[at]!;
        if (tail === next) continue;
        padding.fill(tail * itemBytes, next * itemBytes);
        mask.fill(0, tail, next);
      }
      at++;
    }
  }

  addCosts(spans: readonly Span[], unit: CostUnit, out: Float64Array): void {
    const perElement = unit === "bytes" ? this.itemBytes + 1 : 1;
    const multiple = this.#multiple;
    this.#reader.addCosts(spans, multiple, multiple, perElement, 0, out);
  }
}
