/** The cells of a run: every combination of the axes that means something. */

import { HeadraceError } from "../index.ts";
import type { DataKind } from "./data/kinds.ts";
import { type Format, mtlioCodecOf, notFor, PATHS } from "./formats.ts";
import { type BenchPlan, type Order, type Temperature, usualFormats, usualOrders } from "./options.ts";
import { PEER_NAMES, peerOrders, peerReads } from "./peers.ts";
import type { CellKey } from "./record.ts";

/** A cell, and what it is made of. */
export interface Cell {
  readonly key: CellKey;
  readonly format: Format;
  /** Index of its dataset in the run. */
  readonly data: number;
}

/** A dataset as the matrix sees it, before or after it was made. */
export interface MatrixData {
  readonly name: string;
  readonly kind?: DataKind | undefined;
  /** Whether safetensors shows tensors. */
  readonly tensors: boolean;
}

/** The formats in which dataset `data` is wanted. */
export function formatsOf(plan: BenchPlan, kind: DataKind | undefined): readonly Format[] {
  return plan.formats ?? usualFormats(kind);
}

/** Cells of all datasets, in the order of the tables. */
export function cellsOf(plan: BenchPlan, datasets: readonly MatrixData[]): Cell[] {
  return datasets.flatMap((data, index) =>
    formatsOf(plan, data.kind).flatMap((format) =>
      (plan.orders ?? usualOrders(data.tensors)).flatMap((order) =>
        plan.temperatures.flatMap((temperature) => {
          const place = { data: data.name, format, temperature, order };
          const keys = [...ownKeys(plan, place), ...peerKeys(plan, place)];
          return keys.map((key) => ({ key, format, data: index }));
        }),
      ),
    ),
  );
}

/** Cells of data that is made, before it is. */
export function plannedCells(plan: BenchPlan): Cell[] {
  return cellsOf(
    plan,
    plan.data.map((kind) => ({ name: kind, kind, tensors: kind === "weights" })),
  );
}

/** Reasons that a refusal lists. */
const LISTED = 3;

/** Throws `BAD_OPTION` where there are no cells, with why: every path that was named leads to other formats. */
export function checkCells(plan: BenchPlan, cells: readonly Cell[]): void {
  if (cells.length > 0) return;
  const kinds = plan.source === undefined ? plan.data : [undefined];
  const formats = new Map(
    kinds.flatMap((kind) => formatsOf(plan, kind)).map((format) => [format.name, format]),
  );
  const reasons = (plan.paths ?? []).flatMap((path) =>
    [...formats.values()].map((format) => `${path} of ${format.name}: ${notFor(path, format)}`),
  );
  const why = reasons.length > LISTED ? [...reasons.slice(0, LISTED), "…"] : reasons;
  throw new HeadraceError("BAD_OPTION", `nothing to measure: ${why.join("; ")}`);
}

interface Place {
  readonly data: string;
  readonly format: Format;
  readonly temperature: Temperature;
  readonly order: Order;
}

function ownKeys(plan: BenchPlan, place: Place): CellKey[] {
  const asked = plan.paths ?? PATHS.filter((path) => isUsual(path, plan));
  const paths = asked.filter((path) => notFor(path, place.format) === undefined);
  return paths.flatMap((path) => {
    const bare = path === "js-read" || path === "apache-arrow";
    // Lanes and pieces are the loader's; a mapping has neither.
    const lanes = bare ? [1] : path === "map" ? plan.lanes.slice(0, 1) : plan.lanes;
    const sizes = path === "read" ? plan.requestBytes : [undefined];
    const device = bare ? "host" : plan.device;
    return lanes.flatMap((count) =>
      sizes.map((requestBytes) => keyOf(place, { path, lanes: count, requestBytes, device })),
    );
  });
}

/** MTLIO is Metal's: elsewhere it is tried where it is asked for alone. */
function isUsual(path: string, plan: BenchPlan): boolean {
  const mtlio = path === "mtlio-raw" || mtlioCodecOf(path) !== undefined;
  return !mtlio || plan.device === "metal" || (plan.device === "auto" && process.platform === "darwin");
}

function peerKeys(plan: BenchPlan, place: Place): CellKey[] {
  return plan.peers
    .filter((peer) => peerReads(peer, place.format) && peerOrders(peer).includes(place.order))
    .map((peer) => keyOf(place, { path: "peer", lanes: 1, device: "host", peer }));
}

function keyOf(
  { data, format, temperature, order }: Place,
  way: { path: string; lanes: number; device: string; requestBytes?: number | undefined; peer?: string },
): CellKey {
  const { path, lanes, requestBytes, device, peer } = way;
  const parts = [data, format.name, peer ?? path, temperature, order, `lanes ${lanes}`];
  if (requestBytes !== undefined) parts.push(`reads of ${requestBytes}`);
  return {
    id: [...parts, device].join("/"),
    data,
    format: format.name,
    path,
    temperature,
    order,
    lanes,
    ...(requestBytes === undefined ? {} : { requestBytes }),
    device,
    ...(peer === undefined ? {} : { peer }),
  };
}

const ID =
  /^(.+)\/([^/]+)\/([^/]+)\/(cold|warm)\/(sequential|block-shuffled|random)\/lanes (\d+)(?:\/reads of (\d+))?\/([^/]+)$/s;

/** The key that has `id`; undefined where no key of this version has. */
export function keyOfId(id: string): CellKey | undefined {
  const [, data, format, way, temperature, order, lanes, requestBytes, device] = ID.exec(id) ?? [];
  if (data === undefined || format === undefined || way === undefined || device === undefined)
    return undefined;
  const isPeer = PEER_NAMES.includes(way);
  return {
    id,
    data,
    format,
    path: isPeer ? "peer" : way,
    temperature: temperature as Temperature,
    order: order as Order,
    lanes: Number(lanes),
    ...(requestBytes === undefined ? {} : { requestBytes: Number(requestBytes) }),
    device,
    ...(isPeer ? { peer: way } : {}),
  };
}

/** Bytes a second that stand for a trial where nothing was measured yet. */
const GUESSED_RATE = { cold: 0.5e9, warm: 1e9 };
/** Seconds that a process takes besides. */
const PROCESS_SECONDS = { own: 0.35, peer: 1.2 };

/** Seconds that all rounds of `cells` take, about. */
export function guessSeconds(plan: BenchPlan, cells: readonly Cell[]): number {
  const each = cells.map(({ key }) => {
    const reading = (plan.byteLength + plan.rehearsalBytes) / GUESSED_RATE[key.temperature];
    return reading + (key.peer === undefined ? PROCESS_SECONDS.own : PROCESS_SECONDS.peer);
  });
  const busy = plan.computeMs === undefined ? 1 : 2;
  return each.reduce((total, seconds) => total + seconds, 0) * (plan.rounds + 1) * busy;
}
