/**
 * The host device: system calls, Workers and the process's own memory. Complete and portable, it is the
 * reference that the others are compared with.
 */
import { availableParallelism, totalmem } from "node:os";
import { HeadraceError } from "../../errors.ts";
import { bounded } from "../common/checks.ts";
import { checkOpening } from "../common/files.ts";
import { type Closable, OpenSet } from "../common/open-set.ts";
import type {
  Capabilities,
  Declined,
  Device,
  DeviceBuffer,
  DeviceEvent,
  DeviceFile,
  DeviceQueue,
  FileMode,
  KernelSource,
  Pipeline,
  Sequence,
  Storage,
} from "../device.ts";
import type { DispatchCall } from "../requests.ts";
import { HostContext } from "./context.ts";
import { HostSequence } from "./dispatch.ts";
import { HostEvent } from "./event.ts";
import { createFaultCounters, type Fault } from "./faults.ts";
import { HostFile, HostFiles } from "./file.ts";
import { InlineCopies } from "./inline.ts";
import { type LaneRun, type LaneSet, Lanes } from "./lanes.ts";
import { HostMemory, MAX_LENGTH, type Region } from "./memory.ts";
import { HostPipeline } from "./pipeline.ts";
import { HostQueue, type QueueShared, ReadyList } from "./queue.ts";
import { ENTRY, Field, LaneOp } from "./ring.ts";
import { type FaultPlan, MAX_TRANSFER, Syscalls } from "./syscalls.ts";

/** How the host device works; every field has a default that suits most machines. */
export interface HostOptions {
  /** Requests that move bytes at the same time, each in a Worker of its own; 1 to 64, default 8. */
  readonly lanes?: number;
  /** Longer requests are cut into pieces of this many bytes; 4 KiB to 1 GiB, default 4 MiB. */
  readonly pieceBytes?: number;
  /** Submissions of copies alone up to this many bytes are made on the calling thread, unless that proves
   * slow; default 1 MiB. */
  readonly inlineCopyBytes?: number;
  /** Pieces that can wait for a lane before more are held back; a power of two from 16 on, default 4096. */
  readonly ringEntries?: number;
  /** Failures to inject, for tests. */
  readonly faults?: readonly Fault[];
}

/** Jobs that lanes know of at once; more wait. */
const NUM_SLOTS = 256;

/** What makes one kind of host-like device differ from another. */
export interface HostParts {
  readonly capabilities: Capabilities;
  readonly syscalls: Syscalls;
  readonly lanes: LaneSet;
  readonly pieceBytes: number;
  readonly inlineCopyBytes: number;
}

export class HostDevice implements Device {
  readonly capabilities: Capabilities;
  readonly facts: Device["facts"];
  protected readonly context: HostContext;
  protected readonly shared: QueueShared;
  readonly #files: HostFiles;
  readonly #memory: HostMemory;
  readonly #queues = new Set<DeviceQueue>();
  readonly #others = new OpenSet<Closable>();
  readonly #prefetches = new Set<LaneRun>();
  #closing: Promise<void> | undefined;

  constructor(parts: HostParts) {
    const { capabilities, syscalls, lanes, pieceBytes, inlineCopyBytes } = parts;
    this.capabilities = capabilities;
    this.facts = { pieceBytes, inlineCopyBytes: Math.max(0, inlineCopyBytes) };
    this.context = new HostContext(capabilities.name, syscalls);
    this.#files = new HostFiles(this.context);
    this.#memory = new HostMemory(this.context, (region, address, byteLength) =>
      this.#prefetch(region, address, byteLength),
    );
    this.shared = {
      context: this.context,
      lanes,
      pieceBytes,
      inline: new InlineCopies(inlineCopyBytes),
      copyLanes: Math.min(capabilities.lanes, availableParallelism()),
      ready: new ReadyList(),
    };
  }

  get openResources(): number {
    return this.context.openResources;
  }

  openFile(path: string, mode: FileMode = "read"): DeviceFile {
    this.context.assertOpen();
    checkOpening(path, mode);
    if (mode === "stream") {
      throw new HeadraceError(
        "UNSUPPORTED",
        `${path}: the ${this.capabilities.name} device has no file queue to stream through; open it to read`,
      );
    }
    return this.#files.open(path, mode);
  }

  map(file: DeviceFile, byteOffset: number, byteLength: number): DeviceBuffer | Declined {
    this.context.assertOpen();
    if (!(file instanceof HostFile) || file.context !== this.context) {
      throw new HeadraceError("BAD_OPTION", `the file is not of this ${this.capabilities.name} device`);
    }
    file.assertOpen();
    if (!this.capabilities.canMap) return { declined: `the ${this.capabilities.name} device does not map` };
    return this.#memory.map(file, byteOffset, byteLength);
  }

  createBuffer(byteLength: number, storage: Storage = "shared"): DeviceBuffer {
    this.context.assertOpen();
    return this.#memory.create(byteLength, storage);
  }

  createEvent(): DeviceEvent {
    this.context.assertOpen();
    const event = new HostEvent(this.context);
    this.#others.add(event);
    return event;
  }

  createQueue(): DeviceQueue {
    this.context.assertOpen();
    const queue: DeviceQueue = this.newQueue(() => {
      this.#queues.delete(queue);
      this.context.openResources--;
    });
    this.#queues.add(queue);
    this.context.openResources++;
    return queue;
  }

  createPipeline(source: KernelSource): Pipeline {
    this.context.assertOpen();
    const pipeline = new HostPipeline(this.context, source);
    this.#others.add(pipeline);
    return pipeline;
  }

  createSequence(calls: readonly DispatchCall[]): Sequence {
    this.context.assertOpen();
    const sequence = new HostSequence(this.context, calls);
    this.#others.add(sequence);
    return sequence;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.dispose](): void {
    void this.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  protected newQueue(onClose: () => void): DeviceQueue {
    return new HostQueue(this.shared, onClose);
  }

  async #close(): Promise<void> {
    this.context.closed = true;
    const queues = [...this.#queues].map((queue) => queue.close());
    this.#others.closeAll();
    // Memory and files in use are only marked here; they go with the last request.
    this.#memory.closeAll();
    this.#files.closeAll();
    for (const run of this.#prefetches) this.shared.lanes.stop(run);
    await Promise.all(queues);
    await this.shared.lanes.close();
  }

  #prefetch(region: Region, address: number, byteLength: number): void {
    if (this.#prefetches.size >= MAX_PREFETCHES) return;
    const { lanes, pieceBytes } = this.shared;
    const program = new Float64Array(ENTRY);
    program[Field.op] = LaneOp.populate;
    program[Field.source] = address;
    program[Field.byteLength] = byteLength;
    const numPieces = Math.ceil(byteLength / pieceBytes);
    const ended = () => {
      this.#prefetches.delete(run);
      region.release();
    };
    let run: LaneRun;
    try {
      run = lanes.start({ program, first: 0, end: 1, numPieces, lanesWanted: numPieces, ended });
    } catch {
      // A hint must not fail; whoever needs the bytes learns that the lanes are gone.
      return;
    }
    this.#prefetches.add(run);
    region.retain();
  }
}

/** Hints that wait for a lane; later ones are dropped, since what comes too late helps nobody. */
const MAX_PREFETCHES = 64;

/** Opens the host device. Throws `BAD_OPTION` for an option out of its bounds, and `DEVICE_UNAVAILABLE`
 * where the C library cannot be bound. */
export function openHost(options: HostOptions = {}): HostDevice {
  const lanes = bounded("lanes", options.lanes ?? 8, 1, 64);
  const pieceBytes = bounded("pieceBytes", options.pieceBytes ?? 4 * 2 ** 20, 4096, MAX_TRANSFER);
  const inlineCopyBytes = bounded("inlineCopyBytes", options.inlineCopyBytes ?? 2 ** 20, 0, MAX_TRANSFER);
  const numEntries = bounded("ringEntries", options.ringEntries ?? 4096, 16, 2 ** 24);
  if ((numEntries & (numEntries - 1)) !== 0) {
    throw new HeadraceError("BAD_OPTION", `ringEntries ${numEntries} is not a power of two`);
  }
  const faults = faultPlan(options.faults);
  const syscalls = new Syscalls(faults);
  return new HostDevice({
    capabilities: hostCapabilities("host", syscalls.pageSize, lanes),
    syscalls,
    lanes: new Lanes({ numLanes: lanes, numEntries, numSlots: NUM_SLOTS, pieceBytes, faults }),
    pieceBytes,
    inlineCopyBytes,
  });
}

/** What the process's own memory can do. */
export function hostCapabilities(name: string, pageSize: number, lanes: number): Capabilities {
  return {
    name,
    pageSize,
    unifiedMemory: true,
    canMap: true,
    maxBufferLength: MAX_LENGTH,
    maxMapLength: MAX_LENGTH,
    workingSet: totalmem(),
    // Of the widest element that a typed array has.
    offsetAlignment: 8,
    lanes,
    codecs: [],
    canStream: false,
  };
}

function faultPlan(faults: readonly Fault[] | undefined): FaultPlan | undefined {
  if (faults === undefined || faults.length === 0) return undefined;
  return { faults, counters: createFaultCounters(faults) };
}
