/** Turns attempts that hold all rows into output shards, one after another, and the manifest to match. */
import { join } from "node:path";
import type { Schema } from "../../types.ts";
import { assembleOutput } from "./assemble.ts";
import { type OpenedFile, writeError } from "./files.ts";
import { attemptPath } from "./journal.ts";
import { LetterFile, type Letters } from "./letters.ts";
import { type CommittedShard, schemaOf, WORK_FOLDER, writeManifest } from "./manifest.ts";
import type { ResolvedWriterOptions } from "./options.ts";
import type { OpenOutput } from "./output.ts";
import { shardOf } from "./roster.ts";
import type { AssembleOptions } from "./survey.ts";

/** Shards that one manifest adds at most, so that a crash costs no more than making these again. */
const MAX_TOGETHER = 16;

export interface CommitterParts {
  readonly folder: string;
  readonly options: ResolvedWriterOptions;
  /** Shards that are whole already. */
  readonly committed: readonly CommittedShard[];
  /** Files of `output` are to be let go of: it is put together now. */
  readonly onBegin: (output: OpenOutput) => Promise<void>;
  readonly onCommitted: (output: OpenOutput) => void;
  readonly onFailure: (error: unknown) => void;
}

/** Where a shard is put together, and where placed values move if they must. */
export function partPath(folder: string, fileName: string): string {
  return join(folder, WORK_FOLDER, `${fileName}.part`);
}

export function copyPath(folder: string, fileName: string): string {
  return join(folder, WORK_FOLDER, `${fileName}.copy`);
}

export class Committer {
  readonly letters: LetterFile;
  readonly #parts: CommitterParts;
  readonly #schema: Schema;
  readonly #assemble: AssembleOptions;
  readonly #committed = new Map<number, CommittedShard>();
  readonly #queue: OpenOutput[] = [];
  #work: Promise<void> | undefined;
  #failed = false;

  constructor(parts: CommitterParts) {
    this.#parts = parts;
    const { ops, format, fields, errorField, maxGroupBytes, mergeBytes } = parts.options;
    this.letters = new LetterFile(ops, parts.folder);
    this.#schema = schemaOf(fields, format.hasNulls);
    this.#assemble = { format, fields, errorField, maxGroupBytes, memoryBytes: mergeBytes };
    for (const shard of parts.committed) this.#committed.set(shard.name.index, shard);
  }

  get byteLength(): number {
    let total = 0;
    for (const { byteLength } of this.#committed.values()) total += byteLength;
    return total;
  }

  /** Takes an output all of whose rows are in its attempt. */
  add(output: OpenOutput): void {
    if (this.#failed) return;
    this.#queue.push(output);
    this.#work ??= this.#run();
  }

  /** Resolves when all that was added is committed, or committing has failed. */
  async idle(): Promise<void> {
    while (this.#work !== undefined) await this.#work;
  }

  async #run(): Promise<void> {
    try {
      while (this.#queue.length > 0 && !this.#failed) {
        await this.#commit(this.#nextGroup());
      }
    } catch (error) {
      this.#failed = true;
      this.#parts.onFailure(writeError(this.#parts.folder, error));
    } finally {
      this.#work = undefined;
    }
  }

  /** Small shards go together, side by side: making them durable is most of the work, and disks do that for many at
   * once. */
  #nextGroup(): OpenOutput[] {
    const { mergeBytes } = this.#parts.options;
    let bytes = 0;
    let count = 0;
    for (const { attemptBytes } of this.#queue) {
      bytes += attemptBytes;
      if (count > 0 && (bytes > mergeBytes || count === MAX_TOGETHER)) break;
      count++;
    }
    return this.#queue.splice(0, count);
  }

  async #commit(outputs: readonly OpenOutput[]): Promise<void> {
    const { folder, options, onBegin, onCommitted } = this.#parts;
    const { ops, job, names } = options;
    const making = outputs.map(async (output) => {
      await onBegin(output);
      return { output, ...(await this.#make(output)) };
    });
    // All have ended when the first failure is told, so that no file is in use behind the caller's back.
    await Promise.allSettled(making);
    const made = await Promise.all(making);
    await ops.syncFolder(folder);
    await this.letters.add(made.map(({ output, failed }): Letters => ({ name: output.name, failed })));
    const replaced: CommittedShard[] = [];
    for (const { output, byteLength, failed } of made) {
      const old = this.#committed.get(output.name.index);
      if (old !== undefined && old.name.fileName !== output.name.fileName) replaced.push(old);
      this.#committed.set(output.name.index, { name: output.name, byteLength, failedRows: failed.length });
    }
    const inOrder = names.flatMap(({ index }) => this.#committed.get(index) ?? []);
    await writeManifest(ops, folder, job, this.#schema, inOrder);
    if (replaced.length > 0) {
      await this.recoverLetters();
      for (const { name } of replaced) await ops.remove(join(folder, name.fileName));
    }
    for (const output of outputs) {
      await ops.remove(attemptPath(folder, output.name.fileName));
      await ops.remove(partPath(folder, output.name.fileName));
      onCommitted(output);
    }
  }

  /** Of the whole shard that holds `row`; undefined where none does. */
  #generationOf(row: number): number | undefined {
    const { names } = this.#parts.options;
    const holder = shardOf(names, row);
    const committed = holder === undefined ? undefined : this.#committed.get(holder.index);
    return committed === undefined ? undefined : (committed.name.generation ?? 0);
  }

  /** Looks at the dead letters that are there: those stay that belong to whole shards as they are. */
  recoverLetters(): Promise<void> {
    return this.letters.recover((row) => this.#generationOf(row));
  }

  /** Puts the shard together and gives it its name. */
  async #make(output: OpenOutput): Promise<{ byteLength: number; failed: Letters["failed"] }> {
    const { folder, options } = this.#parts;
    const { ops } = options;
    const { fileName } = output.name;
    const part = partPath(folder, fileName);
    const opened: OpenedFile[] = [];
    const open = async (path: string, create: boolean) => {
      const file = await ops.open(path, create);
      opened.push(file);
      return file;
    };
    try {
      const attempt =
        output.numRows === 0 ? undefined : await open(attemptPath(folder, output.name.fileName), false);
      const copy = () => open(copyPath(folder, fileName), true);
      const made = await assembleOutput(output, attempt, await open(part, true), copy, this.#assemble);
      await Promise.all(opened.splice(0).map((file) => file.close()));
      await ops.rename(made.file.path, join(folder, fileName));
      return made;
    } catch (error) {
      for (const file of opened) await file.close().catch(() => {});
      throw writeError(join(folder, fileName), error);
    }
  }
}
