/**
 * The host device: system calls, Workers and the process's own memory. Complete and portable, it is the
 * reference that the others are compared with.
 */
import { availableParallelism, totalmem } from "node:os";
import { HeadraceError } from "../../errors.ts";
import { bounded } from "../common/checks.ts";
import type { Capabilities, Device, KernelSource } from "../device.ts";
import { HostContext } from "./context.ts";
import { EngineDevice } from "./engine.ts";
import { type Executor, HostExecutor } from "./execute.ts";
import { createFaultCounters, type Fault } from "./faults.ts";
import { InlineCopies } from "./inline.ts";
import type { LaneSet } from "./jobs.ts";
import { Lanes } from "./lanes.ts";
import { HostMemory, MAX_LENGTH } from "./memory.ts";
import { HostPipeline } from "./pipeline.ts";
import { Prefetches } from "./prefetch.ts";
import { Program } from "./program.ts";
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
  readonly faults?: FaultPlan | undefined;
}

export class HostDevice extends EngineDevice {
  readonly facts: Device["facts"];
  readonly #lanes: LaneSet;
  readonly #prefetches: Prefetches;
  readonly #executor: HostExecutor;

  constructor({ capabilities, syscalls, lanes, pieceBytes, inlineCopyBytes, faults }: HostParts) {
    const context = new HostContext(capabilities.name, syscalls);
    const prefetches = new Prefetches(lanes, pieceBytes);
    const copyLanes = Math.min(capabilities.lanes, availableParallelism());
    super({
      capabilities,
      context,
      memory: new HostMemory(context, (region, address, byteLength) =>
        prefetches.start(region, address, byteLength),
      ),
      createProgram: () => new Program(context, pieceBytes, copyLanes),
      faults,
    });
    this.facts = { pieceBytes, inlineCopyBytes: Math.max(0, inlineCopyBytes) };
    this.#lanes = lanes;
    this.#prefetches = prefetches;
    this.#executor = new HostExecutor({ lanes, syscalls, inline: new InlineCopies(inlineCopyBytes) });
  }

  protected override createExecutor(): Executor {
    return this.#executor;
  }

  protected override compile(source: KernelSource): HostPipeline {
    return new HostPipeline(this.context, source);
  }

  protected override async closeRest(queuesClosed: Promise<unknown>): Promise<void> {
    this.#prefetches.stop();
    await queuesClosed;
    await this.#lanes.close();
  }
}

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
    faults,
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
