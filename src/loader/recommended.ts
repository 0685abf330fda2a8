/** What was measured on a machine, as far as the choice between mapping and reading can use it. */
import { availableParallelism, cpus, totalmem } from "node:os";
import * as v from "valibot";
import { HeadraceError } from "../errors.ts";

/** The form that {@link parseRecommended} reads; another one is refused. */
export const RECOMMENDED_VERSION = 1;

const rate = v.pipe(v.number(), v.finite(), v.gtValue(0));
const whole = (least: number, most: number) =>
  v.pipe(v.number(), v.safeInteger(), v.minValue(least), v.maxValue(most));
const text = v.pipe(v.string(), v.maxLength(1000));

const choiceSchema = v.object({
  strategy: v.picklist(["map", "read"]),
  gigabytesPerSecond: rate,
  otherGigabytesPerSecond: rate,
});

const recommendedSchema = v.object({
  version: v.literal(RECOMMENDED_VERSION),
  date: text,
  device: text,
  disk: text,
  machine: v.object({
    cpu: text,
    cores: whole(1, 2 ** 20),
    memoryBytes: whole(1, Number.MAX_SAFE_INTEGER),
    arch: text,
    gpu: v.optional(text),
  }),
  cold: v.optional(choiceSchema),
  warm: v.optional(choiceSchema),
});

/** The faster of mapping and reading, where the figures tell them apart: medians in 10^9 bytes a second. */
export interface MeasuredChoice {
  readonly strategy: "map" | "read";
  readonly gigabytesPerSecond: number;
  /** Of the other way. */
  readonly otherGigabytesPerSecond: number;
}

/** A machine, as far as its figures hold for it alone. */
export interface MeasuredMachine {
  readonly cpu: string;
  /** That the process may use. */
  readonly cores: number;
  readonly memoryBytes: number;
  /** As Node names it: `x64`, `arm64`. */
  readonly arch: string;
  readonly gpu?: string | undefined;
}

/** Figures of one machine, device and disk. Made by `bench recommend --save`; see {@link parseRecommended}. */
export interface Recommended {
  readonly version: typeof RECOMMENDED_VERSION;
  /** Of the run that they come from: UTC, ISO 8601. */
  readonly date: string;
  /** Name of the device. */
  readonly device: string;
  /** Where the files lay, in words. */
  readonly disk: string;
  readonly machine: MeasuredMachine;
  /** For files that are not in memory; absent where neither way was clearly faster. */
  readonly cold?: MeasuredChoice | undefined;
  /** For files that are. */
  readonly warm?: MeasuredChoice | undefined;
}

/** Parses a file of figures. Throws `BAD_RESULTS` naming the field. */
export function parseRecommended(json: string): Recommended {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (cause) {
    throw new HeadraceError("BAD_RESULTS", `no JSON: ${(cause as Error).message}; ${AGAIN}`, { cause });
  }
  const parsed = v.safeParse(recommendedSchema, value);
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  const field = v.getDotPath(issue) ?? "the whole";
  throw new HeadraceError("BAD_RESULTS", `${field}: ${issue.message}; ${AGAIN}`);
}

const AGAIN = "make it again by 'headrace bench recommend RESULTS --save FILE'";

/** This machine. Never throws. */
export function machineHere(): MeasuredMachine {
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    arch: process.arch,
  };
}

/** Memory that differs by less than this part is the same machine's: kernels keep some for themselves. */
const MEMORY_PART = 0.05;

/** Why figures do not hold on machine `here` and a device whose capabilities have `deviceName`, or undefined where they do. A
 * processor that one side does not know is no difference. */
export function foreignReason(
  { machine, device }: Recommended,
  here: MeasuredMachine,
  deviceName: string,
): string | undefined {
  const differs = (what: string, theirs: string | number, ours: string | number) =>
    `they are of another machine: ${what} ${theirs}, here ${ours}`;
  // Capabilities name a GPU by its product.
  const theirs = device === "host" ? device : (machine.gpu ?? device);
  if (theirs !== deviceName) return `they are of device ${theirs}, and this is ${deviceName}`;
  if (machine.arch !== here.arch) return differs("architecture", machine.arch, here.arch);
  const known = ![machine.cpu, here.cpu].some((name) => name === "" || name === "unknown");
  if (known && machine.cpu !== here.cpu) return differs("processor", machine.cpu, here.cpu);
  if (machine.cores !== here.cores) return differs("cores", machine.cores, here.cores);
  if (Math.abs(machine.memoryBytes - here.memoryBytes) <= MEMORY_PART * here.memoryBytes) return undefined;
  return differs("bytes of memory", machine.memoryBytes, here.memoryBytes);
}
