/**
 * The memory by which a decoding is described to the lanes. Each entry of the ring that asks for a chunk names a record
 * by address: {@link RECORD} float64 numbers, which the job owns and leaves alone until it has ended.
 */

/** What lanes are asked for beside what the host's do: a chunk, or parts of one that is stored as it is. */
export const DecodeOp = { chunk: 121, stored: 122 } as const;

/** Float64 numbers a record. */
export const RECORD = 12;
/** Fields of a record, as byte offsets. */
export const Rec = {
  /** Of `ChunkCodec`. */
  codec: 0,
  planes: 8,
  /** Low 32 bits of the XXH64 of what the chunk decompresses to; -1 where the table has none. */
  checksum: 16,
  /** Whether checksums are verified. */
  verify: 24,
  /** Bytes of the chunk in the file. */
  fileLength: 32,
  /** Bytes that it decodes to. */
  byteLength: 40,
  /** Address of the chunk's file bytes in a mapping; 0: read them. */
  mapped: 48,
  /** Bytes from the chunk on that the system is told to read ahead; 0 where another chunk's record tells it. */
  ahead: 56,
  /** Address that the chunk is decoded to; 0: scratch of the lane's own. */
  target: 64,
  /** Index of the place's word in {@link DecodeExtra.states}; -1 where the chunk is decoded in any case. */
  state: 72,
  /** Address of the parts to copy out afterwards, {@link PART} float64 numbers each, and their number. */
  parts: 80,
  numParts: 88,
} as const;

/** Float64 numbers a part: offset in the decoded chunk, address of the target, bytes. */
export const PART = 3;
export const PART_BYTES = PART * 8;

/** What a place of the cache holds. Whoever brings `empty` to `busy` decodes; others wait for it. */
export const PlaceState = { empty: 0, busy: 1, ready: 2 } as const;

/** Longer chunks share one scratch, since each lane's own would be too much memory. */
export const LONG_CHUNK = 16 * 2 ** 20;

/** What a lane of this kind needs besides. */
export interface DecodeExtra {
  /** One word a place of the cache, and a last one that is the lock of the scratch for long chunks. */
  readonly states: Int32Array<SharedArrayBuffer>;
  /** Of {@link FailureTexts}. */
  readonly failures: SharedArrayBuffer;
}

/** What a lane says of a chunk that did not decode. */
export const CHUNK_FAILED = -10;

const TEXT_BYTES = 400;
const WORDS_BYTES = 16;
const SLOT_BYTES = WORDS_BYTES + TEXT_BYTES;
const Word = { taken: 0, request: 1, length: 2, code: 3 } as const;
/** Codes that a decoder gives. */
const CODES = ["BAD_CHUNK", "UNSUPPORTED_COMPRESSION", "OUT_OF_MEMORY", "DEVICE_FAILED"] as const;

/** Why a chunk did not decode. */
export interface FailureText {
  /** Index of the request in its job. */
  readonly request: number;
  readonly code: (typeof CODES)[number];
  readonly text: string;
}

/** Of each job in the ring, the words of its first chunk that did not decode. */
export class FailureTexts {
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #bytes: Uint8Array<SharedArrayBuffer>;

  /** `memory` for a number of jobs at once, or that of another thread's. */
  constructor(memory: SharedArrayBuffer | number) {
    this.memory = typeof memory === "number" ? new SharedArrayBuffer(memory * SLOT_BYTES) : memory;
    this.#words = new Int32Array(this.memory);
    this.#bytes = new Uint8Array(this.memory);
  }

  /** Notes why `request` of the job in `slot` failed, unless another one of the job's has. */
  note(slot: number, request: number, code: string, text: string): void {
    const at = (slot * SLOT_BYTES) / 4;
    if (Atomics.compareExchange(this.#words, at + Word.taken, 0, 1) !== 0) return;
    const start = slot * SLOT_BYTES + WORDS_BYTES;
    const { written } = new TextEncoder().encodeInto(text, this.#bytes.subarray(start, start + TEXT_BYTES));
    this.#words[at + Word.request] = request;
    this.#words[at + Word.length] = written;
    const known = CODES.indexOf(code as FailureText["code"]);
    this.#words[at + Word.code] = known < 0 ? CODES.length - 1 : known;
  }

  /** Takes what was noted of the job in `slot`, which has ended. */
  take(slot: number): FailureText | undefined {
    const at = (slot * SLOT_BYTES) / 4;
    if (slot < 0 || Atomics.exchange(this.#words, at + Word.taken, 0) === 0) return undefined;
    const start = slot * SLOT_BYTES + WORDS_BYTES;
    const bytes = this.#bytes.slice(start, start + this.#words[at + Word.length]!);
    return {
      request: this.#words[at + Word.request]!,
      code: CODES[this.#words[at + Word.code]!]!,
      text: new TextDecoder().decode(bytes),
    };
  }
}
