/** Whether a zstd file is all there: the runtime's decoder ends without a word where a frame was cut off. */
import { closeSync, openSync, readSync } from "node:fs";
import { HeadraceError } from "../../errors.ts";
import { FrameCursor } from "../../format/frame-cursor.ts";
import { walkFrames } from "../../format/frame-walk.ts";
import { parseZstdHeader, zstdFrameEnd } from "../../format/zstd-frames.ts";
import { badInput } from "./source.ts";

/** Hops over the headers of all frames and blocks. Throws `BAD_INPUT` where one is no zstd or ends past the file. */
export function checkZstdWhole(path: string, byteLength: number): void {
  const fd = openSync(path, "r");
  try {
    const read = (offset: number, length: number) => {
      const bytes = new Uint8Array(length);
      return bytes.subarray(0, readSync(fd, bytes, 0, length, offset));
    };
    const cursor = new FrameCursor(read, byteLength);
    walkFrames(cursor, "zstd", (frame) => zstdFrameEnd(cursor, frame, parseZstdHeader(cursor, frame)));
  } catch (error) {
    if (!(error instanceof HeadraceError)) throw error;
    throw badInput(path, `its compressed bytes are damaged or cut off (${error.message})`, error);
  } finally {
    closeSync(fd);
  }
}
