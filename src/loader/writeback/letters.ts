/**
 * The dead-letter file: one line of JSON for each row that failed for good, in the order of the rows.
 *
 * A shard's lines are durable before the manifest lists the shard. Lines of a shard that the manifest does not list are
 * what a crash in between has left: they are taken out when the folder is opened again, and come again with the shard.
 * Lines of a shard whose failed rows were run again say so by `retry`, so that they are told from those before them.
 */
import { join } from "node:path";
import { type FileOps, readWhole, replaceFile } from "./files.ts";
import { LETTERS_FILE, WORK_FOLDER } from "./manifest.ts";
import type { OutputName } from "./output.ts";
import type { FailedRow } from "./survey.ts";

/** Lines of one shard, as they are added. */
export interface Letters {
  readonly name: OutputName;
  readonly failed: readonly FailedRow[];
}

interface Line {
  readonly row: number;
  /** Of the shard's file. */
  readonly generation: number;
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

  /** Looks at what is there, and leaves the whole lines of rows of whole shards, whose generation is as `generationOf`
   * says; undefined: the row's shard is not whole. */
  async recover(generationOf: (row: number) => number | undefined): Promise<void> {
    const bytes = await readWhole(this.#ops, this.#path);
    if (bytes === undefined) return;
    const lines = linesOf(bytes);
    const kept = lines
      .filter(({ row, generation }) => generationOf(row) === generation)
      .filter(({ row }, i, some) => some[i - 1]?.row !== row);
    const text = textOf(kept);
    if (kept.length === 0) await this.#ops.remove(this.#path);
    else if (text !== new TextDecoder().decode(bytes)) await this.#replace(text);
    this.#byteLength = new TextEncoder().encode(text).length;
    this.#lastRow = kept.at(-1)?.row ?? -1;
  }

  /** Adds lines, and makes them durable: at the end where they belong there, else by a new file. */
  async add(letters: readonly Letters[]): Promise<void> {
    const lines = letters.flatMap(({ name: { shard, generation = 0 }, failed }) =>
      failed.map(({ row, error, attempts }) => ({
        row,
        generation,
        text: JSON.stringify({
          row,
          shard: shard.name,
          error,
          attempts,
          retry: generation > 0 ? generation : undefined,
        }),
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
      const { row, retry } = (JSON.parse(text) ?? {}) as { row?: unknown; retry?: unknown };
      const generation = typeof retry === "number" ? retry : 0;
      return Number.isSafeInteger(row) ? [{ row: row as number, generation, text }] : [];
    } catch {
      return [];
    }
  });
}

function textOf(lines: readonly Line[]): string {
  return lines.map(({ text }) => `${text}\n`).join("");
}
