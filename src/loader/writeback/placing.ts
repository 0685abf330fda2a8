/**
 * Brings values from device memory to where they belong in an output's file, by the device's own requests: JavaScript
 * sees no byte of them.
 *
 * Values are first copied, side by side, into one of {@link NUM_STAGES} staging buffers that the host can see, so that
 * their owner has the memory back at once; a full buffer is written while the next one fills. What is written is made
 * durable every so often, and only then is told to be there.
 */
import type { Device, DeviceBuffer, DeviceFile, DeviceQueue } from "../../device/device.ts";
import { RequestList } from "../../device/requests.ts";
import { HeadraceError } from "../../errors.ts";

const NUM_STAGES = 3;
/** Files that are kept open. */
const MAX_FILES = 32;

/** Values in device memory: one row's, or those of several rows back to back. */
export interface DeviceValues {
  readonly buffer: DeviceBuffer;
  readonly byteOffset: number;
  /** Called once, when the memory is no longer read. */
  release?(): void;
}

/** Bytes that go to one place of one file. */
export interface Placement {
  readonly values: DeviceValues;
  readonly byteLength: number;
  readonly path: string;
  readonly fileOffset: number;
}

interface StagedWrite {
  readonly path: string;
  fileOffset: number;
  stageOffset: number;
  byteLength: number;
}

/** Runs its work once it was counted down to zero. */
class Latch {
  #left: number;
  readonly #done: () => void;

  constructor(count: number, done: () => void) {
    this.#left = count;
    this.#done = done;
  }

  countDown(): void {
    if (--this.#left === 0) this.#done();
  }
}

interface Stage {
  readonly buffer: DeviceBuffer;
  used: number;
  readonly writes: StagedWrite[];
  readonly latches: Latch[];
  /** Copies that were submitted; resolves when all have ended. */
  copied: Promise<void>;
}

export interface PlacerOptions {
  readonly device: Device;
  /** Of each staging buffer. */
  readonly stageBytes: number;
  /** Written bytes after which files are made durable. */
  readonly syncBytes: number;
  readonly onFailure: (error: unknown) => void;
}

/** Owns its queue, buffers and files; borrows the device. */
export class Placer {
  readonly #device: Device;
  readonly #queue: DeviceQueue;
  readonly #options: PlacerOptions;
  readonly #free: Stage[] = [];
  readonly #buffers: DeviceBuffer[] = [];
  readonly #waiting: (() => void)[] = [];
  readonly #files = new Map<string, DeviceFile>();
  /** Files that were written and are not durable yet, and who waits for that. */
  readonly #unsynced = new Set<string>();
  readonly #latches: Latch[] = [];
  readonly #running = new Set<Promise<void>>();
  /** Those of them that wait for room. */
  readonly #late = new Set<Promise<void>>();
  #stage: Stage | undefined;
  #copies = new RequestList();
  #releases: Latch[] = [];
  #copiesDue = false;
  #unsyncedBytes = 0;
  #syncing: Promise<void> = Promise.resolve();
  #failed = false;

  constructor(options: PlacerOptions) {
    this.#options = options;
    this.#device = options.device;
    this.#queue = options.device.createQueue();
  }

  /** Takes values; `done` is called once all of them are durable. Resolves, or gives nothing, when they have found
   * room: until then the caller takes no further ones. */
  place(placements: readonly Placement[], done: () => void): Promise<void> | undefined {
    const pieces = placements.flatMap((placement) => this.#cut(placement));
    const latch = new Latch(pieces.length, done);
    for (let i = 0; i < pieces.length; i++) {
      if (!this.#stageHasRoom(pieces[i]!.byteLength)) return this.#placeLater(pieces.slice(i), latch);
      this.#copy(pieces[i]!, latch);
    }
    return undefined;
  }

  /** Writes what is staged and makes it durable, as far as it was taken before. */
  async flush(): Promise<void> {
    await Promise.all(this.#late);
    this.#seal();
    await Promise.all(this.#running);
    await this.#sync();
  }

  /** Ends what is under way. Values that were taken and not told to be durable are as if they had not been. */
  async close(): Promise<void> {
    this.#failed = true;
    this.#submitCopies();
    while (this.#running.size > 0) await Promise.all(this.#running);
    await this.#syncing;
    await this.#queue.close();
    for (const file of this.#files.values()) file.close();
    for (const buffer of this.#buffers) buffer.close();
  }

  /** Has no file open at `path` any more. */
  closeFile(path: string): void {
    this.#files.get(path)?.close();
    this.#files.delete(path);
  }

  /** Pieces that fit a staging buffer each, and release the values with the last of them. */
  #cut({ values, byteLength, path, fileOffset }: Placement): (Placement & { readonly last: Latch })[] {
    const { stageBytes } = this.#options;
    const count = Math.ceil(byteLength / stageBytes);
    const last = new Latch(count, () => values.release?.());
    return Array.from({ length: count }, (_, i) => {
      const from = i * stageBytes;
      return {
        values: { buffer: values.buffer, byteOffset: values.byteOffset + from },
        byteLength: Math.min(stageBytes, byteLength - from),
        path,
        fileOffset: fileOffset + from,
        last,
      };
    });
  }

  #placeLater(pieces: readonly (Placement & { readonly last: Latch })[], latch: Latch): Promise<void> {
    const late = this.#track(this.#placeRest(pieces, latch)).finally(() => {
      this.#late.delete(late);
    });
    this.#late.add(late);
    return late;
  }

  async #placeRest(pieces: readonly (Placement & { readonly last: Latch })[], latch: Latch): Promise<void> {
    for (const piece of pieces) {
      while (!this.#failed && !this.#stageHasRoom(piece.byteLength)) {
        await new Promise<void>((resolve) => this.#waiting.push(resolve));
      }
      if (this.#failed) piece.last.countDown();
      else this.#copy(piece, latch);
    }
  }

  /** Whether the stage at hand, or a fresh one, has room for so many bytes. */
  #stageHasRoom(byteLength: number): boolean {
    if (this.#stage !== undefined && this.#stage.used + byteLength <= this.#options.stageBytes) return true;
    this.#seal();
    let stage = this.#free.pop();
    if (stage === undefined && this.#buffers.length < NUM_STAGES) {
      const buffer = this.#device.createBuffer(this.#options.stageBytes);
      this.#buffers.push(buffer);
      stage = { buffer, used: 0, writes: [], latches: [], copied: Promise.resolve() };
    }
    this.#stage = stage;
    return stage !== undefined;
  }

  #copy({ values, byteLength, path, fileOffset, last }: Placement & { last: Latch }, latch: Latch): void {
    const stage = this.#stage!;
    this.#copies.copy(values.buffer, values.byteOffset, stage.buffer, stage.used, byteLength);
    this.#releases.push(last);
    const before = stage.writes.at(-1);
    const follows =
      before !== undefined && before.path === path && before.fileOffset + before.byteLength === fileOffset;
    if (follows) before.byteLength += byteLength;
    else stage.writes.push({ path, fileOffset, stageOffset: stage.used, byteLength });
    stage.latches.push(latch);
    stage.used += byteLength;
    if (this.#copiesDue) return;
    // All values of this turn go in one submission.
    this.#copiesDue = true;
    queueMicrotask(() => this.#submitCopies());
  }

  #submitCopies(): void {
    this.#copiesDue = false;
    const stage = this.#stage;
    if (stage === undefined || this.#copies.length === 0) return;
    const releases = this.#releases;
    this.#releases = [];
    const copies = this.#copies;
    this.#copies = new RequestList();
    const before = stage.copied;
    stage.copied = this.#track(
      (async () => {
        try {
          await this.#run(copies);
        } finally {
          for (const release of releases) release.countDown();
        }
        await before;
      })(),
    );
  }

  /** Hands the stage at hand to be written. */
  #seal(): void {
    this.#submitCopies();
    const stage = this.#stage;
    this.#stage = undefined;
    if (stage === undefined) return;
    void this.#track(this.#write(stage));
  }

  async #write(stage: Stage): Promise<void> {
    await stage.copied;
    if (!this.#failed && stage.writes.length > 0) {
      const list = new RequestList();
      for (const { path, fileOffset, stageOffset, byteLength } of stage.writes) {
        list.write(stage.buffer, stageOffset, this.#file(path), fileOffset, byteLength);
      }
      await this.#run(list);
      for (const latch of stage.latches) this.#latches.push(latch);
      for (const { path } of stage.writes) this.#unsynced.add(path);
      this.#unsyncedBytes += stage.used;
    }
    stage.used = 0;
    stage.writes.length = 0;
    stage.latches.length = 0;
    stage.copied = Promise.resolve();
    this.#free.push(stage);
    for (const resolve of this.#waiting.splice(0)) resolve();
    if (this.#unsyncedBytes >= this.#options.syncBytes) void this.#track(this.#sync());
  }

  #sync(): Promise<void> {
    this.#syncing = this.#syncing.then(async () => {
      if (this.#failed || this.#unsynced.size === 0) return;
      const paths = [...this.#unsynced];
      const latches = this.#latches.splice(0);
      this.#unsynced.clear();
      this.#unsyncedBytes = 0;
      const list = new RequestList();
      for (const path of paths) list.sync(this.#file(path));
      try {
        await this.#run(list);
      } catch (error) {
        this.#fail(error);
        return;
      }
      for (const latch of latches) latch.countDown();
      if (this.#files.size > MAX_FILES) for (const path of [...this.#files.keys()]) this.closeFile(path);
    });
    return this.#syncing;
  }

  /** Submits requests and waits for them. Throws `DISK_FULL`, `IO_ERROR` and what else the device fails with. */
  async #run(list: RequestList): Promise<void> {
    const { error } = await this.#queue.completion(this.#queue.submit(list));
    if (error !== undefined) throw error;
  }

  #file(path: string): DeviceFile {
    let file = this.#files.get(path);
    if (file === undefined) {
      file = this.#device.openFile(path, "write");
      this.#files.set(path, file);
    }
    return file;
  }

  #track(work: Promise<void>): Promise<void> {
    const tracked = work
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        this.#running.delete(tracked);
      });
    this.#running.add(tracked);
    return tracked;
  }

  #fail(error: unknown): void {
    this.#failed = true;
    for (const resolve of this.#waiting.splice(0)) resolve();
    this.#options.onFailure(asWriteFailure(error));
  }
}

/** Devices speak of sources where a file cannot be opened; here it is a target. */
function asWriteFailure(error: unknown): unknown {
  if (!(error instanceof HeadraceError)) return error;
  const { code, message, cause } = error;
  const opening = code === "SOURCE_NOT_FOUND" || code === "SOURCE_UNREADABLE";
  return opening ? new HeadraceError("IO_ERROR", message, { cause: cause ?? error }) : error;
}
