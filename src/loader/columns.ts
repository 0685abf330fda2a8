/** How each kind of column gets into a batch. One object a column, used for one batch after another: first
 * `measure`, which reserves memory, then `fill`, which asks for bytes and computes what must be computed. */
import type { DeviceBuffer } from "../device/device.ts";
import { HeadraceError } from "../errors.ts";
import { dtypeBits, itemAlignment } from "../format/dtype.ts";
import type { SegmentLayout } from "../plan/collate.ts";
import type { ColumnLayout, ColumnSchema, DType, Shape } from "../types.ts";
import { Column, type ColumnParts, Part } from "./batch.ts";
import type { DatasetDictionary } from "./dictionary.ts";
import { readBits, readIntegers } from "./integers.ts";
import { Padding } from "./padding.ts";
import type { OpenShard } from "./shard.ts";
import type { BatchRows, Span } from "./spans.ts";
import type { Target } from "./target.ts";

/** What a batch's limit counts. */
export type CostUnit = "bytes" | "elements";

/** One column, batch after batch. */
export interface ColumnAssembler {
  measure(rows: BatchRows, target: Target, layout: SegmentLayout): void;
  fill(rows: BatchRows, target: Target): Column;
  /** Adds what each of `spans`' rows counts toward a batch's limit to `out`: its bytes in this column, or
   * its elements. */
  addCosts(spans: readonly Span[], unit: CostUnit, out: Float64Array): void;
}

export function layoutOf(span: Span, position: number): ColumnLayout {
  return span.group.columns[span.shard.columnOf[position]!]!;
}

/** Bytes of one item: all of a fixed column's sample, one element of a ragged one's. */
function itemBytesOf(column: ColumnSchema): number {
  const bits = dtypeBits(column.dtype) * column.shape.reduce((a, b) => a * b, 1);
  return bits / 8;
}

/** The presence of rows: shared by all kinds of columns. */
class Validity {
  readonly #position: number;
  #offset = -1;

  constructor(position: number) {
    this.#position = position;
  }

  measure(rows: BatchRows, layout: SegmentLayout): void {
    let some = false;
    for (const shard of rows.shards) some ||= shard.hasNulls[this.#position] === true;
    some &&= rows.spans.some((span) => layoutOf(span, this.#position).validity !== undefined);
    this.#offset = some ? layout.computed(rows.size) : -1;
  }

  fill(rows: BatchRows, target: Target): Part | undefined {
    if (this.#offset < 0) return undefined;
    const bytes = new Uint8Array(target.host(), this.#offset, rows.size);
    bytes.fill(0, rows.real.end);
    for (const span of rows.spans) {
      const { validity } = layoutOf(span, this.#position);
      if (validity === undefined) bytes.fill(1, span.outRow, span.outRow + span.count);
      else readBits(span.shard, validity.range.start, span.row, span.count, bytes, span.outRow);
    }
    return new Part(target.scope, "U8", [rows.size], target.device, this.#offset, rows.size);
  }

  /** Whether batch row `row` is present. */
  present(target: Target, row: number): boolean {
    return this.#offset < 0 || new Uint8Array(target.host(), this.#offset + row, 1)[0] === 1;
  }
}

/** What the kinds have in common. */
export abstract class ColumnBase implements ColumnAssembler {
  protected readonly column: ColumnSchema;
  protected readonly position: number;
  protected readonly itemBytes: number;
  protected readonly validity: Validity;

  constructor(column: ColumnSchema, position: number) {
    this.column = column;
    this.position = position;
    this.itemBytes = itemBytesOf(column);
    this.validity = new Validity(position);
  }

  abstract measure(rows: BatchRows, target: Target, layout: SegmentLayout): void;
  abstract fill(rows: BatchRows, target: Target): Column;
  abstract addCosts(spans: readonly Span[], unit: CostUnit, out: Float64Array): void;

  /** The mapping that shows file bytes `[start, end)` as they are to be delivered, if one may. */
  protected mapping(target: Target, span: Span, start: number, end: number): MappedPlace | undefined {
    if (!target.mayMap || end === start) return undefined;
    const buffer = span.shard.window(start, end);
    if (buffer === undefined) return undefined;
    const byteOffset = start - span.shard.windowStart;
    const aligned =
      start % itemAlignment(this.column.dtype) === 0 && byteOffset % target.offsetAlignment === 0;
    return aligned ? { shard: span.shard, buffer, byteOffset } : undefined;
  }

  protected make(
    target: Target,
    place: MappedPlace | undefined,
    offset: number,
    shape: Shape,
    byteLength: number,
    parts: ColumnParts,
    dtype: DType = this.column.dtype,
  ): Column {
    const buffer = place?.buffer ?? target.device;
    const byteOffset = place?.byteOffset ?? offset;
    place?.shard.willNeed(this.position, place.buffer, byteOffset, byteLength);
    const { name, logical } = this.column;
    return new Column(
      name,
      logical,
      place !== undefined,
      parts,
      target.scope,
      dtype,
      shape,
      buffer,
      byteOffset,
      byteLength,
    );
  }
}

/** A part that is a mapping. */
export interface MappedPlace {
  readonly shard: OpenShard;
  readonly buffer: DeviceBuffer;
  readonly byteOffset: number;
}

/** Every sample has the same bytes. */
export class FixedColumn extends ColumnBase {
  readonly #padding = new Padding("U8", 0);
  /** Whether values are stored as bits, which are expanded here. Shards of a dataset are of one format, so that it
   * is so in all of them or none. */
  #bits = false;
  /** Of {@link SegmentLayout.computed} for bits, else of {@link SegmentLayout.section}. */
  #section = 0;
  #place: MappedPlace | undefined;

  measure(rows: BatchRows, target: Target, layout: SegmentLayout): void {
    this.validity.measure(rows, layout);
    this.#place = undefined;
    this.#bits = false;
    for (const shard of rows.shards) this.#bits ||= shard.hasBits[this.position] === true;
    const byteLength = rows.size * this.itemBytes;
    if (this.#bits) {
      this.#section = layout.computed(byteLength);
      return;
    }
    const [span] = rows.spans;
    if (span !== undefined && rows.spans.length === 1 && rows.size === span.count) {
      const start = layoutOf(span, this.position).values.start + span.row * this.itemBytes;
      this.#place = this.mapping(target, span, start, start + byteLength);
    }
    this.#section = this.#place === undefined ? layout.section(byteLength) : 0;
    this.#padding.measure((rows.size - rows.real.end) * this.itemBytes, layout);
  }

  fill(rows: BatchRows, target: Target): Column {
    const byteLength = rows.size * this.itemBytes;
    const validity = this.validity.fill(rows, target);
    const at = this.#bits ? this.#section : target.placeOf(this.#section);
    if (this.#bits) this.#expand(rows, new Uint8Array(target.host(), at, byteLength));
    else if (this.#place === undefined) {
      this.#gather(rows.spans, target, at);
      const padded = rows.real.end * this.itemBytes;
      if (padded < byteLength) {
        this.#padding.begin(target, at, byteLength);
        this.#padding.fill(padded, byteLength);
        this.#padding.end();
      }
    }
    const shape = [rows.size, ...this.column.shape];
    return this.make(target, this.#place, at, shape, byteLength, { validity });
  }

  #gather(spans: readonly Span[], target: Target, at: number): void {
    const { itemBytes } = this;
    const { gather } = target;
    let group: Span["group"] | undefined;
    let valuesAt = 0;
    for (let i = 0; i < spans.length; i++) {
      const span = spans[i]!;
      if (span.group !== group) {
        group = span.group;
        valuesAt = layoutOf(span, this.position).values.start;
      }
      const start = valuesAt + span.row * itemBytes;
      gather.add(span.shard, start, span.count * itemBytes, at + span.outRow * itemBytes);
    }
  }

  #expand({ spans, real }: BatchRows, out: Uint8Array): void {
    const { itemBytes } = this;
    for (const span of spans) {
      const { start } = layoutOf(span, this.position).values;
      const count = span.count * itemBytes;
      readBits(span.shard, start, span.row * itemBytes, count, out, span.outRow * itemBytes);
    }
    out.fill(0, real.end * itemBytes);
  }

  addCosts(spans: readonly Span[], unit: CostUnit, out: Float64Array): void {
    addFixedCosts(spans, unit === "bytes" ? this.itemBytes : 1, out);
  }
}

function addFixedCosts(spans: readonly Span[], cost: number, out: Float64Array): void {
  for (const span of spans) {
    for (let i = 0; i < span.count; i++) out[span.outRow + i]! += cost;
  }
}

/** Codes of a dictionary, turned into the dataset's; always checked, so always computed. */
export class CodesColumn extends ColumnBase {
  readonly #dictionary: DatasetDictionary;
  #offset = 0;

  constructor(column: ColumnSchema, position: number, dictionary: DatasetDictionary) {
    super(column, position);
    this.#dictionary = dictionary;
  }

  measure(rows: BatchRows, _target: Target, layout: SegmentLayout): void {
    this.validity.measure(rows, layout);
    this.#offset = layout.computed(rows.size * 4);
  }

  fill(rows: BatchRows, target: Target): Column {
    const validity = this.validity.fill(rows, target);
    const out = new Int32Array(target.host(), this.#offset, rows.size);
    out.fill(0, rows.real.end);
    for (const span of rows.spans) this.#translate(span, target, out);
    const parts = { validity, dictionary: this.#dictionary };
    return this.make(target, undefined, this.#offset, [rows.size], rows.size * 4, parts);
  }

  /** A null row's own code means nothing; it becomes 0. */
  #translate(span: Span, target: Target, out: Int32Array): void {
    const own = layoutOf(span, this.position);
    const { codes } = this.#dictionary.mapFor(span.shard, own.dictionary ?? []);
    const stored = readIntegers(span.shard, own.dtype, own.values.start, span.row, span.count);
    for (let i = 0; i < span.count; i++) {
      let code = codes[stored[i]!];
      if (code === undefined) {
        if (own.validity === undefined || this.validity.present(target, span.outRow + i)) {
          throw new HeadraceError(
            "BAD_DICTIONARY",
            `${span.shard.name}: column ${this.column.name}, row ${span.group.rowStart + span.row + i}: code ${stored[i]} is outside its dictionary of ${codes.length}`,
          );
        }
        code = 0;
      }
      out[span.outRow + i] = code;
    }
  }

  addCosts(spans: readonly Span[], unit: CostUnit, out: Float64Array): void {
    addFixedCosts(spans, unit === "bytes" ? 4 : 1, out);
  }
}
