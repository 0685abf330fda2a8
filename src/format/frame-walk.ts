/** Files of frames one after another, as zstd and LZ4 write them: which kinds there are, and going from one to the next. */
import { HeadraceError } from "../errors.ts";
import type { FrameCursor } from "./frame-cursor.ts";
import { LZ4_LEGACY_MAGIC, LZ4_MAGIC } from "./lz4-frames.ts";
import { SKIPPABLE_HEADER_BYTES, SKIPPABLE_MAGIC } from "./seek-table.ts";
import { ZSTD_MAGIC } from "./zstd-frames.ts";

/** What begins with `magic` in a file of `codec`; undefined for neither. */
export function frameKind(magic: number, codec: "zstd" | "lz4"): "content" | "skippable" | undefined {
  if (magic >= SKIPPABLE_MAGIC && magic < SKIPPABLE_MAGIC + 16) return "skippable";
  const isContent =
    codec === "zstd" ? magic === ZSTD_MAGIC : magic === LZ4_MAGIC || magic === LZ4_LEGACY_MAGIC;
  return isContent ? "content" : undefined;
}

/** Where the skippable frame at `offset` ends. Throws `BAD_CHUNK` where that is past the file. */
export function skippableEnd(cursor: FrameCursor, offset: number): number {
  const end = offset + SKIPPABLE_HEADER_BYTES + cursor.u32(offset + 4);
  if (end <= cursor.fileLength) return end;
  throw new HeadraceError(
    "BAD_CHUNK",
    `the skippable frame at ${offset} ends at ${end}, past the file's ${cursor.fileLength} bytes`,
  );
}

/**
 * Calls `visit` with the offset of each frame that has content, which answers where the frame ends, or with anything else
 * to end the walk there: the walk then answers the same, and undefined at the file's end. Throws `BAD_CHUNK` for bytes
 * that are no frame and for frames that are cut off, and what `visit` throws.
 */
export function walkFrames<T>(
  cursor: FrameCursor,
  codec: "zstd" | "lz4",
  visit: (offset: number) => number | T,
  visitSkippable: (offset: number, end: number) => void = () => {},
): T | undefined {
  for (let offset = 0; offset < cursor.fileLength; ) {
    const kind = frameKind(cursor.u32(offset), codec);
    if (kind === undefined) {
      throw new HeadraceError(
        "BAD_CHUNK",
        `neither ${FRAME_NAMES[codec]} frame nor the file's end is at ${offset}`,
      );
    }
    if (kind === "skippable") {
      const end = skippableEnd(cursor, offset);
      visitSkippable(offset, end);
      offset = end;
      continue;
    }
    const end = visit(offset);
    if (typeof end !== "number") return end;
    offset = end;
  }
  return undefined;
}

/** With their article, for messages. */
export const FRAME_NAMES = { zstd: "a zstd", lz4: "an LZ4" } as const;
