/** One lane of the bare sweep: takes the next piece, preads it, until there is none. */
import { type BareFile, readPieces } from "./pieces.ts";

interface Job {
  readonly files: readonly BareFile[];
  readonly pieceBytes: number;
  readonly memory: { readonly address: number; readonly byteLength: number };
  readonly control: SharedArrayBuffer;
}

declare const self: Worker;

self.onmessage = (event: MessageEvent<Job>) => {
  const { files, pieceBytes, memory, control } = event.data;
  const slots = Math.floor(memory.byteLength / pieceBytes);
  const place = (index: number) => memory.address + (index % slots) * pieceBytes;
  readPieces(files, pieceBytes, new Int32Array(control), place);
  postMessage("done");
};
