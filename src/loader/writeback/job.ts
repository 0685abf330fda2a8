/** Which job a folder of outputs belongs to: a plain JSON, and what tells it from another. */
import { HeadraceError } from "../../errors.ts";

/** Plain JSON. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** Whatever decides a job's outputs: fingerprints of dataset and model, options. Keys with undefined count as absent. */
export type JobIdentity = { readonly [key: string]: Json | undefined };

/** Differences that a message names. */
const MAX_NAMED = 4;
const MAX_VALUE = 60;
/** Characters before the first that differs. */
const LEAD = 20;
/** Where the writer's identity holds the caller's. */
const JOB = "job";

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

/** One value that two identities do not share; undefined where one has none. */
interface Difference {
  readonly name: string;
  readonly there: unknown;
  readonly here: unknown;
}

/**
 * What two jobs differ in, for people: `seed is 1 there and 2 here`. Empty where nothing does. What the writer adds to a
 * job's identity follows from it mostly, and is told of only where the jobs are the same; digits of fingerprints, which
 * nobody knows, only where nothing else differs.
 */
export function differences(there: unknown, here: unknown): string {
  const all = compare("", there, here);
  const ofJob = all.filter(({ name }) => name === JOB || name.startsWith(`${JOB}.`));
  const found = (ofJob.length > 0 ? ofJob : all).map(({ name, ...values }) => ({
    name: name.startsWith(`${JOB}.`) ? name.slice(JOB.length + 1) : name || "it",
    ...values,
  }));
  const secret = found.filter((difference) => isFingerprint(difference));
  const plain = found.filter((difference) => !isFingerprint(difference));
  const texts =
    plain.length === 0
      ? found.map(textOf)
      : [...secret.map(({ name }) => `another ${name}`), ...plain.map(textOf)];
  const more = texts.length - MAX_NAMED;
  return texts.slice(0, MAX_NAMED).join(", ") + (more > 0 ? `, and ${more} more` : "");
}

function compare(name: string, there: unknown, here: unknown): Difference[] {
  if (isFields(there) && isFields(here)) {
    return [...new Set([...Object.keys(there), ...Object.keys(here)])].flatMap((key) =>
      compare(name === "" ? key : `${name}.${key}`, there[key], here[key]),
    );
  }
  return show(there) === show(here) ? [] : [{ name, there, here }];
}

function isFields(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isFingerprint({ there, here }: Difference): boolean {
  return [there, here].some((value) => typeof value === "string" && /^[0-9a-f]{32,}$/.test(value));
}

function show(value: unknown): string {
  return value === undefined || value === null ? "unset" : canonicalJson(value);
}

function textOf({ name, there, here }: Difference): string {
  const [first, second] = [show(there), show(here)];
  const same = [...first].findIndex((character, i) => character !== second[i]);
  const at = same < 0 ? first.length : same;
  return `${name} is ${cut(first, at)} there and ${cut(second, at)} here`;
}

/** Shows what lies around `at`, where long texts begin to differ. */
function cut(text: string, at: number): string {
  const start = at < MAX_VALUE - LEAD ? 0 : at - LEAD;
  const end = start + MAX_VALUE;
  return `${start > 0 ? "…" : ""}${text.slice(start, end)}${end < text.length ? "…" : ""}`;
}
