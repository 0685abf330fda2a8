/**
 * The Metal device as subjects: over the stand-in where HEADRACE_METAL_LIBRARY names a library with one, else over
 * a Mac's own GPU where the library was built. Faults are a matter of the stand-in.
 */
import { dlopen } from "bun:ffi";
import { constants } from "node:os";
import type { Device } from "../../src/device/device.ts";
import { findLibrary } from "../../src/device/metal/library.ts";
import { type OpenDeviceOptions, openDevice } from "../../src/device/open.ts";
import { HeadraceError } from "../../src/errors.ts";
import type { InjectedFault, Subject } from "./harness.ts";

/** The path of the library, or why there is none. */
export function metalLibrary(): { readonly path: string } | { readonly missing: string } {
  try {
    return { path: findLibrary(undefined).path };
  } catch (error) {
    if (error instanceof HeadraceError) return { missing: error.message };
    throw error;
  }
}

/** `STANDIN_…` of standin.h. */
const CALLS = {
  pread: 0,
  pwrite: 1,
  sync: 2,
  mmap: 3,
  "make-buffer": 5,
  "command-buffer": 8,
  "io-command-buffer": 9,
} as const;
/** Bytes of standin_fault, standin_config and standin_counts. */
const FAULT = 32;
const CONFIG = 40;
const COUNTS = 80;

/** A failure of a system call by errno's name, or of a command buffer by the number of Metal's error. */
export interface StandInFault extends Omit<InjectedFault, "call"> {
  readonly call: keyof typeof CALLS;
}

/** What the stand-in lets tests ask for. */
export interface StandIn {
  setFaults(faults: readonly StandInFault[]): void;
  /** Whether devices opened later complete their command buffers late and out of order. */
  shuffle(on: boolean): void;
  /** Live objects of Metal's, in the order of standin_counts. */
  live(): number[];
}

/** Binds the stand-in's own functions; undefined for a library over real Metal. */
export function openStandIn(path: string): StandIn | undefined {
  let symbols: ReturnType<typeof bind>;
  try {
    symbols = bind(path);
  } catch {
    return undefined;
  }
  return {
    setFaults: (faults) => {
      const rows = new DataView(new ArrayBuffer(Math.max(1, faults.length) * FAULT));
      for (const [index, fault] of faults.entries()) writeFault(rows, index * FAULT, fault);
      symbols.standin_set_faults(new Uint8Array(rows.buffer), faults.length);
    },
    shuffle: (on) => {
      const config = new DataView(new ArrayBuffer(CONFIG));
      config.setUint32(32, on ? 1 : 0, true);
      symbols.standin_configure(new Uint8Array(config.buffer));
    },
    live: () => {
      const counts = new BigUint64Array(new ArrayBuffer(COUNTS));
      symbols.standin_live(counts);
      return [...counts].map(Number);
    },
  };
}

function bind(path: string) {
  return dlopen(path, {
    // void standin_set_faults(const standin_fault *faults, uint32_t count);
    standin_set_faults: { args: ["ptr", "u32"], returns: "void" },
    // void standin_configure(const standin_config *config);
    standin_configure: { args: ["ptr"], returns: "void" },
    // void standin_live(standin_counts *counts);
    standin_live: { args: ["ptr"], returns: "void" },
  }).symbols;
}

function writeFault(rows: DataView, at: number, fault: StandInFault): void {
  const { call, nth, times = 1, errno, short, delayMs = 0 } = fault;
  rows.setUint32(at, CALLS[call], true);
  rows.setUint32(at + 4, nth, true);
  rows.setUint32(at + 8, times, true);
  const code =
    errno === undefined ? 0 : ((constants.errno as Readonly<Record<string, number>>)[errno] ?? Number(errno));
  if (Number.isNaN(code)) throw new Error(`${errno} is no errno`);
  rows.setInt32(at + 12, code, true);
  rows.setBigInt64(at + 16, BigInt(short ?? -1), true);
  rows.setUint32(at + 24, delayMs * 1000, true);
}

/** Opens the device with failures injected until it is closed. */
export function openFaulty(
  standIn: StandIn,
  options: OpenDeviceOptions,
  faults: readonly StandInFault[],
): Device {
  const device = openDevice("metal", options);
  standIn.setFaults(faults);
  const close = device.close.bind(device);
  device.close = async () => {
    await close();
    standIn.setFaults([]);
  };
  return device;
}

/** Every variant of the device that this machine can try. */
export function metalSubjects(): Subject[] {
  const library = metalLibrary();
  if ("missing" in library) return [];
  const standIn = openStandIn(library.path);
  const device = standIn === undefined ? "metal" : "metal (stand-in)";
  const subject = (variant: string, options: OpenDeviceOptions, shuffled = false): Subject => ({
    name: `${device}${variant}`,
    movesData: true,
    runsHostKernels: false,
    multiplies: true,
    open: () => {
      standIn?.shuffle(shuffled);
      return openDevice("metal", options);
    },
    openStreaming: (stream) => openDevice("metal", { ...options, stream }),
    ...(standIn === undefined ? {} : { openWithFaults: (faults) => openFaulty(standIn, options, faults) }),
  });
  return [
    subject("", {}),
    subject(" with one lane, tiny pieces and no inline copies", {
      lanes: 1,
      writeLanes: 1,
      pieceBytes: 4096,
      inlineCopyBytes: 0,
    }),
    subject(" with completions by a Worker", { completions: "worker" }),
    ...(standIn === undefined ? [] : [subject(" with shuffled completions", { completions: "wake" }, true)]),
  ];
}
