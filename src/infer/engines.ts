/** Opens the engine that a job asks for. */
import { openEmbed } from "./embed.ts";
import type { Engine } from "./engine.ts";
import { openHttpEngine } from "./http/engine.ts";
import { openLlama } from "./llama/engine.ts";
import type { ResolvedInferOptions } from "./options.ts";

/** An engine for as long as the job runs. */
export interface OpenedEngine extends AsyncDisposable {
  readonly engine: Engine;
}

/** Opens the engine of `job`; one of the caller's own stays open when this is disposed. Throws what opening it throws. */
export async function openEngine(job: ResolvedInferOptions): Promise<OpenedEngine> {
  if (typeof job.engine === "object") {
    return { engine: job.engine.engine, async [Symbol.asyncDispose]() {} };
  }
  const engine = await openOwn(job);
  return {
    engine,
    async [Symbol.asyncDispose]() {
      await engine.close?.();
    },
  };
}
