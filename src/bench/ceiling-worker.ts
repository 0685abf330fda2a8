/** One lane of the sweep of bare reads: takes the next piece of the files, reads it into memory of its own that it uses
 * again and again, and takes another, until there is none. */
import { readSync } from "node:fs";

/** What a lane is given. */
export interface Sweep {
  readonly files: readonly { readonly fd: number; readonly byteLength: number }[];
  readonly pieceBytes: number;
  /** One counter: the next piece. */
  readonly next: Int32Array;
}

declare const self: Worker;

let memory = new Uint8Array(0);

self.onmessage = ({ data: { files, pieceBytes, next } }: MessageEvent<Sweep>) => {
  // Touched before it counts: fresh memory is slower than any disk.
  if (memory.length < pieceBytes) memory = new Uint8Array(pieceBytes).fill(1);
  const counts = files.map(({ byteLength }) => Math.ceil(byteLength / pieceBytes));
  const total = counts.reduce((sum, count) => sum + count, 0);
  for (let piece = Atomics.add(next, 0, 1); piece < total; piece = Atomics.add(next, 0, 1)) {
    let file = 0;
    let index = piece;
    while (index >= counts[file]!) index -= counts[file++]!;
    const { fd, byteLength } = files[file]!;
    const end = Math.min(byteLength, (index + 1) * pieceBytes);
    for (let at = index * pieceBytes; at < end; ) {
      const got = readSync(fd, memory, 0, end - at, at);
      if (got === 0) break;
      at += got;
    }
  }
  postMessage("done");
};
