/** What makes two runs the same, so that one may go on where the other was interrupted. */
import { HeadraceError } from "../index.ts";
import type { BenchPlan } from "./options.ts";
import type { BenchRecord, RunRecord } from "./record.ts";

/** Where data lies and who runs the peers is nothing that figures depend on. */
const LEFT_OUT = ["folder", "python"];

/** The settings of a run as its record has them. */
export function settingsOf(plan: BenchPlan): RunRecord["settings"] {
  const settings: Record<string, string | number | boolean | readonly string[]> = {};
  for (const [name, value] of Object.entries(plan)) {
    if (value === undefined || LEFT_OUT.includes(name)) continue;
    if (name === "formats") settings.formats = (plan.formats ?? []).map((format) => format.name);
    else settings[name] = Array.isArray(value) ? value.map((one) => String(one ?? "default")) : value;
  }
  return settings;
}

/** Checks that `records` are of a run with these settings, which has not come to its end. Throws `BAD_OPTION`. */
export function checkResumable(records: readonly BenchRecord[], plan: BenchPlan, path: string): void {
  const run = records.find((record) => record.kind === "run");
  if (run === undefined) throw new HeadraceError("BAD_OPTION", `${path}: no run has begun in it`);
  if (records.some((record) => record.kind === "cell")) {
    throw new HeadraceError("BAD_OPTION", `${path}: its run came to its end; there is nothing to resume`);
  }
  const wanted: Record<string, unknown> = { ...settingsOf(plan) };
  // The device's own name stands in the record where auto was asked for.
  if (wanted.device === "auto") wanted.device = run.settings.device ?? "auto";
  const names = new Set([...Object.keys(wanted), ...Object.keys(run.settings)]);
  for (const name of names) {
    const [now, then] = [JSON.stringify(wanted[name]), JSON.stringify(run.settings[name])];
    if (now === then) continue;
    const text = `${path}: its run had ${name} ${then ?? "unset"}, and this one has ${now ?? "unset"}; give the same options, or leave --resume out`;
    throw new HeadraceError("BAD_OPTION", text);
  }
}
