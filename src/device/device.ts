/**
 * The device interfaces: the only layer that moves bytes. One folder beside this file for each
 * implementation; nothing above this layer names one.
 *
 * Ownership: whoever opens or creates closes. Closing twice is harmless; any other call after `close` throws
 * `CLOSED`. Closing a device closes all it made. Memory that a request in flight uses stays until that
 * request has ended, whatever is closed meanwhile.
 *
 * Threads: all calls come from the JavaScript thread that opened the device. No call blocks on data, but
 * for {@link DeviceFile.readSync}, which is for headers and other small metadata.
 */
import type { HeadraceError } from "../errors.ts";
import type { ChunkDecoders } from "./decode.ts";
import type { DispatchCall, RequestList } from "./requests.ts";

/** `shared` memory is seen by host and device; `private` by the device alone. */
export type Storage = "shared" | "private";

/** What a caller will do with a mapped range; a hint, never a promise. */
export type Advice = "sequential" | "random" | "will-need" | "dont-need";

/** How a file is opened. `write` creates it where it is not there, and may read as well; `stream` reads through
 * the device's own file queue, decompressing where the device knows the file's compressed form. */
export type FileMode = "read" | "write" | "stream";

/** What a device can do, as data, so that nothing upstream asks for its name. */
export interface Capabilities {
  /** For people: `host`, `Apple M3 Max`, `NVIDIA H100`. */
  readonly name: string;
  /** Bytes; mappings start on multiples of it. */
  readonly pageSize: number;
  /** Whether `shared` buffers are the device's own memory, so that nothing need be uploaded. */
  readonly unifiedMemory: boolean;
  /** Whether {@link Device.map} can ever succeed. */
  readonly canMap: boolean;
  /** Bytes of the largest buffer. */
  readonly maxBufferLength: number;
  /** Bytes of the largest mapping that is worth asking for at once. */
  readonly maxMapLength: number;
  /** Bytes that may be resident on the device at once before performance falls. */
  readonly workingSet: number;
  /** Alignment in bytes that kernels need of a buffer offset. */
  readonly offsetAlignment: number;
  /** Requests that may move bytes at the same time. */
  readonly lanes: number;
  /** Codecs that reads of `stream` files can decode: `lz4`, `lzfse`, … */
  readonly codecs: readonly string[];
  /** Whether files can be opened in mode `stream`. */
  readonly canStream: boolean;
  /** Whether the GPU has units that multiply tiles of bfloats, and kernels reach them; absent where not. */
  readonly matrixUnits?: boolean;
}

/** A device could not, or should not, map: the caller reads instead. */
export interface Declined {
  readonly declined: string;
}

/** An open file. Owned by its opener. */
export interface DeviceFile extends Disposable {
  readonly path: string;
  /** When it was opened. */
  readonly byteLength: number;
  /** The length now. Throws `FILE_CHANGED` where it is below {@link DeviceFile.byteLength}. */
  checkLength(): void;
  /** Copies a small range into fresh memory of the caller's; blocks. Throws `SHORT_READ`, `IO_ERROR`. */
  readSync(byteOffset: number, byteLength: number): Uint8Array;
  /** Part of the file that the system has in memory now, 0 to 1, from samples of it, or where `exact` from all its pages;
   * undefined where that is not known. Takes about as long as mapping the file, or where `exact` some 30 ms more
   * for each gigabyte. */
  residentPart?(exact?: boolean): number | undefined;
  /** Asks the system to forget what it has of the file in memory. Never fails; what was written and is not on
   * disk yet stays, and so does what others have mapped. */
  forgetResident?(): void;
  close(): void;
}

/** Memory that a device can use. */
export interface DeviceBuffer extends Disposable {
  readonly byteLength: number;
  readonly storage: Storage;
  /** Address in the host's address space; 0 where the host cannot see it. Borrowed until `close`. */
  readonly hostAddress: number;
  /** Address that kernels use; equals `hostAddress` on the host. Borrowed until `close`. */
  readonly gpuAddress: number;
  /** Handle of the native object (an MTLBuffer, a CUdeviceptr); 0 where there is none. */
  readonly nativeObject: number;
  /** The file that a mapping shows; absent for memory of its own. */
  readonly file?: DeviceFile;
  readonly closed: boolean;
  /**
   * A fresh ArrayBuffer over `[byteOffset, byteOffset + byteLength)` without a copy, at most 4 GiB. The
   * caller may detach it (`transfer(0)`) at any time, which never frees the memory; `close` detaches all
   * that are left. Throws `UNSUPPORTED` where the host cannot see the memory, `OUT_OF_RANGE` outside it,
   * `FILE_CHANGED` where the file behind a mapping has shrunk.
   */
  view(byteOffset: number, byteLength: number): ArrayBuffer;
  /** Hints what comes for a range of a mapping. Never fails; ignored elsewhere. */
  advise(advice: Advice, byteOffset: number, byteLength: number): void;
  close(): void;
}

/** One allocation that buffers of one kind of storage are cut from. What was cut lives on when it is closed. */
export interface DeviceHeap extends Disposable {
  /** At least what was asked for. */
  readonly byteLength: number;
  readonly storage: Storage;
  /** Zeroed memory. Throws `OUT_OF_MEMORY` where the heap has no room left. */
  createBuffer(byteLength: number): DeviceBuffer;
  close(): void;
}

/** A counter that only grows, on which anyone may wait. */
export interface DeviceEvent extends Disposable {
  readonly value: number;
  /** Sets the value; lower ones are ignored. */
  signal(value: number): void;
  /** Resolves once `value` is reached. Rejects with `CLOSED` when the event is closed first. */
  reached(value: number): Promise<void>;
  close(): void;
}

/** Names one submission of one queue: 1, 2, 3, … */
export type Ticket = number;

/** The end of a submission, good or bad: one object for both. Times are `performance.now()` in ms. */
export interface Completion {
  readonly ticket: Ticket;
  /** Absent on success; else the first request's failure. */
  readonly error?: HeadraceError;
  /** Bytes that read, write and copy requests moved; exact on success. */
  readonly bytesDone: number;
  readonly submittedMs: number;
  readonly completedMs: number;
  /** Where the device knows more of the ticket's life. */
  readonly stages?: Stages;
}

/** Moments in a ticket's life, in the clock of `performance.now()`, in ms; what did not happen is absent. */
export interface Stages {
  /** The device took the submission. */
  readonly submittedMs: number;
  /** The first lane or encoder took it up. */
  readonly startedMs?: number;
  /** The last command buffer was encoded, committed, and scheduled by the driver. */
  readonly encodedMs?: number;
  readonly committedMs?: number;
  readonly scheduledMs?: number;
  /** The driver's own work on the CPU. */
  readonly kernelStartMs?: number;
  readonly kernelEndMs?: number;
  readonly gpuStartMs?: number;
  readonly gpuEndMs?: number;
  /** The device knew the outcome. */
  readonly endedMs: number;
  /** JavaScript saw it. */
  readonly seenMs: number;
}

export interface SubmitOptions {
  /** From submission; what has not started by then does not start, and the ticket fails with `TIMED_OUT`. */
  readonly timeoutMs?: number;
}

/**
 * Runs submissions. Requests between two ordering requests (`barrier`, `dispatch`, `signal`, `wait`) of one
 * submission run side by side in any order; submissions may overlap one another, and only events order them.
 *
 * What a failed ticket was to write is undefined, all of it: targets of its requests, and whatever buffers its
 * dispatches may write to. Of the requests behind a failed one none runs, but for what follows reads of `stream` files
 * directly and was handed on while those were on their way. Further such reads behind a barrier are cancelled then;
 * dispatches and copies by the GPU run over whatever bytes are there, so that a kernel must stay inside its buffers
 * whatever their bytes are. Nothing behind those runs: no write to a file, no signal.
 */
export interface DeviceQueue extends Disposable {
  /** Takes all requests of `list`, or none and throws. The list may be reused after return. */
  submit(list: RequestList, options?: SubmitOptions): Ticket;
  /** Resolves when the ticket has ended, also in failure; never rejects. Each ticket can be asked for once
   * or often, at least until 8192 later ones have ended. */
  completion(ticket: Ticket): Promise<Completion>;
  /** Resolves when no memory of the ticket is in use any more: at the completion, or later where a request
   * that was under way when it was cancelled or timed out could not be stopped at once. */
  quiesced(ticket: Ticket): Promise<void>;
  /** Asks for an early end; the ticket fails with `CANCELLED` unless it has ended already. */
  cancel(ticket: Ticket): void;
  /** Tickets that have not ended. */
  readonly inFlight: number;
  /** Cancels what is in flight and waits for it. */
  close(): Promise<void>;
}

/** The sources of one kernel; a device compiles the one it understands and throws `UNSUPPORTED` without. */
export interface KernelSource {
  readonly name: string;
  /** Runs all threads of a dispatch on host views, in the order of the dispatch's buffers. A view need not begin where its
   * ArrayBuffer does, and must not be used once the dispatch has ended. */
  readonly host?: (buffers: readonly Uint8Array[], constants: Uint8Array, threads: number) => void;
  /** The portable kernel text for Metal and CUDA. */
  readonly text?: string;
  /** Values for the text's function constants; a host form has its own closed over. */
  readonly functionConstants?: readonly FunctionConstant[];
}

/** A constant that a kernel is compiled with. */
export interface FunctionConstant {
  readonly index: number;
  readonly type: "bool" | "int" | "uint" | "float";
  readonly value: number | boolean;
}

/** A compiled kernel. */
export interface Pipeline extends Disposable {
  readonly name: string;
  close(): void;
}

/** A matrix product that the vendor's library makes. */
export interface MatmulOptions {
  /** Elements of a row of x, and of one of w: K. */
  readonly inner: number;
  /** Rows of w, and elements of a row of y: N. */
  readonly outputs: number;
  /** Of x and w. */
  readonly type: "F32" | "F16" | "BF16";
  /** Of y; default F32, else the same as {@link MatmulOptions.type}. */
  readonly outputType?: "F32" | "F16" | "BF16";
  /** Elements from one row of y to the next, so that products can stand side by side; default `outputs`. */
  readonly outputStride?: number;
  /** Whether y gets the product added, instead of being overwritten; default false. */
  readonly accumulate?: boolean;
}

/** Dispatches that were checked and resolved once, to be run often: {@link RequestList.replay}. */
export interface Sequence extends Disposable {
  close(): void;
}

export interface PrepareStreamOptions {
  /** Called now and then with the bytes of the source that are done. */
  readonly onProgress?: (bytesDone: number, byteLength: number) => void;
  readonly signal?: AbortSignal;
}

/** What a `stream` file will be read from. */
export interface PreparedStream {
  /** The compressed file, or the source itself where no codec is set. */
  readonly path: string;
  /** Bytes of that file. */
  readonly byteLength: number;
  /** `none` for the source itself. */
  readonly codec: string;
  /** Whether this call made it; it was valid already otherwise. */
  readonly made: boolean;
}

/** A place where batches live. */
export interface Device extends Disposable {
  readonly capabilities: Capabilities;
  /** More about the device, for people alone: driver, library, versions. */
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  /** Resolves when all is done that opening has begun in the background: work that is asked for earlier waits for its
   * part of it. Absent where there is none. Never rejects. */
  ready?(): Promise<void>;
  /** Opens for reading, or creates or opens for writing. Throws `SOURCE_NOT_FOUND`, `SOURCE_UNREADABLE`,
   * `IO_ERROR`, and `UNSUPPORTED` for `stream` where the device has no such queue. */
  openFile(path: string, mode?: FileMode): DeviceFile;
  /**
   * Shows `[byteOffset, byteOffset + byteLength)` of a file as a buffer, without a copy, or says why not.
   * `byteOffset` need not be aligned. The file may be closed while the mapping lives.
   */
  map(file: DeviceFile, byteOffset: number, byteLength: number): DeviceBuffer | Declined;
  /** Zeroed memory, page-aligned. Throws `OUT_OF_MEMORY`, or `OUT_OF_RANGE` past `maxBufferLength`. */
  createBuffer(byteLength: number, storage?: Storage): DeviceBuffer;
  /** Absent where the device has no heaps. Throws as {@link Device.createBuffer}. */
  createHeap?(byteLength: number, storage?: Storage): DeviceHeap;
  /** A shared buffer of 64-bit GPU addresses, one an entry, that kernels can follow. It keeps the buffers, and is
   * itself bound to a dispatch like any other. Absent where the device has none. */
  createAddressTable?(
    entries: readonly { readonly buffer: DeviceBuffer; readonly offset: number }[],
  ): DeviceBuffer;
  createEvent(): DeviceEvent;
  createQueue(): DeviceQueue;
  /** Throws `UNSUPPORTED` without a form for this device, `BAD_KERNEL` where it does not compile. */
  createPipeline(source: KernelSource): Pipeline;
  /**
   * y[T, N] = x[T, K] · w[N, K]ᵀ by the vendor's library, all of it row by row. A dispatch of it is like one of a kernel:
   * `buffers` are x, w and y, `constants` empty, `threads` is T. All T rows are computed, whatever the caller knows of
   * how many of them count. The library chooses its order of summation by the sizes, T among them: a row's result may
   * differ in the last bits with the rows beside it. cuBLAS sums in F32. Absent where there is no such library. Throws `BAD_OPTION`, and
   * `UNSUPPORTED`, `DEVICE_FAILED` or `OUT_OF_MEMORY` where the library does not start.
   */
  readonly createMatmul?: ((options: MatmulOptions) => Pipeline) | undefined;
  /** Checks `calls` as `submit` does, and keeps them: their buffers and pipelines are in use until the sequence
   * is closed, also where they are closed themselves. Constants are copied. A binding with a `slot` may be
   * given another offset by each replay. */
  createSequence(calls: readonly DispatchCall[]): Sequence;
  /** Makes the compressed form of a file that mode `stream` then reads, unless a valid one is there. Absent where
   * {@link Capabilities.canStream} is false. */
  prepareStream?(path: string, options?: PrepareStreamOptions): Promise<PreparedStream>;
  /** What decodes compressed shards into memory of this device; the same object each time, made at the first call and
   * closed with the device. Absent where the device moves no bytes. */
  readonly decoders?: (() => ChunkDecoders) | undefined;
  /** Buffers, mappings, files and queues that are open: back to zero when all are closed. */
  readonly openResources: number;
  close(): Promise<void>;
}

/** Tells the two answers of {@link Device.map} apart. */
export function isDeclined(answer: DeviceBuffer | Declined): answer is Declined {
  return "declined" in answer;
}
