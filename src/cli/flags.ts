/** The options of the commands, by the names that the library gives them. */

/** Where a command's option is not its library's name with dashes. */
const FLAGS: Readonly<Record<string, string>> = {
  blockSize: "--block",
  windowBlocks: "--window",
  memoryBytes: "--memory",
  timeoutMs: "--timeout",
  contextLength: "--context",
  kvBytes: "--kv-memory",
  apiMode: "--chat",
  chunkBytes: "--chunk",
  addSpecial: "--no-special",
};
/** Names that are options, if with dashes. */
const DASHED =
  "batchSize batchBytes batchLength lengthColumn lastBatch worldSize padTo padValue maxNewTokens topK topP minP repetitionPenalty tokensPerStep kvType apiModel retryFailed shardBytes rowsPerBatch badRows textColumn tokensColumn keepText maxTokens tokensColumn".split(
    " ",
  );
/** Options of `infer` that are plain words, where a message says something of one. */
const INFER_WORDS =
  /(?<!the |[\w/.-])(?:slots|limit|temperature|stop|out|url|fast|pooling|normalize|logprobs|retries|order|scheduler|admit|column|engine|ordinal)(?= is | means nothing)/g;
/** What the library says of options of `infer` in other words than a command line has. */
const INFER_PHRASES: readonly (readonly [RegExp, string])[] = [
  [/^apiMode is chat, which takes text/, "--chat takes text"],
  [/^engine (\w+) wants a (model|url)\b/, "--engine $1 wants --$2"],
  [/^device null\b/, "--device null"],
  [/^resume is false, and /, "--no-resume: "],
  [/go on with resume$/, "go on with --resume"],
  [/^fast: /, "--fast: "],
  [/leave fast out$/, "leave --fast out"],
];

/** And of `pack`. */
const PACK_PHRASES: readonly (readonly [RegExp, string])[] = [
  [/by out, or set overwrite$/, "by --out, or add --overwrite"],
  [/^(casts|schema): /, "--$1: "],
  [/^--casts: /, "--cast: "],
  [/; name others by columns$/, "; name others by --columns"],
  [
    /^(out|to|level|codec|planes|name|delimiter|limit|threads|saturate|schema|rename)(?=:? (is|are|means|compresses|names|the)\b)/,
    "--$1",
  ],
  [/ means nothing without casts$/, " means nothing without --cast"],
  [/ means nothing without tokenizer$/, " means nothing without --tokenizer"],
  [/, and to is /, ", and --to is "],
];

/** And of `bench`. */
const BENCH_NAMES: readonly (readonly [RegExp, string])[] = [
  [/^byteLength is/, "--size is"],
  [/^rehearsalBytes is/, "--rehearsal is"],
  [/^(formats|paths): /, "--$1: "],
  [/^(rounds|seed|prefetch|temperatures|orders|lanes|peers|device|data|ordinal) is/, "--$1 is"],
];

/** `message` of the library with its options named as they are typed after `command`. Names that are plain words
 * (`rank`, `limit`) stand for themselves but in `infer`. */
export function asFlags(message: string, command?: string): string {
  let text = message;
  if (command === "pack") {
    for (const [phrase, typed] of PACK_PHRASES) text = text.replace(phrase, typed);
    return named(text, "--seed");
  }
  if (command === "bench") {
    for (const [phrase, typed] of BENCH_NAMES) text = text.replace(phrase, typed);
    return named(text, "--seed");
  }
  if (command !== "infer") return named(message, "--shuffle");
  for (const [phrase, typed] of INFER_PHRASES) text = text.replace(phrase, typed);
  return named(text, "--seed").replaceAll(INFER_WORDS, "--$&");
}

function named(message: string, seed: string): string {
  return message.replaceAll(/\b[a-z]+[A-Z][A-Za-z]*\b|\bseed\b(?= (?:is|\d|unset))/g, (name) => {
    if (name === "seed") return seed;
    if (DASHED.includes(name))
      return `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    return FLAGS[name] ?? name;
  });
}
