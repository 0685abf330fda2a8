/** Makes one batch: where each of its parts comes from and goes to. */
import type { DecodeRequest } from "../device/decode.ts";
import type { Device } from "../device/device.ts";
import { RequestList } from "../device/requests.ts";
import { itemAlignment } from "../format/dtype.ts";
import { SegmentLayout } from "../plan/collate.ts";
import type { SampleOrder } from "../plan/select.ts";
import { RunList, runsOf, runsOfRange } from "../plan/shard.ts";
import type { TensorLayout } from "../types.ts";
import type { Arena, Segment } from "./arena.ts";
import { assemblerOf } from "./assemblers.ts";
import { Column, Part, ViewScope } from "./batch.ts";
import type { ColumnAssembler } from "./columns.ts";
import type { Dataset } from "./dataset.ts";
import { type Arrival, Gather } from "./gather.ts";
import type { ResolvedOptions } from "./options.ts";
import type { OpenShard } from "./shard.ts";
import { type BatchRows, Pins, SpanSplitter } from "./spans.ts";
import { Target } from "./target.ts";

/** Sections of a segment begin on multiples of this: a cache line, and what vector loads want. */
const SECTION_ALIGNMENT = 64;

/** One touch of a mapping brings in up to this much around it (Linux's default fault-around). */
const FAULT_BYTES = 64 * 1024;

/** A batch whose bytes are still to be asked for. */
export interface Assembled {
  /** Makes the index in the dataset of each real row; called at most once. */
  readonly sampleIds: () => Float64Array;
  readonly columns: ReadonlyMap<string, Column>;
  readonly rowMask: Part | undefined;
  readonly scope: ViewScope;
  /** Shards whose pages the batch shows or whose bytes are asked for. */
  readonly pins: Pins;
  /** To submit now: borrowed until the next batch is assembled. */
  readonly requests: RequestList;
  /** To decode beside them; the batch's own. */
  readonly decodes: readonly DecodeRequest[];
  /** To signal once all of it is decoded, where requests wait for that. */
  readonly arrival: Arrival | undefined;
  /** Whether a column is a mapping, so that a shrunk file must be noticed when the batch is handed out. */
  readonly mapped: boolean;
  /** Bytes of mapped pages that the batch makes resident, about. */
  readonly touchedBytes: number;
}

/** Which samples a batch is made of. */
export interface BatchRequest {
  readonly order: SampleOrder;
  /** Position of the first sample in the order. */
  readonly start: number;
  readonly count: number;
  /** Rows, padding included. */
  readonly size: number;
  /** Names the batch in errors. */
  readonly title: string;
}

/** Assembles the batches of one loader, one at a time. */
export class Assembler {
  readonly #dataset: Dataset;
  readonly #device: Device;
  readonly #arena: Arena;
  readonly #columns: readonly ColumnAssembler[];
  readonly #requests = new RequestList();
  readonly #gather = new Gather(this.#requests);
  readonly #layout: SegmentLayout;
  readonly #runs = new RunList();
  readonly #splitter = new SpanSplitter();
  readonly #open: (shard: number) => OpenShard;
  /** A new one for each batch: datasets may be shared, so a number would not tell batches apart. */
  #occasion = {};

  constructor(dataset: Dataset, device: Device, arena: Arena, options: ResolvedOptions) {
    this.#dataset = dataset;
    this.#device = device;
    this.#arena = arena;
    this.#layout = new SegmentLayout(SECTION_ALIGNMENT, !device.capabilities.unifiedMemory);
    this.#columns = dataset.schema.columns.map((column, i) =>
      assemblerOf(column, i, dataset.dictionaries.get(column.name), options.pad),
    );
    this.#open = (index) => {
      const shard = dataset.shard(index);
      shard.check(this.#occasion);
      return shard;
    };
  }

  /** Plans a batch into `segment`. Throws what opening and checking shards throws, and `BATCH_TOO_LARGE`;
   * then nothing stays pinned. */
  assemble(request: BatchRequest, segment: Segment): Assembled {
    this.#occasion = {};
    const pins = new Pins();
    const scope = new ViewScope(this.#device, () => request.title);
    try {
      const { order, start, count } = request;
      const fill = () => {
        const ids = new Float64Array(count);
        order.fill(ids, start, count);
        return ids;
      };
      const isTensors = this.#dataset.view === "tensors";
      const ids = isTensors || !order.sequential ? fill() : undefined;
      const parts =
        isTensors && ids !== undefined
          ? this.#tensors(ids, segment, scope, pins)
          : this.#rows(request, ids, segment, scope, pins);
      this.#gather.upload(0, 0, this.#layout.computedBytes);
      const { requests, decodes, arrival } = this.#gather.finish(this.#arena, segment);
      let mapped = false;
      let touchedBytes = requests.length * FAULT_BYTES;
      for (const column of parts.columns.values()) {
        mapped ||= column.mapped;
        touchedBytes += column.byteLength;
      }
      const sampleIds = ids === undefined ? fill : () => ids;
      return { sampleIds, scope, pins, requests, decodes, arrival, mapped, touchedBytes, ...parts };
    } catch (error) {
      scope.close();
      pins.release();
      throw error;
    }
  }

  /** What each of `count` samples from `start` of the order counts toward a batch's limit: its bytes, or its
   * elements in the column of index `elementsOf`. */
  costs(order: SampleOrder, start: number, count: number, elementsOf?: number): Float64Array {
    this.#occasion = {};
    const out = new Float64Array(count);
    const pins = new Pins();
    try {
      const ids = new Float64Array(count);
      order.fill(ids, start, count);
      if (this.#dataset.view === "tensors") {
        for (let i = 0; i < count; i++) {
          const { range } = this.#tensorAt(ids[i]!, pins).tensor;
          out[i] = range.end - range.start;
        }
        return out;
      }
      runsOf(ids, count, this.#dataset.index, this.#runs);
      const spans = this.#splitter.split(this.#runs, this.#open, pins);
      if (elementsOf !== undefined) this.#columns[elementsOf]!.addCosts(spans, "elements", out);
      else for (const column of this.#columns) column.addCosts(spans, "bytes", out);
      return out;
    } finally {
      pins.release();
    }
  }

  /** `ids` where the samples are not consecutive. */
  #rows(
    request: BatchRequest,
    ids: Float64Array | undefined,
    segment: Segment,
    scope: ViewScope,
    pins: Pins,
  ) {
    const { index } = this.#dataset;
    if (ids === undefined) runsOfRange(request.start, request.count, index, this.#runs);
    else runsOf(ids, request.count, index, this.#runs);
    const rows: BatchRows = {
      spans: this.#splitter.split(this.#runs, this.#open, pins),
      shards: pins.shards,
      real: { start: 0, end: request.count },
      size: request.size,
    };
    const layout = this.#layout;
    layout.clear();
    const target = new Target(scope, this.#gather, this.#device, segment, layout);
    for (const column of this.#columns) column.measure(rows, target, layout);
    const maskAt = request.size > request.count ? layout.computed(request.size) : -1;
    this.#prepare(segment);
    const columns = new Map<string, Column>();
    for (const assembler of this.#columns) {
      const column = assembler.fill(rows, target);
      columns.set(column.name, column);
    }
    let rowMask: Part | undefined;
    if (maskAt >= 0) {
      new Uint8Array(target.host(), maskAt, request.size).fill(1, 0, request.count).fill(0, request.count);
      rowMask = new Part(scope, "U8", [request.size], target.device, maskAt, request.size);
    }
    return { columns, rowMask };
  }

  #tensors(ids: Float64Array, segment: Segment, scope: ViewScope, pins: Pins) {
    const mayMap = this.#device.capabilities.unifiedMemory;
    const { offsetAlignment } = this.#device.capabilities;
    const layout = this.#layout;
    layout.clear();
    const places = Array.from(ids, (id) => {
      const { shard, tensor } = this.#tensorAt(id, pins);
      const { start, end } = tensor.range;
      const window = mayMap && end > start ? shard.window(start, end) : undefined;
      const byteOffset = start - shard.windowStart;
      const aligned = start % itemAlignment(tensor.dtype) === 0 && byteOffset % offsetAlignment === 0;
      const map = window !== undefined && aligned;
      return {
        shard,
        tensor,
        window: map ? window : undefined,
        at: map ? byteOffset : layout.section(end - start),
      };
    });
    this.#prepare(segment);
    const columns = new Map<string, Column>();
    for (const { shard, tensor, window, at } of places) {
      const { start, end } = tensor.range;
      if (window === undefined) this.#gather.add(shard, start, end - start, at);
      else shard.willNeed(0, window, at, end - start);
      const buffer = window ?? segment.device!;
      const mapped = window !== undefined;
      columns.set(
        tensor.name,
        new Column(
          tensor.name,
          "number",
          mapped,
          {},
          scope,
          tensor.dtype,
          tensor.shape,
          buffer,
          at,
          end - start,
        ),
      );
    }
    return { columns, rowMask: undefined };
  }

  #tensorAt(id: number, pins: Pins): { shard: OpenShard; tensor: TensorLayout } {
    const { index } = this.#dataset;
    const shardIndex = index.shardOf(id);
    const shard = this.#open(shardIndex);
    pins.add(shard);
    return { shard, tensor: this.#dataset.tensorsOf(shard)[id - index.start(shardIndex)]! };
  }

  /** Makes the segment hold what was laid out. */
  #prepare(segment: Segment): void {
    const { apart, byteLength, hostBytes } = this.#layout;
    this.#arena.ensure(segment, Math.max(byteLength, 1), hostBytes);
    this.#gather.begin(segment.device, apart ? segment.host : undefined, apart);
  }
}
