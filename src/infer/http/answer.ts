/** What servers answer, as results. */
import * as v from "valibot";
import type { InferRequest, SlotResult } from "../engine.ts";
import { findStop } from "../stops.ts";

/** A try that came to nothing. */
export interface Failure {
  /** Of any length, and as the server said it. */
  readonly message: string;
  readonly retry: boolean;
  /** Requests that were made for the row; absent is 1. */
  readonly attempts?: number | undefined;
  /** When the server wants to be asked again. */
  readonly retryAfterMs?: number | undefined;
  /** There was no answer of any kind. */
  readonly unreached?: boolean;
  /** As the server would refuse any other request. */
  readonly refused?: boolean;
}

/** A row's result, or why there is none. */
export type Answer = Omit<SlotResult, "slot" | "error"> | Failure;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const optional = <T extends v.GenericSchema>(schema: T) => v.optional(v.nullable(schema));

/** Completions have `text` and lists of logarithms, chats a message and a list of objects; some servers mix them. */
const choice = v.object({
  text: optional(v.string()),
  message: optional(v.object({ content: optional(v.string()) })),
  finish_reason: optional(v.string()),
  logprobs: optional(
    v.object({
      token_logprobs: optional(v.array(v.nullable(v.number()))),
      content: optional(v.array(v.object({ logprob: v.number() }))),
    }),
  ),
});

const answer = v.object({
  choices: v.tupleWithRest([choice], v.unknown()),
  usage: optional(v.object({ prompt_tokens: optional(count), completion_tokens: optional(count) })),
});

const FINISHES: Readonly<Record<string, "stop" | "length">> = {
  stop: "stop",
  eos_token: "stop",
  stop_sequence: "stop",
  length: "length",
};

/** Reads the body of an answer with status 200. */
export function parseAnswer(body: string, request: InferRequest): Answer {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    // A proxy's page, or an answer that was cut off.
    return { message: `the answer is no JSON: ${body}`, retry: true };
  }
  const said = errorText(value);
  if (said !== undefined && !("choices" in Object(value)))
    return { message: `the server answered with an error: ${said}`, retry: false };
  const parsed = v.safeParse(answer, value, { abortEarly: true });
  if (!parsed.success) {
    const [issue] = parsed.issues;
    const path = v.getDotPath(issue) ?? "the answer";
    return { message: `the answer is none: ${path}: ${issue.message}`, retry: false };
  }
  const [{ text, message, finish_reason: reason, logprobs }] = parsed.output.choices;
  if (typeof text !== "string" && !message) {
    return { message: "the answer has neither choices.0.text nor choices.0.message", retry: false };
  }
  const finish = FINISHES[reason ?? ""];
  if (finish === undefined) return unfinished(reason);
  const whole = text ?? message?.content ?? "";
  // A server may not know of stop texts, or leave them in.
  const stop = findStop(whole, request.stopStrings ?? []);
  const numbers = logprobs?.token_logprobs ?? logprobs?.content?.map(({ logprob }) => logprob);
  const wanted = request.logprobs === true && numbers;
  const { usage } = parsed.output;
  return {
    finish: stop === undefined ? finish : "stop",
    text: stop === undefined ? whole : whole.slice(0, stop.start),
    ...(wanted && { logprobs: Float32Array.from(wanted, (logprob) => logprob ?? Number.NaN) }),
    usage: {
      promptTokens: usage?.prompt_tokens ?? request.prompt.length,
      outputTokens: usage?.completion_tokens ?? numbers?.length ?? 0,
    },
  };
}

function unfinished(reason: string | null | undefined): Answer {
  if (reason === undefined || reason === null) {
    return { message: "the answer has no choices.0.finish_reason", retry: false };
  }
  // vLLM's word for a request that it dropped.
  return { message: `the server ended the row with ${reason}`, retry: reason === "abort" };
}

/** What an answer says went wrong; undefined where it says nothing of that kind. */
export function errorText(value: unknown): string | undefined {
  const { error, message, detail } = Object(value) as Record<string, unknown>;
  for (const said of [Object(error).message, error, message, detail]) {
    if (said === undefined || said === null || said === false) continue;
    return typeof said === "string" ? said : JSON.stringify(said);
  }
  return undefined;
}
