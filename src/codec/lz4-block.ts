/** LZ4 blocks (LZ4 block format of 2022) in plain TypeScript: what stands in where no library is found. */

const MIN_MATCH = 4;
/** The last match starts so many bytes before the end, and the last five bytes are literals. */
const LAST_MATCH_START = 12;
const LAST_LITERALS = 5;
const MAX_DISTANCE = 65_535;
const HASH_BITS = 14;

/**
 * Decodes the block `source` into `target` from `start` on, and returns how many bytes it gave, or -1 where it is
 * malformed or would write past `end`. Matches may reach back to `from`: 0 bytes before `start` for a block by itself.
 */
export function decodeLz4Block(
  source: Uint8Array,
  target: Uint8Array,
  start: number,
  end: number,
  from: number = start,
): number {
  let at = 0;
  let to = start;
  while (at < source.length) {
    const token = source[at++]!;
    let run = token >>> 4;
    if (run === 15) {
      for (;;) {
        if (at >= source.length) return -1;
        const more = source[at++]!;
        run += more;
        if (more !== 255) break;
      }
    }
    if (run > source.length - at || run > end - to) return -1;
    for (const stop = at + run; at < stop; ) target[to++] = source[at++]!;
    if (at === source.length) return (token & 15) === 0 || run > 0 ? to - start : -1;
    if (at + 2 > source.length) return -1;
    const distance = source[at]! | (source[at + 1]! << 8);
    at += 2;
    let match = (token & 15) + MIN_MATCH;
    if ((token & 15) === 15) {
      for (;;) {
        if (at >= source.length) return -1;
        const more = source[at++]!;
        match += more;
        if (more !== 255) break;
      }
    }
    if (distance === 0 || distance > to - from || match > end - to) return -1;
    if (distance >= match) {
      target.copyWithin(to, to - distance, to - distance + match);
      to += match;
    } else for (const stop = to + match; to < stop; to++) target[to] = target[to - distance]!;
  }
  return -1;
}

/** Bytes of a block of so many, at most. */
export function lz4Bound(byteLength: number): number {
  return byteLength + Math.floor(byteLength / 255) + 16;
}

/** Compresses `bytes` to the front of `into`, of {@link lz4Bound} bytes or more; returns the block's length. Greedy,
 * as the fast levels are. */
export function encodeLz4Block(bytes: Uint8Array, into: Uint8Array): number {
  const table = new Int32Array(1 << HASH_BITS).fill(-1);
  const limit = bytes.length - LAST_MATCH_START;
  let anchor = 0;
  let out = 0;
  for (let at = 0; at <= limit; ) {
    const word = wordAt(bytes, at);
    const slot = Math.imul(word, 2654435761) >>> (32 - HASH_BITS);
    const seen = table[slot]!;
    table[slot] = at;
    if (seen < 0 || at - seen > MAX_DISTANCE || wordAt(bytes, seen) !== word) {
      // The longer nothing was found, the further the next look is.
      at += 1 + ((at - anchor) >>> 6);
      continue;
    }
    let length = MIN_MATCH;
    const longest = bytes.length - LAST_LITERALS - at;
    while (length < longest && bytes[seen + length] === bytes[at + length]) length++;
    out = putSequence(into, out, bytes, anchor, at, length, at - seen);
    at += length;
    anchor = at;
  }
  return putSequence(into, out, bytes, anchor, bytes.length, 0, 0);
}

function wordAt(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}

/** Literals `[from, to)` and, where `length` is not 0, a match. */
function putSequence(
  into: Uint8Array,
  start: number,
  bytes: Uint8Array,
  from: number,
  to: number,
  length: number,
  distance: number,
): number {
  const run = to - from;
  const match = length === 0 ? 0 : length - MIN_MATCH;
  let out = start;
  into[out++] = (Math.min(run, 15) << 4) | Math.min(match, 15);
  if (run >= 15) out = putLength(into, out, run - 15);
  into.set(bytes.subarray(from, to), out);
  out += run;
  if (length === 0) return out;
  into[out++] = distance & 255;
  into[out++] = distance >>> 8;
  return match >= 15 ? putLength(into, out, match - 15) : out;
}

function putLength(into: Uint8Array, start: number, length: number): number {
  let out = start;
  let left = length;
  for (; left >= 255; left -= 255) into[out++] = 255;
  into[out++] = left;
  return out;
}
