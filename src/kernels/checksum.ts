/**
 * A checksum of a byte range that is quick on a GPU and knows places: changed, moved and swapped bytes show.
 *
 * **Definition.** All words are little-endian uint32, and all arithmetic is modulo 2^32. The range is cut into blocks
 * of four words from its first byte on; the last is filled up with zeros. Block number `i`, with the words `low` and
 * `high`, gives `a` and `b`:
 *
 * ```
 * a = low * 0x9e3779b1 + high * 0x85ebca77 + 0x165667b1      b = low * 0xc2b2ae3d + high * 0x27d4eb2f + 0x2545f491
 * for each of the four words w:
 *   a = (a ^ w) * 0xcc9e2d51;  a = a ^ a >> 15               b = (b + w) * 0x1b873593;  b = b ^ b >> 13
 * a = a * 0x85ebca6b;  a = (a ^ a >> 13) * 0xc2b2ae35        b = b * 0x7feb352d;  b = (b ^ b >> 15) * 0x846ca68b
 * a = a ^ a >> 16                                            b = b ^ b >> 16
 * ```
 *
 * The `a` of all blocks are added up, and the `b`. The length of the range is a block too, number 2^64 - 1: its low and
 * its high word, 0 and 0. The two sums, in hexadecimal, are the checksum. It finds accidents, of which it misses about
 * one in 2^64, and does not withstand who means harm.
 *
 * Sums do not care for order, so that threads may take blocks in any order, and a range may be summed in pieces, each
 * of which begins at a multiple of 16 bytes of the whole range and says at which.
 */
import type { KernelSource, Pipeline } from "../device/device.ts";
import type { DispatchCall } from "../device/requests.ts";
import { HeadraceError } from "../errors.ts";
import { bindPlace, ConstantReader, checkInteger, type Place, packConstants } from "./constants.ts";

/** Bytes of a block. */
export const CHECKSUM_BLOCK = 16;
/** Bytes of the two sums. */
export const CHECKSUM_BYTES = 8;
/** Threads that are enough to fill any GPU; each takes block after block. */
const MAX_CHECKSUM_THREADS = 2 ** 18;
/** Blocks that a thread should have at least, as it loads so many at once. */
const BLOCKS_A_THREAD = 4;
/** Bytes that the host form looks at through one view. */
const HOST_PIECE = 2 ** 26;
/** Bytes that are copied to where words lie aligned. */
const SCRATCH_BYTES = 2 ** 16;

/**
 * Buffers: bytes, sums (two uint32, to which those of the range are added). Constants: the range's length, and the
 * number of its first block.
 */
export const checksumKernel: KernelSource = {
  name: "checksum",
  host: ([bytes, sums], constants) => {
    const read = new ConstantReader(constants);
    const byteLength = read.long();
    const firstBlock = read.long();
    const out = new DataView(sums!.buffer, sums!.byteOffset, CHECKSUM_BYTES);
    const total = Uint32Array.of(out.getUint32(0, true), out.getUint32(4, true));
    addChecksum(total, bytes!.subarray(0, byteLength), firstBlock * CHECKSUM_BLOCK);
    out.setUint32(0, total[0]!, true);
    out.setUint32(4, total[1]!, true);
  },
  text: `
struct ChecksumConstants { uint64_t byteLength; uint64_t firstBlock; };
struct Sums { uint32_t a; uint32_t b; };

HR_FN uint32_t step_a(uint32_t a, uint32_t word) {
  a = (a ^ word) * 0xcc9e2d51u;
  return a ^ a >> 15;
}
HR_FN uint32_t step_b(uint32_t b, uint32_t word) {
  b = (b + word) * 0x1b873593u;
  return b ^ b >> 13;
}

HR_FN void add_block(HR_THREAD Sums *sums, hr_uint4 w, uint64_t block) {
  uint32_t low = uint32_t(block), high = uint32_t(block >> 32);
  uint32_t a = low * 0x9e3779b1u + high * 0x85ebca77u + 0x165667b1u;
  uint32_t b = low * 0xc2b2ae3du + high * 0x27d4eb2fu + 0x2545f491u;
  a = step_a(step_a(step_a(step_a(a, w.x), w.y), w.z), w.w);
  b = step_b(step_b(step_b(step_b(b, w.x), w.y), w.z), w.w);
  a *= 0x85ebca6bu;
  a = (a ^ a >> 13) * 0xc2b2ae35u;
  b *= 0x7feb352du;
  b = (b ^ b >> 15) * 0x846ca68bu;
  sums->a += a ^ a >> 16;
  sums->b += b ^ b >> 16;
}

/* 16 bytes at any place, the aligned words around which lie within the range. */
HR_FN hr_uint4 shifted(const HR_DEVICE uint8_t *at, uint32_t phase) {
  const HR_DEVICE uint8_t *from = at - phase;
  hr_uint4 v;
  v.x = hr_load<uint32_t>(from);
  v.y = hr_load<uint32_t>(from + 4);
  v.z = hr_load<uint32_t>(from + 8);
  v.w = hr_load<uint32_t>(from + 12);
  if (phase == 0u) return v;
  uint32_t last = hr_load<uint32_t>(from + 16), down = 8u * phase, up = 32u - down;
  v.x = v.x >> down | v.y << up;
  v.y = v.y >> down | v.z << up;
  v.z = v.z >> down | v.w << up;
  v.w = v.w >> down | last << up;
  return v;
}

/* Byte by byte; \`length\` of them, the rest is 0. */
HR_FN uint32_t bytes_of(const HR_DEVICE uint8_t *at, uint64_t length) {
  uint32_t word = 0u;
  for (uint32_t i = 0; i < 4u && i < length; i++) word |= uint32_t(at[i]) << (8u * i);
  return word;
}
HR_FN hr_uint4 block_of(const HR_DEVICE uint8_t *at, uint64_t length) {
  hr_uint4 v;
  v.x = bytes_of(at, length);
  v.y = length > 4u ? bytes_of(at + 4, length - 4u) : 0u;
  v.z = length > 8u ? bytes_of(at + 8, length - 8u) : 0u;
  v.w = length > 12u ? bytes_of(at + 12, length - 12u) : 0u;
  return v;
}

HR_KERNEL(checksum, HR_IN(0, uint8_t, bytes), HR_OUT(1, uint32_t, result), HR_CONSTANTS(2, ChecksumConstants, c)) {
  Sums sums;
  sums.a = 0u;
  sums.b = 0u;
  uint32_t phase = uint32_t(HR_ADDRESS(bytes)) & 15u;
  uint64_t blocks = (c.byteLength + 15u) / 16u, step = hr_threads;
  uint64_t block = hr_thread < hr_threads ? uint64_t(hr_thread) : blocks;
  if (phase == 0u) {
    uint64_t whole = c.byteLength / 16u;
    for (; block + 3u * step < whole; block += 4u * step) {
      hr_uint4 first = hr_load<hr_uint4>(bytes + block * 16u);
      hr_uint4 second = hr_load<hr_uint4>(bytes + (block + step) * 16u);
      hr_uint4 third = hr_load<hr_uint4>(bytes + (block + 2u * step) * 16u);
      hr_uint4 fourth = hr_load<hr_uint4>(bytes + (block + 3u * step) * 16u);
      add_block(&sums, first, c.firstBlock + block);
      add_block(&sums, second, c.firstBlock + block + step);
      add_block(&sums, third, c.firstBlock + block + 2u * step);
      add_block(&sums, fourth, c.firstBlock + block + 3u * step);
    }
    for (; block < whole; block += step) {
      add_block(&sums, hr_load<hr_uint4>(bytes + block * 16u), c.firstBlock + block);
    }
  }
  for (; block < blocks; block += step) {
    const HR_DEVICE uint8_t *at = bytes + block * 16u;
    bool inside = block > 0u && (block + 1u) * 16u + 4u <= c.byteLength;
    hr_uint4 words = inside ? shifted(at, phase & 3u) : block_of(at, c.byteLength - block * 16u);
    add_block(&sums, words, c.firstBlock + block);
  }
  uint32_t a = hr_simd_sum(sums.a), b = hr_simd_sum(sums.b);
  if (hr_local % HR_SIMD_WIDTH == 0u) {
    HR_ATOMIC_ADD(result, a);
    HR_ATOMIC_ADD(result + 1, b);
  }
}
`,
};

/** Adds the words of `count` blocks, of which the first has the number `firstLow + 2^32 * firstHigh`. */
function mixInto(
  sums: Uint32Array,
  words: Uint32Array,
  count: number,
  firstLow: number,
  firstHigh: number,
): void {
  let sumA = sums[0]! | 0;
  let sumB = sums[1]! | 0;
  let low = firstLow | 0;
  let high = firstHigh | 0;
  for (let i = 0, at = 0; i < count; i++, at += 4) {
    let a = (Math.imul(low, 0x9e3779b1) + Math.imul(high, 0x85ebca77) + 0x165667b1) | 0;
    let b = (Math.imul(low, 0xc2b2ae3d) + Math.imul(high, 0x27d4eb2f) + 0x2545f491) | 0;
    const w0 = words[at]! | 0;
    const w1 = words[at + 1]! | 0;
    const w2 = words[at + 2]! | 0;
    const w3 = words[at + 3]! | 0;
    a = Math.imul(a ^ w0, 0xcc9e2d51);
    a = Math.imul(a ^ (a >>> 15) ^ w1, 0xcc9e2d51);
    a = Math.imul(a ^ (a >>> 15) ^ w2, 0xcc9e2d51);
    a = Math.imul(a ^ (a >>> 15) ^ w3, 0xcc9e2d51);
    a = Math.imul(a ^ (a >>> 15), 0x85ebca6b);
    a = Math.imul(a ^ (a >>> 13), 0xc2b2ae35);
    b = Math.imul((b + w0) | 0, 0x1b873593);
    b = Math.imul(((b ^ (b >>> 13)) + w1) | 0, 0x1b873593);
    b = Math.imul(((b ^ (b >>> 13)) + w2) | 0, 0x1b873593);
    b = Math.imul(((b ^ (b >>> 13)) + w3) | 0, 0x1b873593);
    b = Math.imul(b ^ (b >>> 13), 0x7feb352d);
    b = Math.imul(b ^ (b >>> 15), 0x846ca68b);
    sumA = (sumA + (a ^ (a >>> 16))) | 0;
    sumB = (sumB + (b ^ (b >>> 16))) | 0;
    low = (low + 1) | 0;
    if (low === 0) high = (high + 1) | 0;
  }
  sums[0] = sumA;
  sums[1] = sumB;
}

function mixBlocks(sums: Uint32Array, words: Uint32Array, count: number, position: number): void {
  const block = position / CHECKSUM_BLOCK;
  mixInto(sums, words, count, block % 2 ** 32, Math.floor(block / 2 ** 32));
}

/** Adds the bytes at `position` of the whole range to the two sums. `position` must be a multiple of 16, and so must
 * the length of all pieces but the range's last; throws `BAD_OPTION` for another position. */
export function addChecksum(sums: Uint32Array, bytes: Uint8Array, position = 0): void {
  checkPosition(position);
  const { buffer, byteOffset, length } = bytes;
  const whole = length - (length % CHECKSUM_BLOCK);
  if (byteOffset % 4 === 0) {
    for (let at = 0; at < whole; at += HOST_PIECE) {
      const count = Math.min(HOST_PIECE, whole - at);
      const words = new Uint32Array(buffer, byteOffset + at, count / 4);
      mixBlocks(sums, words, count / CHECKSUM_BLOCK, position + at);
    }
    if (whole === length) return;
  }
  const scratch = new Uint8Array(SCRATCH_BYTES);
  const words = new Uint32Array(scratch.buffer);
  for (let at = byteOffset % 4 === 0 ? whole : 0; at < length; at += SCRATCH_BYTES) {
    const count = Math.min(SCRATCH_BYTES, length - at);
    const blocks = Math.ceil(count / CHECKSUM_BLOCK);
    scratch.set(bytes.subarray(at, at + count));
    scratch.fill(0, count, blocks * CHECKSUM_BLOCK);
    mixBlocks(sums, words, blocks, position + at);
  }
}

function checkPosition(position: number): void {
  checkInteger("checksum: position", position);
  if (position % CHECKSUM_BLOCK === 0) return;
  const message = `checksum: position ${position} is no multiple of ${CHECKSUM_BLOCK}; split the range at one`;
  throw new HeadraceError("BAD_OPTION", message);
}

/** The checksum from the sums over all blocks of a range of `byteLength` bytes: 16 hexadecimal digits. */
export function finishChecksum(sums: Uint32Array, byteLength: number): string {
  checkInteger("checksum: byteLength", byteLength);
  const all = Uint32Array.of(sums[0]!, sums[1]!);
  const lengthBlock = Uint32Array.of(byteLength >>> 0, Math.floor(byteLength / 2 ** 32), 0, 0);
  mixInto(all, lengthBlock, 1, 0xffffffff, 0xffffffff);
  return [...all].map((sum) => sum.toString(16).padStart(8, "0")).join("");
}

/** The checksum of bytes that the host can see. */
export function checksumOf(bytes: Uint8Array): string {
  const sums = new Uint32Array(2);
  addChecksum(sums, bytes);
  return finishChecksum(sums, bytes.length);
}

export interface ChecksumOptions {
  /** Where the bytes lie, at any alignment. */
  readonly bytes: Place;
  readonly byteLength: number;
  /** Two uint32 at a multiple of 4, to which the range's are added: zeros before the first piece of a range. */
  readonly sums: Place;
  /** Where in the whole range these bytes stand, a multiple of 16; 0 without. The length of all pieces but the last
   * must be such a multiple. */
  readonly position?: number;
}

/** A dispatch of {@link checksumKernel}. Throws `BAD_OPTION`, `OUT_OF_RANGE`. */
export function checksumCall(pipeline: Pipeline, options: ChecksumOptions): DispatchCall {
  const { bytes, byteLength, sums, position = 0 } = options;
  checkPosition(position);
  const blocks = Math.ceil(byteLength / CHECKSUM_BLOCK);
  return {
    pipeline,
    buffers: [
      bindPlace("checksum: bytes", bytes, byteLength),
      bindPlace("checksum: sums", sums, CHECKSUM_BYTES, 4),
    ],
    constants: packConstants([{ long: byteLength }, { long: position / CHECKSUM_BLOCK }]),
    threads: Math.min(MAX_CHECKSUM_THREADS, Math.ceil(blocks / BLOCKS_A_THREAD)),
  };
}
