/** What callers hand over is what its type says: for those whose code nothing has checked. */
import { HeadraceError } from "../errors.ts";
import type { Engine, InferRequest } from "./engine.ts";

/** Units of a text that a message shows. */
const MOST_SHOWN = 40;

/** What `value` is, in a few words: `null`, `"text"`, `an array of 3`, `a Map`. */
export function whatIs(value: unknown): string {
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "function") return "a function";
  if (typeof value === "string") {
    return JSON.stringify(value.length > MOST_SHOWN ? `${value.slice(0, MOST_SHOWN)}…` : value);
  }
  if (typeof value !== "object" || value === null) return String(value);
  const name: unknown = value.constructor?.name;
  if (typeof name !== "string" || name === "" || name === "Object") return "an object";
  return `${/^[AEIO]/.test(name) ? "an" : "a"} ${name}`;
}

/** Throws `BAD_OPTION` unless `engine` has what an engine needs. */
export function checkEngine(engine: Engine): void {
  const found: unknown = engine;
  if (typeof found !== "object" || found === null) refuse("the engine", found, "an Engine");
  const lacks = (["prefill", "decode", "release"] as const).find(
    (name) => typeof engine[name] !== "function",
  );
  if (lacks !== undefined) refuse(`the engine's ${lacks}`, engine[lacks], "a function");
  if (typeof engine.capacity !== "object" || engine.capacity === null) {
    refuse("the engine's capacity", engine.capacity, "an object with slots, contextLength and tokensPerStep");
  }
}

/** The source of `requests`. Throws `BAD_OPTION` where they can be iterated in no way. */
export function iteratorOf(
  requests: AsyncIterable<InferRequest> | Iterable<InferRequest>,
): AsyncIterator<InferRequest> {
  checkIterable(requests);
  if (Symbol.asyncIterator in requests) return requests[Symbol.asyncIterator]();
  const source = requests[Symbol.iterator]();
  return {
    next: async () => source.next(),
    return: async () => {
      source.return?.();
      return { done: true, value: undefined };
    },
  };
}

/** Throws `BAD_OPTION` unless `requests` can be iterated. */
export function checkIterable(requests: AsyncIterable<InferRequest> | Iterable<InferRequest>): void {
  const found: unknown = requests;
  const is = typeof found === "object" && found !== null;
  if (is && (Symbol.asyncIterator in found || Symbol.iterator in found)) return;
  refuse("requests", found, "an iterable of requests, such as an array or an async generator");
}

/** Throws `BAD_OPTION` unless `request` is a request with a prompt. What else may be wrong with it is its row's error. */
export function checkRequest(request: InferRequest): void {
  const found: unknown = request;
  if (typeof found !== "object" || found === null) {
    refuse("a request", found, "an object with row, prompt and maxNewTokens");
  }
  const { row, prompt } = request;
  if (!(Number.isSafeInteger(row) && row >= 0)) refuse("a request's row", row, "an integer at least 0");
  if (!(prompt instanceof Int32Array)) refuse(`row ${row}: prompt`, prompt, "an Int32Array of token ids");
}

/** Throws `BAD_OPTION`: what `name` is, and what it must be. */
export function refuse(name: string, value: unknown, wanted: string): never {
  throw new HeadraceError("BAD_OPTION", `${name} is ${whatIs(value)}; it must be ${wanted}`);
}
