/** A dataset: shards that agree on what they hold, opened lazily. */
import type { Device } from "../device/device.ts";
import { HeadraceError } from "../errors.ts";
import { ShardIndex } from "../plan/shard.ts";
import type { Schema, ShardDescription, Strategy, TensorLayout, View } from "../types.ts";
import { BlockCache } from "./blocks.ts";
import { type DatasetDictionary, openDictionaries } from "./dictionary.ts";
import { checkPlain, checkStrategy, type ShardPath } from "./path.ts";
import { foreignReason, machineHere, type Recommended } from "./recommended.ts";
import { checkAgreement } from "./schema.ts";
import { OpenShard } from "./shard.ts";
import { ShardCache } from "./shards.ts";
import type { Source } from "./source.ts";
import { fingerprintOf, rowsOf, surveyOf, tensorSamples } from "./survey.ts";
import type { WholeShard } from "./whole.ts";

/** Shards that are open at once, beyond those in use. */
const DEFAULT_MAX_OPEN_SHARDS = 128;

export interface DatasetOptions {
  /** `auto`: as the manifest says; else rows where the shards allow it, else tensors. */
  readonly view?: View | "auto" | undefined;
  /** Names or patterns of the columns (tensors view: of the tensors) to deliver; all where absent. */
  readonly columns?: readonly string[] | undefined;
  /** `auto` (the default) maps shards that are in memory already and fit the device, and reads the others;
   * `stream` throws `UNSUPPORTED` where the device has none. Compressed shards are streamed always: `auto` and `stream`
   * mean that, the others throw `UNSUPPORTED`. */
  readonly strategy?: Strategy | "auto" | undefined;
  /** What was measured on this machine, for `auto` to choose by: see {@link parseRecommended}. Figures of another machine or
   * device are not used; {@link Dataset.measured} says so. */
  readonly recommended?: Recommended | undefined;
  /** Whether the checksums of compressed shards are verified while they are decoded; default true. */
  readonly checksums?: boolean | undefined;
  /** Shards kept open at once, at least 1; default 128. */
  readonly maxOpenShards?: number | undefined;
}

/** One shard of a dataset, and the samples `[start, end)` that it holds. */
export interface DatasetShard {
  /** Unique in the dataset and free of machine-specific parts. */
  readonly name: string;
  readonly path: string;
  /** Index of the shard's first sample in the dataset. */
  readonly start: number;
  readonly end: number;
}

/** An open dataset. Owns its shards, not its device. */
export class Dataset implements Disposable {
  /** As the user named it. */
  readonly title: string;
  readonly view: View;
  /** Borrowed. */
  readonly device: Device;
  /** The columns that are delivered. Empty in the tensors view, where each tensor has a type of its own. */
  readonly schema: Schema;
  /** Which sample lies in which shard. */
  readonly index: ShardIndex;
  /** sha256 in hex over the view and the shards' names, sample counts and lengths: the order of samples and
   * every saved state hold for this dataset alone. */
  readonly fingerprint: string;
  /** By column name. */
  readonly dictionaries: ReadonlyMap<string, DatasetDictionary>;
  /** How each shard that was opened so far is reached. */
  readonly paths = new Map<string, ShardPath>();

  /** Bytes of all shards. */
  readonly byteLength: number;
  /** Whether `recommended` is used, and why not; undefined where none was given, or the strategy is not `auto`. */
  readonly measured: { readonly used: boolean; readonly reason: string } | undefined;
  readonly #strategy: Strategy | "auto";
  readonly #recommended: Recommended | undefined;
  readonly #checksums: boolean;
  readonly #source: Source;
  readonly #wholes: ReadonlyMap<string, WholeShard>;
  readonly #shards: ShardCache;
  readonly #wantedTensors: ReadonlySet<string> | undefined;
  readonly #tensors = new WeakMap<OpenShard, readonly TensorLayout[]>();
  #readReason: string | undefined;
  #closed = false;

  /** `wholes`: what was decoded of shards without random access, by path; borrowed. */
  constructor(
    source: Source,
    device: Device,
    options: DatasetOptions = {},
    wholes: ReadonlyMap<string, WholeShard> = new Map(),
  ) {
    const maxOpen = options.maxOpenShards ?? DEFAULT_MAX_OPEN_SHARDS;
    checkOptions(options, maxOpen);
    checkStrategy(options.strategy ?? "auto");
    if (source.shards.every(({ path }) => path.endsWith(".safetensors"))) {
      checkPlain(options.strategy ?? "auto", device.capabilities);
    }
    this.#source = source;
    this.#wholes = wholes;
    this.title = source.title;
    this.device = device;
    this.#strategy = options.strategy ?? "auto";
    this.#checksums = options.checksums ?? true;
    this.measured = this.#measuredOf(options.recommended);
    this.#recommended = this.measured?.used === true ? options.recommended : undefined;
    const blocks = new BlockCache();
    let checked: { schema: Schema; names: readonly string[] } | undefined;
    this.#shards = new ShardCache(maxOpen, (i) => {
      const shard = this.#open(i, device, blocks, checked?.names ?? options.columns);
      if (checked !== undefined) this.#admit(shard, checked.schema);
      return shard;
    });
    try {
      const survey = surveyOf(source, options, (i) => this.#shards.get(i));
      this.view = survey.view;
      this.schema = survey.delivered;
      this.#wantedTensors = survey.tensors;
      this.index = new ShardIndex(survey.counts);
      this.byteLength = survey.lengths.reduce((total, length) => total + length, 0);
      this.fingerprint = fingerprintOf(source, survey);
      // Only a look at an Arrow file tells whether it is compressed, and streams on every device.
      if (this.#strategy === "stream" && !device.capabilities.canStream) this.#shards.get(0);
      checked = { schema: survey.delivered, names: survey.delivered.columns.map((column) => column.name) };
      for (const shard of this.#shards.values()) this.#admit(shard, survey.delivered);
      this.dictionaries = openDictionaries(this.schema, source, (i) => this.#shards.get(i));
    } catch (error) {
      this.#shards.close();
      throw error;
    }
  }

  get numSamples(): number {
    return this.index.numSamples;
  }

  get numShards(): number {
    return this.#source.shards.length;
  }

  /** Paths of all shards, in order. */
  get shardPaths(): readonly string[] {
    return this.#source.shards.map((shard) => shard.path);
  }

  /** Which samples lie in which shard, in order; opens none. */
  get shards(): readonly DatasetShard[] {
    const { starts } = this.index;
    return this.#source.shards.map(({ name, path }, i) => ({
      name,
      path,
      start: starts[i]!,
      end: starts[i + 1]!,
    }));
  }

  /** @internal The shard, open; borrowed until the next call unless pinned. */
  shard(index: number): OpenShard {
    if (this.#closed) throw new HeadraceError("CLOSED", `${this.title}: the dataset is closed`);
    return this.#shards.get(index);
  }

  /** @internal Shards that are open now. */
  openShards(): IterableIterator<OpenShard> {
    return this.#shards.values();
  }

  /** @internal The tensors of a shard that are samples, in the order of their bytes. */
  tensorsOf(shard: OpenShard): readonly TensorLayout[] {
    let tensors = this.#tensors.get(shard);
    if (tensors === undefined) {
      tensors = tensorSamples(shard.description, this.#wantedTensors);
      this.#tensors.set(shard, tensors);
    }
    return tensors;
  }

  /** Reads shards from now on, where the strategy is left to us; says why. Batches that show a mapping must
   * have been released. */
  preferRead(reason: string): void {
    if (this.#strategy !== "auto") return;
    this.#readReason = reason;
    for (const shard of this.#shards.values()) this.#applyPath(shard);
  }

  /** Looks again at open shards that were read because they were not in memory: an epoch has gone through them. */
  chooseAgain(): void {
    if (this.#strategy !== "auto") return;
    for (const shard of this.#shards.values()) {
      shard.chooseAgain();
      this.#applyPath(shard);
    }
  }

  /** What shard `index` holds; opens it where it is not open. Throws `OUT_OF_RANGE`. */
  describe(index: number): ShardDescription {
    if (!(Number.isInteger(index) && index >= 0 && index < this.numShards)) {
      throw new HeadraceError(
        "OUT_OF_RANGE",
        `${this.title}: there is no shard ${index} among ${this.numShards}`,
      );
    }
    return this.shard(index).description;
  }

  close(): void {
    this.#closed = true;
    this.#shards.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #open(
    index: number,
    device: Device,
    blocks: BlockCache,
    columns: readonly string[] | undefined,
  ): OpenShard {
    const { path } = this.#source.shards[index]!;
    const exact = columns?.some((name) => /[*?[]/.test(name)) ? undefined : columns;
    const shard = new OpenShard({
      device,
      path,
      index,
      columns: exact,
      strategy: this.#strategy,
      measured: this.#recommended,
      checksums: this.#checksums,
      whole: this.#wholes.get(path),
      blocks,
      byteLength: this.#source.manifest?.shards[index]?.bytes,
    });
    this.#applyPath(shard);
    return shard;
  }

  #measuredOf(recommended: Recommended | undefined): Dataset["measured"] {
    if (recommended === undefined || this.#strategy !== "auto") return undefined;
    const foreign = foreignReason(recommended, machineHere(), this.device.capabilities.name);
    if (foreign !== undefined) return { used: false, reason: foreign };
    return { used: true, reason: `measured on ${recommended.date} on ${recommended.disk}` };
  }

  #applyPath(shard: OpenShard): void {
    if (this.#readReason !== undefined) shard.readInstead(this.#readReason);
    this.paths.set(this.#source.shards[shard.index]!.name, shard.path);
  }

  /** Checks that a shard is what the survey or the manifest said. */
  #admit(shard: OpenShard, schema: Schema): void {
    const entry = this.#source.shards[shard.index]!;
    const expected = this.index.countOf(shard.index);
    let actual: number;
    if (this.view === "tensors") actual = this.tensorsOf(shard).length;
    else {
      const rows = rowsOf(shard.description, entry.path);
      checkAgreement(schema, this.title, rows.schema, entry.path, true);
      shard.select(schema.columns);
      actual = rows.numRows;
    }
    if (actual !== expected) {
      throw new HeadraceError(
        "FILE_CHANGED",
        `${entry.path}: holds ${actual} samples, ${expected} were expected`,
      );
    }
  }
}

function checkOptions({ view = "auto" }: DatasetOptions, maxOpen: number): void {
  const bad = (name: string, value: unknown, wanted: string) =>
    new HeadraceError("BAD_OPTION", `${name} is ${String(value)}; it must be ${wanted}`);
  if (!["auto", "rows", "tensors"].includes(view)) throw bad("view", view, "auto, rows or tensors");
  if (!Number.isInteger(maxOpen) || maxOpen < 1) throw bad("maxOpenShards", maxOpen, "a whole number from 1");
}
