/** Open files. Descriptors are counted: a mapping and a request in flight keep theirs past `close`. */
import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { HeadraceError } from "../../errors.ts";
import { closedError, errnoError, nodeError } from "../common/errors.ts";
import { assertRegular, shortReadError, shrunkError, statOrUndefined } from "../common/files.ts";
import { OpenSet } from "../common/open-set.ts";
import type { DeviceFile } from "../device.ts";
import { checkRange } from "../requests.ts";
import type { FileWay, HostContext } from "./context.ts";
import { forgetResident, residentPart } from "./page-cache.ts";

/** A descriptor with its users; the last one to release it closes it. */
export class Descriptor {
  readonly fd: number;
  readonly path: string;
  readonly way: FileWay | undefined;
  readonly #context: HostContext;
  #users = 1;

  constructor(context: HostContext, fd: number, path: string, way: FileWay | undefined) {
    this.#context = context;
    this.way = way;
    this.fd = fd;
    this.path = path;
  }

  retain(): void {
    this.#users++;
  }

  release(): void {
    if (--this.#users > 0) return;
    this.way?.close();
    closeSync(this.fd);
  }

  /** Bytes that the file has now. Throws `IO_ERROR`. */
  currentLength(): number {
    const length = this.#context.syscalls.fileLength(this.fd);
    if (length < 0) throw errnoError(`${this.path}: finding the length`, -length);
    return length;
  }

  /** Throws `FILE_CHANGED` where the file has fewer than `byteLength` bytes now. */
  checkLength(byteLength: number): void {
    const now = this.currentLength();
    if (now < byteLength) throw shrunkError(this.path, now, byteLength);
  }
}

/** A file that was forgotten without `close`, seen by the garbage collector. */
interface Forgotten {
  readonly descriptor: Descriptor;
  readonly files: HostFiles;
  readonly id: number;
}

// A registry that is collected with its device would close nothing, so it belongs to the module.
const forgottenFiles = new FinalizationRegistry<Forgotten>(({ descriptor, files, id }) => {
  files.forget(id);
  descriptor.release();
});

export class HostFile implements DeviceFile {
  readonly path: string;
  readonly byteLength: number;
  readonly writable: boolean;
  readonly descriptor: Descriptor;
  readonly context: HostContext;
  readonly #files: HostFiles;
  readonly #id: number;
  #closed = false;

  constructor(
    context: HostContext,
    files: HostFiles,
    descriptor: Descriptor,
    byteLength: number,
    writable: boolean,
  ) {
    this.context = context;
    this.path = descriptor.path;
    this.byteLength = byteLength;
    this.writable = writable;
    this.descriptor = descriptor;
    this.#files = files;
    this.#id = files.remember(this);
    forgottenFiles.register(this, { descriptor, files, id: this.#id }, this);
  }

  get closed(): boolean {
    return this.#closed;
  }

  checkLength(): void {
    this.assertOpen();
    this.descriptor.checkLength(this.byteLength);
  }

  readSync(byteOffset: number, byteLength: number): Uint8Array {
    this.assertOpen();
    checkRange(this.path, byteOffset, byteLength, Number.MAX_SAFE_INTEGER);
    const length = this.descriptor.currentLength();
    if (byteLength > length - byteOffset) {
      throw shortReadError(this.path, byteOffset, byteLength, Math.max(0, length - byteOffset));
    }
    if (byteLength > MAX_SYNC_READ) {
      throw new HeadraceError(
        "UNSUPPORTED",
        `${this.path}: readSync is for at most ${MAX_SYNC_READ} bytes, and ${byteLength} were asked for; submit a read`,
      );
    }
    return this.#readAll(byteOffset, byteLength);
  }

  residentPart(exact = false): number | undefined {
    this.assertOpen();
    return residentPart(this.context.syscalls, this.descriptor.fd, this.byteLength, exact);
  }

  forgetResident(): void {
    this.assertOpen();
    forgetResident(this.context.syscalls, this.descriptor.fd, this.byteLength);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    forgottenFiles.unregister(this);
    this.#files.forget(this.#id);
    this.descriptor.release();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #readAll(byteOffset: number, byteLength: number): Uint8Array {
    const bytes = new Uint8Array(new ArrayBuffer(byteLength));
    let done = 0;
    while (done < byteLength) {
      const count = this.context.syscalls.preadInto(this.descriptor.fd, bytes, done, byteOffset + done);
      if (count < 0) {
        const range = `[${byteOffset}, ${byteOffset + byteLength})`;
        throw errnoError(`${this.path}: reading bytes ${range}`, -count);
      }
      if (count === 0) throw shortReadError(this.path, byteOffset, byteLength, done);
      done += count;
    }
    return bytes;
  }

  /** Throws `CLOSED` after `close`. */
  assertOpen(): void {
    if (this.#closed) throw closedError(`the file ${this.path}`);
  }
}

/** Bytes: what one ArrayBuffer can hold. */
const MAX_SYNC_READ = 2 ** 32;

/** Opens files for one device. */
export class HostFiles {
  readonly #context: HostContext;
  readonly #open = new OpenSet<HostFile>();

  constructor(context: HostContext) {
    this.#context = context;
  }

  /** Throws `SOURCE_NOT_FOUND`, `SOURCE_UNREADABLE` (also for what is no regular file) or `IO_ERROR`. */
  open(path: string, mode: "read" | "write"): HostFile {
    const writable = mode === "write";
    const what = `${path}: opening to ${mode}`;
    // Looked at first, because opening a device or a pipe may already do something.
    const before = statOrUndefined(what, path, writable);
    if (before !== undefined) assertRegular(path, before);
    const flags = writable ? constants.O_RDWR | constants.O_CREAT : constants.O_RDONLY;
    let fd: number;
    try {
      fd = openSync(path, flags | constants.O_NONBLOCK, 0o666);
    } catch (error) {
      throw nodeError(what, error);
    }
    try {
      const stats = fstatSync(fd);
      assertRegular(path, stats);
      const way = writable ? undefined : this.#context.openWay(path);
      const descriptor = new Descriptor(this.#context, fd, path, way);
      return new HostFile(this.#context, this, descriptor, stats.size, writable);
    } catch (error) {
      closeSync(fd);
      throw error instanceof HeadraceError ? error : nodeError(what, error);
    }
  }

  remember(file: HostFile): number {
    this.#context.openResources++;
    return this.#open.add(file);
  }

  forget(id: number): void {
    this.#context.openResources--;
    this.#open.delete(id);
  }

  closeAll(): void {
    this.#open.closeAll();
  }
}
