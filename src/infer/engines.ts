/** Opens the engine that a job asks for. */

import { openEmbedder } from "./embed.ts";
import type { Engine } from "./engine.ts";
import { openHttpEngine } from "./http/engine.ts";
import { openLlama } from "./llama/engine.ts";
import type { ResolvedInferOptions } from "./options.ts";

/** The engine of a job, opened when it is first asked for. One of the caller's own stays open when this is disposed. */
export class JobEngine implements AsyncDisposable {
  readonly #job: ResolvedInferOptions;
  #opened: Engine | undefined;

  constructor(job: ResolvedInferOptions) {
    this.#job = job;
  }

  /** Throws what opening throws. */
  async open(): Promise<Engine> {
    const { engine } = this.#job;
    if (typeof engine === "object") return engine.engine;
    this.#opened ??= await openNamed(this.#job, engine);
    return this.#opened;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened?.close?.();
  }
}

function openNamed(job: ResolvedInferOptions, name: "llama" | "embed" | "http"): Promise<Engine> {
  const { device, slots, signal } = job;
  if (name === "http") {
    const { url, apiModel: model, apiKey, apiMode: mode, retries } = job;
    return openHttpEngine({ url: url!, model, apiKey, mode, slots, retries }, signal);
  }
  const { contextLength, tokensPerStep, kvBytes, kvType, fast } = job;
  const options = { slots, contextLength, tokensPerStep, kvBytes, kvType, fast, signal };
  if (name === "llama") return openLlama(job.model!, device, options);
  const { pooling, normalize } = job;
  return openEmbedder(job.model!, device, { ...options, pooling, normalize });
}
