/** One lane of the bare sweep: takes the next piece, preads it, until there is none. */
import { dlopen } from "bun:ffi";

interface Job {
  readonly files: readonly { readonly fd: number; readonly byteLength: number }[];
  readonly pieceBytes: number;
  readonly memory: { readonly address: number; readonly byteLength: number };
  readonly control: SharedArrayBuffer;
}

declare const self: Worker;

const { pread } = dlopen(process.platform === "darwin" ? "libSystem.B.dylib" : "libc.so.6", {
  // ssize_t pread(int, void *, size_t, off_t);
  pread: { args: ["i32", "ptr", "usize", "i64"], returns: "i64" },
}).symbols;

self.onmessage = (event: MessageEvent<Job>) => {
  const { files, pieceBytes, memory, control } = event.data;
  const next = new Int32Array(control);
  const slots = Math.floor(memory.byteLength / pieceBytes);
  const pieces = files.flatMap(({ fd, byteLength }) =>
    Array.from({ length: Math.ceil(byteLength / pieceBytes) }, (_, i) => {
      const offset = i * pieceBytes;
      return { fd, offset, length: Math.min(pieceBytes, byteLength - offset) };
    }),
  );
  for (let i = Atomics.add(next, 0, 1); i < pieces.length; i = Atomics.add(next, 0, 1)) {
    const { fd, offset, length } = pieces[i]!;
    const address = memory.address + (i % slots) * pieceBytes;
    for (let done = 0; done < length; ) {
      const count = Number(pread(fd, (address + done) as never, length - done, offset + done));
      if (count <= 0) throw new Error(`pread gave ${count}`);
      done += count;
    }
  }
  postMessage("done");
};
