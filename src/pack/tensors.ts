/** Tensors as safetensors shards of about one size, with the index that other tools find them by. */
import { copyFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { HeadraceError } from "../errors.ts";
import { byteLengthOf } from "../format/dtype.ts";
import { quoted } from "../format/json.ts";
import { encodeHeader } from "../format/safetensors-header.ts";
import { saveText } from "../loader/save.ts";
import type { DType } from "../types.ts";
import { CAST_TYPES, Caster, castBytes, isCastType } from "./cast.ts";
import type { TensorSource } from "./rows.ts";
import { badInput } from "./sources/source.ts";

/** What a shard is written to. */
export interface TensorSink {
  /** Takes all of `bytes`, which may change once this has resolved. */
  write(bytes: Uint8Array): Promise<void>;
  /** Makes the file durable under its name. */
  finish(): Promise<{
    readonly byteLength: number;
    readonly fileBytes: number;
    readonly sha256: string;
  }>;
  /** Leaves no file. */
  abort(): Promise<void>;
}

export interface PackTensorsOptions {
  /** Bytes of a shard's tensors, at most; a larger tensor has a shard of its own. */
  readonly shardBytes: number;
  /** What shards' names begin with; default `model`, as other tools want it. */
  readonly name?: string | undefined;
  /** What shards' names end with; default `.safetensors`. */
  readonly ending?: string | undefined;
  /** Opens the file at a path, which is `out` and a shard's name. */
  readonly openSink: (path: string) => Promise<TensorSink>;
  readonly signal?: AbortSignal | undefined;
  /** Bytes of tensors and shards that are written. */
  readonly onProgress?: ((bytes: number, shards: number) => void) | undefined;
}

export interface PackedTensorShard {
  /** File name in `out`. */
  readonly path: string;
  readonly samples: number;
  /** Before it was compressed, and after. */
  readonly logicalBytes: number;
  readonly bytes: number;
  readonly sha256: string;
}

type Tensor = TensorSource["tensors"][number];

/**
 * Writes the tensors of `source` to `out`, a folder that is there, in the source's order: each shard takes tensors until
 * the next would not fit. In a shard they lie as the format's own writer has them, behind a header of a multiple of
 * 16 KiB. `NAME.safetensors.index.json` and the files that the source brings with it come last. The same tensors and
 * options give the same bytes. Borrows `source`. Throws what reading and writing throw; then nothing of it stays.
 */
export async function packTensors(
  source: TensorSource,
  out: string,
  options: PackTensorsOptions,
): Promise<readonly PackedTensorShard[]> {
  const { name = "model", ending = ".safetensors" } = options;
  if (source.tensors.length === 0) throw new HeadraceError("SOURCE_EMPTY", "the source holds no tensor");
  const written: string[] = [];
  try {
    const groups = groupsOf(source.tensors, options.shardBytes);
    const shards = await writeShards(groups, { ...options, name, ending }, source.metadata, out, written);
    const index = join(out, indexName(name));
    written.push(index);
    const paths = groups.flatMap((tensors, i) =>
      tensors.map((tensor) => [tensor.name, shards[i]!.path] as const),
    );
    saveText(index, indexText(source.tensors, new Map(paths)));
    for (const file of source.files ?? []) {
      written.push(join(out, basename(file)));
      await copyInto(out, file);
    }
    return shards;
  } catch (error) {
    for (const path of written) await rm(path, { force: true });
    throw error;
  }
}

/** The file that says which shard of `name` has which tensor. */
export function indexName(name: string): string {
  return `${name}.safetensors.index.json`;
}

/** Writes one shard after another; `written` gets the path of each that is whole. */
async function writeShards(
  groups: readonly (readonly Tensor[])[],
  options: PackTensorsOptions & { readonly name: string; readonly ending: string },
  metadata: TensorSource["metadata"],
  out: string,
  written: string[],
): Promise<readonly PackedTensorShard[]> {
  const { name, ending, openSink, signal, onProgress } = options;
  const shards: PackedTensorShard[] = [];
  let done = 0;
  for (const [i, tensors] of groups.entries()) {
    const path = shardName(name, i, groups.length) + ending;
    const sink = await openSink(join(out, path));
    try {
      await writeShard(sink, tensors, metadata, signal, (bytes) => {
        done += bytes;
        onProgress?.(done, i);
      });
      const { byteLength, fileBytes, sha256 } = await sink.finish();
      written.push(join(out, path));
      shards.push({ path, samples: tensors.length, logicalBytes: byteLength, bytes: fileBytes, sha256 });
    } catch (error) {
      await sink.abort();
      throw error;
    }
    onProgress?.(done, i + 1);
  }
  return shards;
}

/**
 * Tensors of some dtypes as others: `casts` has the new dtype by the old. Tensors are read when the result's are. What an
 * integer type cannot hold throws `BAD_INPUT` with `place`, tensor, element and value, or becomes the nearest that fits with
 * `saturate`. Throws `BAD_OPTION` for dtypes that are not cast. Closing the result closes `source`.
 */
export function castTensors(
  source: TensorSource,
  casts: Readonly<Partial<Record<DType, DType>>>,
  saturate = false,
  place = "the source",
): TensorSource {
  for (const [from, to] of Object.entries(casts)) checkCast(from, to);
  return {
    ...source,
    tensors: source.tensors.map((tensor) => castTensor(tensor, casts[tensor.dtype], saturate, place)),
    close: () => source.close(),
  };
}

function castTensor(tensor: Tensor, to: DType | undefined, saturate: boolean, place: string): Tensor {
  const { dtype: from } = tensor;
  if (to === undefined || to === from || !isCastType(from) || !isCastType(to)) return tensor;
  return {
    ...tensor,
    dtype: to,
    byteLength: byteLengthOf(to, tensor.shape),
    async *read() {
      const caster = new Caster(from, to, saturate);
      const item = castBytes(from);
      let target = new Uint8Array(0);
      let rest = new Uint8Array(0);
      let done = 0;
      for await (const piece of tensor.read()) {
        const bytes = rest.length === 0 ? piece : joined(rest, piece);
        const count = Math.floor(bytes.length / item);
        if (target.length < count * castBytes(to)) target = new Uint8Array(count * castBytes(to));
        const values = target.subarray(0, count * castBytes(to));
        const misfit = caster.cast(bytes, values);
        if (misfit !== undefined) {
          const problem = `element ${done + misfit.index} is ${misfit.value}, which ${to} cannot hold; cast to a wider type, or take the nearest by --saturate`;
          throw badInput(`${place}: tensor ${quoted(tensor.name)}`, problem);
        }
        rest = bytes.slice(count * item);
        done += count;
        yield values;
      }
    },
  };
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(a.length + b.length);
  bytes.set(a);
  bytes.set(b, a.length);
  return bytes;
}

function checkCast(from: string, to: string): void {
  if (isCastType(from) && isCastType(to)) return;
  const text = `tensors of ${from} cannot be cast to ${to}; casts are between ${CAST_TYPES.join(", ")}`;
  throw new HeadraceError("BAD_OPTION", text);
}

function groupsOf(tensors: readonly Tensor[], shardBytes: number): Tensor[][] {
  const groups: Tensor[][] = [];
  let bytes = 0;
  for (const tensor of tensors) {
    const last = groups.at(-1);
    if (last === undefined || bytes + tensor.byteLength > shardBytes) {
      groups.push([tensor]);
      bytes = tensor.byteLength;
    } else {
      last.push(tensor);
      bytes += tensor.byteLength;
    }
  }
  return groups;
}

/** As the hubs of models name their shards. */
function shardName(name: string, index: number, count: number): string {
  if (count === 1) return name;
  const digits = (value: number) => String(value).padStart(5, "0");
  return `${name}-${digits(index + 1)}-of-${digits(count)}`;
}

async function writeShard(
  sink: TensorSink,
  tensors: readonly Tensor[],
  metadata: Readonly<Record<string, string>> | undefined,
  signal: AbortSignal | undefined,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const { header, order } = encodeHeader(tensors, metadata);
  await sink.write(header);
  for (const index of order) {
    const tensor = tensors[index]!;
    const { name, byteLength } = tensor;
    let length = 0;
    for await (const piece of tensor.read()) {
      signal?.throwIfAborted();
      await sink.write(piece);
      length += piece.length;
      onBytes(piece.length);
    }
    if (length !== byteLength) {
      throw badInput(`tensor ${quoted(name)}`, `gave ${length} bytes, and ${byteLength} were expected`);
    }
  }
}

function indexText(tensors: readonly Tensor[], shardOf: ReadonlyMap<string, string>): string {
  const total_size = tensors.reduce((total, { byteLength }) => total + byteLength, 0);
  const names = tensors.map(({ name }) => name).sort();
  // Not an object's keys, whose order changes for names that are numbers.
  const entries = names.map((name) => `    ${JSON.stringify(name)}: ${JSON.stringify(shardOf.get(name))}`);
  return `{\n  "metadata": {\n    "total_size": ${total_size}\n  },\n  "weight_map": {\n${entries.join(",\n")}\n  }\n}\n`;
}

async function copyInto(out: string, file: string): Promise<void> {
  try {
    await copyFile(file, join(out, basename(file)));
  } catch (cause) {
    const { code } = cause as { code?: string };
    throw new HeadraceError(
      code === "ENOSPC" ? "DISK_FULL" : "IO_ERROR",
      `${file}: cannot be copied to ${out} (${code ?? String(cause)})`,
      { cause },
    );
  }
}
