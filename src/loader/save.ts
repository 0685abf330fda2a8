/** Writes safetensors files that readers see whole or not at all. */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { HeadraceError } from "../errors.ts";
import { encodeHeader } from "../format/safetensors-header.ts";
import type { DType, Shape } from "../types.ts";

/** A tensor to write: `data` holds its elements in C order, little-endian. Borrowed during the call. */
export interface TensorData {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly data: ArrayBufferView;
}

export interface SaveOptions {
  /** File-level key and value pairs. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Starts every tensor, not only the first, on a 16 KiB boundary, by `__pad_<n>__` tensors between. */
  readonly pageAlignTensors?: boolean;
}

/**
 * Writes `tensors` to `path`: into a temporary file beside it, made durable, then renamed over it, so that a
 * reader with the old file mapped keeps it. The data section starts on a 16 KiB boundary. The same tensors
 * give the same bytes. Throws `IO_ERROR`, `DISK_FULL`, and what encoding the header throws; then `path` is
 * as it was.
 */
export function saveSafetensors(
  path: string,
  tensors: readonly TensorData[],
  options: SaveOptions = {},
): void {
  const specs = tensors.map(({ name, dtype, shape, data }) => ({
    name,
    dtype,
    shape,
    byteLength: data.byteLength,
  }));
  const { header, order, dataOffsets, dataByteLength } = encodeHeader(specs, options.metadata, {
    pageAlignTensors: options.pageAlignTensors ?? false,
  });
  writeFileAtomically(path, function* () {
    yield header;
    let at = 0;
    for (const index of order) {
      const { start, end } = dataOffsets[index]!;
      const { data } = tensors[index]!;
      if (start > at) yield new Uint8Array(start - at);
      yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      at = end;
    }
    if (dataByteLength > at) yield new Uint8Array(dataByteLength - at);
  });
}

/** Writes `text` to `path` in the same way: whole or not at all. Throws `IO_ERROR`, `DISK_FULL`. */
export function saveText(path: string, text: string): void {
  writeFileAtomically(path, () => [new TextEncoder().encode(text)]);
}

/** Writes `chunks` to a temporary file beside `path`, syncs it, renames it over `path`, and syncs the
 * folder. On failure the temporary file is removed. */
export function writeFileAtomically(path: string, chunks: () => Iterable<Uint8Array>): void {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${crypto.randomUUID()}.tmp`);
  let fd: number | undefined;
  let made = false;
  try {
    fd = openSync(temporary, "wx");
    made = true;
    for (const chunk of chunks()) writeAll(fd, chunk);
    fsyncSync(fd);
    closeSync(fd);
    fd = undefined;
    renameSync(temporary, path);
    syncFolder(folder);
  } catch (error) {
    if (fd !== undefined) closeSync(fd);
    if (made) rmSync(temporary, { force: true });
    throw asHeadraceError(path, error);
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, Math.min(bytes.length - at, 2 ** 30));
}

/** Makes the rename itself durable. */
function syncFolder(folder: string): void {
  const fd = openSync(folder, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function asHeadraceError(path: string, error: unknown): unknown {
  if (error instanceof HeadraceError) return error;
  const code = (error as { code?: string }).code ?? "unknown";
  const full = code === "ENOSPC" || code === "EDQUOT";
  const hint = code === "ENOENT" ? ": its folder does not exist" : "";
  return new HeadraceError(full ? "DISK_FULL" : "IO_ERROR", `${path}: cannot be written (${code}${hint})`, {
    cause: error,
  });
}
