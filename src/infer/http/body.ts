/** A row as the JSON that servers take. */
import type { InferRequest } from "../engine.ts";
import type { ResolvedHttp } from "./options.ts";

/**
 * The body of the request for one row; or why there can be none. Prompts go as text where the row has it, else as token
 * ids, which only `completions` takes. Options that change nothing are left out, as not every server knows them all.
 */
export function requestBody(
  request: InferRequest,
  { model, mode, system }: Pick<ResolvedHttp, "model" | "mode" | "system">,
): Readonly<Record<string, unknown>> | string {
  const { prompt, text, maxNewTokens, stopStrings, stopIds, logprobs } = request;
  if (mode === "chat" && text === undefined) return "chat takes text, and the row has token ids alone";
  const messages = [
    ...(system === undefined ? [] : [{ role: "system", content: system }]),
    { role: "user", content: text },
  ];
  return {
    ...(model === undefined ? {} : { model }),
    ...(mode === "chat" ? { messages } : { prompt: text ?? Array.from(prompt) }),
    max_tokens: maxNewTokens,
    stream: false,
    ...samplingFields(request),
    ...(stopStrings !== undefined && stopStrings.length > 0 ? { stop: stopStrings } : {}),
    ...(stopIds !== undefined && stopIds.length > 0 ? { stop_token_ids: stopIds } : {}),
    ...(logprobs === true ? { logprobs: mode === "chat" ? true : 1 } : {}),
  };
}

function samplingFields({ row, sampling = {} }: InferRequest): Record<string, number> {
  const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1, seed = 0 } = sampling;
  const fields: Record<string, number> = { temperature };
  if (repetitionPenalty !== 1) {
    fields.repetition_penalty = repetitionPenalty;
    // llama.cpp's name for it.
    fields.repeat_penalty = repetitionPenalty;
  }
  if (temperature === 0) return fields;
  if (topP !== 1) fields.top_p = topP;
  if (topK !== 0) fields.top_k = topK;
  if (minP !== 0) fields.min_p = minP;
  fields.seed = serverSeed(seed, row);
  return fields;
}

/** A row's own seed, 31 bits, as servers take them: the finalizer of SplitMix64 (Steele, Lea, Flood, 2014) over both. */
export function serverSeed(seed: number, row: number): number {
  let bits = mix(BigInt(seed) + 0x9e3779b97f4a7c15n);
  bits = mix(bits ^ BigInt(row));
  return Number(bits >> 33n);
}

function mix(value: bigint): bigint {
  let bits = BigInt.asUintN(64, value);
  bits = BigInt.asUintN(64, (bits ^ (bits >> 30n)) * 0xbf58476d1ce4e5b9n);
  bits = BigInt.asUintN(64, (bits ^ (bits >> 27n)) * 0x94d049bb133111ebn);
  return bits ^ (bits >> 31n);
}
