/** Rows into shards: cut by their bytes, measured, named one after another. */
import { join } from "node:path";
import type { ManifestShard } from "../format/manifest.ts";
import type { FileOps } from "../loader/writeback/files.ts";
import type { Storage } from "./codecs.ts";
import type { PackedShard, PackFormat } from "./options.ts";
import type { PackBatch, PackField } from "./rows.ts";
import { ArrowRows, type RowsFile, SafetensorsRows } from "./shard-files.ts";
import type { ShardSizes } from "./sizes.ts";
import { ShardStats } from "./stats.ts";

/** How and where shards are written. */
export interface ShardTarget {
  readonly folder: string;
  /** What names begin with. */
  readonly name: string;
  readonly format: PackFormat;
  /** Before compression, at most; one row alone may take more. */
  readonly shardBytes: number;
  readonly sizes: ShardSizes;
  readonly ops: FileOps;
  readonly storage: Storage;
}

export interface WrittenShard extends PackedShard {
  readonly columns: NonNullable<ManifestShard["columns"]>;
}

/** `prose-00002.arrow`. */
export function shardName({ name, storage }: ShardTarget, shard: number): string {
  return `${name}-${String(shard).padStart(5, "0")}${storage.ending}`;
}

interface Current {
  readonly file: RowsFile;
  readonly stats: ShardStats;
  readonly path: string;
  bytes: number;
  numRows: number;
}

/** Writes shards one after another. */
export class RowsWriter {
  readonly shards: WrittenShard[] = [];
  readonly #fields: readonly PackField[];
  readonly #target: ShardTarget;
  #current: Current | undefined;

  constructor(fields: readonly PackField[], target: ShardTarget) {
    this.#fields = fields;
    this.#target = target;
  }

  /** Adds rows to the shard that is open, or where it would grow past its bytes, to a new one. `batch` may change once
   * this has resolved. */
  async add(batch: PackBatch): Promise<void> {
    const { sizes } = this.#target;
    const bytes = sizes.batch + sizes.rows(batch, 0, batch.numRows);
    if (this.#current !== undefined && this.#current.bytes + bytes > this.#target.shardBytes)
      await this.#finish();
    const current = this.#current ?? (await this.#open());
    current.stats.add(batch);
    await current.file.add(batch);
    current.bytes += bytes;
    current.numRows += batch.numRows;
  }

  /** Ends the last shard; there is one also where there were no rows. */
  async finish(): Promise<void> {
    if (this.#current === undefined && this.shards.length === 0) await this.#open();
    await this.#finish();
  }

  /** Removes the shard that is open. */
  async abort(): Promise<void> {
    await this.#current?.file.abort();
  }

  async #open(): Promise<Current> {
    const path = shardName(this.#target, this.shards.length);
    const whole = join(this.#target.folder, path);
    const { format, ops, storage, sizes } = this.#target;
    const openSink = () => storage.openSink(whole, ops);
    const file =
      format === "arrow"
        ? await ArrowRows.open(this.#fields, openSink, storage.body)
        : await SafetensorsRows.open(this.#fields, whole, ops, openSink);
    this.#current = { file, stats: new ShardStats(this.#fields), path, bytes: sizes.empty, numRows: 0 };
    return this.#current;
  }

  async #finish(): Promise<void> {
    if (this.#current === undefined) return;
    const { file, stats, path, numRows, bytes } = this.#current;
    const { byteLength, fileBytes, sha256 } = await file.finish();
    this.#current = undefined;
    this.shards.push({
      path,
      samples: numRows,
      logicalBytes: this.#target.storage.body === undefined ? byteLength : Math.ceil(bytes),
      bytes: fileBytes,
      sha256,
      columns: stats.result(),
    });
  }
}
