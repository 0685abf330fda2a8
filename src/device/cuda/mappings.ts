/** Mappings of files that kernels of one run use: registered before they start, and until they have ended. */
import { HeadraceError } from "../../errors.ts";
import type { Region } from "../host/memory.ts";
import type { ResolvedDispatch } from "../host/pipeline.ts";
import type { WindowPins } from "./pins.ts";
import type { Registrar } from "./registrar.ts";
import { WindowState, type Windows } from "./windows.ts";

/** Whether all mappings that a launch uses are registered, and pinned for the run; else has it done, and calls `retry`
 * once when there is news. Throws `UNSUPPORTED` where one cannot be, `FILE_CHANGED`. */
export function holdMappings(
  registrar: Registrar,
  pins: WindowPins,
  dispatch: ResolvedDispatch,
  retry: () => void,
): boolean {
  for (const { region, offset } of dispatch.buffers) {
    const windows = registrar.windowsOf(region);
    if (windows === undefined) continue;
    region.checkFile();
    const address = region.address + offset;
    const byteLength = Math.max(1, region.byteLength - offset);
    // Pinned first, so that what comes early is not released for what comes late.
    pins.add(windows, address, byteLength);
    registrar.want(region, address, byteLength);
    const unsettled = firstUnsettled(registrar, dispatch, region, windows, address, byteLength);
    if (unsettled === undefined) continue;
    windows.whenSettled(unsettled, retry);
    return false;
  }
  return true;
}

/** The first window of a range that is on its way. */
function firstUnsettled(
  registrar: Registrar,
  dispatch: ResolvedDispatch,
  region: Region,
  windows: Windows,
  address: number,
  byteLength: number,
): number | undefined {
  const last = windows.indexOf(address + byteLength - 1);
  for (let index = windows.indexOf(address); index <= last; index++) {
    const state = windows.states[index];
    if (state === WindowState.registered) continue;
    if (state === WindowState.wanted || state === WindowState.registering) return index;
    const why = registrar.broken ?? "the driver refused, or mapBudget is too small";
    throw new HeadraceError(
      "UNSUPPORTED",
      `kernel ${dispatch.pipeline.name}: ${region.descriptor?.path ?? "a mapping"} cannot be registered for the GPU (${why}); copy it to a buffer, or map a smaller range`,
    );
  }
  return undefined;
}
