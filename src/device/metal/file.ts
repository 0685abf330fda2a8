/** Files: descriptors of the library's, and for `stream` its MTLIO handle besides. */
import { closeSync, openSync } from "node:fs";
import { HeadraceError } from "../../errors.ts";
import { closedError } from "../common/errors.ts";
import { assertRegular, shortReadError, shrunkError, statOrUndefined } from "../common/files.ts";
import { MAX_VIEW } from "../common/views.ts";
import type { DeviceFile, FileMode } from "../device.ts";
import { forgetResident, residentPart } from "../host/page-cache.ts";
import { checkRange } from "../requests.ts";
import { CODEC_NONE, FileFlag, Status } from "./abi.ts";
import { cString, type MetalContext, NativeObject } from "./context.ts";

/** A compressed form of a file, valid when it was looked for. */
export interface StreamSource {
  readonly path: string;
  /** One of `Codec`. */
  readonly codec: number;
}

export class MetalFile extends NativeObject implements DeviceFile {
  readonly path: string;
  readonly byteLength: number;
  readonly writable: boolean;
  /** What read requests name: the compressed form where there is one. */
  readonly #stream: NativeObject | undefined;
  /** The path of the compressed form. */
  readonly #compressed: string | undefined;

  constructor(
    context: MetalContext,
    handle: number,
    path: string,
    byteLength: number,
    writable: boolean,
    stream: NativeObject | undefined,
    compressed?: string,
  ) {
    super(context, handle, true);
    this.path = path;
    this.byteLength = byteLength;
    this.writable = writable;
    this.#stream = stream;
    this.#compressed = compressed;
  }

  /** What requests call the file in messages: what they read may be bad while the source is healthy. */
  get requestName(): string {
    return this.#compressed === undefined ? this.path : `${this.path} (${readFrom(this.#compressed)})`;
  }

  /** The handle for requests. */
  get requestHandle(): number {
    return this.#stream?.handle ?? this.handle;
  }

  checkLength(): void {
    this.assertOpen();
    const now = this.#currentLength();
    if (now < this.byteLength) throw shrunkError(this.path, now, this.byteLength);
  }

  readSync(byteOffset: number, byteLength: number): Uint8Array {
    this.assertOpen();
    checkRange(this.path, byteOffset, byteLength, Number.MAX_SAFE_INTEGER);
    const length = this.#currentLength();
    if (byteLength > length - byteOffset) {
      throw shortReadError(this.path, byteOffset, byteLength, Math.max(0, length - byteOffset));
    }
    if (byteLength > MAX_VIEW) {
      throw new HeadraceError(
        "UNSUPPORTED",
        `${this.path}: readSync is for at most ${MAX_VIEW} bytes, and ${byteLength} were asked for; submit a read`,
      );
    }
    const bytes = new Uint8Array(new ArrayBuffer(byteLength));
    if (byteLength === 0) return bytes;
    const { context } = this;
    const { symbols, numberOut, error } = context;
    context.run(this.path, () =>
      symbols.hr_file_read(this.handle, byteOffset, byteLength, bytes, numberOut, error.bytes),
    );
    const done = context.takeNumber();
    if (done < byteLength) throw shortReadError(this.path, byteOffset, byteLength, done);
    return bytes;
  }

  residentPart(exact = false): number | undefined {
    this.assertOpen();
    return this.#withDescriptor((fd) => residentPart(this.context.syscalls, fd, this.byteLength, exact));
  }

  forgetResident(): void {
    this.assertOpen();
    this.#withDescriptor((fd) => forgetResident(this.context.syscalls, fd, this.byteLength));
  }

  override close(): void {
    super.close();
    this.#stream?.close();
  }

  /** Throws `CLOSED` after `close`. */
  assertOpen(): void {
    if (this.closed) throw closedError(`the file ${this.path}`);
  }

  /** For what the page cache has of the file, the library's own descriptor is not needed. */
  #withDescriptor<T>(work: (fd: number) => T): T | undefined {
    let fd: number;
    try {
      fd = openSync(this.path, "r");
    } catch {
      return undefined;
    }
    try {
      return work(fd);
    } finally {
      closeSync(fd);
    }
  }

  #currentLength(): number {
    const { symbols, numberOut, error } = this.context;
    this.context.run(this.path, () => symbols.hr_file_length(this.handle, numberOut, error.bytes));
    return this.context.takeNumber();
  }
}

/** Opens a file. `compressed` is what a `stream` file is read from, where it is not the file itself. Throws
 * `SOURCE_NOT_FOUND`, `SOURCE_UNREADABLE` (also for what is no regular file), `IO_ERROR`. */
export function openMetalFile(
  context: MetalContext,
  path: string,
  mode: FileMode,
  options: { readonly noCache: boolean; readonly compressed?: StreamSource },
): MetalFile {
  const writable = mode === "write";
  const what = `${path}: opening to ${mode}`;
  const before = statOrUndefined(what, path, writable);
  if (before !== undefined) assertRegular(path, before);
  const { compressed } = options;
  const streams = mode === "stream" && compressed === undefined;
  const flags =
    (writable ? FileFlag.WRITE : 0) |
    (options.noCache ? FileFlag.NO_CACHE : 0) |
    (streams ? FileFlag.STREAM : 0);
  const { handle, byteLength } = openHandle(context, what, path, flags, CODEC_NONE, 0);
  if (compressed === undefined) return new MetalFile(context, handle, path, byteLength, writable, undefined);
  let stream: NativeObject;
  try {
    const source = `${what} from ${compressed.path}`;
    const { codec } = compressed;
    const opened = openHandle(context, source, compressed.path, FileFlag.STREAM, codec, byteLength);
    stream = new NativeObject(context, opened.handle, false);
  } catch (error) {
    context.symbols.hr_close(handle);
    throw error instanceof HeadraceError && error.code === "BAD_STREAM"
      ? new HeadraceError("BAD_STREAM", `${error.message}; ${readFrom(compressed.path)}`, { cause: error })
      : error;
  }
  return new MetalFile(context, handle, path, byteLength, false, stream, compressed.path);
}

/** Names the compressed form and the remedy where it is bad. */
function readFrom(compressed: string): string {
  return `read from ${compressed}; if that is damaged, delete it and it is made again`;
}

function openHandle(
  context: MetalContext,
  what: string,
  path: string,
  flags: number,
  codec: number,
  byteLength: number,
): { readonly handle: number; readonly byteLength: number } {
  const { symbols, handleOut, numberOut, error } = context;
  numberOut[0] = byteLength >>> 0;
  numberOut[1] = Math.floor(byteLength / 2 ** 32);
  const name = cString(path);
  error.clear();
  const status = symbols.hr_file_open(context.handle, name, flags, codec, handleOut, numberOut, error.bytes);
  if (status >= Status.OK) return { handle: handleOut[0]!, byteLength: context.takeNumber() };
  const failure = error.toError(status, what);
  throw failure.message.includes(path) ? failure : failure.within(path);
}
