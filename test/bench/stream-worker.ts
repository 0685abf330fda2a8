/** One thread of the bare decoder: the library's own call on one chunk after another, from a mapping into memory that is
 * touched already. */
import { dlopen } from "bun:ffi";

export interface BareJob {
  readonly codec: "zstd" | "lz4";
  /** Of the mapped file. */
  readonly source: number;
  readonly fileOffset: Float64Array;
  readonly fileLength: Float64Array;
  readonly starts: Float64Array;
  readonly ring: { readonly address: number; readonly byteLength: number };
  /** Index of the next chunk, shared by all threads of a run. */
  readonly next: SharedArrayBuffer;
}

declare const self: Worker;

/** Gives the bytes that came out. */
type Decode = (target: number, room: number, source: number, length: number) => number;

function zstd(): Decode {
  const { symbols } = dlopen("libzstd.so.1", {
    ZSTD_createDCtx: { args: [], returns: "ptr" },
    ZSTD_decompressDCtx: { args: ["ptr", "ptr", "usize", "ptr", "usize"], returns: "u64" },
  });
  const context = symbols.ZSTD_createDCtx();
  return (target, room, source, length) =>
    Number(symbols.ZSTD_decompressDCtx(context, target as never, room, source as never, length));
}

function lz4(): Decode {
  const { symbols } = dlopen("liblz4.so.1", {
    LZ4F_createDecompressionContext: { args: ["ptr", "u32"], returns: "u64" },
    LZ4F_decompress: { args: ["ptr", "ptr", "ptr", "ptr", "ptr", "ptr"], returns: "u64" },
  });
  const out = new BigUint64Array(new ArrayBuffer(8));
  symbols.LZ4F_createDecompressionContext(out, 100);
  const context = Number(out[0]);
  const sizes = new BigUint64Array(new ArrayBuffer(16));
  const options = new Uint32Array(new ArrayBuffer(16));
  // stableDst: what was decoded stays where it is.
  options[0] = 1;
  return (target, room, source, length) => {
    sizes[0] = BigInt(room);
    sizes[1] = BigInt(length);
    const to = sizes.subarray(0, 1);
    const from = sizes.subarray(1);
    const left = symbols.LZ4F_decompress(
      context as never,
      target as never,
      to,
      source as never,
      from,
      options,
    );
    if (Number(left) !== 0) throw new Error(`LZ4F_decompress gave ${left}`);
    return Number(sizes[0]);
  };
}

const decoders: Partial<Record<BareJob["codec"], Decode>> = {};

self.onmessage = ({ data: job }: MessageEvent<BareJob>) => {
  decoders[job.codec] ??= job.codec === "zstd" ? zstd() : lz4();
  const decode = decoders[job.codec]!;
  const { starts, fileOffset, fileLength, ring } = job;
  const next = new Int32Array(job.next);
  for (let i = Atomics.add(next, 0, 1); i < fileOffset.length; i = Atomics.add(next, 0, 1)) {
    const length = starts[i + 1]! - starts[i]!;
    const at = starts[i]! % (ring.byteLength - length);
    const gave = decode(ring.address + at, length, job.source + fileOffset[i]!, fileLength[i]!);
    if (gave !== length) throw new Error(`chunk ${i} gave ${gave} of ${length} bytes`);
  }
  postMessage("done");
};
