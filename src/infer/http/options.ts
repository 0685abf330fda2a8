/** How an inference server is reached: the options, their checks and defaults. */
import { HeadraceError } from "../../errors.ts";
import { checkInteger } from "../../plan/check.ts";

/** Which of a server's two ways is used: texts or tokens that it continues, or messages that it answers. */
export type HttpMode = "completions" | "chat";

export interface HttpEngineOptions {
  /** Base of the server's API, `http://127.0.0.1:8000/v1`; `/v1` is added where there is no path. A query is kept. */
  readonly url: string;
  /** The server's name for the model; without, the one that it has, if it has but one and says so. */
  readonly model?: string | undefined;
  /** Requests in flight at most; default 16. */
  readonly slots?: number | undefined;
  /** Sent as bearer token. It is in no message. */
  readonly apiKey?: string | undefined;
  /** Further headers; their values are in no message either. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** For one try of a request, from sending it to the whole answer; default 600,000. */
  readonly timeoutMs?: number | undefined;
  /** Tries after the first, where another may help; default 5. */
  readonly retries?: number | undefined;
  /** About the time before the first of these, ms; it doubles with each, up to 30 s. Default 500. A server that says when
   * to come back is waited for instead, by all requests. */
  readonly backoffMs?: number | undefined;
  /** Default `completions`. */
  readonly mode?: HttpMode | undefined;
  /** In front of each prompt, as the system's message; for `chat` alone. */
  readonly system?: string | undefined;
}

/** The options with their defaults. */
export interface ResolvedHttp {
  /** Of completions. */
  readonly endpoint: URL;
  /** Of the list of models. */
  readonly modelsEndpoint: URL;
  /** For messages: no query, which may hold a key. */
  readonly title: string;
  readonly headers: Readonly<Record<string, string>>;
  /** What no message may hold. */
  readonly secrets: readonly string[];
  readonly model: string | undefined;
  readonly slots: number;
  readonly timeoutMs: number;
  readonly retries: number;
  readonly backoffMs: number;
  readonly mode: HttpMode;
  readonly system: string | undefined;
}

const MOST_TIMEOUT_MS = 2 ** 31 - 1;

/** Checks and completes `options`. Throws `BAD_OPTION`. */
export function resolveHttp(options: HttpEngineOptions): ResolvedHttp {
  const { slots = 16, timeoutMs = 600_000, retries = 5, backoffMs = 500, mode = "completions" } = options;
  checkInteger("slots", slots, 1);
  checkInteger("timeoutMs", timeoutMs, 1, MOST_TIMEOUT_MS);
  checkInteger("retries", retries, 0);
  checkInteger("backoffMs", backoffMs, 0, MOST_TIMEOUT_MS);
  if (mode !== "completions" && mode !== "chat") bad(`mode is ${mode}; it must be completions or chat`);
  if (options.system !== undefined && mode !== "chat") bad(`system is for mode chat, and mode is ${mode}`);
  if (options.model === "") bad("model is empty; leave it out to take the server's own");
  const base = parseUrl(options.url);
  const { headers, secrets } = headersOf(options);
  return {
    endpoint: endpointOf(base, mode === "chat" ? "chat/completions" : "completions"),
    modelsEndpoint: endpointOf(base, "models"),
    title: `${base.origin}${base.pathname}`,
    headers,
    secrets,
    model: options.model,
    slots,
    timeoutMs,
    retries,
    backoffMs,
    mode,
    system: options.system,
  };
}

function parseUrl(text: string): URL {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    bad("url is no http:// or https:// address; it is the base of the API, such as http://127.0.0.1:8000/v1");
  }
  if (url.username !== "" || url.password !== "") bad("url holds a name or password; give apiKey or headers");
  url.hash = "";
  url.pathname = url.pathname === "/" ? "/v1" : url.pathname.replace(/\/+$/, "");
  const end = /\/(chat\/)?completions$/.exec(url.pathname);
  if (end !== null) bad(`url ends in ${end[0]}; give the part before it`);
  return url;
}

function endpointOf(base: URL, path: string): URL {
  const url = new URL(base);
  url.pathname = `${base.pathname}/${path}`;
  return url;
}

function headersOf({ apiKey, headers = {} }: HttpEngineOptions): Pick<ResolvedHttp, "headers" | "secrets"> {
  if (apiKey === "") bad("apiKey is empty; leave it out where the server asks for none");
  const all = new Map<string, string>([["content-type", "application/json"]]);
  if (apiKey !== undefined) all.set("authorization", `Bearer ${apiKey}`);
  for (const [name, value] of Object.entries(headers)) all.set(name.toLowerCase(), value);
  const sent = Object.fromEntries(all);
  try {
    new Headers(sent);
  } catch {
    bad("apiKey or one of headers holds what no header may, such as a line break");
  }
  // Short values, of switches and versions, would take words out of messages.
  const secrets = [apiKey ?? "", ...Object.values(headers)].filter((value) => value.length >= 8);
  return { headers: sent, secrets: apiKey === undefined ? secrets : [apiKey, ...secrets] };
}

function bad(message: string): never {
  throw new HeadraceError("BAD_OPTION", message);
}
