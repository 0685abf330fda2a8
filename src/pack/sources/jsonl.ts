/** Lines of JSON objects as rows. */
import { withContext } from "../../errors.ts";
import type { TextOptions } from "../options.ts";
import type { RowSource } from "../rows.ts";
import { threadsOf } from "../threads.ts";
import { JsonInference } from "./json-infer.ts";
import { planOf } from "./json-plan.ts";
import { badInput } from "./source.ts";
import { cutLines, type Piece, PieceReader } from "./text-pieces.ts";
import { noRows, TextRows } from "./text-rows.ts";

/** Bytes that columns and their types are found out from, about. */
const SAMPLE_BYTES = 4 * 2 ** 20;

/**
 * Opens files of JSON lines (also `.gz` and `.zst`) as rows, in order: objects within objects are columns `a.b`; integers
 * become I64 (U64 where they need it), other numbers F64; lists of numbers are `fixed` where all of the first lines are of
 * one size; texts `utf8`. Types are found out from the first 4 MiB of the first file. Throws `BAD_INPUT` naming file and
 * line, `SOURCE_EMPTY`, `SOURCE_NOT_FOUND`, `UNKNOWN_COLUMN`, `BAD_OPTION`.
 */
export async function openJsonl(paths: readonly string[], options: TextOptions = {}): Promise<RowSource> {
  const readers: PieceReader[] = [];
  try {
    for (const path of paths) readers.push(await PieceReader.open(path, cutLines));
    const [first] = readers;
    const sample: Piece[] = [];
    const skipBad = options.badRows === "skip";
    const inference = new JsonInference(first!.path, skipBad);
    for (let bytes = 0; bytes < SAMPLE_BYTES; ) {
      const piece = await first!.next();
      if (piece === undefined) break;
      sample.push(piece);
      inference.add(Buffer.from(piece.buffer), piece.start, piece.end);
      bytes += piece.end - piece.start;
    }
    const { fields, paths: keys, given } = inference.result({ ...options, skipBad });
    if (fields.length === 0 && inference.numRows > 0)
      throw badInput(
        first!.path,
        `its first ${inference.numRows} rows have no key, so there is no column to pack`,
      );
    if (fields.length === 0) throw noRows(first!.path);
    // Here, where the file is known; the threads make theirs of the same.
    withContext(first!.path, () => planOf(fields, keys));
    const setup = {
      format: "jsonl",
      fields,
      paths: keys,
      options: { given, skipBad, skipUnknown: options.columns !== undefined },
    } as const;
    return new TextRows({ readers, sample, setup, threads: threadsOf(options), skipBad });
  } catch (error) {
    for (const reader of readers) await reader.close();
    throw error;
  }
}
