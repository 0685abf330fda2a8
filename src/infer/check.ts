/** Which rows cannot run, and why: one line for their output's `error`. */
import type { EngineCapacity, InferRequest, SamplingOptions } from "./engine.ts";

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

/** What is wrong with sampling options; undefined where nothing is. */
export function whyBadSampling(options: SamplingOptions): string | undefined {
  const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1, seed = 0 } = options;
  if (!(temperature >= 0 && temperature < Number.POSITIVE_INFINITY)) {
    return `temperature is ${temperature}; it must be a finite number from 0`;
  }
  if (!(Number.isSafeInteger(topK) && topK >= 0)) return `topK is ${topK}; it must be an integer at least 0`;
  if (!(topP > 0 && topP <= 1)) return `topP is ${topP}; it must be above 0, and at most 1`;
  if (!(minP >= 0 && minP <= 1)) return `minP is ${minP}; it must be from 0 to 1`;
  if (!(repetitionPenalty > 0 && repetitionPenalty < Number.POSITIVE_INFINITY)) {
    return `repetitionPenalty is ${repetitionPenalty}; it must be a finite number above 0`;
  }
  if (!(Number.isSafeInteger(seed) && seed >= 0)) return `seed is ${seed}; it must be an integer at least 0`;
  return undefined;
}
