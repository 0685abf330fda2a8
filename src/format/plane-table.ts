/**
 * Byte planes in a container: which chunks had the bytes of their elements split before compression, so that all first
 * bytes come first, then all second ones. A skippable frame of this project's own, in front of the table of chunks.
 */
import { HeadraceError } from "../errors.ts";
import { SKIPPABLE_HEADER_BYTES } from "./seek-table.ts";

const FRAME_MAGIC = 0x184d2a5d;
/** `HRBP`. */
const PLANES_MAGIC = 0x50425248;
const FIXED_BYTES = 8;

/** Bytes of the frame: eight of a skippable frame's header, `HRBP`, the number of chunks, and a byte for each chunk
 * (1, 2 or 4). */
export function encodePlaneTable(planes: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SKIPPABLE_HEADER_BYTES + FIXED_BYTES + planes.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, FRAME_MAGIC, true);
  view.setUint32(4, FIXED_BYTES + planes.length, true);
  view.setUint32(8, PLANES_MAGIC, true);
  view.setUint32(12, planes.length, true);
  bytes.set(planes, SKIPPABLE_HEADER_BYTES + FIXED_BYTES);
  return bytes;
}

/** Bytes of a frame for so many chunks. */
export function planeTableLength(numChunks: number): number {
  return SKIPPABLE_HEADER_BYTES + FIXED_BYTES + numChunks;
}

/** Whether a skippable frame that begins so is a table of planes. */
export function isPlaneTable(head: Uint8Array): boolean {
  if (head.length < SKIPPABLE_HEADER_BYTES + FIXED_BYTES) return false;
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  return view.getUint32(0, true) === FRAME_MAGIC && view.getUint32(8, true) === PLANES_MAGIC;
}

/** The planes of each of `numChunks` chunks, whose lengths are multiples of them. Throws `BAD_CHUNK`. */
export function parsePlaneTable(bytes: Uint8Array, starts: Float64Array, numChunks: number): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (
    bytes.length !== planeTableLength(numChunks) ||
    view.getUint32(4, true) !== FIXED_BYTES + numChunks ||
    view.getUint32(12, true) !== numChunks
  ) {
    throw bad(`it is made for another number of chunks than ${numChunks}`);
  }
  const planes = bytes.slice(SKIPPABLE_HEADER_BYTES + FIXED_BYTES);
  for (let i = 0; i < numChunks; i++) {
    const width = planes[i]!;
    const length = starts[i + 1]! - starts[i]!;
    if (width !== 1 && width !== 2 && width !== 4)
      throw bad(`chunk ${i} has ${width} planes and not 1, 2 or 4`);
    if (length % width !== 0) throw bad(`chunk ${i} of ${length} bytes cannot have ${width} planes`);
  }
  return planes;
}

function bad(message: string): HeadraceError {
  return new HeadraceError("BAD_CHUNK", `the table of byte planes is wrong: ${message}`);
}
