/**
 * The dead-letter file: one line of JSON for each row that failed for good, in the order of the rows.
 *
 * A shard's lines are durable before the manifest lists the shard. Lines of a shard that the manifest does not list are
 * what a crash in between has left: they are taken out when the folder is opened again, and come again with the shard.
 */
import { join } from "node:path";
import { type FileOps, readWhole, replaceFile } from "./files.ts";
import { LETTERS_FILE, WORK_FOLDER } from "./manifest.ts";
import type { InputShard } from "./output.ts";
import type { FailedRow } from "./survey.ts";

/** Lines of one shard, as they are added. */
export interface Letters {
  readonly shard: InputShard;
  readonly failed: readonly FailedRow[];
}

interface Line {
  readonly row: number;
  readonly text: string;
}

export class LetterFile {
  readonly #ops: FileOps;
  readonly #folder: string;
  readonly #path: string;
  #byteLength = 0;
  #lastRow = -1;

  constructor(ops: FileOps, folder: string) {
    this.#ops = ops;
    this.#folder = folder;
    this.#path = join(folder, LETTERS_FILE);
  }

  /** Looks at what is there, and leaves the whole lines of rows for which `isCommitted`. */
  async recover(isCommitted: (row: number) => boolean): Promise<void> {
    const bytes = await readWhole(this.#ops, this.#path);
    if (bytes === undefined) return;
    const lines = linesOf(bytes);
    const kept = lines.filter(({ row }, i) => isCommitted(row) && lines[i - 1]?.row !== row);
    const text = textOf(kept);
    if (kept.length === 0) await this.#ops.remove(this.#path);
    else if (text !== new TextDecoder().decode(bytes)) await this.#replace(text);
    this.#byteLength = new TextEncoder().encode(text).length;
    this.#lastRow = kept.at(-1)?.row ?? -1;
  }

  /** Adds lines, and makes them durable: at the end where they belong there, else by a new file. */
  async add(letters: readonly Letters[]): Promise<void> {
    const lines = letters.flatMap(({ shard, failed }) =>
      failed.map(({ row, error, attempts }) => ({
        row,
        text: JSON.stringify({ row, shard: shard.name, error, attempts }),
      })),
    );
    if (lines.length === 0) return;
    lines.sort((a, b) => a.row - b.row);
    if (lines[0]!.row > this.#lastRow) {
      const isNew = this.#byteLength === 0;
      const bytes = new TextEncoder().encode(textOf(lines));
      const file = await this.#ops.open(this.#path, true);
      try {
        // What a write that failed halfway has left.
        await file.truncate(this.#byteLength);
        await file.write(bytes, this.#byteLength);
        await file.sync();
      } finally {
        await file.close();
      }
      if (isNew) await this.#ops.syncFolder(this.#folder);
      this.#byteLength += bytes.length;
    } else {
      const old = linesOf((await readWhole(this.#ops, this.#path)) ?? new Uint8Array());
      const text = textOf([...old, ...lines].sort((a, b) => a.row - b.row));
      await this.#replace(text);
      this.#byteLength = new TextEncoder().encode(text).length;
    }
    this.#lastRow = Math.max(this.#lastRow, lines.at(-1)!.row);
  }

  #replace(text: string): Promise<void> {
    const place = { folder: this.#folder, name: LETTERS_FILE, workFolder: WORK_FOLDER };
    return replaceFile(this.#ops, place, new TextEncoder().encode(text));
  }
}

/** The whole lines that tell a row. */
function linesOf(bytes: Uint8Array): Line[] {
  const texts = new TextDecoder().decode(bytes).split("\n");
  // Behind the last line feed is nothing, or what a crash has left.
  texts.pop();
  return texts.flatMap((text) => {
    try {
      const row: unknown = (JSON.parse(text) as { row?: unknown } | null)?.row;
      return Number.isSafeInteger(row) ? [{ row: row as number, text }] : [];
    } catch {
      return [];
    }
  });
}

function textOf(lines: readonly Line[]): string {
  return lines.map(({ text }) => `${text}\n`).join("");
}
