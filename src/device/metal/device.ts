/** The Metal device: everything that touches bytes is done by the library, and this folder speaks to it. */
import { HeadraceError } from "../../errors.ts";
import { portableHeader } from "../../kernels/portable.ts";
import { Closing } from "../common/closing.ts";
import { closedError } from "../common/errors.ts";
import { checkOpening } from "../common/files.ts";
import { DecodePool } from "../decode/pool.ts";
import type { ChunkDecoders } from "../decode.ts";
import type {
  Capabilities,
  Declined,
  Device,
  DeviceBuffer,
  DeviceEvent,
  DeviceFile,
  DeviceHeap,
  DeviceQueue,
  FileMode,
  KernelSource,
  Pipeline,
  PreparedStream,
  PrepareStreamOptions,
  Sequence,
  Storage,
} from "../device.ts";
import { type DispatchCall, RequestList } from "../requests.ts";
import { Completions } from "./completions.ts";
import { MetalContext } from "./context.ts";
import { NativeError } from "./errors.ts";
import { createMetalEvent, type MetalEvent } from "./event.ts";
import { MetalFile, openMetalFile } from "./file.ts";
import { createAddressTable, createMetalHeap } from "./heap.ts";
import { canMultiply, capabilitiesOf, type DeviceInfo, factsOf, isStandIn, readDeviceInfo } from "./info.ts";
import { loadLibrary, type MetalLibrary, namedLibrary } from "./library.ts";
import { createMetalMatmul } from "./matmul.ts";
import { createMetalBuffer, MetalBuffer, mapMetalFile } from "./memory.ts";
import { encodeOptions, type MetalOptions, ordinalOf } from "./options.ts";
import { MetalCompiler } from "./pipeline.ts";
import { Program } from "./program.ts";
import { MetalQueue, type QueueShared } from "./queue.ts";
import { createMetalSequence } from "./sequence.ts";
import { MetalStreams } from "./stream.ts";

/** An open handle of the library's, with what it said of itself. */
interface Opened {
  readonly library: MetalLibrary;
  readonly handle: number;
  readonly wakeFd: number;
  readonly info: DeviceInfo;
}

export class MetalDevice extends Closing implements Device {
  readonly capabilities: Capabilities;
  readonly #context: MetalContext;
  readonly #library: MetalLibrary;
  readonly #options: MetalOptions;
  readonly #completions: Completions;
  readonly #shared: QueueShared;
  readonly #compiler: MetalCompiler;
  readonly #streams: MetalStreams;
  readonly #queues = new Set<DeviceQueue>();
  readonly #waits = new RequestList();
  #info: DeviceInfo;
  /** Where promises wait for events; made when first needed. */
  #background: MetalQueue | undefined;
  #compressing: MetalQueue | undefined;
  #decoders: DecodePool | undefined;

  constructor({ library, handle, wakeFd, info }: Opened, options: MetalOptions) {
    super();
    this.capabilities = capabilitiesOf(info);
    this.#library = library;
    this.#options = options;
    this.#info = info;
    const context = new MetalContext(library.symbols, handle, this.capabilities.name);
    this.#context = context;
    this.#completions = new Completions(context, library.path, wakeFd, options.completions ?? "auto");
    this.#shared = { context, completions: this.#completions, program: new Program(context) };
    this.#streams = new MetalStreams(options.stream);
    this.#compiler = new MetalCompiler(context, portableHeader, options.kernelArchive);
  }

  /** After `close` as they were when last asked for. */
  get facts(): Device["facts"] {
    if (!this.#context.closed) this.#info = readDeviceInfo(this.#library.symbols, this.#context.handle);
    const facts = factsOf(this.#info, this.#library, this.#context);
    return { ...facts, completions: this.#completions.way };
  }

  get openResources(): number {
    return this.#context.openResources + (this.#decoders?.openResources ?? 0);
  }

  openFile(path: string, mode: FileMode = "read"): DeviceFile {
    this.#context.assertOpen();
    checkOpening(path, mode);
    const noCache = this.#options.noCache === true;
    if (mode === "stream" && !this.capabilities.canStream) {
      throw this.#noStreams(path);
    }
    const compressed = mode === "stream" ? this.#streams.find(path) : undefined;
    return openMetalFile(this.#context, path, mode, {
      noCache,
      ...(compressed === undefined ? {} : { compressed }),
    });
  }

  async prepareStream(path: string, options: PrepareStreamOptions = {}): Promise<PreparedStream> {
    this.#context.assertOpen();
    checkOpening(path, "stream");
    if (!this.capabilities.canStream) throw this.#noStreams(path);
    return this.#streams.prepare(() => this.#compressor(), path, options);
  }

  map(file: DeviceFile, byteOffset: number, byteLength: number): DeviceBuffer | Declined {
    this.#context.assertOpen();
    if (!(file instanceof MetalFile) || file.context !== this.#context) {
      throw new HeadraceError("BAD_OPTION", `the file is not of this ${this.capabilities.name} device`);
    }
    file.assertOpen();
    return mapMetalFile(this.#context, file, byteOffset, byteLength);
  }

  createBuffer(byteLength: number, storage: Storage = "shared"): DeviceBuffer {
    this.#context.assertOpen();
    return createMetalBuffer(this.#context, byteLength, storage, this.capabilities.maxBufferLength);
  }

  createHeap(byteLength: number, storage: Storage = "shared"): DeviceHeap {
    this.#context.assertOpen();
    return createMetalHeap(this.#context, byteLength, storage, this.capabilities.maxBufferLength);
  }

  createAddressTable(
    entries: readonly { readonly buffer: DeviceBuffer; readonly offset: number }[],
  ): DeviceBuffer {
    this.#context.assertOpen();
    return createAddressTable(this.#context, entries);
  }

  createEvent(): DeviceEvent {
    this.#context.assertOpen();
    return createMetalEvent(this.#context, (event, value) => this.#waitFor(event, value));
  }

  createQueue(): DeviceQueue {
    this.#context.assertOpen();
    const queue = new MetalQueue(this.#shared, false, () => {
      this.#queues.delete(queue);
      this.#context.openResources--;
    });
    this.#queues.add(queue);
    this.#context.openResources++;
    return queue;
  }

  createPipeline(source: KernelSource): Pipeline {
    this.#context.assertOpen();
    return this.#compiler.compile(source);
  }

  get createMatmul(): Device["createMatmul"] {
    if (!canMultiply(this.#info)) return undefined;
    return (options) => {
      this.#context.assertOpen();
      return createMetalMatmul(this.#context, options);
    };
  }

  createSequence(calls: readonly DispatchCall[]): Sequence {
    this.#context.assertOpen();
    return createMetalSequence(this.#context, calls);
  }

  get decoders(): () => ChunkDecoders {
    return () => {
      this.#context.assertOpen();
      this.#decoders ??= new DecodePool({
        deviceName: this.capabilities.name,
        retain: (buffer) => this.#retain(buffer),
      });
      return this.#decoders;
    };
  }

  protected override async end(): Promise<void> {
    const context = this.#context;
    context.closed = true;
    const queues = [...this.#queues].map((queue) => queue.close());
    for (const queue of [this.#background, this.#compressing]) if (queue) queues.push(queue.close());
    const decoded = this.#decoders?.close();
    // The library keeps what is in use until the last request has ended; what decodes does so past the library.
    context.closeObjects();
    if (decoded !== undefined) await decoded;
    context.symbols.hr_close(context.handle);
    await Promise.all([...queues, this.#completions.close()]);
  }

  /** Keeps a buffer's memory for what decodes into it. */
  #retain(buffer: DeviceBuffer): () => void {
    if (!(buffer instanceof MetalBuffer) || buffer.region.context !== this.#context) {
      throw new HeadraceError("BAD_OPTION", `the buffer is not of this ${this.capabilities.name} device`);
    }
    if (buffer.closed) throw closedError("the buffer");
    const { region } = buffer;
    region.retain();
    return () => region.release();
  }

  #noStreams(path: string): HeadraceError {
    return new HeadraceError("UNSUPPORTED", `${path}: ${this.capabilities.name} has no MTLIO queues`);
  }

  /** Made when first needed; compressing keeps the process alive. */
  #compressor(): MetalQueue {
    this.#context.assertOpen();
    this.#compressing ??= new MetalQueue(this.#shared, false, () => {});
    return this.#compressing;
  }

  /** Throws `CLOSED` when event or device are closed first. */
  async #waitFor(event: MetalEvent, value: number): Promise<void> {
    this.#background ??= new MetalQueue(this.#shared, true, () => {});
    const queue = this.#background;
    let ticket: number;
    try {
      ticket = queue.submit(this.#waits.wait(event, value));
    } finally {
      // Or the list would keep the event from the garbage collector.
      this.#waits.clear();
    }
    const { error } = await queue.completion(ticket);
    if (error?.code === "CANCELLED")
      throw new HeadraceError("CLOSED", "the event is closed", { cause: error });
    if (error !== undefined) throw error;
  }
}

/** Opens the Metal device, or gives undefined where it is not to be had here and nobody named a library. Throws as
 * {@link openMetal} otherwise: what was named is not passed over in silence. */
export function openFoundMetal(options: MetalOptions = {}): MetalDevice | undefined {
  try {
    return openMetal(options);
  } catch (error) {
    const missing = error instanceof HeadraceError && error.code === "DEVICE_UNAVAILABLE";
    if (missing && namedLibrary(options.library) === undefined) return undefined;
    throw error;
  }
}

/** Opens the Metal device. Throws `BAD_OPTION` for an option out of its bounds, and `DEVICE_UNAVAILABLE` where
 * there is no library, one that does not fit, or no GPU. */
export function openMetal(options: MetalOptions = {}): MetalDevice {
  const encoded = encodeOptions(options);
  const ordinal = ordinalOf(options);
  const library = loadLibrary(options.library);
  const { symbols, path, named } = library;
  const numDevices = symbols.hr_device_count();
  if (ordinal >= numDevices) {
    throw new HeadraceError(
      "BAD_OPTION",
      `ordinal ${ordinal}: Metal has ${numDevices} devices on this machine`,
    );
  }
  const handleOut = new Uint32Array(new ArrayBuffer(8));
  const wakeFdOut = new Int32Array(new ArrayBuffer(8));
  const error = new NativeError();
  const status = symbols.hr_device_open(ordinal, encoded, handleOut, wakeFdOut, error.bytes);
  if (status < 0) throw error.toError(status, `device metal (${path})`);
  const handle = handleOut[0]!;
  try {
    const info = readDeviceInfo(symbols, handle);
    if (isStandIn(info) && !named) {
      const message = `device metal: ${path} is built for tests, on a stand-in for Metal; name it to use it`;
      throw new HeadraceError("DEVICE_UNAVAILABLE", message);
    }
    return new MetalDevice({ library, handle, wakeFd: wakeFdOut[0]!, info }, options);
  } catch (failure) {
    symbols.hr_close(handle);
    throw failure;
  }
}
