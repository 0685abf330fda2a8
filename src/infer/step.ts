/** What passes between a scheduler and those who do its steps. */
import type { PrefillChunk } from "./engine.ts";

/** The part of an engine that knows how much memory there is. */
export interface SlotMemory {
  reserve?(slot: number, tokens: number): boolean;
  release(slot: number): void;
}

/** What a step is to do. It does nothing where both lists are empty. */
export interface StepPlan {
  readonly chunks: readonly PrefillChunk[];
  /** Those that decode. */
  readonly slots: readonly number[];
  /** Of all chunks. */
  readonly prefillTokens: number;
  /** Slots in use, those that wait for their turn to be prefilled too. */
  readonly numRunning: number;
}

/** What came of a step. */
export interface StepOutcome {
  /** For each row that made its first token: the time since it was first admitted, ms. */
  readonly firstTokenMs: readonly number[];
}
