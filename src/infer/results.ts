/** What engines say of a step, checked: engines may be anybody's. */
import { HeadraceError } from "../errors.ts";
import type { SlotResult } from "./engine.ts";
import { whatIs } from "./shape.ts";
import type { StepPlan } from "./step.ts";

const MOST_TOKEN = 2 ** 31 - 1;
/** Steps that may give nothing, one after the other, by an engine that does not wait for others. */
const MOST_SILENT_STEPS = 1000;
/** Slots that a message names. */
const MOST_NAMED = 8;

/** A fault of the engine, at `slot`. */
export function badEngine(slot: unknown, why: string): HeadraceError {
  const name = typeof slot === "number" ? String(slot) : whatIs(slot);
  return new HeadraceError("BAD_ENGINE", `the engine's slot ${name} ${why}`);
}

/** Throws `BAD_ENGINE` unless `results`, of the engine's `call` for `slots`, is a list of results. */
export function checkResults(results: readonly SlotResult[], call: string, slots: readonly number[]): void {
  const gave = `the engine's ${call} for ${namesOf(slots)}`;
  if (!Array.isArray(results)) {
    throw new HeadraceError(
      "BAD_ENGINE",
      `${gave} gave ${whatIs(results)}; it must give an array of results`,
    );
  }
  const wrong = results.findIndex((result: unknown) => typeof result !== "object" || result === null);
  if (wrong < 0) return;
  const what = `${whatIs(results[wrong])} as result ${wrong}; it must be an object with slot`;
  throw new HeadraceError("BAD_ENGINE", `${gave} gave ${what}`);
}

/** Throws `BAD_ENGINE` for a value that no result may have. */
export function checkResult({ slot, token, finish, text, error }: SlotResult): void {
  if (error !== undefined) {
    if (typeof error?.message === "string") return;
    throw badEngine(slot, `has ${whatIs(error)} for an error; it must be an object with message and retry`);
  }
  if (token !== undefined && !(Number.isInteger(token) && token >= 0 && token <= MOST_TOKEN)) {
    throw badEngine(slot, `has ${whatIs(token)} for a token; it must be an integer from 0 to ${MOST_TOKEN}`);
  }
  if (finish !== undefined && finish !== "stop" && finish !== "length") {
    throw badEngine(slot, `has ${whatIs(finish)} for its finish; it must be "stop" or "length"`);
  }
  if (text !== undefined && typeof text !== "string") {
    throw badEngine(slot, `has ${whatIs(text)} for its text; it must be a string`);
  }
}

/** Finds engines that would keep a job going for ever and give nothing. */
export class Silence {
  #steps = 0;

  /** Counts a step. Throws `BAD_ENGINE` where it is one too many. */
  count(plan: StepPlan | undefined, gave: boolean): void {
    if (gave || plan === undefined) {
      this.#steps = 0;
      return;
    }
    const due = [...plan.chunks.filter(({ last }) => last).map(({ slot }) => slot), ...plan.slots];
    // Parts of prompts have no results.
    if (due.length === 0 || ++this.#steps < MOST_SILENT_STEPS) return;
    throw new HeadraceError(
      "BAD_ENGINE",
      `the engine gave nothing in ${MOST_SILENT_STEPS} steps in a row, the last of which asked for a token in ` +
        `${namesOf(due)}; one that waits for others says so by capacity.waits`,
    );
  }
}

function namesOf(slots: readonly number[]): string {
  const names = slots.slice(0, MOST_NAMED).join(", ");
  const more = slots.length > MOST_NAMED ? `, … (${slots.length} in all)` : "";
  return `${slots.length === 1 ? "slot" : "slots"} ${names}${more}`;
}
