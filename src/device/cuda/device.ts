/**
 * The CUDA device: the driver alone, through its C interface. Files, events, queues and their lanes are the host
 * engine's; memory, copies and kernels are the GPU's.
 */
import { HeadraceError } from "../../errors.ts";
import { moveKernel } from "../../kernels/move.ts";
import type { Device, KernelSource } from "../device.ts";
import { EngineDevice } from "../host/engine.ts";
import type { Executor } from "../host/execute.ts";
import { createFaultCounters } from "../host/faults.ts";
import { InlineCopies } from "../host/inline.ts";
import { Lanes } from "../host/lanes.ts";
import { HostQueue } from "../host/queue.ts";
import { type FaultPlan, Syscalls } from "../host/syscalls.ts";
import type { DispatchCall } from "../requests.ts";
import { CudaContext } from "./context.ts";
import { initDriver, openDriver } from "./driver.ts";
import { CudaExecutor } from "./execute.ts";
import { FileWays } from "./file-ways.ts";
import { STREAM_NON_BLOCKING } from "./flags.ts";
import { bindGraphs } from "./graph-symbols.ts";
import { Graphs } from "./graphs.ts";
import {
  type CudaInfo,
  capabilitiesOf,
  factsOf,
  type MoreFacts,
  mappingRegistration,
  readCudaInfo,
  readFreeMemory,
} from "./info.ts";
import { type CudaLaneExtra, SCRATCH_BYTES, slicesLength } from "./lane-ops.ts";
import { Launcher } from "./launch.ts";
import { CudaMemory } from "./memory.ts";
import { assertNamedNvrtc } from "./nvrtc.ts";
import { type CudaOptions, type CudaSettings, resolveOptions } from "./options.ts";
import { CudaCompiler, type CudaPipeline } from "./pipeline.ts";
import { Poll } from "./poll.ts";
import { Products } from "./products.ts";
import { CudaProgram } from "./program.ts";
import { Registrar } from "./registrar.ts";
import { CudaSequence } from "./sequence.ts";
import { Events, Streams } from "./streams.ts";
import { Tables } from "./tables.ts";
import { Waiters } from "./waiters.ts";
import { Workspaces } from "./workspaces.ts";

/** Jobs that lanes know of at once; more wait. */
const NUM_SLOTS = 256;
/** Copies after which their kernel is compiled: that takes as long as thousands of them, one by one. */
const MOVES_BEFORE_KERNEL = 256;
/** Streams of a loader's queue that someone waits for: of uploads, and of kernels. */
const WAITERS_AHEAD = 2;
/** Copies on lanes that share the work of one copy in host memory. */
const COPY_LANES = 4;

interface Opened {
  readonly context: CudaContext;
  readonly info: CudaInfo;
  readonly settings: CudaSettings;
  readonly syscalls: Syscalls;
  readonly faults: FaultPlan | undefined;
  readonly lanes: Lanes;
  readonly registrar: Registrar;
  readonly waiters: Waiters;
  readonly memory: CudaMemory;
  /** Resolves when lanes and registrar have started. */
  readonly ready: Promise<unknown>;
  /** Address of the lanes' slices, and their length. */
  readonly slices: number;
  readonly slicesBytes: number;
}

export class CudaDevice extends EngineDevice {
  readonly #opened: Opened;
  readonly #context: CudaContext;
  readonly #compiler: CudaCompiler;
  readonly #launcher: Launcher;
  readonly #workspaces: Workspaces;
  readonly #graphs: Graphs;
  readonly #poll: Poll;
  readonly #products: Products;
  readonly #events: Events;
  readonly #tables: Tables;
  readonly #inline: InlineCopies;
  readonly #queues = new Set<HostQueue>();
  /** The kernel of small copies; null where it cannot be compiled. */
  #move: CudaPipeline | null | undefined;
  /** Copies that could have used it. */
  #moves = 0;

  constructor(opened: Opened) {
    const { context, info, settings, syscalls, memory } = opened;
    super({
      capabilities: capabilitiesOf(info, settings, syscalls.pageSize),
      context,
      memory,
      createProgram: () => new CudaProgram(context, settings.pieceBytes, COPY_LANES),
      faults: opened.faults,
    });
    this.#opened = opened;
    this.#context = context;
    const { driver } = context;
    this.#compiler = new CudaCompiler({
      driver,
      nvrtc: settings.nvrtc,
      computeCapability: info.computeCapability,
      driverVersion: info.driverVersion,
      makeCurrent: () => context.use(),
    });
    this.#workspaces = new Workspaces(context, info.computeCapability);
    this.#launcher = new Launcher(context, this.#workspaces);
    const launcher = this.#launcher;
    const functions = settings.graphs ? bindGraphs(driver.path) : undefined;
    this.#graphs = new Graphs({ context, launcher, workspaces: this.#workspaces, functions });
    this.#poll = new Poll(context);
    const { driverVersion } = info;
    this.#products = new Products(context, { library: settings.cublas, driverVersion });
    this.#events = new Events(context);
    this.#tables = new Tables(memory);
    context.whenLost = (error) => {
      for (const queue of this.#queues) queue.fail(error);
    };
    this.#inline = new InlineCopies(settings.inlineCopyBytes);
  }

  get facts(): Device["facts"] {
    const { info, settings, registrar } = this.#opened;
    return {
      ...factsOf(info, this.#context.driver, this.#compiler.nvrtc, this.#moreFacts()),
      lanes: settings.lanes,
      pieceBytes: settings.pieceBytes,
      registeredBytes: registrar.registeredBytes,
      graphs: this.#graphs.available,
      ...this.#products.facts,
      ...this.#context.fileWays?.facts,
      ...(registrar.broken === undefined ? {} : { registrationBroken: registrar.broken }),
    };
  }

  get createMatmul(): Device["createMatmul"] {
    return this.#products.create;
  }

  async ready(): Promise<void> {
    this.#context.began();
    try {
      await this.#opened.ready;
    } finally {
      this.#context.finished();
    }
  }

  protected override createExecutor(): Executor {
    const { syscalls, lanes, registrar, settings, waiters } = this.#opened;
    const context = this.#context;
    return new CudaExecutor(
      {
        context,
        lanes,
        syscalls,
        inline: this.#inline,
        registrar,
        launcher: this.#launcher,
        tables: this.#tables,
        moveKernel: (count) => this.#moveKernel(count),
        aheadBytes: Math.max(4 * settings.windowBytes, 2 * settings.lanes * settings.pieceBytes),
        pieceBytes: settings.pieceBytes,
      },
      new Streams({ context, events: this.#events, waiters, poll: this.#poll }),
    );
  }

  protected override newQueue(onClose: () => void): HostQueue {
    const queue: HostQueue = new HostQueue(this.shared, this.createExecutor(), () => {
      this.#queues.delete(queue);
      onClose();
    });
    this.#queues.add(queue);
    return queue;
  }

  protected override newSequence(calls: readonly DispatchCall[]): CudaSequence {
    const context = this.#context;
    return new CudaSequence({ context, launcher: this.#launcher, graphs: this.#graphs }, calls);
  }

  protected override compile(source: KernelSource): CudaPipeline {
    return this.#compiler.compile(this.#context, source);
  }

  protected override async closeRest(queuesClosed: Promise<unknown>): Promise<void> {
    const { registrar, lanes, waiters, memory, slices, slicesBytes, syscalls } = this.#opened;
    const context = this.#context;
    // Nothing else may keep the process alive until all is given back.
    const alive = setInterval(() => {}, 2 ** 31 - 1);
    try {
      await queuesClosed;
      await Promise.all([lanes.close(), registrar.close(), waiters.close()]);
      this.#tables.close();
      this.#graphs.close();
      this.#products.close();
      this.#workspaces.close();
      if (context.lost === undefined) {
        this.#compiler.close();
        context.fileWays?.close();
      }
    } finally {
      context.destroy();
      memory.unmapRest();
      syscalls.unmap(slices, slicesBytes);
      clearInterval(alive);
    }
  }

  #moreFacts(): MoreFacts {
    const context = this.#context;
    const gds = context.fileWays?.gds;
    if (context.destroyed || context.lost !== undefined) return { gds };
    context.use();
    return { gds, freeMemoryBytes: readFreeMemory(context.driver) };
  }

  /** For `count` more copies; undefined where they are better made one by one, or there is no compiler. */
  #moveKernel(count: number): CudaPipeline | undefined {
    this.#moves += count;
    if (this.#move === undefined) {
      if (this.#moves < MOVES_BEFORE_KERNEL) return undefined;
      try {
        this.#move = this.compile(moveKernel);
      } catch (error) {
        if (!(error instanceof HeadraceError) || error.code === "DEVICE_LOST") throw error;
        this.#move = null;
      }
    }
    return this.#move ?? undefined;
  }
}

/** Opens a CUDA device. Throws `BAD_OPTION` for an option out of its bounds or an ordinal that is not there,
 * `DEVICE_UNAVAILABLE` without a driver or a GPU, or where an NVRTC is named that cannot be loaded, and `DEVICE_LOST` where an earlier failure has ended CUDA for this
 * process. */
export function openCuda(options: CudaOptions = {}): CudaDevice {
  const settings = resolveOptions(options);
  const driver = openDriver(settings.library);
  initDriver(driver);
  const info = readCudaInfo(driver, settings.ordinal);
  assertNamedNvrtc(settings.nvrtc);
  const faults =
    settings.faults.length === 0
      ? undefined
      : { faults: settings.faults, counters: createFaultCounters(settings.faults) };
  const syscalls = new Syscalls(faults);
  const slicesBytes =
    settings.lanes * slicesLength(settings.sliceBuffers, settings.pieceBytes, syscalls.pageSize);
  const slices = syscalls.mapAnonymous(slicesBytes);
  if (slices < 0) {
    const text = `device cuda: no address space for ${slicesBytes} bytes of slices`;
    throw new HeadraceError("OUT_OF_MEMORY", text);
  }
  const { refused: mappingRefused, flags: mappingFlags } = mappingRegistration(info);
  const { windowBytes, mapBudget: budget } = settings;
  const where = { library: driver.path, device: info.device };
  const registrar = new Registrar({ ...where, windowBytes, budget, flags: mappingFlags });
  let extra: CudaLaneExtra | undefined;
  const lanes = createLanes(settings, faults, () => extra);
  // The Workers start while the driver makes the context, which takes longer.
  lanes.spawn();
  if (mappingRefused === undefined && budget >= windowBytes) registrar.start();
  let context: CudaContext | undefined;
  try {
    context = CudaContext.create(driver, info.name, info.device, syscalls);
    context.use();
    context.fileWays = new FileWays(settings);
    extra = laneExtra(context, settings, slices);
    const waiters = new Waiters({ library: driver.path, context: context.handle });
    waiters.spawn(WAITERS_AHEAD);
    const ready = Promise.all([lanes.warm(), registrar.ready]);
    const memory = new CudaMemory({ context, registrar, mappingRefused, mappingFlags });
    const parts = { context, info, settings, syscalls, lanes, registrar, waiters, memory, ready };
    return new CudaDevice({ ...parts, faults, slices, slicesBytes });
  } catch (error) {
    void lanes.close();
    void registrar.close();
    context?.fileWays?.close();
    context?.destroy();
    syscalls.unmap(slices, slicesBytes);
    throw error;
  }
}

function createLanes(settings: CudaSettings, faults: FaultPlan | undefined, extra: () => unknown): Lanes {
  return new Lanes({
    numLanes: settings.lanes,
    numEntries: settings.ringEntries,
    numSlots: NUM_SLOTS,
    pieceBytes: settings.pieceBytes,
    faults,
    worker: new URL("./lane-worker.ts", import.meta.url),
    extra,
  });
}

function laneExtra(context: CudaContext, settings: CudaSettings, slices: number): CudaLaneExtra {
  const { symbols } = context.driver;
  const createStream = () =>
    context.make("cuStreamCreate", (out) => symbols.cuStreamCreate(out, STREAM_NON_BLOCKING));
  return {
    library: context.driver.path,
    context: context.handle,
    sliceBuffers: settings.sliceBuffers,
    sliceBytes: settings.pieceBytes,
    slices,
    cufile: context.fileWays?.cufile,
    // Owned by the context, with which they go.
    upload: createStream(),
    download: createStream(),
    scratch: context.make("cuMemAlloc", (out) => symbols.cuMemAlloc_v2(out, SCRATCH_BYTES)),
  };
}
