/**
 * Arrow files whose compressed bodies are made to do harm, each with the code that must answer it, be it when the shard
 * is described or when its rows are loaded.
 *
 *     bun test/attacks/arrow/attacks.ts FOLDER
 *
 * writes them as files, to try them on a command or on another reader.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ErrorCode } from "../../../src/errors.ts";
import type { BodyCodec, WriteColumn, WriteField } from "../../../src/format/arrow-write.ts";
import { compressFrame } from "../../unit/codec/frames.ts";
import { batchPlaces, i64, patched } from "../../unit/format/arrow-helpers.ts";
import { fileOf } from "../../unit/format/arrow-write-files.ts";

export interface Attack {
  readonly name: string;
  /** What it would do to a careless reader. */
  readonly harm: string;
  /** `ok` where the file is right, however odd. */
  readonly code: ErrorCode | "ok";
  make(): Uint8Array;
}

const ROWS = 1000;
/** What stands for a column's values, in the place of their own frame. */
type Frame = (values: Uint8Array) => Uint8Array;

const counting = Uint8Array.from({ length: 8 * ROWS }, (_, i) => (i % 8 === 0 ? i / 8 : 0));
const column: WriteColumn = { values: counting, nullCount: 0 };
const NUMBERS: WriteField = { name: "n", kind: "fixed", dtype: "I64", nullable: false };

function codecOf(codec: "zstd" | "lz4", frame: Frame = (bytes) => compressFrame(codec, 3, bytes)): BodyCodec {
  return { codec, compress: (bytes) => frame(bytes) };
}

/** One column of a thousand numbers, with this in the place of their frame. */
function numbers(codec: "zstd" | "lz4", frame?: Frame): Uint8Array {
  return fileOf([NUMBERS], [{ numRows: ROWS, columns: [column] }], () => codecOf(codec, frame)).bytes;
}

/** Where things are in a file of {@link numbers}. */
function placesIn(bytes: Uint8Array) {
  const { places } = fileOf([NUMBERS], [{ numRows: ROWS, columns: [column] }], () => codecOf("zstd"));
  const { offset, metadataLength } = places[0]!;
  return { batch: batchPlaces(bytes, offset), body: offset + metadataLength };
}

/** {@link numbers} of zstd whose length is claimed to be another. */
function claiming(length: bigint | number): Uint8Array {
  const bytes = numbers("zstd");
  return patched(bytes, (view) => i64(view, placesIn(bytes).body, length));
}

function flipped(frame: Uint8Array, at: number): Uint8Array {
  const copy = frame.slice();
  copy[at < 0 ? copy.length + at : at]! ^= 0x40;
  return copy;
}

/** A zstd frame of one empty raw block whose header asks for a window of `windowLog` bits. */
function wideWindow(windowLog: number): Uint8Array {
  return Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x00, (windowLog - 10) << 3, 0x01, 0x00, 0x00);
}

export const ATTACKS: readonly Attack[] = [
  {
    name: "length-of-exabytes",
    harm: "allocates what eight bytes claim",
    code: "ARROW_BUFFER",
    make: () => claiming(2n ** 62n),
  },
  {
    name: "length-below-none",
    harm: "a negative length wraps to a huge one",
    code: "ARROW_BUFFER",
    make: () => claiming(-2),
  },
  {
    name: "length-of-less",
    harm: "rows are taken from beyond what was decoded",
    code: "ARROW_BUFFER",
    make: () => claiming(8 * ROWS - 8),
  },
  {
    name: "length-of-more",
    harm: "what the frame does not give is delivered as it was in memory before",
    code: "BAD_CHUNK",
    make: () => claiming(8 * ROWS + 8),
  },
  {
    name: "stored-and-short",
    harm: "a frame is taken for the bytes themselves, and rows from behind it",
    code: "ARROW_BUFFER",
    make: () => claiming(-1),
  },
  {
    name: "bomb-zstd",
    harm: "a frame of 64 MiB is written over the memory behind its 8,000 bytes",
    code: "BAD_CHUNK",
    make: () => numbers("zstd", () => compressFrame("zstd", 3, new Uint8Array(2 ** 26))),
  },
  {
    name: "bomb-lz4",
    harm: "a frame of 1 MiB is written over the memory behind its 8,000 bytes",
    code: "BAD_CHUNK",
    make: () => numbers("lz4", () => compressFrame("lz4", 1, new Uint8Array(2 ** 20))),
  },
  {
    name: "cut-off-zstd",
    harm: "reads past the end of the frame",
    code: "BAD_CHUNK",
    make: () => numbers("zstd", (values) => compressFrame("zstd", 3, values).subarray(0, -9)),
  },
  {
    name: "cut-off-lz4",
    harm: "reads past the end of the frame",
    code: "BAD_CHUNK",
    make: () => numbers("lz4", (values) => compressFrame("lz4", 1, values).subarray(0, -9)),
  },
  {
    name: "flipped-zstd",
    harm: "wrong rows, silently: a bit of the checksum is flipped",
    code: "BAD_CHUNK",
    make: () => numbers("zstd", (values) => flipped(compressFrame("zstd", 3, values), -2)),
  },
  {
    name: "flipped-lz4",
    harm: "wrong rows, silently: a bit of the data is flipped",
    code: "BAD_CHUNK",
    make: () => numbers("lz4", (values) => flipped(compressFrame("lz4", 1, values), 30)),
  },
  {
    name: "no-frame",
    harm: "bytes that are no frame are decoded as one",
    code: "BAD_CHUNK",
    make: () => numbers("zstd", (values) => values.subarray(0, 4000)),
  },
  {
    name: "other-codec",
    harm: "a frame of LZ4 is handed to zstd",
    code: "BAD_CHUNK",
    make: () => numbers("zstd", (values) => compressFrame("lz4", 1, values)),
  },
  {
    name: "bytes-behind-the-frame",
    harm: "what stands behind a frame is left unseen, or decoded too",
    code: "BAD_CHUNK",
    make: () =>
      numbers("zstd", (values) => Buffer.concat([compressFrame("zstd", 3, values), Buffer.alloc(9, 1)])),
  },
  {
    name: "window-of-terabytes",
    harm: "allocates the window that a frame of nine bytes asks for",
    code: "ARROW_BUFFER",
    make: () => {
      const bytes = numbers("zstd", () => wideWindow(41));
      // A claim that nine bytes could never become is refused before they are looked at.
      return patched(bytes, (view) => i64(view, placesIn(bytes).body, 9 * 2 ** 15 + 1));
    },
  },
  {
    name: "window-of-terabytes-with-a-fair-length",
    harm: "allocates the window that a frame of nine bytes asks for",
    code: "BAD_CHUNK",
    make: () => numbers("zstd", () => wideWindow(41)),
  },
  {
    name: "one-frame-for-all-columns",
    harm: "a small file that costs a thousand decodings",
    code: "ARROW_BUFFER",
    make: () => {
      const fields = Array.from({ length: 1000 }, (_, i) => ({ ...NUMBERS, name: `n${i}` }));
      const columns = fields.map(() => column);
      const { bytes, places } = fileOf(fields, [{ numRows: ROWS, columns }], () => codecOf("zstd"));
      const { range } = batchPlaces(bytes, places[0]!.offset);
      return patched(bytes, (view) => {
        for (let i = 1; i < fields.length; i++) {
          i64(view, range(2 * i + 1), view.getBigInt64(range(1), true));
          i64(view, range(2 * i + 1) + 8, view.getBigInt64(range(1) + 8, true));
        }
      });
    },
  },
  {
    name: "buffers-backwards",
    harm: "reads a window of the file again for each of its buffers",
    code: "ok",
    make: () => {
      const fields = Array.from({ length: 2000 }, (_, i) => ({ ...NUMBERS, name: `n${i}` }));
      const { bytes, places } = fileOf(fields, [{ numRows: ROWS, columns: fields.map(() => column) }], () =>
        codecOf("zstd"),
      );
      const { range } = batchPlaces(bytes, places[0]!.offset);
      return patched(bytes, (view) => {
        for (let i = 0; i < fields.length / 2; i++) {
          const [a, b] = [range(2 * i + 1), range(2 * (fields.length - 1 - i) + 1)];
          const other = [view.getBigInt64(b, true), view.getBigInt64(b + 8, true)];
          for (const at of [0, 8]) i64(view, b + at, view.getBigInt64(a + at, true));
          i64(view, a, other[0]!);
          i64(view, a + 8, other[1]!);
        }
      });
    },
  },
  {
    name: "offsets-outside",
    harm: "rows of a list lead out of its values",
    code: "BAD_OFFSETS",
    make: () => {
      const field: WriteField = { name: "t", kind: "utf8", dtype: "U8", nullable: false };
      const offsets = Int32Array.from({ length: ROWS + 1 }, (_, i) => i);
      const lying = offsets.slice();
      lying[500] = 2 ** 31 - 1;
      const compress: Frame = (values) => {
        const isOffsets = values.length === 4 * (ROWS + 1);
        return compressFrame("zstd", 3, isOffsets ? new Uint8Array(lying.buffer) : values);
      };
      const columns = [{ values: new Uint8Array(ROWS), offsets, nullCount: 0 }];
      return fileOf([field], [{ numRows: ROWS, columns }], () => codecOf("zstd", compress)).bytes;
    },
  },
];

if (import.meta.main) {
  const folder = process.argv[2];
  if (folder === undefined) {
    console.error("usage: bun test/attacks/arrow/attacks.ts FOLDER");
    process.exit(2);
  }
  mkdirSync(folder, { recursive: true });
  for (const { name, make } of ATTACKS) writeFileSync(join(folder, `${name}.arrow`), make());
}
