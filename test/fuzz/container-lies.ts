/** Compressed files of several parts whose tables and headers lie, for the fuzzer. */
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import type { CodecName } from "../../src/codec/codec.ts";
import { encodeSeekTable } from "../../src/format/seek-table.ts";
import { compressFrame, zstdWithoutLength } from "../unit/codec/frames.ts";
import { lz4Flushed, lz4Legacy } from "../unit/codec/lz4-by-hand.ts";
import { texture } from "../unit/codec/memory.ts";

/** A file with what it decompresses to where nothing in it lies. */
export interface Made {
  readonly file: Uint8Array;
  readonly codec: CodecName;
  readonly content: Uint8Array | undefined;
}

/** How one frame is made. */
const SHAPES = ["plain", "unsized", "empty", "skippable", "flushed", "legacy", "zeros"] as const;
type Shape = (typeof SHAPES)[number];

interface Frame {
  readonly bytes: Uint8Array;
  readonly content: Uint8Array;
}

const NOTHING = new Uint8Array(0);

function skippable(content: Uint8Array): Uint8Array {
  return Buffer.concat([new Uint8Array(Uint32Array.of(0x184d2a51, content.length).buffer), content]);
}

function frameOf(codec: CodecName, shape: Shape, length: number): Frame {
  const content = shape === "zeros" ? new Uint8Array(length * 50) : texture(length, length);
  switch (shape) {
    case "skippable":
      return { bytes: skippable(content), content: NOTHING };
    case "empty":
      return { bytes: compressFrame(codec, 1, NOTHING), content: NOTHING };
    case "unsized":
      if (codec === "zstd") return { bytes: zstdWithoutLength(zstdCompressSync(content)), content };
      return { bytes: lz4Flushed([content], { checksums: true }), content };
    case "flushed":
    case "legacy": {
      if (codec === "zstd") return { bytes: compressFrame("zstd", 3, content), content };
      const [cut, end] = [length >> 1, content.length];
      const parts = [content.slice(0, cut), content.slice(cut, end)];
      return { bytes: shape === "legacy" ? lz4Legacy(parts) : lz4Flushed(parts), content };
    }
    default:
      return { bytes: compressFrame(codec, 1, content), content };
  }
}

/** Numbers that sizes and counts are changed to. */
const WORDS = [0, 1, 2, 8, 255, 65_535, 2 ** 20, 2 ** 30, 2 ** 30 + 1, 2 ** 31, 2 ** 32 - 1];

const lie = fc.record({
  frame: fc.nat(5),
  kind: fc.constantFrom("file", "length", "both", "shift", "drop", "double"),
  by: fc.integer({ min: -20, max: 20 }),
  /** What it becomes instead. */
  word: fc.option(fc.constantFrom(...WORDS), { nil: undefined }),
});
type Lie = typeof lie extends fc.Arbitrary<infer T> ? T : never;

interface Entry {
  fileLength: number;
  length: number;
}

/** Whether the entries are others after it. */
function tell(entries: Entry[], { frame, kind, by, word }: Lie): boolean {
  const at = frame % entries.length;
  const entry = entries[at]!;
  const changed = (value: number) => word ?? Math.max(0, value + by);
  const before = JSON.stringify(entries);
  if (kind === "file" || kind === "both") entry.fileLength = changed(entry.fileLength);
  if (kind === "length" || kind === "both") entry.length = changed(entry.length);
  if (kind === "drop") entries.splice(at, 1);
  if (kind === "double") entries.splice(at, 0, { ...entry });
  const next = entries[at + 1];
  if (kind === "shift" && next !== undefined) {
    // Both frames overlap, and the sum is right.
    const step = Math.max(-entry.fileLength, Math.min(by, next.fileLength));
    entry.fileLength += step;
    next.fileLength -= step;
  }
  return JSON.stringify(entries) !== before;
}

const TABLE_MAGICS = [0x184d2a5e, 0x184d2a5d, 0x184d2a50, 0xfd2fb528];

const part = fc.record({
  shapes: fc.array(fc.tuple(fc.constantFrom(...SHAPES), fc.integer({ min: 1, max: 400 })), {
    minLength: 1,
    maxLength: 5,
  }),
  table: fc.constantFrom("none", "right", "lying", "broken"),
  lies: fc.array(lie, { minLength: 1, maxLength: 2 }),
  broken: fc.record({
    place: fc.nat(16),
    word: fc.constantFrom(...WORDS, ...TABLE_MAGICS),
    bits: fc.nat(255),
  }),
  checksums: fc.constantFrom("none", "right", "wrong"),
});
type Part = typeof part extends fc.Arbitrary<infer T> ? T : never;

function partOf(
  codec: CodecName,
  { shapes, table, lies, broken, checksums }: Part,
): Frame & { lies: boolean } {
  const frames = shapes.map(([shape, length]) => frameOf(codec, shape, length));
  const content = Buffer.concat(frames.map((frame) => frame.content));
  const bytes = frames.map((frame) => frame.bytes);
  // A table of ours lists LZ4 frames of our own form alone.
  const listable = codec === "zstd" || shapes.every(([shape]) => shape !== "legacy");
  if (table === "none" || !listable) return { bytes: Buffer.concat(bytes), content, lies: false };
  const entries = frames.map((frame) => ({ fileLength: frame.bytes.length, length: frame.content.length }));
  let isLie = false;
  if (table === "lying") for (const one of lies) if (entries.length > 0) isLie = tell(entries, one) || isLie;
  const sums = entries.map((_, i) => {
    const bytes = (frames[i]?.content ?? NOTHING) as Uint8Array<ArrayBuffer>;
    const sum = codec === "lz4" ? Bun.hash.crc32(bytes) : Number(Bun.hash.xxHash64(bytes, 0n) & 0xffffffffn);
    return checksums === "wrong" ? sum ^ 1 : sum;
  });
  const listed = encodeSeekTable(codec, {
    fileLength: Uint32Array.from(entries, ({ fileLength }) => fileLength),
    length: Uint32Array.from(entries, ({ length }) => length),
    checksums: checksums === "none" ? undefined : Uint32Array.from(sums),
  });
  if (table === "broken") {
    const view = new DataView(listed.buffer);
    const { place, word, bits } = broken;
    if (place < 8) view.setUint8(listed.length - 5, bits);
    else view.setUint32([0, 4, listed.length - 9][place % 3]!, word, true);
  }
  const wrong = checksums === "wrong" && entries.some(({ length }) => length > 0);
  return { bytes: Buffer.concat([...bytes, listed]), content, lies: isLie || wrong || table === "broken" };
}

/** Files of one part or several, of which any may lie. */
export const lying: fc.Arbitrary<Made> = fc
  .tuple(fc.constantFrom<CodecName>("zstd", "lz4"), fc.array(part, { minLength: 1, maxLength: 3 }))
  .map(([codec, parts]) => {
    const made = parts.map((one) => partOf(codec, one));
    const isTrue = made.every((one) => !one.lies);
    return {
      codec,
      file: new Uint8Array(Buffer.concat(made.map(({ bytes }) => bytes))),
      content: isTrue ? Buffer.concat(made.map(({ content }) => content)) : undefined,
    };
  });

/** Frames whose header claims another length than they have. */
export const claiming: fc.Arbitrary<Made> = fc
  .record({
    codec: fc.constantFrom<CodecName>("zstd", "lz4"),
    length: fc.integer({ min: 300, max: 3000 }),
    lie: fc.option(
      fc.oneof(fc.integer({ min: 0, max: 10_000 }), fc.constantFrom(2 ** 26, 2 ** 30, 2 ** 32 - 1)),
      {
        nil: undefined,
      },
    ),
    more: fc.boolean(),
    flushed: fc.boolean(),
  })
  .map(({ codec, length, lie, more, flushed }) => {
    const claim = lie ?? length;
    const content = texture(length, length);
    const bytes =
      codec === "lz4"
        ? lz4Flushed(flushed ? [content.slice(0, 100), content.slice(100)] : [content], {
            contentLength: claim,
          })
        : claimed(content, claim);
    const file = more ? Buffer.concat([bytes, compressFrame(codec, 1, content)]) : bytes;
    const whole = more ? Buffer.concat([content, content]) : content;
    return { codec, file: new Uint8Array(file), content: claim === length ? whole : undefined };
  });

/** A zstd frame that claims `length` bytes in four bytes of its header. */
function claimed(content: Uint8Array, length: number): Uint8Array {
  const frame = zstdWithoutLength(zstdCompressSync(content));
  const size = new Uint8Array(Uint32Array.of(length).buffer);
  return Buffer.concat(
    [frame.subarray(0, 4), [frame[4]! | 0x80, frame[5]!], size, frame.subarray(6)].map((one) =>
      Uint8Array.from(one),
    ),
  );
}
