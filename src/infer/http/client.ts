/** Asks a server, and asks again where that may help. */
import { HeadraceError } from "../../errors.ts";
import type { InferRequest } from "../engine.ts";
import { type Answer, errorText, type Failure, parseAnswer } from "./answer.ts";
import { requestBody } from "./body.ts";
import type { ResolvedHttp } from "./options.ts";
import { modelNames, readText, retryAfterMs, sleep } from "./wire.ts";

const MOST_BACKOFF_MS = 30_000;
/** A server that wants to be left alone for longer is asked again after this. */
const MOST_RETRY_AFTER_MS = 10 * 60_000;
/** Units of a message, most of which may be what a server said. */
const MOST_MESSAGE = 300;
/** Bytes of an answer, which is text of one row. */
const MOST_BYTES = 64 * 2 ** 20;
/** Further ones than those of 500 and above. */
const RETRIED = [408, 425, 429];
/** What a server says to everyone whose address, key or model is wrong. */
const REFUSALS = [301, 302, 303, 307, 308, 401, 403, 404, 405];

interface HttpAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** A server as its clients see it. */
export class HttpClient {
  readonly #options: ResolvedHttp;
  /** When the server said last that it is to be left alone until; on the clock of `performance.now()`. */
  #pausedUntilMs = 0;
  /** Answers of any kind. */
  #numAnswers = 0;
  #succeeded = false;

  constructor(options: ResolvedHttp) {
    this.#options = options;
  }

  /**
   * A row's result, after as many tries as it takes. Throws `SERVER_FAILED` where no row can be expected to have one: no
   * try reached the server and nobody else's has since the first, or the server refuses and has never done otherwise.
   * Rejects with the signal's reason once it is aborted.
   */
  async complete(request: InferRequest, signal: AbortSignal): Promise<Answer> {
    const body = requestBody(request, this.#options);
    if (typeof body === "string") return { message: body, retry: false };
    const text = JSON.stringify(body);
    const answersBefore = this.#numAnswers;
    for (let failures = 0; ; failures++) {
      await this.#pause(signal);
      const tried = await this.#try(text, request, signal);
      if (!("message" in tried)) return tried;
      if (tried.refused && !this.#succeeded) throw this.#failed(tried.message, failures);
      if (tried.retry && failures < this.#options.retries) {
        await this.#backOff(failures, tried.retryAfterMs, signal);
        continue;
      }
      if (tried.unreached && this.#numAnswers === answersBefore) throw this.#failed(tried.message, failures);
      return { message: this.#say(tried.message, failures), retry: false, attempts: failures + 1 };
    }
  }

  /** The server's models, by name; undefined where it does not tell. Throws `SERVER_FAILED` where it cannot be reached or
   * refuses. */
  async models(signal: AbortSignal): Promise<string[] | undefined> {
    const { modelsEndpoint, retries } = this.#options;
    for (let failures = 0; ; failures++) {
      await this.#pause(signal);
      const got = await this.#fetch(modelsEndpoint, { method: "GET" }, signal);
      const answered = "status" in got;
      if (answered && got.status === 200) return modelNames(got.body);
      const failure = answered ? this.#judge(got) : got;
      // Not every server has such a list.
      if (answered && !failure.retry && got.status !== 401 && got.status !== 403) return undefined;
      if (!failure.retry || failures >= retries) throw this.#failed(failure.message, failures);
      await this.#backOff(failures, failure.retryAfterMs, signal);
    }
  }

  async #try(body: string, request: InferRequest, signal: AbortSignal): Promise<Answer | Failure> {
    const got = await this.#fetch(this.#options.endpoint, { method: "POST", body }, signal);
    if (!("status" in got)) return got;
    this.#numAnswers++;
    if (got.status !== 200) return this.#judge(got);
    const answer = parseAnswer(got.body, request);
    if (!("message" in answer)) this.#succeeded = true;
    return answer;
  }

  /** Of an answer that is none of status 200. */
  #judge(answer: HttpAnswer): Failure {
    return {
      message: statusText(answer),
      retry: answer.status >= 500 || RETRIED.includes(answer.status),
      retryAfterMs: retryAfterMs(answer.headers, Date.now()),
      refused: REFUSALS.includes(answer.status),
    };
  }

  /** The whole answer, within the time for it. */
  async #fetch(url: URL, init: RequestInit, signal: AbortSignal): Promise<HttpAnswer | Failure> {
    const { timeoutMs, headers, title } = this.#options;
    const late = AbortSignal.timeout(timeoutMs);
    let status: number | undefined;
    try {
      const response = await fetch(url, {
        ...init,
        headers,
        // A key is for the server that was named.
        redirect: "manual",
        signal: AbortSignal.any([signal, late]),
      });
      status = response.status;
      const body = await readText(response, MOST_BYTES);
      if (body === undefined) {
        return { message: `the answer is longer than ${MOST_BYTES} bytes`, retry: false };
      }
      return { status, headers: response.headers, body };
    } catch (error) {
      signal.throwIfAborted();
      if (late.aborted) {
        return { message: `no answer within ${timeoutMs} ms`, retry: true };
      }
      const { code, message } = error as { code?: string; message?: string };
      const why = code ?? message ?? String(error);
      if (status === undefined) {
        return { message: `${title} cannot be reached: ${why}`, retry: true, unreached: true };
      }
      return { message: `the answer broke off: ${why}`, retry: true };
    }
  }

  /** Waits for as long as the server wants to be left alone. */
  async #pause(signal: AbortSignal): Promise<void> {
    for (;;) {
      const leftMs = this.#pausedUntilMs - performance.now();
      if (leftMs <= 0) return;
      // Not all at once.
      await sleep(leftMs + Math.random() * this.#options.backoffMs, signal);
    }
  }

  async #backOff(failures: number, askedMs: number | undefined, signal: AbortSignal): Promise<void> {
    if (askedMs !== undefined && askedMs > 0) {
      const untilMs = performance.now() + Math.min(MOST_RETRY_AFTER_MS, askedMs);
      this.#pausedUntilMs = Math.max(this.#pausedUntilMs, untilMs);
      return;
    }
    const mostMs = Math.min(MOST_BACKOFF_MS, this.#options.backoffMs * 2 ** failures);
    await sleep(mostMs * (0.5 + Math.random() / 2), signal);
  }

  #failed(message: string, failures: number): HeadraceError {
    const { title } = this.#options;
    const text = message.startsWith(title) ? message : `${title}: ${message}`;
    return new HeadraceError("SERVER_FAILED", this.#say(text, failures));
  }

  /** A message on one line, and without what is secret: servers repeat what they were sent. */
  #say(message: string, failures: number): string {
    const clean = this.#options.secrets.reduce((text, secret) => text.replaceAll(secret, "…"), message);
    const line = clean.replace(/\s+/g, " ").trim();
    const short = line.length > MOST_MESSAGE ? `${line.slice(0, MOST_MESSAGE)}…` : line;
    return failures === 0 ? short : `${short} (after ${failures + 1} tries)`;
  }
}

/** What the server says of a request that it does not serve. */
function statusText({ status, headers, body }: HttpAnswer): string {
  const location = headers.get("location");
  if (status >= 300 && status < 400) {
    return `the server answered ${status}, and leads to ${location ?? "nowhere"}; give the right url`;
  }
  let said = body.trim();
  try {
    said = errorText(JSON.parse(body)) ?? said;
  } catch {
    // Any text will do.
  }
  return `the server answered ${status}${said === "" ? "" : `: ${said}`}`;
}
