/**
 * The `mix` sum of samples that lie in memory of a GPU, by a kernel that reads every byte of them.
 *
 * **Definition.** All arithmetic is modulo 2^32. A sample's bytes are cut into blocks of four little-endian words; the
 * last is filled up with zeros. Block `i` of the sample with the key `k` gives two numbers, one from each start `s` of
 * 0 and 0x9e3779b9: `h = s + k * 0x85ebca77 + i * 0xc2b2ae3d`, into which the four words go as in the body of
 * MurmurHash3 (x86, 32 bits), and which ends by its finalizer. A block with the number 2^32 - 1 holds the sample's
 * length: its low and its high word, 0 and 0. The numbers of each start are added up; the sum is both, in hex.
 */
import type { Column, Device, DeviceBuffer, DispatchCall, KernelSource, Part, Pipeline } from "../index.ts";

const STARTS = [0, 0x9e3779b9] as const;
const BLOCK = 16;
const LENGTH_BLOCK = 0xffffffff;
/** Threads that fill any GPU. */
const MAX_THREADS = 2 ** 18;
/** Bytes of a row for each thread that shares it. */
const BYTES_A_LANE = 256;

/** Buffers: values, keys (uint32 a row), offsets (of ragged columns; else anything), sums (two uint32). Without a host
 * form: what the host sees it sums in a quicker way. */
const kernel: KernelSource = {
  name: "bench_row_sum",
  text: `
struct RowSumConstants {
  uint64_t rowBytes;
  uint32_t elementBytes; uint32_t offsetBytes; uint32_t numRows; uint32_t lanes;
};

HR_FN uint32_t mix_word(uint32_t h, uint32_t w) {
  uint32_t k = w * 0xcc9e2d51u;
  k = (k << 15 | k >> 17) * 0x1b873593u;
  h ^= k;
  return (h << 13 | h >> 19) * 5u + 0xe6546b64u;
}
HR_FN uint32_t mix_end(uint32_t h) {
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  return h ^ h >> 16;
}
HR_FN uint32_t mix_block(uint32_t start, uint32_t key, uint32_t block, hr_uint4 v) {
  uint32_t h = start + key * 0x85ebca77u + block * 0xc2b2ae3du;
  return mix_end(mix_word(mix_word(mix_word(mix_word(h, v.x), v.y), v.z), v.w));
}
HR_FN uint32_t word_at(const HR_DEVICE uint8_t *at, uint64_t left) {
  if (left >= 4u && (HR_ADDRESS(at) & 3u) == 0u) return hr_load<uint32_t>(at);
  uint32_t word = 0u;
  for (uint32_t i = 0; i < 4u && i < left; i++) word |= uint32_t(at[i]) << (8u * i);
  return word;
}
HR_FN hr_uint4 block_at(const HR_DEVICE uint8_t *at, uint64_t left) {
  if (left >= 16u && (HR_ADDRESS(at) & 15u) == 0u) return hr_load<hr_uint4>(at);
  hr_uint4 v;
  v.x = word_at(at, left);
  v.y = left > 4u ? word_at(at + 4, left - 4u) : 0u;
  v.z = left > 8u ? word_at(at + 8, left - 8u) : 0u;
  v.w = left > 12u ? word_at(at + 12, left - 12u) : 0u;
  return v;
}
HR_FN uint64_t offset_at(const HR_DEVICE uint8_t *offsets, uint64_t row, uint32_t width) {
  uint64_t low = hr_load<uint32_t>(offsets + row * width);
  return width == 4u ? low : low | uint64_t(hr_load<uint32_t>(offsets + row * width + 4u)) << 32;
}

HR_KERNEL(bench_row_sum, HR_IN(0, uint8_t, values), HR_IN(1, uint32_t, keys), HR_IN(2, uint8_t, offsets),
          HR_OUT(3, uint32_t, sums), HR_CONSTANTS(4, RowSumConstants, c)) {
  uint32_t a = 0u, b = 0u, lane = hr_thread % c.lanes, teams = hr_threads / c.lanes;
  uint32_t row = hr_thread < hr_threads ? hr_thread / c.lanes : c.numRows;
  for (; row < c.numRows; row += teams) {
    uint64_t start = c.rowBytes * row, length = c.rowBytes;
    if (c.offsetBytes != 0u) {
      start = offset_at(offsets, row, c.offsetBytes) * c.elementBytes;
      length = offset_at(offsets, row + 1u, c.offsetBytes) * c.elementBytes - start;
    }
    uint32_t key = keys[row], blocks = uint32_t((length + 15u) / 16u);
    for (uint32_t block = lane; block < blocks; block += c.lanes) {
      uint64_t at = uint64_t(block) * 16u;
      hr_uint4 v = block_at(values + start + at, length - at);
      a += mix_block(${STARTS[0]}u, key, block, v);
      b += mix_block(${STARTS[1]}u, key, block, v);
    }
    if (lane == 0u) {
      hr_uint4 v;
      v.x = uint32_t(length);
      v.y = uint32_t(length >> 32);
      v.z = 0u;
      v.w = 0u;
      a += mix_block(${STARTS[0]}u, key, 0xffffffffu, v);
      b += mix_block(${STARTS[1]}u, key, 0xffffffffu, v);
    }
  }
  a = hr_simd_sum(a);
  b = hr_simd_sum(b);
  if (hr_local % HR_SIMD_WIDTH == 0u) {
    HR_ATOMIC_ADD(sums, a);
    HR_ATOMIC_ADD(sums + 1, b);
  }
}
`,
};

/** The pipeline of the kernel; undefined where the device runs no kernel text, and the host sums. */
export function rowSumPipeline(device: Device): Pipeline | undefined {
  try {
    return device.createPipeline(kernel);
  } catch (error) {
    if ((error as { code?: string }).code === "UNSUPPORTED") return undefined;
    throw error;
  }
}

/** A dispatch over all rows of `column`. `keys` has one uint32 a row from `keysOffset` on, `sums` two that are added
 * to. */
export function rowSumCall(
  pipeline: Pipeline,
  column: Column,
  numRows: number,
  keys: { buffer: DeviceBuffer; offset: number },
  sums: DeviceBuffer,
): DispatchCall {
  const { offsets } = column;
  const rowBytes = offsets === undefined ? column.byteLength / numRows : 0;
  const average = column.byteLength / numRows;
  const wanted = 2 ** Math.ceil(Math.log2(Math.max(1, average / BYTES_A_LANE)));
  const lanes = Math.min(MAX_THREADS, wanted);
  const constants = new DataView(new ArrayBuffer(24));
  constants.setBigUint64(0, BigInt(rowBytes), true);
  constants.setUint32(8, elementBytesOf(column), true);
  constants.setUint32(12, offsetWidthOf(offsets), true);
  constants.setUint32(16, numRows, true);
  constants.setUint32(20, lanes, true);
  return {
    pipeline,
    buffers: [
      { buffer: column.buffer, offset: column.byteOffset },
      keys,
      { buffer: (offsets ?? column).buffer, offset: (offsets ?? column).byteOffset },
      { buffer: sums, offset: 0 },
    ],
    constants: new Uint8Array(constants.buffer),
    threads: Math.min(numRows, Math.max(1, Math.floor(MAX_THREADS / lanes))) * lanes,
  };
}

/** Bytes of an element of a ragged column: of one entry along its first dimension. */
export function elementBytesOf(column: Column): number {
  const numElements = column.shape[0] ?? 0;
  return column.offsets === undefined || numElements === 0 ? 0 : column.byteLength / numElements;
}

function offsetWidthOf(offsets: Part | undefined): number {
  return offsets === undefined ? 0 : offsets.byteLength / offsets.shape[0]!;
}

/** The same sum by the host, slowly: what a dataset's known sum is made with. */
export class MixSum {
  readonly #sums = new Uint32Array(STARTS.length);

  add(key: number, bytes: Uint8Array): void {
    const { length } = bytes;
    const whole = Math.ceil(length / BLOCK);
    const aligned = bytes.byteOffset % 4 === 0 && length % BLOCK === 0;
    const words = aligned
      ? new Uint32Array(bytes.buffer, bytes.byteOffset, length / 4)
      : wordsOf(bytes, whole * 4);
    this.#addWords(key, words, whole, 0);
    const lengthWords = Uint32Array.of(length, Math.floor(length / 2 ** 32), 0, 0);
    this.#addWords(key, lengthWords, 1, LENGTH_BLOCK);
  }

  get hex(): string {
    return [...this.#sums].map((sum) => sum.toString(16).padStart(8, "0")).join("");
  }

  #addWords(key: number, words: Uint32Array, count: number, first: number): void {
    STARTS.forEach((start, i) => {
      let total = this.#sums[i]!;
      let seed = (start + Math.imul(key, 0x85ebca77) + Math.imul(first, 0xc2b2ae3d)) | 0;
      for (let block = 0, at = 0; block < count; block++, at += 4) {
        let h = seed;
        for (let w = at; w < at + 4; w++) {
          const k = Math.imul(words[w]!, 0xcc9e2d51);
          h ^= Math.imul((k << 15) | (k >>> 17), 0x1b873593);
          h = (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0;
        }
        h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
        h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
        total = (total + (h ^ (h >>> 16))) | 0;
        seed = (seed + 0xc2b2ae3d) | 0;
      }
      this.#sums[i] = total;
    });
  }
}

/** `bytes` in words, filled up with zeros. */
function wordsOf(bytes: Uint8Array, count: number): Uint32Array {
  const padded = new Uint8Array(count * 4);
  padded.set(bytes);
  return new Uint32Array(padded.buffer);
}
