/**
 * What the devices have in common whose requests run on this project's own engine: files, memory, queues, events,
 * and the order in which all of it is closed.
 */
import { HeadraceError } from "../../errors.ts";
import { Closing } from "../common/closing.ts";
import { closedError } from "../common/errors.ts";
import { checkOpening } from "../common/files.ts";
import { type Closable, OpenSet } from "../common/open-set.ts";
import { DecodePool } from "../decode/pool.ts";
import type { ChunkDecoders } from "../decode.ts";
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
import type { HostContext } from "./context.ts";
import { HostSequence } from "./dispatch.ts";
import { HostEvent } from "./event.ts";
import type { Executor } from "./execute.ts";
import { HostFile, HostFiles } from "./file.ts";
import { HostBuffer, type HostMemory } from "./memory.ts";
import type { EnginePipeline } from "./pipeline.ts";
import type { Program } from "./program.ts";
import { HostQueue, type QueueShared, ReadyList } from "./queue.ts";
import type { FaultPlan } from "./syscalls.ts";

export interface EngineParts {
  readonly capabilities: Capabilities;
  readonly context: HostContext;
  readonly memory: HostMemory;
  readonly createProgram: () => Program;
  /** Failures to inject into what decodes. */
  readonly faults: FaultPlan | undefined;
}

/** A device over the engine. Each says what runs its queues' steps and compiles its kernels. */
export abstract class EngineDevice extends Closing implements Device {
  readonly capabilities: Capabilities;
  protected readonly context: HostContext;
  protected readonly shared: QueueShared;
  readonly #files: HostFiles;
  readonly #memory: HostMemory;
  readonly #queues = new Set<DeviceQueue>();
  readonly #others = new OpenSet<Closable>();
  readonly #faults: FaultPlan | undefined;
  #decoders: DecodePool | undefined;

  constructor({ capabilities, context, memory, createProgram, faults }: EngineParts) {
    super();
    this.#faults = faults;
    this.capabilities = capabilities;
    this.context = context;
    this.#memory = memory;
    this.#files = new HostFiles(context);
    this.shared = { context, createProgram, ready: new ReadyList() };
  }

  abstract get facts(): Device["facts"];

  /** For one queue. */
  protected abstract createExecutor(): Executor;

  protected abstract compile(source: KernelSource): EnginePipeline;

  /** Closes what this class does not know of. All memory is marked as closed; it goes with the last request, and
   * all have ended once `queuesClosed` resolves. */
  protected abstract closeRest(queuesClosed: Promise<unknown>): Promise<void>;

  get openResources(): number {
    return this.context.openResources + (this.#decoders?.openResources ?? 0);
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
    const pipeline = this.compile(source);
    this.#others.add(pipeline);
    return pipeline;
  }

  createSequence(calls: readonly DispatchCall[]): Sequence {
    this.context.assertOpen();
    const sequence = this.newSequence(calls);
    this.#others.add(sequence);
    return sequence;
  }

  /** Undefined where the device moves no bytes. */
  get decoders(): (() => ChunkDecoders) | undefined {
    return () => {
      this.context.assertOpen();
      this.#decoders ??= new DecodePool({
        deviceName: this.capabilities.name,
        faults: this.#faults,
        retain: (buffer) => this.#retain(buffer),
      });
      return this.#decoders;
    };
  }

  protected newSequence(calls: readonly DispatchCall[]): HostSequence {
    return new HostSequence(this.context, calls);
  }

  protected newQueue(onClose: () => void): DeviceQueue {
    return new HostQueue(this.shared, this.createExecutor(), onClose);
  }

  protected override async end(): Promise<void> {
    this.context.closed = true;
    const queues: Promise<void>[] = [...this.#queues].map((queue) => queue.close());
    if (this.#decoders !== undefined) queues.push(this.#decoders.close());
    this.#others.closeAll();
    // Memory and files in use are only marked here; they go with the last request.
    this.#memory.closeAll();
    this.#files.closeAll();
    await this.closeRest(Promise.all(queues));
  }

  /** Keeps a buffer's memory for what decodes into it. */
  #retain(buffer: DeviceBuffer): () => void {
    if (!(buffer instanceof HostBuffer) || buffer.context !== this.context) {
      throw new HeadraceError("BAD_OPTION", `the buffer is not of this ${this.capabilities.name} device`);
    }
    if (buffer.closed) throw closedError("the buffer");
    const { region } = buffer;
    region.retain();
    return () => region.release();
  }
}
