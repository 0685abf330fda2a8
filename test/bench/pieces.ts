/** Whole files in pieces, read by as many threads as like: what the bare sweeps' Workers share. */
import { dlopen } from "bun:ffi";

/** An open file. */
export interface BareFile {
  readonly fd: number;
  readonly byteLength: number;
}

const { pread } = dlopen(process.platform === "darwin" ? "libSystem.B.dylib" : "libc.so.6", {
  // ssize_t pread(int, void *, size_t, off_t);
  pread: { args: ["i32", "ptr", "usize", "i64"], returns: "i64" },
}).symbols;

/** Reads the pieces that `next` gives to this thread, until there is none: `next[0]` is the next one's index, and all
 * threads of a run share it. `place` gives the address for piece `index`; `done` hears when its `length` bytes are there. */
export function readPieces(
  files: readonly BareFile[],
  pieceBytes: number,
  next: Int32Array,
  place: (index: number) => number,
  done?: (length: number) => void,
): void {
  const pieces = files.flatMap(({ fd, byteLength }) =>
    Array.from({ length: Math.ceil(byteLength / pieceBytes) }, (_, i) => {
      const offset = i * pieceBytes;
      return { fd, offset, length: Math.min(pieceBytes, byteLength - offset) };
    }),
  );
  for (let i = Atomics.add(next, 0, 1); i < pieces.length; i = Atomics.add(next, 0, 1)) {
    const { fd, offset, length } = pieces[i]!;
    const address = place(i);
    for (let read = 0; read < length; ) {
      const count = Number(pread(fd, (address + read) as never, length - read, offset + read));
      if (count <= 0) throw new Error(`pread gave ${count}`);
      read += count;
    }
    done?.(length);
  }
}
