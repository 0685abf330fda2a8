/** The options of the commands, by the names that the library gives them. */

const FLAGS: Readonly<Record<string, string>> = {
  batchSize: "--batch-size",
  batchBytes: "--batch-bytes",
  batchLength: "--batch-length",
  lengthColumn: "--length-column",
  lastBatch: "--last-batch",
  seed: "--shuffle",
  blockSize: "--block",
  windowBlocks: "--window",
  worldSize: "--world-size",
  memoryBytes: "--memory",
  padTo: "--pad-to",
  padValue: "--pad-value",
  timeoutMs: "--timeout",
};

/** `message` of the library with its options named as they are typed. Names that are plain words (`rank`,
 * `limit`) stand for themselves. */
export function asFlags(message: string): string {
  return message.replaceAll(
    /\b[a-z]+[A-Z][A-Za-z]*\b|\bseed\b(?= (?:is|\d|unset))/g,
    (name) => FLAGS[name] ?? name,
  );
}
