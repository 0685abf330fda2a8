/** Tells models apart without reading all of them. */
import { closeSync, fstatSync, openSync, readdirSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { HeadraceError } from "../errors.ts";

/** Files that decide what a model answers, beside its weights. */
const TEXTS = ["config.json", "generation_config.json", "model.safetensors.index.json"];
/** Pieces of a weight file that are read: its start, its end, and between them at equal distances. */
const SAMPLES = 64;
const SAMPLE_BYTES = 16 * 1024;

/**
 * sha256 in hex over a model folder's configuration and, of each `.safetensors` file, its name, its length and 64 pieces
 * of 16 KiB: weights that were trained on differ in all of them, and a copy of the folder differs in none. Throws
 * `SOURCE_NOT_FOUND`, `SOURCE_UNREADABLE`, `IO_ERROR`.
 */
export function modelFingerprint(folder: string): string {
  const hash = new Bun.CryptoHasher("sha256");
  for (const name of TEXTS) {
    const text = readIfThere(join(folder, name));
    if (text !== undefined) hash.update(JSON.stringify([name, text]));
  }
  for (const name of weightFiles(folder)) addFile(hash, join(folder, name), name);
  return hash.digest("hex");
}

function weightFiles(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith(".safetensors"))
      .sort();
  } catch (cause) {
    throw readingFailed(folder, cause);
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    if ((cause as { code?: string }).code === "ENOENT") return undefined;
    throw readingFailed(path, cause);
  }
}

function addFile(hash: Bun.CryptoHasher, path: string, name: string): void {
  let fd: number | undefined;
  try {
    fd = openSync(path, "r");
    const { size } = fstatSync(fd);
    hash.update(JSON.stringify([name, size]));
    const buffer = new Uint8Array(SAMPLE_BYTES);
    const last = Math.max(0, size - SAMPLE_BYTES);
    let end = 0;
    for (let i = 0; i < SAMPLES && end < size; i++) {
      const at = Math.max(end, Math.floor((last * i) / (SAMPLES - 1)));
      const length = readSync(fd, buffer, 0, SAMPLE_BYTES, at);
      hash.update(buffer.subarray(0, length));
      end = at + Math.max(length, 1);
    }
  } catch (cause) {
    throw readingFailed(path, cause);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function readingFailed(path: string, cause: unknown): HeadraceError {
  const { code = String(cause) } = cause as { code?: string };
  if (code === "ENOENT") {
    return new HeadraceError("SOURCE_NOT_FOUND", `${path}: no such folder or file`, { cause });
  }
  if (code === "ENOTDIR") {
    return new HeadraceError(
      "SOURCE_NOT_FOUND",
      `${path}: is no folder; a model is a folder with config.json`,
      {
        cause,
      },
    );
  }
  if (code === "EACCES" || code === "EPERM") {
    return new HeadraceError("SOURCE_UNREADABLE", `${path}: no permission to read it`, { cause });
  }
  return new HeadraceError("IO_ERROR", `${path}: cannot be read: ${code}`, { cause });
}
