/** What a run is asked for, with its defaults and checks. */
import { HeadraceError } from "../index.ts";
import { checkKind, type DataKind } from "./data/kinds.ts";
import { checkPath, type Format, parseFormat } from "./formats.ts";
import { checkPeer } from "./peers.ts";
import type { CellKey } from "./record.ts";

export type Temperature = CellKey["temperature"];
export type Order = CellKey["order"];

export const TEMPERATURES: readonly Temperature[] = ["cold", "warm"];
export const ORDERS: readonly Order[] = ["sequential", "block-shuffled", "random"];

/** Rounds that count, at least: fewer say nothing of a spread. */
const LEAST_ROUNDS = 5;
const LEAST_BYTES = 2 ** 20;
const MIB = 2 ** 20;
/** More of it would no longer be one. */
const MOST_REHEARSAL = 1024 * MIB;
/** The runtime itself takes up to 250 MB; with less than this a trial would do nothing but fault in its own code. */
const LEAST_MEMORY = 512 * MIB;

/** All of it is optional. */
export interface BenchOptions {
  /** A dataset of one's own, instead of data that is made. */
  readonly source?: string | undefined;
  /** Kinds of data that are made; default `weights` and `tokens`. */
  readonly data?: readonly string[] | undefined;
  /** Bytes of each kind; default 256 MB. */
  readonly byteLength?: number | undefined;
  /** Names as `safetensors.zst-3`; default: what is common for the data. */
  readonly formats?: readonly string[] | undefined;
  /** Default: every way that leads to the format on this device. */
  readonly paths?: readonly string[] | undefined;
  readonly temperatures?: readonly string[] | undefined;
  /** Default `sequential` for tensors, `random` for rows. */
  readonly orders?: readonly string[] | undefined;
  /** Lanes of this project's ways: each count is a cell of its own; default 8. */
  readonly lanes?: readonly number[] | undefined;
  /** Bytes of a read, for the path `read`: each is a cell of its own; default the device's. */
  readonly requestBytes?: readonly number[] | undefined;
  /** Default `auto`. */
  readonly device?: string | undefined;
  readonly ordinal?: number | undefined;
  /** Rounds that count, at least 5; one more warms up. */
  readonly rounds?: number | undefined;
  /** Also measures the busy share, with so long a step for each batch, ms. */
  readonly computeMs?: number | undefined;
  readonly batchBytes?: number | undefined;
  readonly prefetch?: number | undefined;
  readonly peers?: readonly string[] | undefined;
  /** The interpreter of peers. */
  readonly python?: string | undefined;
  /** Works on twice the memory there is; or, where a number is given, under a limit of so many bytes. */
  readonly largerThanMemory?: true | number | undefined;
  /** Bytes that each trial's process reads of other files before its trial, about; 0 for none; default 16 MiB. */
  readonly rehearsalBytes?: number | undefined;
  readonly seed?: number | undefined;
  /** Where data lies and stays; default `HEADRACE_BENCH_DIR`. Without, the caller of a run finds a place. */
  readonly folder?: string | undefined;
  /** Whether what the machine gives at best is measured too; default true. */
  readonly ceilings?: boolean | undefined;
  /** A small run of few cells: to see that all works. */
  readonly quick?: boolean | undefined;
}

/** With all defaults in place. */
export interface BenchPlan {
  readonly source?: string | undefined;
  readonly data: readonly DataKind[];
  readonly byteLength: number;
  readonly formats: readonly Format[] | undefined;
  readonly paths: readonly string[] | undefined;
  readonly temperatures: readonly Temperature[];
  readonly orders: readonly Order[] | undefined;
  readonly lanes: readonly number[];
  readonly requestBytes: readonly (number | undefined)[];
  readonly device: string;
  readonly ordinal?: number | undefined;
  readonly rounds: number;
  readonly computeMs?: number | undefined;
  readonly batchBytes: number;
  readonly prefetch: number;
  readonly peers: readonly string[];
  readonly python?: string | undefined;
  readonly largerThanMemory?: true | number | undefined;
  readonly rehearsalBytes: number;
  readonly seed: number;
  readonly ceilings: boolean;
  readonly folder?: string | undefined;
}

/** With a place for its data. */
export interface PlacedPlan extends BenchPlan {
  readonly folder: string;
}

/** Completes `options`. Throws `BAD_OPTION` naming the option and what it may be. */
export function planBench(options: BenchOptions = {}): BenchPlan {
  const quick = options.quick === true;
  const plan: BenchPlan = {
    ...(options.source === undefined ? {} : { source: options.source }),
    data: (options.data ?? (quick ? ["weights"] : ["weights", "tokens"])).map(checkKind),
    byteLength: options.byteLength ?? (quick ? 32e6 : 256e6),
    formats: (options.formats ?? (quick ? QUICK_FORMATS : undefined))?.map(parseFormat),
    paths: options.paths,
    temperatures: picked("temperatures", options.temperatures, TEMPERATURES) ?? TEMPERATURES,
    orders: picked("orders", options.orders, ORDERS) ?? (quick ? ["sequential"] : undefined),
    lanes: options.lanes ?? [8],
    requestBytes: options.requestBytes ?? [undefined],
    device: options.device ?? "auto",
    ...(options.ordinal === undefined ? {} : { ordinal: options.ordinal }),
    rounds: options.rounds ?? LEAST_ROUNDS,
    ...(options.computeMs === undefined ? {} : { computeMs: options.computeMs }),
    batchBytes: options.batchBytes ?? 4 * MIB,
    prefetch: options.prefetch ?? 2,
    peers: options.peers ?? [],
    ...(options.python === undefined ? {} : { python: options.python }),
    ...(options.largerThanMemory === undefined ? {} : { largerThanMemory: options.largerThanMemory }),
    rehearsalBytes: options.rehearsalBytes ?? 16 * MIB,
    seed: options.seed ?? 0,
    ceilings: options.ceilings ?? true,
    folder: options.folder ?? (process.env.HEADRACE_BENCH_DIR || undefined),
  };
  check(plan);
  return plan;
}

const QUICK_FORMATS = ["safetensors", "safetensors.zst-3", "safetensors.lz4-1"];

function check(plan: BenchPlan): void {
  for (const path of plan.paths ?? []) checkPath(path);
  for (const peer of plan.peers) checkPeer(peer);
  whole("rounds", plan.rounds, LEAST_ROUNDS, 1000);
  whole("byteLength", plan.byteLength, LEAST_BYTES);
  whole("batchBytes", plan.batchBytes, 1);
  whole("prefetch", plan.prefetch, 0, 1024);
  if (plan.rehearsalBytes !== 0) whole("rehearsalBytes", plan.rehearsalBytes, LEAST_BYTES, MOST_REHEARSAL);
  whole("seed", plan.seed, 0, 2 ** 32 - 1);
  if (typeof plan.largerThanMemory === "number")
    whole("largerThanMemory", plan.largerThanMemory, LEAST_MEMORY);
  for (const lanes of plan.lanes) whole("lanes", lanes, 1, 64);
  for (const bytes of plan.requestBytes) if (bytes !== undefined) whole("requestBytes", bytes, 4096, 2 ** 30);
  if (plan.computeMs !== undefined && !(plan.computeMs > 0 && plan.computeMs <= 60_000)) {
    throw bad("computeMs", plan.computeMs, "above 0, and 60,000 at most");
  }
  for (const [name, list] of Object.entries({ data: plan.data, lanes: plan.lanes, formats: plan.formats })) {
    if (list !== undefined && list.length === 0) throw bad(name, "empty", "one or more");
  }
}

/** What data is stored as where nothing else is asked for. */
export function usualFormats(data: DataKind | undefined): readonly Format[] {
  const names = ["safetensors", "safetensors.zst-3", "safetensors.lz4-1"];
  if (data === "weights" || data === "embeddings") names.push("safetensors.bp.zst-3");
  names.push("arrow", "arrow.zstd-body", "arrow.lz4-body");
  return names.map(parseFormat);
}

/** Tensors are most often wanted in the order of the file, rows shuffled. */
export function usualOrders(tensors: boolean): readonly Order[] {
  return tensors ? ["sequential"] : ["random"];
}

function picked<T extends string>(
  name: string,
  values: readonly string[] | undefined,
  known: readonly T[],
): readonly T[] | undefined {
  return values?.map((value) => {
    const found = known.find((one) => one === value);
    if (found === undefined) throw bad(name, value, `one of ${known.join(", ")}`);
    return found;
  });
}

function whole(name: string, value: number, least: number, most = Number.MAX_SAFE_INTEGER): void {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return;
  const upper = most === Number.MAX_SAFE_INTEGER ? "" : ` to ${most}`;
  throw bad(name, value, `a whole number from ${least}${upper}`);
}

function bad(name: string, value: unknown, wanted: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", `${name} is ${String(value)}; it must be ${wanted}`);
}
