/** Compressed files made for tests, and what is found in them. */
import { expect } from "bun:test";
import type { CodecName } from "../../../src/codec/codec.ts";
import { describeContainer } from "../../../src/format/container.ts";
import { encodeSeekTable } from "../../../src/format/seek-table.ts";
import { compressFrame } from "../codec/frames.ts";
import { texture } from "../codec/memory.ts";
import { failureOf } from "../failure.ts";

export const join = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts));
export const ENDINGS = { zstd: "a.arrow.zst", lz4: "a.arrow.lz4" } as const;

export function describeBytes(file: Uint8Array, name: string) {
  return describeContainer(
    (at, length) => {
      expect(at >= 0 && at + length <= file.length).toBe(true);
      return file.subarray(at, at + length);
    },
    file.length,
    name,
  );
}

export function tableOf(file: Uint8Array, name: string) {
  const container = describeBytes(file, name);
  if (!container.seekable) throw new Error(container.wholeReason);
  return container.table;
}

export function failure(file: Uint8Array, name: string): [string, string] {
  const { code, message } = failureOf(() => describeBytes(file, name));
  expect(message).toStartWith(`${name}: `);
  return [code, message];
}

export const skippable = (content: Uint8Array, magic = 0x184d2a53) => {
  const head = new DataView(new ArrayBuffer(8));
  head.setUint32(0, magic, true);
  head.setUint32(4, content.length, true);
  return join(new Uint8Array(head.buffer), content);
};

export interface Entry {
  fileLength: number;
  length: number;
}

/** Frames of `lengths` bytes with their table, whose entries `change` may falsify. */
export function container(
  codec: CodecName,
  lengths: number[],
  change: (entries: Entry[]) => void = () => {},
) {
  const frames = lengths.map((length, i) => compressFrame(codec, 1, texture(length, i + 1)));
  const entries = frames.map((frame, i) => ({ fileLength: frame.length, length: lengths[i]! }));
  change(entries);
  const table = encodeSeekTable(codec, {
    fileLength: Uint32Array.from(entries, ({ fileLength }) => fileLength),
    length: Uint32Array.from(entries, ({ length }) => length),
    checksums: undefined,
  });
  return join(...frames, table);
}
