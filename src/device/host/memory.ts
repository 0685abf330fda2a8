/**
 * Buffers and mappings. A {@link Region} is the memory itself. The buffer object, every view handed out and
 * every request in flight keep it alive, so that the garbage collector unmaps what was forgotten only when
 * nothing can reach it any more; `close` detaches the views first and unmaps as soon as no request uses it.
 */
import { HeadraceError } from "../../errors.ts";
import { closedError, errnoError, errnoName } from "../common/errors.ts";
import { OpenSet } from "../common/open-set.ts";
import { checkViewLength, checkVisible, MAX_VIEW, ownedView, Views } from "../common/views.ts";
import type { Advice, Declined, DeviceBuffer, DeviceFile, Storage } from "../device.ts";
import { checkRange } from "../requests.ts";
import type { HostContext } from "./context.ts";
import type { Descriptor, HostFile } from "./file.ts";

/** Bytes that one `will-need` brings in; a hint for more would push out what was read before. */
const MAX_PREFETCH = 2 ** 30;
/** Bytes: 47-bit addresses, halved. */
export const MAX_LENGTH = 2 ** 46;

/** Brings pages of a file mapping into memory without blocking the caller. */
export type Prefetch = (region: Region, address: number, byteLength: number) => void;

/** What memory is made of. */
export interface Extent {
  /** `own`: anonymous memory; `file`: a mapping; `device`: memory that the host cannot touch. */
  readonly kind: "own" | "file" | "device";
  /** `[base, base + mappedLength)` is taken, whole pages. */
  readonly base: number;
  readonly mappedLength: number;
  /** The file shown, retained; and where `base` stands in it. */
  readonly descriptor: Descriptor | undefined;
  readonly fileOffset?: number;
}

/** Memory that was forgotten without `close`. */
interface Forgotten extends Extent {
  readonly memory: HostMemory;
  readonly id: number;
}

// A registry that is collected with its device would unmap nothing, so it belongs to the module.
const forgottenRegions = new FinalizationRegistry<Forgotten>((extent) => {
  extent.memory.forget(extent.id);
  extent.memory.unmap(extent);
});

/** Memory with its views and users. */
export class Region {
  readonly address: number;
  readonly byteLength: number;
  /** The file behind a mapping. */
  readonly descriptor: Descriptor | undefined;
  /** Bytes that the file must still have for the mapping to be safe to touch; 0 for other memory. */
  readonly fileLength: number;
  readonly extent: Extent;
  readonly #memory: HostMemory;
  readonly #id: number;
  readonly #views = new Views();
  #whole: ArrayBuffer | undefined;
  #users = 0;
  #closed = false;

  constructor(memory: HostMemory, extent: Extent, address: number, byteLength: number, fileLength: number) {
    this.#memory = memory;
    this.extent = extent;
    this.address = address;
    this.byteLength = byteLength;
    this.descriptor = extent.descriptor;
    this.fileLength = fileLength;
    this.#id = memory.remember(this);
    forgottenRegions.register(this, { ...extent, memory, id: this.#id }, this);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** For a request in flight: the memory stays mapped until {@link Region.release}. */
  retain(): void {
    this.#users++;
  }

  release(): void {
    this.#users--;
    if (this.#closed && this.#users === 0) this.#unmap();
  }

  /** `byteLength` is in `[1, MAX_VIEW]` and the range was checked. */
  view(byteOffset: number, byteLength: number): ArrayBuffer {
    return this.#views.add(this, this.address + byteOffset, byteLength);
  }

  /** All of the memory, for kernels: one view that is kept as long as the memory is, as a fresh one of some size costs
   * the collector more than a small kernel takes. Undefined where it would be too long. */
  wholeView(): ArrayBuffer | undefined {
    if (this.byteLength === 0 || this.byteLength > MAX_VIEW) return undefined;
    if (this.#whole === undefined || this.#whole.detached) {
      this.#whole = ownedView(this, this.address, this.byteLength);
    }
    return this.#whole;
  }

  /** Throws `FILE_CHANGED` where the file behind a mapping is too short for it now. */
  checkFile(): void {
    this.descriptor?.checkLength(this.fileLength);
  }

  /** Detaches all views; unmaps now, or when the last request has ended. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#views.detachAll();
    forgottenRegions.unregister(this);
    this.#memory.forget(this.#id);
    if (this.#users === 0) this.#unmap();
  }

  #unmap(): void {
    if (this.#whole?.detached === false) this.#whole.transfer(0);
    this.#memory.unmap(this.extent);
  }
}

export class HostBuffer implements DeviceBuffer {
  readonly byteLength: number;
  readonly storage: Storage;
  readonly hostAddress: number;
  readonly gpuAddress: number;
  readonly nativeObject: number;
  readonly file?: DeviceFile;
  readonly context: HostContext;
  readonly region: Region;
  readonly #prefetch: Prefetch;

  constructor(context: HostContext, region: Region, storage: Storage, prefetch: Prefetch, file?: DeviceFile) {
    this.context = context;
    this.region = region;
    this.byteLength = region.byteLength;
    this.storage = storage;
    this.hostAddress = storage === "shared" ? region.address : 0;
    this.gpuAddress = region.address;
    this.nativeObject = region.extent.kind === "device" ? region.address : 0;
    this.#prefetch = prefetch;
    if (file !== undefined) this.file = file;
  }

  get closed(): boolean {
    return this.region.closed;
  }

  view(byteOffset: number, byteLength: number): ArrayBuffer {
    const region = this.region;
    if (region.closed) throw closedError(`the ${this.#label()}`);
    checkVisible(this.storage);
    checkRange(this.#label(), byteOffset, byteLength, this.byteLength);
    checkViewLength(byteLength);
    region.checkFile();
    return byteLength === 0 ? new ArrayBuffer(0) : region.view(byteOffset, byteLength);
  }

  advise(advice: Advice, byteOffset: number, byteLength: number): void {
    const region = this.region;
    if (region.closed) throw closedError(`the ${this.#label()}`);
    // On memory of its own `dont-need` would zero it.
    if (region.descriptor === undefined || !(byteOffset >= 0) || !(byteLength > 0)) return;
    const { pageSize } = this.context.syscalls;
    // What is no longer needed may share its first and last page with what is.
    const inward = advice === "dont-need";
    const from = region.address + Math.min(byteOffset, region.byteLength);
    const to = region.address + Math.min(byteOffset + byteLength, region.byteLength);
    const start = (inward ? Math.ceil(from / pageSize) : Math.floor(from / pageSize)) * pageSize;
    const end = (inward ? Math.floor(to / pageSize) : Math.ceil(to / pageSize)) * pageSize;
    if (end <= start) return;
    if (advice === "will-need") this.#prefetch(region, start, Math.min(end - start, MAX_PREFETCH));
    else this.context.syscalls.advise(start, end - start, advice);
  }

  close(): void {
    this.region.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #label(): string {
    return this.file === undefined ? "buffer" : `mapping of ${this.file.path}`;
  }
}

/** Creates buffers and mappings for one device. */
export class HostMemory {
  protected readonly context: HostContext;
  readonly #prefetch: Prefetch;
  readonly #open = new OpenSet<Region>();

  constructor(context: HostContext, prefetch: Prefetch) {
    this.context = context;
    this.#prefetch = prefetch;
  }

  /** Throws `OUT_OF_RANGE` past {@link MAX_LENGTH}, `OUT_OF_MEMORY`. */
  create(byteLength: number, storage: Storage): HostBuffer {
    checkRange("buffer", 0, byteLength, MAX_LENGTH);
    if (storage !== "shared" && storage !== "private") {
      throw new HeadraceError("BAD_OPTION", `storage ${storage} is neither shared nor private`);
    }
    const extent = this.allocate(byteLength, storage);
    const region = new Region(this, extent, extent.base, byteLength, 0);
    return new HostBuffer(this.context, region, storage, this.#prefetch);
  }

  /** Throws `OUT_OF_RANGE` outside the file, `FILE_CHANGED` where it has shrunk. */
  map(file: HostFile, byteOffset: number, byteLength: number): HostBuffer | Declined {
    const { descriptor } = file;
    const fileLength = file.writable ? descriptor.currentLength() : file.byteLength;
    checkRange(file.path, byteOffset, byteLength, fileLength);
    if (byteLength === 0) return { declined: `${file.path}: a mapping cannot have 0 bytes` };
    descriptor.checkLength(fileLength);
    const { pageSize } = this.context.syscalls;
    const skipped = byteOffset % pageSize;
    const mappedLength = this.wholePages(skipped + byteLength);
    const base = this.context.syscalls.mapFile(descriptor.fd, byteOffset - skipped, mappedLength);
    if (base < 0) return { declined: `${file.path}: mapping ${byteLength} bytes: ${errnoName(-base)}` };
    descriptor.retain();
    const region = new Region(
      this,
      { kind: "file", base, mappedLength, descriptor, fileOffset: byteOffset - skipped },
      base + skipped,
      byteLength,
      fileLength,
    );
    return new HostBuffer(this.context, region, "shared", this.#prefetch, file);
  }

  remember(region: Region): number {
    this.context.openResources++;
    return this.#open.add(region);
  }

  forget(id: number): void {
    this.context.openResources--;
    this.#open.delete(id);
  }

  unmap(extent: Extent): void {
    if (extent.mappedLength > 0) this.context.syscalls.unmap(extent.base, extent.mappedLength);
    extent.descriptor?.release();
  }

  closeAll(): void {
    this.#open.closeAll();
  }

  /** Zeroed memory; nothing for 0 bytes. Throws `OUT_OF_MEMORY`. */
  protected allocate(byteLength: number, _storage: Storage): Extent {
    const mappedLength = this.wholePages(byteLength);
    const base = byteLength === 0 ? 0 : this.context.syscalls.mapAnonymous(mappedLength);
    if (base < 0) throw errnoError(`a buffer of ${byteLength} bytes`, -base);
    return { kind: "own", base, mappedLength, descriptor: undefined };
  }

  protected wholePages(byteLength: number): number {
    const { pageSize } = this.context.syscalls;
    return Math.ceil(byteLength / pageSize) * pageSize;
  }
}
