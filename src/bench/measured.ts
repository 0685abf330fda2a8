/** What a run says of mapping against reading, for `strategy: "auto"`. */
import { type MeasuredChoice, RECOMMENDED_VERSION, type Recommended } from "../index.ts";
import type { RunRecord } from "./record.ts";
import { type CellResult, clearlyFaster, fastestFirst, medianOf } from "./results.ts";
import { amountText } from "./text.ts";

/** Figures of a device, and why some of them are not there. */
export interface Measured {
  readonly recommended: Recommended;
  readonly notes: readonly string[];
}

/** What `cells` say of a device: of files that are stored as they are, since compressed ones can only be streamed. */
export function measuredOf(run: RunRecord, device: string, cells: readonly CellResult[]): Measured {
  const raw = cells.filter(({ key }) => key.device === device && ["map", "read"].includes(key.path));
  const notes: string[] = [];
  const choose = (temperature: "cold" | "warm") => {
    const found = choiceOf(raw.filter(({ key }) => key.temperature === temperature));
    if ("note" in found) notes.push(`${temperature}: ${found.note}; auto keeps its own rule`);
    return "choice" in found ? found.choice : undefined;
  };
  const [cold, warm] = [choose("cold"), choose("warm")];
  const { cpu, cores, memoryBytes, arch, gpu } = run.machine;
  const recommended: Recommended = {
    version: RECOMMENDED_VERSION,
    date: run.date,
    device,
    disk: run.machine.disk,
    machine: { cpu, cores, memoryBytes, arch, ...(gpu === undefined ? {} : { gpu }) },
    ...(cold === undefined ? {} : { cold }),
    ...(warm === undefined ? {} : { warm }),
  };
  return { recommended, notes };
}

/** Cells that differ in way, lanes and bytes of a request alone. */
function likes(cells: readonly CellResult[]): CellResult[][] {
  const kinds = Map.groupBy(cells, ({ key }) =>
    JSON.stringify([key.data, key.format, key.order, key.temperature]),
  );
  return [...kinds.values()];
}

/** Mapping or reading, where one was clearly faster for some kind of data and the other for none. */
function choiceOf(cells: readonly CellResult[]): { choice: MeasuredChoice } | { note: string } {
  const wins: MeasuredChoice[] = [];
  let compared = 0;
  for (const members of likes(cells)) {
    const best = (path: string) => fastestFirst(members.filter(({ key }) => key.path === path))[0];
    const [map, read] = [best("map"), best("read")];
    if (map === undefined || read === undefined) continue;
    compared++;
    if (clearlyFaster(map, read)) wins.push(choice("map", map, read));
    if (clearlyFaster(read, map)) wins.push(choice("read", read, map));
  }
  if (compared === 0) return { note: "map and read were not both measured" };
  if (wins.length === 0) return { note: "no clear difference between map and read" };
  const strategies = new Set(wins.map((win) => win.strategy));
  if (strategies.size > 1) {
    const maps = wins.filter((win) => win.strategy === "map").length;
    return {
      note: `map was faster for ${amountText(maps, "kind")} of data or order, read for ${wins.length - maps}`,
    };
  }
  // Of several the one that is told is the one with the least gain.
  const gain = (win: MeasuredChoice) => win.gigabytesPerSecond / win.otherGigabytesPerSecond;
  return { choice: wins.reduce((least, win) => (gain(win) < gain(least) ? win : least)) };
}

function choice(strategy: "map" | "read", one: CellResult, other: CellResult): MeasuredChoice {
  return { strategy, gigabytesPerSecond: medianOf(one), otherGigabytesPerSecond: medianOf(other) };
}
