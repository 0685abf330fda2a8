/**
 * The small JSON file beside a compressed form: of which bytes the form was made, and what the form itself is, so
 * that neither of the two can change unseen.
 */
import { randomUUID } from "node:crypto";
import { readFileSync, type Stats, statSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import * as v from "valibot";
import { HeadraceError } from "../../errors.ts";
import { nodeError } from "../common/errors.ts";

/** The only version of sidecars; forms of others are made anew. */
export const SIDECAR_VERSION = 2;
/** Bytes that are hashed between two looks at the signal. */
const HASH_BYTES = 4 * 1024 * 1024;
const MAX_SIDECAR_BYTES = 64 * 1024;
/** How often a form is hashed that another process replaces meanwhile. */
const MAX_HASHES = 3;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const text = v.pipe(v.string(), v.nonEmpty());
const time = v.pipe(v.number(), v.finite());
/** What a file was. Its ctime tells of a rewrite after which the mtime was set back. */
const stamp = {
  byteLength: count,
  mtimeMs: time,
  ctimeMs: time,
  sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, "not a sha256 in hex")),
};
const sidecar = v.object({
  version: v.literal(SIDECAR_VERSION),
  /** Absolute, links resolved. */
  source: text,
  ...stamp,
  codec: text,
  chunkBytes: v.pipe(count, v.minValue(1)),
  compressed: v.object({ ...stamp, byteLength: v.pipe(count, v.minValue(1)) }),
  createdBy: v.string(),
});

/** What a sidecar says. */
export type Sidecar = v.InferOutput<typeof sidecar>;

/** Why there is no valid form. Only `times` may turn out to be valid all the same: see `checkCached`. */
export interface NotCached {
  readonly reason: "absent" | "unreadable" | "other" | "length" | "times" | "digest";
  /** For people, with the numbers. */
  readonly message: string;
}

/** What tells a file that was not written to, without reading it. */
export interface Stat {
  readonly byteLength: number;
  readonly mtimeMs: number;
  readonly ctimeMs: number;
}

/** A file with the digest of its bytes. */
export interface Stamp extends Stat {
  readonly sha256: string;
}

/** What a form must have been made of, and how. */
export interface Wanted {
  readonly source: string;
  readonly codec: string;
  readonly chunkBytes: number;
}

export function not(reason: NotCached["reason"], message: string): NotCached {
  return { reason, message };
}

export function statOf(path: string): Stat {
  try {
    return statFrom(statSync(path));
  } catch (cause) {
    throw nodeError(`${path}: finding length and times`, cause);
  }
}

export function sameTimes(one: Stat, other: Stat): boolean {
  return one.mtimeMs === other.mtimeMs && one.ctimeMs === other.ctimeMs;
}

/** Length and times, for messages. */
export function statText({ byteLength, mtimeMs, ctimeMs }: Stat): string {
  return `${byteLength} bytes, written at ${mtimeMs} ms, changed at ${ctimeMs} ms`;
}

/** Throws `FILE_CHANGED`. */
export function checkUnchanged(path: string, before: Stat): void {
  const now = statOf(path);
  if (now.byteLength === before.byteLength && sameTimes(now, before)) return;
  throw new HeadraceError(
    "FILE_CHANGED",
    `${path}: changed while its compressed form was made or checked: ${statText(before)}; now ${statText(now)}; try again`,
  );
}

/** Throws `CANCELLED`. */
export function checkSignal(path: string, signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) {
    throw new HeadraceError("CANCELLED", `${path}: compressing was cancelled`, { cause: signal.reason });
  }
}

/** The stamp of a file that nobody writes to meanwhile; throws `FILE_CHANGED` otherwise. */
export async function stampOf(path: string, signal: AbortSignal | undefined): Promise<Stamp> {
  const before = statOf(path);
  const sha256 = await digestOf(path, signal);
  checkUnchanged(path, before);
  return { ...before, sha256 };
}

/** {@link stampOf} a new form, which another process that makes the same form may replace by its own. */
export async function stampOfForm(path: string, signal: AbortSignal | undefined): Promise<Stamp> {
  for (let left = MAX_HASHES; ; left--) {
    try {
      return await stampOf(path, signal);
    } catch (error) {
      if (left <= 1 || !(error instanceof HeadraceError) || error.code !== "FILE_CHANGED") throw error;
    }
  }
}

/** The sidecar, if it is whole and meant for `wanted`, and its form has the length that it should. */
export function readSidecar(path: string, compressedPath: string, wanted: Wanted): Sidecar | NotCached {
  let value: unknown;
  let byteLength: number;
  try {
    const { size } = statSync(path);
    if (size > MAX_SIDECAR_BYTES) {
      return not("unreadable", `${path}: ${size} bytes, over ${MAX_SIDECAR_BYTES}`);
    }
    value = JSON.parse(readFileSync(path, "utf8"));
    byteLength = statSync(compressedPath).size;
  } catch (cause) {
    const isAbsent = (cause as { code?: unknown }).code === "ENOENT";
    return not(isAbsent ? "absent" : "unreadable", `${compressedPath}: ${(cause as Error).message}`);
  }
  const parsed = v.safeParse(sidecar, value, { abortEarly: true });
  if (!parsed.success) {
    const [issue] = parsed.issues;
    return not("unreadable", `${path}: ${v.getDotPath(issue) ?? "the file"}: ${issue.message}`);
  }
  const found = parsed.output;
  const { source, codec, chunkBytes, compressed } = found;
  if (source !== wanted.source || codec !== wanted.codec || chunkBytes !== wanted.chunkBytes) {
    return not("other", `${path} is of ${source}, ${codec}, ${chunkBytes} bytes a chunk`);
  }
  if (compressed.byteLength !== byteLength) {
    const had = compressed.byteLength;
    return not("unreadable", `${compressedPath} has ${byteLength} bytes and was made with ${had}`);
  }
  return found;
}

/** Throws what the system said, as it said it. */
export async function writeSidecar(path: string, value: Sidecar): Promise<void> {
  // Named like what compressing leaves when it is killed, so that both are swept.
  const partial = join(dirname(path), `.${basename(path)}.${randomUUID()}.partial`);
  try {
    const file = await open(partial, "wx");
    try {
      await file.writeFile(`${JSON.stringify(value, undefined, 2)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(partial, path);
  } catch (cause) {
    await rm(partial, { force: true }).catch(() => {});
    throw cause;
  }
}

function statFrom({ size, mtimeMs, ctimeMs }: Stats): Stat {
  return { byteLength: size, mtimeMs, ctimeMs };
}

async function digestOf(path: string, signal: AbortSignal | undefined): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  try {
    const file = await open(path, "r");
    try {
      const room = new Uint8Array(HASH_BYTES);
      for (;;) {
        checkSignal(path, signal);
        const { bytesRead } = await file.read(room, 0, room.length, null);
        if (bytesRead === 0) break;
        hasher.update(room.subarray(0, bytesRead));
      }
    } finally {
      await file.close();
    }
  } catch (cause) {
    throw cause instanceof HeadraceError ? cause : nodeError(`${path}: reading it for its digest`, cause);
  }
  return hasher.digest("hex");
}
