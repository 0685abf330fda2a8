/**
 * The device that the loader's tests run over: `host`, or the one that HEADRACE_TEST_DEVICE names. What the tests
 * expect is the same on each.
 */
import {
  type Device,
  type Loader,
  type OpenDeviceOptions,
  type OpenOptions,
  openLoader as open,
  openDevice,
} from "../../src/index.ts";
import { metalLibrary, openFaulty, openStandIn, type StandInFault } from "../conformance/metal-subjects.ts";

export const DEVICE = process.env.HEADRACE_TEST_DEVICE ?? "host";

/** The device under test, with failures injected where `options` has some. */
export function openTestDevice(options: OpenDeviceOptions = {}): Device {
  const { faults, ...others } = options;
  if (DEVICE === "host" || faults === undefined || faults.length === 0) return openDevice(DEVICE, options);
  const library = metalLibrary();
  const standIn = "missing" in library ? undefined : openStandIn(library.path);
  if (standIn === undefined) throw new Error(`${DEVICE} cannot be made to fail here`);
  return openFaulty(standIn, others, faults as readonly StandInFault[]);
}

/** Opens a loader over the device under test, unless the options name one. */
export function openLoader(source: string | readonly string[], options: OpenOptions = {}): Promise<Loader> {
  return open(source, { device: DEVICE, ...options });
}
