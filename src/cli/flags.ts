/** The options of the commands, by the names that the library gives them. */

/** Where a command's option is not its library's name with dashes. */
const FLAGS: Readonly<Record<string, string>> = {
  blockSize: "--block",
  windowBlocks: "--window",
  memoryBytes: "--memory",
  timeoutMs: "--timeout",
  contextLength: "--context",
  kvBytes: "--kv-memory",
};
/** Names that are options, if with dashes. */
const DASHED =
  "batchSize batchBytes batchLength lengthColumn lastBatch worldSize padTo padValue maxNewTokens topK topP minP repetitionPenalty tokensPerStep kvType apiModel".split(
    " ",
  );

/** `message` of the library with its options named as they are typed after `command`. Names that are plain words
 * (`rank`, `limit`) stand for themselves. */
export function asFlags(message: string, command?: string): string {
  const seed = command === "infer" ? "seed" : "--shuffle";
  return message.replaceAll(/\b[a-z]+[A-Z][A-Za-z]*\b|\bseed\b(?= (?:is|\d|unset))/g, (name) => {
    if (name === "seed") return seed;
    if (DASHED.includes(name))
      return `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    return FLAGS[name] ?? name;
  });
}
