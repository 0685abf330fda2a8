/** Whether a zstd file is all there: the runtime's decoder ends without a word where a frame was cut off. */
import { closeSync, openSync, readSync } from "node:fs";
import { HeadraceError } from "../../errors.ts";
import { FrameCursor } from "../../format/frame-cursor.ts";
import { SKIPPABLE_MAGIC } from "../../format/seek-table.ts";
import { parseZstdHeader, ZSTD_MAGIC, zstdFrameEnd } from "../../format/zstd-frames.ts";
import { badInput } from "./source.ts";

const SKIPPABLE_HEADER_BYTES = 8;

/** Hops over the headers of all frames and blocks. Throws `BAD_INPUT` where one is no zstd or ends past the file. */
export function checkZstdWhole(path: string, byteLength: number): void {
  const fd = openSync(path, "r");
  try {
    const read = (offset: number, length: number) => {
      const bytes = new Uint8Array(length);
      return bytes.subarray(0, readSync(fd, bytes, 0, length, offset));
    };
    const cursor = new FrameCursor(read, byteLength);
    for (let at = 0; at < byteLength; ) at = frameEnd(cursor, at);
  } catch (error) {
    if (!(error instanceof HeadraceError)) throw error;
    throw badInput(path, `its compressed bytes are damaged or cut off (${error.message})`, error);
  } finally {
    closeSync(fd);
  }
}

function frameEnd(cursor: FrameCursor, at: number): number {
  const magic = cursor.u32(at);
  let end: number;
  if ((magic & ~0xf) >>> 0 === SKIPPABLE_MAGIC) end = at + SKIPPABLE_HEADER_BYTES + cursor.u32(at + 4);
  else if (magic === ZSTD_MAGIC) end = zstdFrameEnd(cursor, at, parseZstdHeader(cursor, at));
  else throw new HeadraceError("BAD_CHUNK", `there is no frame at ${at}`);
  if (end <= cursor.fileLength) return end;
  throw new HeadraceError(
    "BAD_CHUNK",
    `the frame at ${at} ends at ${end}, and the file at ${cursor.fileLength}`,
  );
}
