/** Compressed files without random access: decoded once, as a whole, to a file that has no name any more. */
import { randomUUID } from "node:crypto";
import { closeSync, fstatSync, openSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HeadraceError } from "../errors.ts";
import type { CodecName } from "./codec.ts";
import type { WholeWork } from "./whole-file.ts";
import type { WholeAnswer } from "./whole-worker.ts";

/** Of what is free in the folder, the part that one file may take. */
const FREE_PART = 0.9;

export interface WholeOptions {
  readonly codec: CodecName;
  /** Where the decoded file lies; default the system's folder for temporary files. */
  readonly folder?: string | undefined;
  /** Whether checksums are verified; default true. */
  readonly checksums?: boolean | undefined;
  /** Ends the decoding with `CANCELLED`. */
  readonly signal?: AbortSignal | undefined;
  /** Bytes that the decoded file may have; default nine tenths of what is free in the folder. */
  readonly maxBytes?: number | undefined;
}

/** A decoded file, open and without a name: its space is given back when it is closed, however the process ends. */
export interface WholeFile extends Disposable {
  /** A path that opens the same file in this process, as long as it is open here. */
  readonly path: string;
  readonly fd: number;
  readonly byteLength: number;
  close(): void;
}

/**
 * Decodes all frames of the file at `path` on a Worker, in bounded memory. Throws, with `path` in the message:
 * `SOURCE_NOT_FOUND`, `SOURCE_UNREADABLE`, `BAD_CHUNK` (corrupt, cut off), `UNSUPPORTED_COMPRESSION` (dictionaries,
 * windows past 128 MiB), `DISK_FULL`, `IO_ERROR`, `CANCELLED`, `DEVICE_FAILED`.
 */
export async function decodeWhole(path: string, options: WholeOptions): Promise<WholeFile> {
  const { codec, folder = tmpdir(), checksums = true, signal } = options;
  if (signal?.aborted) throw cancelled(path);
  const source = openSource(path);
  let target: number | undefined;
  try {
    target = openUnlinked(folder);
    const limit = options.maxBytes ?? freeBytes(folder);
    const sourceLength = fstatSync(source).size;
    const answer = await decodeOnWorker(
      { codec, source, sourceLength, target, checksums, limit },
      path,
      signal,
    );
    if (!("byteLength" in answer)) throw failureOf(answer, path, folder);
    const opened = new OpenedWhole(target, answer.byteLength);
    target = undefined;
    return opened;
  } finally {
    closeSync(source);
    if (target !== undefined) closeSync(target);
  }
}

/** Decodes all frames of the file at `path` on a Worker and verifies their checksums, for nothing else. Throws as
 * {@link decodeWhole}. */
export async function checkWhole(
  path: string,
  { codec, signal }: Pick<WholeOptions, "codec" | "signal">,
): Promise<void> {
  if (signal?.aborted) throw cancelled(path);
  const source = openSource(path);
  try {
    const sourceLength = fstatSync(source).size;
    const limit = Number.MAX_SAFE_INTEGER;
    const work = { codec, source, sourceLength, target: undefined, checksums: true, limit };
    const answer = await decodeOnWorker(work, path, signal);
    if (!("byteLength" in answer)) throw failureOf(answer, path, tmpdir());
  } finally {
    closeSync(source);
  }
}

class OpenedWhole implements WholeFile {
  readonly path: string;
  readonly fd: number;
  readonly byteLength: number;
  #open = true;

  constructor(fd: number, byteLength: number) {
    this.fd = fd;
    this.byteLength = byteLength;
    this.path = `/dev/fd/${fd}`;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function openSource(path: string): number {
  try {
    return openSync(path, "r");
  } catch (error) {
    const code = (error as { code?: string }).code ?? "unknown";
    if (code === "ENOENT") throw new HeadraceError("SOURCE_NOT_FOUND", `${path}: no such file`);
    throw new HeadraceError("SOURCE_UNREADABLE", `${path}: cannot be opened (${code})`, { cause: error });
  }
}

function openUnlinked(folder: string): number {
  const path = join(folder, `.headrace-${randomUUID()}`);
  try {
    const fd = openSync(path, "wx+", 0o600);
    rmSync(path);
    return fd;
  } catch (error) {
    throw writeFailure(path, error);
  }
}

function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return Math.floor(bavail * bsize * FREE_PART);
}

async function decodeOnWorker(
  work: WholeWork,
  path: string,
  signal: AbortSignal | undefined,
): Promise<WholeAnswer> {
  const worker = new Worker(new URL("./whole-worker.ts", import.meta.url));
  const { promise, resolve, reject } = Promise.withResolvers<WholeAnswer>();
  // Descriptors are in use until the Worker is gone.
  const gone = new Promise<void>((ended) => worker.addEventListener("close", () => ended(), { once: true }));
  const abort = () => reject(cancelled(path));
  signal?.addEventListener("abort", abort, { once: true });
  worker.onmessage = (event: MessageEvent<WholeAnswer>) => resolve(event.data);
  worker.onerror = (event) => {
    const reason = event.message.split("\n")[0];
    reject(new HeadraceError("DEVICE_FAILED", `${path}: the thread that decodes it has died: ${reason}`));
  };
  worker.postMessage(work);
  try {
    return await promise;
  } finally {
    signal?.removeEventListener("abort", abort);
    worker.terminate();
    await gone;
  }
}

function failureOf(
  answer: Exclude<WholeAnswer, { byteLength: number }>,
  path: string,
  folder: string,
): HeadraceError {
  if ("code" in answer) {
    const where = answer.code === "DISK_FULL" ? ` in ${folder}` : "";
    return new HeadraceError(answer.code, `${path}: ${answer.message}${where}`);
  }
  return writeFailure(`${path} (decoded in ${folder})`, { code: answer.system, message: answer.message });
}

function cancelled(path: string): HeadraceError {
  return new HeadraceError("CANCELLED", `${path}: its decoding was cancelled`);
}

/** What a failed operation on the decoded file becomes: `DISK_FULL` or `IO_ERROR`, with the path. */
function writeFailure(path: string, error: unknown): HeadraceError {
  const code = (error as { code?: unknown } | undefined)?.code;
  if (code === "ENOSPC" || code === "EDQUOT") {
    const text = `${path}: the disk is full (${code}); free some space`;
    return new HeadraceError("DISK_FULL", text, { cause: error });
  }
  const reason = typeof code === "string" ? code : String(error).split("\n")[0];
  return new HeadraceError("IO_ERROR", `${path}: cannot be written (${reason})`, { cause: error });
}
