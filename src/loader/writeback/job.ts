/** Which job a folder of outputs belongs to: a plain JSON, and what tells it from another. */
import { HeadraceError } from "../../errors.ts";

/** Plain JSON. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** Whatever decides a job's outputs: fingerprints of dataset and model, options. Keys with undefined count as absent. */
export type JobIdentity = { readonly [key: string]: Json | undefined };

/** Differences that a message names. */
const MAX_NAMED = 4;
const MAX_VALUE = 60;

/** The one text of a JSON value: keys in code-unit order, no white space. Throws `BAD_OPTION` for what is no JSON. */
export function canonicalJson(value: unknown, where = "job"): string {
  if (value === null || typeof value === "string" || typeof value === "boolean") return JSON.stringify(value);
  if (typeof value === "number" && Number.isFinite(value)) return JSON.stringify(value);
  if (Array.isArray(value)) {
    return `[${value.map((item, i) => canonicalJson(item, `${where}[${i}]`)).join(",")}]`;
  }
  if (typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    const fields = Object.entries(value).filter(([, item]) => item !== undefined);
    fields.sort(([a], [b]) => (a < b ? -1 : 1));
    const texts = fields.map(
      ([key, item]) => `${JSON.stringify(key)}:${canonicalJson(item, `${where}.${key}`)}`,
    );
    return `{${texts.join(",")}}`;
  }
  const what = typeof value === "object" ? Object.prototype.toString.call(value) : String(value);
  throw new HeadraceError("BAD_OPTION", `${where} is ${what}; a job is told by plain JSON alone`);
}

/** sha256 in hex of {@link canonicalJson}. */
export function digestOf(value: unknown): string {
  return new Bun.CryptoHasher("sha256").update(canonicalJson(value)).digest("hex");
}

/** What two JSON values differ in, for people: `seed is 1 there and 2 here`. Empty where nothing does. */
export function differences(there: unknown, here: unknown): string {
  const found: string[] = [];
  compare("", there, here, found);
  const more = found.length - MAX_NAMED;
  return found.slice(0, MAX_NAMED).join(", ") + (more > 0 ? `, and ${more} more` : "");
}

function compare(path: string, there: unknown, here: unknown, found: string[]): void {
  if (isFields(there) && isFields(here)) {
    for (const key of new Set([...Object.keys(there), ...Object.keys(here)])) {
      compare(path === "" ? key : `${path}.${key}`, there[key], here[key], found);
    }
  } else if (show(there) !== show(here)) {
    found.push(`${path || "it"} is ${cut(show(there))} there and ${cut(show(here))} here`);
  }
}

function isFields(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function show(value: unknown): string {
  return value === undefined ? "unset" : canonicalJson(value);
}

function cut(text: string): string {
  return text.length <= MAX_VALUE ? text : `${text.slice(0, MAX_VALUE)}…`;
}
