/** What goes over the wire, read: headers, bodies, lists. */

const DECIMAL = /^\d+(\.\d+)?$/;

/** What the server asks for by its headers, ms from `nowMs` of the wall clock; undefined: nothing. */
export function retryAfterMs(headers: Headers, nowMs: number): number | undefined {
  const precise = headers.get("retry-after-ms")?.trim();
  if (precise && DECIMAL.test(precise)) return Number(precise);
  const text = headers.get("retry-after")?.trim();
  if (!text) return undefined;
  if (DECIMAL.test(text)) return Number(text) * 1000;
  // Date.parse takes a lot for a date, "-1" too.
  const date = / GMT$/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

/** The names in a list of models; undefined where it is none. */
export function modelNames(body: string): string[] | undefined {
  try {
    const { data } = JSON.parse(body) as { data?: unknown };
    if (!Array.isArray(data)) return undefined;
    return data.map(({ id }) => id).filter((id) => typeof id === "string");
  } catch {
    return undefined;
  }
}

/** The body of an answer as text; undefined where it has more than `mostBytes`. */
export async function readText(response: Response, mostBytes: number): Promise<string | undefined> {
  if (response.body === null) return "";
  const decoder = new TextDecoder();
  const parts: string[] = [];
  let length = 0;
  for await (const bytes of response.body) {
    length += bytes.length;
    if (length > mostBytes) return undefined;
    parts.push(decoder.decode(bytes, { stream: true }));
  }
  return parts.join("") + decoder.decode();
}

/** Rejects with the signal's reason once it is aborted. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal.addEventListener("abort", abort, { once: true });
  });
}
