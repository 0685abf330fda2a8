/** Opens the engine that a job asks for. */

import { openEmbedder } from "./embed.ts";
import type { Engine } from "./engine.ts";
import { openHttpEngine } from "./http/engine.ts";
import { openLlama } from "./llama/engine.ts";
import type { ResolvedInferOptions } from "./options.ts";

/** An engine for as long as a job runs. */
export interface OpenedEngine extends AsyncDisposable {
  readonly engine: Engine;
}

/** Opens the engine of `job`; one of the caller's own stays open when this is disposed. Throws what opening throws. */
export async function openEngine(job: ResolvedInferOptions): Promise<OpenedEngine> {
  if (typeof job.engine === "object") return { engine: job.engine.engine, async [Symbol.asyncDispose]() {} };
  const engine = await openNamed(job, job.engine);
  return { engine, [Symbol.asyncDispose]: async () => engine.close?.() };
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
