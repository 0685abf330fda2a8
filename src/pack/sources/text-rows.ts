/** Rows of files of text: pieces are read here, parsed on threads, and come back in order. */
import { HeadraceError } from "../../errors.ts";
import type { PackBatch, PackField, RowSource } from "../rows.ts";
import { ParsePool, type ParseResult, type ParserSetup } from "./parse-pool.ts";
import { badInput, OR_SKIP } from "./source.ts";
import type { Piece, PieceReader } from "./text-pieces.ts";

/** Files of one format, opened and looked into. */
export interface TextFiles {
  readonly readers: readonly PieceReader[];
  /** Pieces of the first file that were read already, to find out its columns. */
  readonly sample: readonly Piece[];
  readonly setup: ParserSetup;
  readonly threads: number;
  readonly skipBad: boolean;
  /** Takes what stands before the rows from the front of another file, and gives the rest of its first piece. */
  readonly openNext?: ((reader: PieceReader) => Promise<Piece | undefined>) | undefined;
  /** Lines of a file before the first piece. */
  readonly linesBefore?: ((reader: PieceReader) => number) | undefined;
}

interface InFlight {
  readonly reader: PieceReader;
  isFirst: boolean;
  readonly sourceBytes: number;
  /** Where the piece's lines end in its buffer, and where those begin that are parsed. */
  readonly end: number;
  start: number;
  result: Promise<ParseResult>;
}

export class TextRows implements RowSource {
  readonly fields: readonly PackField[];
  readonly byteLength: number;
  skippedRows = 0;
  readonly #files: TextFiles;
  #pool: ParsePool | undefined;

  constructor(files: TextFiles) {
    this.#files = files;
    this.fields = files.setup.fields;
    this.byteLength = files.readers.reduce((total, reader) => total + reader.byteLength, 0);
  }

  async *batches(signal?: AbortSignal): AsyncGenerator<PackBatch> {
    const pool = new ParsePool(this.#files.threads, this.#files.setup);
    this.#pool = pool;
    const pieces = this.#pieces();
    const inFlight: InFlight[] = [];
    let lines = 0;
    try {
      for (let more = true; more || inFlight.length > 0; ) {
        signal?.throwIfAborted();
        while (more && inFlight.length < pool.depth) {
          const { done, value } = await pieces.next();
          more = done !== true;
          if (done === true) break;
          const { reader, piece, isFirst } = value;
          const { start, end } = piece;
          const result = pool.parse({ buffer: piece.buffer, start, end });
          inFlight.push({ reader, isFirst, sourceBytes: value.sourceBytes, start, end, result });
        }
        const [next] = inFlight;
        if (next === undefined) break;
        const { buffer, ...parsed } = await next.result;
        const { failure } = parsed;
        if (next.isFirst) lines = this.#files.linesBefore?.(next.reader) ?? 0;
        if (failure !== undefined && !this.#files.skipBad)
          throw badInput(next.reader.path, `line ${lines + failure.line + 1} ${failure.message}${OR_SKIP}`);
        next.start += parsed.numBytes;
        if (next.start < next.end) {
          // Its rows take much more memory than its lines: no more of them are parsed than are wanted now.
          next.isFirst = false;
          next.result = pool.parse({ buffer, start: next.start, end: next.end });
        } else {
          next.reader.giveBack(buffer);
          inFlight.shift();
        }
        lines += parsed.numLines;
        this.skippedRows += parsed.skipped;
        const { numRows, columns } = parsed;
        yield { numRows, columns, sourceBytes: next.sourceBytes, path: next.reader.path };
        // The next batch was asked for: this one's memory is free.
        pool.giveBack(parsed.columns);
      }
    } finally {
      pool.close();
      await pieces.return(undefined);
    }
  }

  async close(): Promise<void> {
    this.#pool?.close();
    for (const reader of this.#files.readers) await reader.close();
  }

  async *#pieces() {
    let before = 0;
    for (const [i, reader] of this.#files.readers.entries()) {
      const sample = i === 0 ? [...this.#files.sample] : [];
      const first = i === 0 ? sample.shift() : await (this.#files.openNext?.(reader) ?? reader.next());
      for (let piece = first, isFirst = true; piece !== undefined; isFirst = false) {
        yield { reader, piece, isFirst, sourceBytes: before + piece.sourceBytes };
        piece = sample.shift() ?? (await reader.next());
      }
      before += reader.byteLength;
    }
  }
}

/** For a source without a row to find out columns from. */
export function noRows(path: string): HeadraceError {
  return new HeadraceError(
    "SOURCE_EMPTY",
    `${path}: holds no row; give the columns' types by --schema to pack it all the same`,
  );
}
