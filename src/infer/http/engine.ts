/** An engine that is a server elsewhere: any that speaks OpenAI's completions, such as vLLM, mlx-lm or llama.cpp. */
import { HeadraceError } from "../../errors.ts";
import type { Engine, EngineCapacity, InferRequest, PrefillChunk, SlotResult } from "../engine.ts";
import { HttpClient } from "./client.ts";
import { type HttpEngineOptions, type ResolvedHttp, resolveHttp } from "./options.ts";

/** How long a step waits for an answer, ms, before new rows, time limits and cancels get their turn. */
const STEP_MS = 20;

/**
 * Opens an engine over the server at `options.url`. A slot is a request in flight; its result is the whole text. A row's
 * `signal` and `timeoutMs` end its request; its randomness is the server's, seeded by (seed, row).
 *
 * What is wrong with a row, or with the server for longer than the retries last, is that row's error. Steps throw
 * `SERVER_FAILED` where it is wrong with all: the server cannot be reached, or refuses and has never done otherwise.
 * Throws `BAD_OPTION`, and, where the server is asked for its model, `SERVER_FAILED` and by `signal` `CANCELLED`.
 */
export async function openHttpEngine(options: HttpEngineOptions, signal?: AbortSignal): Promise<HttpEngine> {
  const resolved = resolveHttp(options);
  if (resolved.model !== undefined) return new HttpEngine(resolved);
  const names = await modelsOf(resolved, signal ?? new AbortController().signal);
  if (names !== undefined && names.length > 1) {
    const text = `${resolved.title} has ${names.length} models; give model, one of ${names.slice(0, 10).join(", ")}`;
    throw new HeadraceError("BAD_OPTION", text);
  }
  return new HttpEngine({ ...resolved, model: names?.[0] });
}

async function modelsOf(options: ResolvedHttp, signal: AbortSignal): Promise<string[] | undefined> {
  try {
    return await new HttpClient(options).models(signal);
  } catch (error) {
    if (!signal.aborted) throw error;
    const text = `${options.title}: asking for its models was cancelled`;
    throw new HeadraceError("CANCELLED", text, { cause: signal.reason });
  }
}

/** A request under way. */
interface Flight {
  readonly controller: AbortController;
  result: SlotResult | undefined;
  readonly ended: Promise<void>;
}

/** See {@link openHttpEngine}. */
export class HttpEngine implements Engine {
  readonly capacity: EngineCapacity;
  /** The server's name for the model; undefined where it takes none. */
  readonly model: string | undefined;
  readonly #client: HttpClient;
  readonly #flights = new Map<number, Flight>();
  #failed: { readonly error: unknown } | undefined;
  #wake: (() => void) | undefined;
  #closed = false;

  constructor(options: ResolvedHttp) {
    this.capacity = {
      slots: options.slots,
      // The server knows, and says so row by row.
      contextLength: Number.MAX_SAFE_INTEGER,
      tokensPerStep: Number.MAX_SAFE_INTEGER,
      takesText: true,
      waits: true,
    };
    this.model = options.model;
    this.#client = new HttpClient(options);
  }

  /** Sends requests, and waits for none. */
  async prefill(chunks: readonly PrefillChunk[]): Promise<readonly SlotResult[]> {
    this.#send(chunks);
    return this.#take(chunks.map(({ slot }) => slot));
  }

  /** Waits until one of these has an answer, or a little while. */
  async decode(slots: readonly number[]): Promise<readonly SlotResult[]> {
    return this.step([], slots);
  }

  async step(chunks: readonly PrefillChunk[], slots: readonly number[]): Promise<readonly SlotResult[]> {
    this.#send(chunks);
    const all = [...chunks.map(({ slot }) => slot), ...slots];
    if (!this.#hasResult(all)) await this.#wait();
    return this.#take(all);
  }

  /** Ends the slot's request, if it is under way. */
  release(slot: number): void {
    const flight = this.#flights.get(slot);
    this.#flights.delete(slot);
    flight?.controller.abort();
  }

  /** Ends all requests that are under way. */
  async close(): Promise<void> {
    this.#closed = true;
    const ended = [...this.#flights.values()].map((flight) => flight.ended);
    for (const slot of [...this.#flights.keys()]) this.release(slot);
    await Promise.all(ended);
  }

  #send(chunks: readonly PrefillChunk[]): void {
    if (this.#closed) throw new HeadraceError("CLOSED", "the engine of an inference server is closed");
    for (const { slot, request, last } of chunks) {
      if (!last) {
        throw new HeadraceError(
          "BAD_OPTION",
          `row ${request.row}: a server takes prompts whole, not in chunks`,
        );
      }
      this.release(slot);
      const controller = new AbortController();
      const flight: Flight = {
        controller,
        result: undefined,
        ended: this.#complete(slot, request, controller.signal, (result) => {
          flight.result = result;
        }),
      };
      this.#flights.set(slot, flight);
    }
  }

  async #complete(
    slot: number,
    request: InferRequest,
    signal: AbortSignal,
    keep: (result: SlotResult) => void,
  ): Promise<void> {
    try {
      const answer = await this.#client.complete(request, signal);
      keep("message" in answer ? { slot, error: answer } : { slot, ...answer });
    } catch (error) {
      if (!signal.aborted) this.#failed ??= { error };
    }
    this.#wake?.();
  }

  #hasResult(slots: readonly number[]): boolean {
    return this.#failed !== undefined || slots.some((slot) => this.#flights.get(slot)?.result !== undefined);
  }

  async #wait(): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, STEP_MS);
    });
    this.#wake = undefined;
    clearTimeout(timer);
  }

  /** Results of `slots` that have come. Throws what is wrong with the server. */
  #take(slots: readonly number[]): SlotResult[] {
    const results: SlotResult[] = [];
    for (const slot of slots) {
      const result = this.#flights.get(slot)?.result;
      if (result === undefined) continue;
      this.#flights.delete(slot);
      results.push(result);
    }
    // What has come is delivered first.
    if (results.length === 0 && this.#failed !== undefined) throw this.#failed.error;
    return results;
  }
}
