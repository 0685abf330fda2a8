/** Which rows cannot run, and why: one line for their output's `error`. */
import type { EngineCapacity, InferRequest } from "./engine.ts";
import { whyBadSampling } from "./sampling.ts";

/** Why an engine of this capacity can never run `request`; undefined where it can. */
export function whyImpossible(request: InferRequest, capacity: EngineCapacity): string | undefined {
  const { prompt, text, maxNewTokens } = request;
  const { contextLength, takesText, promptsOnly } = capacity;
  if (prompt.length === 0 && (takesText !== true || text === undefined || text === "")) {
    return "the prompt is empty";
  }
  if (promptsOnly === true && prompt.length > contextLength) {
    return `the prompt has ${prompt.length} tokens, more than the context of ${contextLength}`;
  }
  if (promptsOnly !== true && prompt.length >= contextLength) {
    return `the prompt has ${prompt.length} tokens, and the context of ${contextLength} leaves no room for one more`;
  }
  if (promptsOnly !== true && !(Number.isSafeInteger(maxNewTokens) && maxNewTokens >= 1)) {
    return `maxNewTokens is ${maxNewTokens}; it must be an integer at least 1`;
  }
  if (request.timeoutMs !== undefined && !(request.timeoutMs > 0)) {
    return `timeoutMs is ${request.timeoutMs}; it must be above 0`;
  }
  if (request.stopStrings?.includes("")) return "one of the stop strings is empty";
  return request.sampling && whyBadSampling(request.sampling);
}
