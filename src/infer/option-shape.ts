/** Options as they come from code that nothing has checked: names, kinds of values, and what an engine takes no notice of. */
import { HeadraceError } from "../errors.ts";
import { didYouMean } from "../format/suggest.ts";
import type { InferOptions } from "./options.ts";
import { checkEngine, refuse } from "./shape.ts";

/** All options there are: the type holds it. */
const NAMES: Readonly<Record<keyof InferOptions, true>> = {
  source: true,
  out: true,
  device: true,
  model: true,
  engine: true,
  column: true,
  limit: true,
  slots: true,
  maxNewTokens: true,
  stop: true,
  stopIds: true,
  logprobs: true,
  order: true,
  scheduler: true,
  admit: true,
  timeoutMs: true,
  fast: true,
  resume: true,
  retryFailed: true,
  contextLength: true,
  tokensPerStep: true,
  kvBytes: true,
  kvType: true,
  pooling: true,
  normalize: true,
  url: true,
  apiModel: true,
  apiKey: true,
  apiMode: true,
  retries: true,
  drain: true,
  signal: true,
  onProgress: true,
  tracer: true,
  temperature: true,
  topK: true,
  topP: true,
  minP: true,
  repetitionPenalty: true,
  seed: true,
};

/** Options of tokens that are made, of which an engine that embeds makes none. */
const OF_TOKENS = [
  "stop",
  "stopIds",
  "logprobs",
  "temperature",
  "topK",
  "topP",
  "minP",
  "repetitionPenalty",
  "seed",
] as const;

/** Throws `BAD_OPTION` for names that there are not, and where what a job cannot do without is missing or of another kind:
 * source, out, device, and what an engine of one's own consists of. */
export function checkShape(options: InferOptions): void {
  const found: unknown = options;
  if (typeof found !== "object" || found === null) refuse("options", found, "an object");
  for (const name of Object.keys(options)) {
    if (name in NAMES) continue;
    const hint = didYouMean(name, Object.keys(NAMES));
    throw new HeadraceError("BAD_OPTION", `there is no option ${name}${hint}`);
  }
  const { source, out, device, engine } = options;
  const isSource = (value: unknown) => typeof value === "string" && value !== "";
  if (!(isSource(source) || (Array.isArray(source) && source.length > 0 && source.every(isSource)))) {
    refuse("source", source, "a path, or a list of them");
  }
  if (!isSource(out)) refuse("out", out, "the path of a folder");
  const hasFacts = typeof device?.capabilities === "object" && device.capabilities !== null;
  if (!hasFacts) refuse("device", device, "what openDevice gives");
  if (engine === undefined || typeof engine === "string") return;
  if (typeof engine !== "object" || engine === null) refuse("engine", engine, "a name or { engine, name }");
  checkEngine(engine.engine);
  if (!isSource(engine.name)) refuse("the engine's name", engine.name, "a text that tells its answers apart");
}

/** Throws `BAD_OPTION` where `embed` is asked for what tokens alone have. */
export function checkEmbeds(options: InferOptions): void {
  if (options.engine !== "embed") return;
  const name = OF_TOKENS.find((one) => {
    const value = options[one];
    return value !== undefined && value !== false && !(Array.isArray(value) && value.length === 0);
  });
  if (name === undefined) return;
  const what = name === "logprobs" ? "there are no logprobs of them" : `${name} means nothing to it`;
  throw new HeadraceError("BAD_OPTION", `engine embed makes no tokens, so ${what}`);
}
