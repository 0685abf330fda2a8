/**
 * Buffers and mappings. A {@link MetalRegion} is the handle with its views: the buffer object and every view
 * handed out keep it alive, so that the garbage collector closes what was forgotten only when nothing of it can
 * be reached any more. Work in flight keeps the memory by itself, in the library.
 */
import { HeadraceError } from "../../errors.ts";
import { closedError } from "../common/errors.ts";
import { checkViewLength, checkVisible, Views } from "../common/views.ts";
import type { Advice, Declined, DeviceBuffer, DeviceFile, Storage } from "../device.ts";
import { checkRange } from "../requests.ts";
import { AdviceCode, STRUCTS, Status, StorageMode } from "./abi.ts";
import { type MetalContext, NativeObject } from "./context.ts";
import type { MetalFile } from "./file.ts";

const ADVICE: Readonly<Record<Advice, number>> = {
  sequential: AdviceCode.SEQUENTIAL,
  random: AdviceCode.RANDOM,
  "will-need": AdviceCode.WILL_NEED,
  "dont-need": AdviceCode.DONT_NEED,
};

/** A buffer's handle and the views of it. */
export class MetalRegion extends NativeObject {
  readonly #views = new Views();
  #users = 0;

  /** For what writes to the memory past the library: it stays until {@link MetalRegion.release}. */
  retain(): void {
    this.#users++;
  }

  release(): void {
    this.#users--;
    if (this.closed && this.#users === 0) super.free();
  }

  view(address: number, byteLength: number): ArrayBuffer {
    return this.#views.add(this, address, byteLength);
  }

  override close(): void {
    // Before the memory can go.
    this.#views.detachAll();
    super.close();
  }

  protected override free(): void {
    if (this.#users === 0) super.free();
  }
}

/** What the library says of a buffer. */
interface BufferInfo {
  readonly hostAddress: number;
  readonly gpuAddress: number;
  readonly nativeObject: number;
}

export class MetalBuffer implements DeviceBuffer {
  readonly byteLength: number;
  readonly storage: Storage;
  readonly hostAddress: number;
  readonly gpuAddress: number;
  readonly nativeObject: number;
  readonly file?: DeviceFile;
  readonly region: MetalRegion;

  constructor(region: MetalRegion, byteLength: number, storage: Storage, file?: DeviceFile) {
    const info = readInfo(region);
    this.region = region;
    this.byteLength = byteLength;
    this.storage = storage;
    this.hostAddress = info.hostAddress;
    this.gpuAddress = info.gpuAddress;
    this.nativeObject = info.nativeObject;
    if (file !== undefined) this.file = file;
  }

  get closed(): boolean {
    return this.region.closed;
  }

  view(byteOffset: number, byteLength: number): ArrayBuffer {
    this.#assertOpen();
    checkVisible(this.storage);
    checkRange(this.#label(), byteOffset, byteLength, this.byteLength);
    checkViewLength(byteLength);
    if (this.file !== undefined) this.#checkFile(this.file.path);
    return byteLength === 0
      ? new ArrayBuffer(0)
      : this.region.view(this.hostAddress + byteOffset, byteLength);
  }

  advise(advice: Advice, byteOffset: number, byteLength: number): void {
    this.#assertOpen();
    if (this.file === undefined || !(byteOffset >= 0) || !(byteLength > 0)) return;
    const start = Math.floor(Math.min(byteOffset, this.byteLength));
    const end = Math.ceil(Math.min(byteOffset + byteLength, this.byteLength));
    if (end <= start) return;
    const { context, handle } = this.region;
    context.symbols.hr_buffer_advise(handle, ADVICE[advice], start, end - start);
  }

  close(): void {
    this.region.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #checkFile(path: string): void {
    const { context, handle } = this.region;
    context.run(path, () => context.symbols.hr_buffer_check(handle, context.error.bytes));
  }

  #assertOpen(): void {
    if (this.region.closed) throw closedError(`the ${this.#label()}`);
  }

  #label(): string {
    return this.file === undefined ? "buffer" : `mapping of ${this.file.path}`;
  }
}

function readInfo({ context, handle }: MetalRegion): BufferInfo {
  const { byteLength, fields } = STRUCTS.hr_buffer_info;
  const info = new Uint32Array(new ArrayBuffer(byteLength));
  context.run(undefined, () => context.symbols.hr_buffer_info_get(handle, info, context.error.bytes));
  const number = (at: number) => info[at / 4 + 1]! * 2 ** 32 + info[at / 4]!;
  return {
    hostAddress: number(fields.host_address),
    gpuAddress: number(fields.gpu_address),
    nativeObject: number(fields.native_object),
  };
}

/** Throws `BAD_OPTION` for what is neither shared nor private. */
export function storageMode(storage: Storage): number {
  if (storage === "shared") return StorageMode.SHARED;
  if (storage === "private") return StorageMode.PRIVATE;
  throw new HeadraceError("BAD_OPTION", `storage ${storage} is neither shared nor private`);
}

/** Throws `OUT_OF_RANGE` past `maxByteLength`, `OUT_OF_MEMORY`. `parent` is the device's handle, or a heap's. */
export function createMetalBuffer(
  context: MetalContext,
  byteLength: number,
  storage: Storage,
  maxByteLength: number,
  parent = context.handle,
): MetalBuffer {
  checkRange("buffer", 0, byteLength, maxByteLength);
  const mode = storageMode(storage);
  const { symbols, handleOut, error } = context;
  const handle = context.make(`a buffer of ${byteLength} bytes`, () =>
    symbols.hr_buffer_create(parent, byteLength, mode, handleOut, error.bytes),
  );
  return bufferOver(new MetalRegion(context, handle, true), byteLength, storage);
}

/** Throws `OUT_OF_RANGE` outside the file, `FILE_CHANGED` where it has shrunk. */
export function mapMetalFile(
  context: MetalContext,
  file: MetalFile,
  byteOffset: number,
  byteLength: number,
): MetalBuffer | Declined {
  // The library takes whole numbers alone; it knows how long the file is.
  checkRange(file.path, byteOffset, byteLength, file.writable ? Number.MAX_SAFE_INTEGER : file.byteLength);
  const { symbols, handleOut, error } = context;
  error.clear();
  const status = symbols.hr_file_map(file.handle, byteOffset, byteLength, handleOut, error.bytes);
  if (status === Status.DECLINED || status === Status.UNSUPPORTED) {
    return { declined: `${file.path}: ${error.message}` };
  }
  if (status < Status.OK) throw error.toError(status, file.path);
  return bufferOver(new MetalRegion(context, handleOut[0]!, true), byteLength, "shared", file);
}

/** The buffer of a region that nothing else knows; closes it where the library has lost it. */
export function bufferOver(
  region: MetalRegion,
  byteLength: number,
  storage: Storage,
  file?: DeviceFile,
): MetalBuffer {
  try {
    return new MetalBuffer(region, byteLength, storage, file);
  } catch (error) {
    region.close();
    throw error;
  }
}
