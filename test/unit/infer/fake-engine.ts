/** An engine whose tokens are a function of row and position alone, and that holds callers to its interface. */
import type { Engine, EngineCapacity, InferRequest, PrefillChunk, SlotResult } from "../../../src/index.ts";

/** The token at `position` of a row's sequence, for a vocabulary of `vocab`. */
export function tokenOf(row: number, position: number, vocab: number): number {
  let bits = Math.imul(row + 1, 0x9e3779b1) ^ Math.imul(position + 1, 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 15), 0x2c1b3c6d);
  return ((bits ^ (bits >>> 13)) >>> 0) % vocab;
}

/** How the engine is made. */
export interface FakeOptions extends Partial<EngineCapacity> {
  /** Token ids are below it; default 50. */
  readonly vocab?: number;
  /** Tokens of a block, and blocks in all; there is always memory without. */
  readonly blockTokens?: number;
  readonly numBlocks?: number;
  /** Whether there is a `step`; otherwise prefill and decode are called. Default true. */
  readonly together?: boolean;
  /** What becomes of a row at its `tokens`-th token, at its `attempt`-th try, from 1. */
  readonly failure?: (row: number, tokens: number, attempt: number) => SlotResult["error"];
  /** Called at the beginning of each step. */
  readonly onStep?: (chunks: readonly PrefillChunk[], slots: readonly number[]) => void | Promise<void>;
}

interface Running {
  readonly request: InferRequest;
  /** Tokens whose state the engine holds. */
  held: Int32Array;
  /** The one that it gave last, and does not hold yet. */
  next: number | undefined;
  reserved: number;
}

/** Throws where it is not called as it should be. */
export class FakeEngine implements Engine {
  readonly capacity: EngineCapacity;
  readonly vocab: number;
  /** How often each row was begun without a token of its own: once a try, and again where it is put back before it has
   * made one. */
  readonly begins = new Map<number, number>();
  steps = 0;
  prefilledTokens = 0;
  decodedTokens = 0;
  mostRunning = 0;
  blocksInUse = 0;
  readonly reserve?: (slot: number, tokens: number) => boolean;
  readonly step?: NonNullable<Engine["step"]>;
  readonly #options: FakeOptions;
  readonly #running = new Map<number, Running>();
  readonly #reserved = new Map<number, number>();
  /** Tries of each row that have failed. */
  readonly #failures = new Map<number, number>();
  #busy = false;

  constructor(options: FakeOptions = {}) {
    const { slots = 4, contextLength = 128, tokensPerStep = 32 } = options;
    const { takesText, promptsOnly } = options;
    this.capacity = { slots, contextLength, tokensPerStep, takesText, promptsOnly };
    this.vocab = options.vocab ?? 50;
    this.#options = options;
    if (options.numBlocks !== undefined) this.reserve = (slot, tokens) => this.#reserve(slot, tokens);
    if (options.together !== false) this.step = (chunks, slots) => this.#step(chunks, slots);
  }

  /** Slots that are not released. */
  get numHeld(): number {
    return this.#running.size;
  }

  prefill(chunks: readonly PrefillChunk[]): Promise<readonly SlotResult[]> {
    return this.#step(chunks, []);
  }

  decode(slots: readonly number[]): Promise<readonly SlotResult[]> {
    return this.#step([], slots);
  }

  release(slot: number): void {
    if (this.#busy) throw new Error(`slot ${slot} is released during a step`);
    if (!this.#running.delete(slot) && !this.#reserved.has(slot))
      throw new Error(`slot ${slot} is free already`);
    this.blocksInUse -= this.#reserved.get(slot) ?? 0;
    this.#reserved.delete(slot);
  }

  #reserve(slot: number, tokens: number): boolean {
    const { blockTokens = 4, numBlocks = 0 } = this.#options;
    const wanted = Math.ceil(tokens / blockTokens);
    const more = wanted - (this.#reserved.get(slot) ?? 0);
    if (more <= 0) return true;
    if (this.blocksInUse + more > numBlocks) return false;
    this.blocksInUse += more;
    this.#reserved.set(slot, wanted);
    return true;
  }

  async #step(chunks: readonly PrefillChunk[], slots: readonly number[]): Promise<readonly SlotResult[]> {
    if (this.#busy) throw new Error("a step begins during another");
    this.#busy = true;
    try {
      await this.#options.onStep?.(chunks, slots);
      this.#checkStep(chunks, slots);
      this.steps++;
      const results = chunks.flatMap((chunk) => this.#prefillOne(chunk) ?? []);
      for (const slot of slots) results.push(this.#decodeOne(slot));
      this.mostRunning = Math.max(this.mostRunning, this.#running.size);
      return results;
    } finally {
      this.#busy = false;
    }
  }

  #checkStep(chunks: readonly PrefillChunk[], slots: readonly number[]): void {
    const all = [...chunks.map(({ slot }) => slot), ...slots];
    if (all.length === 0) throw new Error("a step does nothing");
    if (new Set(all).size < all.length) throw new Error(`a slot comes twice: ${all}`);
    for (const slot of all) {
      if (!(slot >= 0 && slot < this.capacity.slots)) throw new Error(`there is no slot ${slot}`);
    }
    const tokens = chunks.reduce((sum, chunk) => sum + chunk.tokens.length, slots.length);
    if (tokens > this.capacity.tokensPerStep) throw new Error(`${tokens} tokens in a step`);
  }

  #prefillOne({ slot, position, tokens, last, generated, request }: PrefillChunk): SlotResult | undefined {
    if (position === 0) {
      if (this.#running.has(slot)) throw new Error(`slot ${slot} is started anew and was not released`);
      const reserved = this.#reserved.get(slot) ?? 0;
      this.#running.set(slot, { request, held: new Int32Array(0), next: undefined, reserved });
      if (generated === 0) this.begins.set(request.row, (this.begins.get(request.row) ?? 0) + 1);
    }
    const running = this.#running.get(slot);
    if (running === undefined) throw new Error(`slot ${slot} goes on and was never started`);
    if (running.request !== request) throw new Error(`slot ${slot} is another row's`);
    if (position !== running.held.length) throw new Error(`slot ${slot} leaves a hole at ${position}`);
    if (tokens.length === 0) throw new Error(`slot ${slot} has an empty chunk`);
    this.prefilledTokens += tokens.length;
    this.#hold(slot, running, tokens);
    const whole = request.prompt.length + generated;
    if (last !== (running.held.length === whole)) throw new Error(`slot ${slot}: last is ${last}`);
    return last ? this.#next(slot, running) : undefined;
  }

  #decodeOne(slot: number): SlotResult {
    const running = this.#running.get(slot);
    if (running?.next === undefined) throw new Error(`slot ${slot} decodes and has no token`);
    this.decodedTokens++;
    this.#hold(slot, running, Int32Array.of(running.next));
    return this.#next(slot, running);
  }

  #hold(slot: number, running: Running, tokens: Int32Array): void {
    const held = new Int32Array(running.held.length + tokens.length);
    held.set(running.held);
    held.set(tokens, running.held.length);
    running.held = held;
    if (held.length > this.capacity.contextLength) throw new Error(`slot ${slot} is past the context`);
    if (this.reserve === undefined) return;
    const room = (this.#reserved.get(slot) ?? 0) * (this.#options.blockTokens ?? 4);
    if (held.length > room)
      throw new Error(`slot ${slot} holds ${held.length} tokens, and ${room} are reserved`);
  }

  #next(slot: number, running: Running): SlotResult {
    const { request, held } = running;
    const made = held.length - request.prompt.length;
    for (let i = 0; i < held.length; i++) {
      const expected = i < request.prompt.length ? request.prompt[i] : this.#token(request.row, i);
      if (held[i] !== expected) throw new Error(`slot ${slot} holds a wrong token at ${i}`);
    }
    const failures = this.#failures.get(request.row) ?? 0;
    const error = this.#options.failure?.(request.row, made, failures + 1);
    if (error !== undefined) {
      this.#failures.set(request.row, failures + 1);
      return { slot, error };
    }
    running.next = this.#token(request.row, held.length);
    return { slot, token: running.next, logprob: -running.next };
  }

  #token(row: number, position: number): number {
    return tokenOf(row, position, this.vocab);
  }
}
