/** The settings of a run as its record has them, and a run that goes on where another was interrupted. */
import { HeadraceError } from "../index.ts";
import { type BenchOptions, type BenchPlan, planBench } from "./options.ts";
import type { BenchRecord, RunRecord } from "./record.ts";

/** Where data lies and who runs the peers is nothing that figures depend on. */
const LEFT_OUT = ["folder", "python"];
/** What a list has for a setting that is left to the device. */
const UNSET = "default";

/** The settings of a run as its record has them. */
export function settingsOf(plan: BenchPlan): RunRecord["settings"] {
  const settings: Record<string, string | number | boolean | readonly string[]> = {};
  for (const [name, value] of Object.entries(plan)) {
    if (value === undefined || LEFT_OUT.includes(name)) continue;
    if (name === "formats") settings.formats = (plan.formats ?? []).map((format) => format.name);
    else settings[name] = Array.isArray(value) ? value.map((one) => String(one ?? UNSET)) : value;
  }
  return settings;
}

/** The plan of the run whose `records` are those of `path`, to be gone on with. Throws `BAD_OPTION` where it came to its end,
 * and `BAD_RESULTS` where its settings are none that this version has. */
export function resumedPlan(
  records: readonly BenchRecord[],
  path: string,
  where: Pick<BenchOptions, "folder" | "python"> = {},
): BenchPlan {
  const run = records.find((record) => record.kind === "run");
  if (run === undefined) throw new HeadraceError("BAD_RESULTS", `${path}: no run has begun in it`);
  if (records.some((record) => record.kind === "cell")) {
    throw new HeadraceError("BAD_OPTION", `${path}: its run came to its end; there is nothing to resume`);
  }
  const { settings } = run;
  let plan: BenchPlan;
  try {
    plan = planBench({ ...optionsOf(settings), ...where });
  } catch (cause) {
    throw foreign(path, (cause as Error).message);
  }
  const found = settingsOf(plan);
  for (const name of new Set([...Object.keys(found), ...Object.keys(settings)])) {
    const [now, then] = [JSON.stringify(found[name]), JSON.stringify(settings[name])];
    if (now !== then) throw foreign(path, `${name} ${then ?? "unset"} would be ${now ?? "unset"}`);
  }
  return plan;
}

/** Settings as options have them: lists of numbers are text in a record. */
function optionsOf(settings: RunRecord["settings"]): BenchOptions {
  const numbers = (name: string) => {
    const list = settings[name];
    if (!Array.isArray(list)) return undefined;
    return list.map((text) => (text === UNSET ? undefined : Number(text)));
  };
  const options = { ...settings, lanes: numbers("lanes"), requestBytes: numbers("requestBytes") };
  return options as unknown as BenchOptions;
}

function foreign(path: string, why: string): HeadraceError {
  const text = `${path}: its settings are those of another version: ${why}; begin a new run`;
  return new HeadraceError("BAD_RESULTS", text);
}
