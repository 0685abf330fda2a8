/** Decides which sequences run: admits, chunks, retires. Touches no device, and has no clock of its own. */
import { HeadraceError } from "../errors.ts";
import { whyImpossible } from "./check.ts";
import type { EngineCapacity, InferRequest, PrefillChunk, SlotResult } from "./engine.ts";
import type { InferOutput } from "./output.ts";
import { badEngine, checkResult, Silence } from "./results.ts";
import {
  type ResolvedScheduling,
  resolveScheduling,
  retryDelayMs,
  type SchedulerCounts,
  type SchedulerOptions,
} from "./scheduling.ts";
import { Sequence } from "./sequence.ts";
import { checkRequest } from "./shape.ts";
import { Slots } from "./slots.ts";
import type { SlotMemory, StepOutcome, StepPlan } from "./step.ts";
import { WaitingRows } from "./waiting.ts";

/**
 * The running batch. Call {@link Scheduler.plan}, have an engine do it, give what it says to {@link Scheduler.apply};
 * {@link Scheduler.takeFinished} may have rows after each of these.
 *
 * A step decodes every slot that can, and prefills with the tokens that are left, the oldest sequence first. The oldest
 * one gets further at every step that the engine does, whatever memory there is: where there is none the youngest is
 * put back, and prefilled again later with what it has made.
 */
export class Scheduler {
  readonly #capacity: EngineCapacity;
  readonly #memory: SlotMemory;
  readonly #options: ResolvedScheduling;
  readonly #slots: Slots;
  readonly #waiting: WaitingRows;
  readonly #counts = { promptTokens: 0, outputTokens: 0, putBacks: 0, retries: 0 };
  readonly #silence = new Silence();
  #plan: StepPlan | undefined;
  #finished: InferOutput[] = [];
  #arrivals = 0;
  #admissions = 0;
  #step = 0;
  #ended = false;
  /** Whether any row may have been cancelled or timed out. */
  #watches = false;

  /** Borrows `memory`, which is the engine. Throws `BAD_OPTION`. */
  constructor(capacity: EngineCapacity, memory: SlotMemory, options: SchedulerOptions = {}) {
    this.#capacity = capacity;
    this.#memory = memory;
    this.#options = resolveScheduling(capacity, options);
    this.#slots = new Slots(this.#options.slots);
    this.#waiting = new WaitingRows(this.#options.order);
  }

  get counts(): SchedulerCounts {
    return this.#counts;
  }

  /** Slots that are used at most. */
  get numSlots(): number {
    return this.#slots.count;
  }

  get numRunning(): number {
    return this.#slots.running.length;
  }

  /** Rows that wait for a slot, or for their next try. */
  get numWaiting(): number {
    return this.#waiting.length;
  }

  /** Rows for which there is room now; outputs that nobody has taken count as if they waited. */
  get room(): number {
    return this.#ended
      ? 0
      : Math.max(0, this.#options.maxWaiting - this.#waiting.length - this.#finished.length);
  }

  /** Whether rows could be begun, if only they were there. */
  get starved(): boolean {
    if (this.#ended || this.#slots.numFree === 0 || (this.#options.static && this.numRunning > 0))
      return false;
    return this.#waiting.numReady < this.#wanted;
  }

  /** Whether nothing runs or waits. What has finished may still be there to take. */
  get idle(): boolean {
    return this.numRunning === 0 && this.numWaiting === 0;
  }

  /** When a row that waits for its next try can be begun, ms; Infinity where none waits for that. */
  get nextWakeMs(): number {
    return this.#waiting.nextWakeMs;
  }

  /**
   * Takes a row in; one that can never run ends at once. There need not be {@link Scheduler.room} for it: that may have
   * gone while the row was on its way. Throws `BAD_OPTION` where `request` is none, or its row no row's number, where stop
   * strings are asked for and nothing can decode, or after {@link Scheduler.end}.
   */
  add(request: InferRequest): void {
    checkRequest(request);
    if (this.#ended) {
      throw new HeadraceError("BAD_OPTION", `row ${request.row} was added after the end`);
    }
    const needsText = this.#capacity.takesText !== true && (request.stopStrings?.length ?? 0) > 0;
    if (needsText && this.#options.decode === undefined) {
      const text = `row ${request.row} has stop strings, and there is no decode to look for them with`;
      throw new HeadraceError("BAD_OPTION", text);
    }
    const sequence = new Sequence(request, this.#arrivals++, this.#capacity, this.#options.decode);
    const why = whyImpossible(request, this.#capacity);
    if (why !== undefined) {
      this.#finished.push(sequence.fail(why));
      return;
    }
    this.#watches ||= request.signal !== undefined || request.timeoutMs !== undefined;
    this.#waiting.add(sequence);
  }

  /** No more rows will come. */
  end(): void {
    this.#ended = true;
  }

  /** No more rows are begun: those that wait and have not run are dropped, without an output. */
  drain(): void {
    this.#ended = true;
    this.#waiting.takeOut(({ age }) => age < 0);
  }

  /** Drops everything and frees all slots. */
  abort(): void {
    this.#ended = true;
    this.#waiting.takeOut(() => true);
    for (const sequence of this.#slots.running.toReversed()) this.#leave(sequence);
  }

  /** Outputs since the last call, in the order in which they came to be. */
  takeFinished(): InferOutput[] {
    const finished = this.#finished;
    if (finished.length > 0) this.#finished = [];
    return finished;
  }

  /** The next step; the one before has been applied. `nowMs` is on the caller's clock, which never goes back. */
  plan(nowMs: number): StepPlan {
    this.#step++;
    if (this.#watches) this.#endOverdue(nowMs);
    this.#waiting.wake(nowMs);
    const slots = this.#planDecode();
    const chunks: PrefillChunk[] = [];
    let left = this.#options.tokensPerStep - slots.length;
    for (const sequence of this.#slots.running) {
      if (left <= 0) break;
      if (sequence.prefilling) left -= this.#planChunk(sequence, left, chunks);
    }
    if (this.#mayAdmit()) left = this.#admit(left, chunks, nowMs);
    const prefillTokens = this.#options.tokensPerStep - slots.length - left;
    this.#plan = { chunks, slots, prefillTokens, numRunning: this.numRunning };
    return this.#plan;
  }

  /** Takes what the engine said of the step that was planned last. Throws `BAD_ENGINE`. */
  apply(results: readonly SlotResult[], nowMs: number): StepOutcome {
    const firstTokenMs: number[] = [];
    let gave = false;
    for (const result of results) {
      const { token, finish, error } = result;
      const sequence = this.#slots.at(result.slot);
      if (sequence === undefined || sequence.step !== this.#step) {
        throw badEngine(result.slot, "has a result, and took no part in this step or has one already");
      }
      checkResult(result);
      sequence.step = -1;
      gave ||= token !== undefined || finish !== undefined || error !== undefined;
      this.#applyOne(sequence, result, nowMs, firstTokenMs);
    }
    const { waits = this.#capacity.takesText } = this.#capacity;
    if (waits !== true) this.#silence.count(this.#plan, gave);
    return { firstTokenMs };
  }

  #applyOne(sequence: Sequence, result: SlotResult, nowMs: number, firstTokenMs: number[]): void {
    const { slot, token, error } = result;
    if (error !== undefined) {
      this.#failOrRetry(sequence, error, nowMs);
      return;
    }
    if (token === undefined && result.finish === undefined) return;
    if (sequence.prefilling) throw badEngine(slot, "has a result before its prompt is prefilled");
    if (!sequence.answered) firstTokenMs.push(nowMs - sequence.admittedMs);
    sequence.answered = true;
    let finish = result.finish;
    if (token !== undefined) {
      const before = sequence.numTokens;
      const own = sequence.take(token, result.logprob);
      this.#counts.outputTokens += sequence.numTokens - before;
      if (own === "stop" || finish === undefined) finish = own;
    }
    if (finish === undefined) return;
    const output = sequence.finish(finish, result);
    this.#counts.outputTokens += output.outputTokens - sequence.numTokens;
    this.#counts.promptTokens += output.promptTokens;
    this.#leave(sequence);
    this.#finished.push(output);
  }

  /** Slots that decode one more token: all that are prefilled, and for whose next token there is room. */
  #planDecode(): number[] {
    const slots: number[] = [];
    const { running } = this.#slots;
    // Those that are put back are younger: they leave the end of the list.
    for (let i = 0; i < running.length; ) {
      const sequence = running[i]!;
      if (!sequence.prefilling) {
        if (!this.#grow(sequence)) continue;
        sequence.step = this.#step;
        slots.push(sequence.slot);
      }
      i++;
    }
    return slots;
  }

  /** Makes room for one more token. False where the sequence has lost its slot. */
  #grow(sequence: Sequence): boolean {
    const { running } = this.#slots;
    while (!this.#reserve(sequence.slot, sequence.length)) {
      const youngest = running.at(-1)!;
      if (youngest === sequence && running.length === 1) {
        const tokens = `its first ${sequence.length} tokens`;
        this.#fail(sequence, `the engine's memory does not hold ${tokens}, even alone`);
        return false;
      }
      this.#putBack(youngest);
      if (youngest === sequence) return false;
    }
    return true;
  }

  #reserve(slot: number, tokens: number): boolean {
    return this.#memory.reserve?.(slot, tokens) ?? true;
  }

  /** Tokens that it takes. */
  #planChunk(sequence: Sequence, most: number, chunks: PrefillChunk[]): number {
    const chunk = sequence.takeChunk(most);
    sequence.step = this.#step;
    chunks.push(chunk);
    return chunk.tokens.length;
  }

  #mayAdmit(): boolean {
    return !this.#options.static || (this.numRunning === 0 && this.#waiting.numReady >= this.#wanted);
  }

  /** Rows that have to be there before any is begun: a whole batch, if as many can come. */
  get #wanted(): number {
    if (this.#ended || !this.#options.static) return 1;
    return Math.max(1, Math.min(this.#slots.count, this.#options.maxWaiting - this.#waiting.numDelayed));
  }

  /** Begins rows while there are slots, tokens and memory; what is left of the tokens. A static batch is admitted whole,
   * though its last rows be prefilled at later steps. */
  #admit(tokens: number, chunks: PrefillChunk[], nowMs: number): number {
    let left = tokens;
    while (this.#slots.numFree > 0 && (left > 0 || this.#options.static)) {
      const sequence = this.#waiting.peek();
      if (sequence === undefined) break;
      // The first token that is made takes room too, unless it is the last.
      const wanted = Math.min(sequence.unfilled + 1, Math.max(sequence.tokenBound - 1, sequence.unfilled));
      if (!this.#reserve(this.#slots.nextFree, wanted)) {
        // None goes before it: one that was put back gets its memory when enough have ended.
        if (this.numRunning > 0) break;
        this.#waiting.shift();
        this.#fail(sequence, `the engine's memory does not hold its first ${wanted} tokens, even alone`);
        continue;
      }
      this.#waiting.shift();
      this.#slots.take(sequence);
      if (sequence.age < 0) sequence.age = this.#admissions++;
      if (Number.isNaN(sequence.admittedMs)) sequence.admittedMs = nowMs;
      if (left > 0) left -= this.#planChunk(sequence, left, chunks);
    }
    return left;
  }

  #putBack(sequence: Sequence): void {
    this.#counts.putBacks++;
    this.#memory.release(this.#slots.free(sequence));
    sequence.putBack();
    this.#waiting.putBack(sequence);
  }

  #failOrRetry(sequence: Sequence, error: NonNullable<SlotResult["error"]>, nowMs: number): void {
    if (!error.retry || sequence.failures >= this.#options.maxRetries) {
      this.#fail(sequence, error.message, error.attempts);
      return;
    }
    this.#counts.retries++;
    this.#counts.outputTokens -= sequence.numTokens;
    this.#leave(sequence);
    const delayMs = error.retryAfterMs ?? retryDelayMs(this.#options, sequence.failures);
    sequence.startOver();
    sequence.notBeforeMs = nowMs + Math.max(0, delayMs);
    this.#waiting.delay(sequence);
  }

  #fail(sequence: Sequence, why: string, tries?: number): void {
    this.#counts.outputTokens -= sequence.numTokens;
    const output = sequence.fail(why, tries);
    if (sequence.slot >= 0) this.#leave(sequence);
    this.#finished.push(output);
  }

  #leave(sequence: Sequence): void {
    this.#memory.release(this.#slots.free(sequence));
  }

  #endOverdue(nowMs: number): void {
    for (const sequence of this.#slots.running.slice()) {
      const why = sequence.whyOverdue(nowMs);
      if (why !== undefined) this.#fail(sequence, why);
    }
    for (const sequence of this.#waiting.takeOut((one) => one.whyOverdue(nowMs) !== undefined)) {
      this.#fail(sequence, sequence.whyOverdue(nowMs)!);
    }
  }
}
