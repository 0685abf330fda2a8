/**
 * Writes records to attempt files behind the back of whoever adds them: in lots, as they come, one write a file; and
 * makes them durable every so often.
 */
import { join } from "node:path";
import { attemptHeader } from "./attempt.ts";
import { type FileOps, type OpenedFile, writeError } from "./files.ts";
import { digestOf } from "./job.ts";
import { WORK_FOLDER } from "./manifest.ts";
import type { OpenOutput } from "./output.ts";

/** Attempt files that are kept open. */
const MAX_FILES = 64;

export interface JournalOptions {
  readonly ops: FileOps;
  /** Of the outputs. */
  readonly folder: string;
  /** Of the job. */
  readonly digest: string;
  /** Bytes after which files are made durable. */
  readonly syncBytes: number;
  /** A lot of `output` has been written. */
  readonly onWritten: (output: OpenOutput) => void;
  readonly onFailure: (error: unknown) => void;
}

/** What an attempt file begins with: nobody else's is taken for it. */
export function headerOf(digest: string, fileName: string): Uint8Array {
  return attemptHeader(digestOf([digest, fileName]));
}

/** What names of attempts end in. */
export const ATTEMPT_SUFFIX = ".attempt";

export function attemptPath(folder: string, fileName: string): string {
  return join(folder, WORK_FOLDER, `${fileName}${ATTEMPT_SUFFIX}`);
}

export class Journal {
  readonly #options: JournalOptions;
  readonly #dirty = new Set<OpenOutput>();
  readonly #unsynced = new Set<OpenOutput>();
  readonly #files = new Map<OpenOutput, OpenedFile>();
  /** Bytes in sinks and in writes under way. */
  #pendingBytes = 0;
  #unsyncedBytes = 0;
  /** Whether files were made whose names are not durable yet; an earlier run may have left some. */
  #newNames = true;
  /** Whether one of them is a file that records tell of. */
  #toldOf = false;
  #work: Promise<void> = Promise.resolve();
  #scheduled = false;
  #failed = false;
  readonly #waiting: (() => void)[] = [];

  constructor(options: JournalOptions) {
    this.#options = options;
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /** Resolves when fewer than so many bytes are pending, or nothing will be written any more. */
  async room(bytes: number): Promise<void> {
    while (!this.#failed && this.#pendingBytes > bytes) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** `output`'s sink has so many bytes more. */
  added(output: OpenOutput, bytes: number): void {
    this.#pendingBytes += bytes;
    this.#dirty.add(output);
    if (this.#scheduled) return;
    this.#scheduled = true;
    // What else comes in this turn goes along.
    setImmediate(() => {
      this.#scheduled = false;
      void this.#after(() => this.#drain());
    });
  }

  /** A file beside the attempts was made, and records tell of what is in it. */
  madeFile(): void {
    this.#newNames = true;
    this.#toldOf = true;
  }

  /** Resolves when all that was added is written and durable, or writing has failed. */
  flush(): Promise<void> {
    return this.#after(async () => {
      await this.#drain();
      await this.#sync();
    });
  }

  /** Waits for what is under way with `output`, and has its file open no more. */
  forget(output: OpenOutput): Promise<void> {
    return this.#after(async () => {
      this.#unsynced.delete(output);
      await this.#close(output);
    });
  }

  async close(): Promise<void> {
    await this.#work;
    for (const output of [...this.#files.keys()]) await this.#close(output).catch(() => {});
  }

  /** Runs `work` once all before it has ended. Never rejects. */
  #after(work: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(async () => {
      if (this.#failed) return;
      try {
        await work();
      } catch (error) {
        this.#failed = true;
        this.#wake();
        this.#options.onFailure(writeError(this.#options.folder, error));
      }
    });
    return this.#work;
  }

  async #drain(): Promise<void> {
    while (this.#dirty.size > 0) {
      for (const output of [...this.#dirty]) await this.#write(output);
      if (this.#unsyncedBytes >= this.#options.syncBytes) await this.#sync();
    }
  }

  async #write(output: OpenOutput): Promise<void> {
    // What comes while this is written makes it dirty again.
    this.#dirty.delete(output);
    const lot = output.takeLot();
    const path = attemptPath(this.#options.folder, output.name.fileName);
    try {
      // A record may outlive a loss of power unsynced, and then the file that it tells of must be there as well, and not
      // the one that an earlier run has left under its name.
      if (this.#toldOf) await this.#syncNames();
      const file = await this.#open(output, path);
      await file.write(lot.bytes, output.attemptBytes);
    } catch (error) {
      throw writeError(path, error);
    }
    output.attemptBytes += lot.bytes.length;
    output.numJournaled += lot.rows;
    this.#unsynced.add(output);
    this.#unsyncedBytes += lot.bytes.length;
    this.#pendingBytes -= lot.bytes.length;
    this.#wake();
    this.#options.onWritten(output);
  }

  async #open(output: OpenOutput, path: string): Promise<OpenedFile> {
    const known = this.#files.get(output);
    if (known !== undefined) return known;
    const file = await this.#options.ops.open(path, true);
    this.#files.set(output, file);
    if (output.attemptBytes === 0) {
      const header = headerOf(this.#options.digest, output.name.fileName);
      // What a crash has left of one that was not whole.
      await file.truncate(0);
      await file.write(header, 0);
      output.attemptBytes = header.length;
      this.#newNames = true;
    }
    if (this.#files.size > MAX_FILES) await this.#closeOldest(output);
    return file;
  }

  async #closeOldest(except: OpenOutput): Promise<void> {
    for (const output of this.#files.keys()) {
      if (output === except) continue;
      if (this.#unsynced.has(output)) await this.#files.get(output)!.sync();
      this.#unsynced.delete(output);
      await this.#close(output);
      return;
    }
  }

  async #sync(): Promise<void> {
    const { ops, folder } = this.#options;
    // Files that were removed can still be written to.
    const gone = this.#unsynced.size > 0 && !(await ops.exists(join(folder, WORK_FOLDER)));
    if (gone) throw Object.assign(new Error("it is gone"), { code: "ENOENT" });
    for (const output of [...this.#unsynced]) {
      try {
        await this.#files.get(output)?.sync();
      } catch (error) {
        throw writeError(attemptPath(folder, output.name.fileName), error);
      }
      this.#unsynced.delete(output);
    }
    this.#unsyncedBytes = 0;
    if (this.#newNames) await this.#syncNames();
  }

  async #syncNames(): Promise<void> {
    // What is made meanwhile is for the next time.
    this.#newNames = false;
    this.#toldOf = false;
    await this.#options.ops.syncFolder(join(this.#options.folder, WORK_FOLDER));
  }

  async #close(output: OpenOutput): Promise<void> {
    const file = this.#files.get(output);
    this.#files.delete(output);
    await file?.close();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
