/** The settings of a run in words. */
import type { RunRecord } from "./record.ts";
import { amountText, bytesText, requestText } from "./text.ts";

type Setting = RunRecord["settings"][string];

/** Names that say more than the option's own, and values with their units. Of a list each part is put in words. */
const WORDS: Readonly<Record<string, readonly [name: string, value?: (value: string) => string]>> = {
  source: ["dataset"],
  byteLength: ["bytes of each kind of data", (value) => bytesText(Number(value))],
  requestBytes: [
    "bytes of a read",
    (value) => (value === "default" ? "the device's" : requestText(Number(value))),
  ],
  ordinal: ["GPU's number"],
  computeMs: ["device busy with each batch", (value) => `${value} ms`],
  batchBytes: ["bytes of a batch", (value) => requestText(Number(value))],
  prefetch: ["made ready ahead", (value) => amountText(Number(value), "batch", "batches")],
  peers: ["readers of other projects"],
  largerThanMemory: [
    "larger than memory",
    (value) => (value === "true" ? "twice what there is" : `twice a limit of ${requestText(Number(value))}`),
  ],
  rehearsalBytes: [
    "read before each trial",
    (value) => (value === "0" ? "nothing" : requestText(Number(value))),
  ],
  ceilings: ["ceilings", (value) => (value === "true" ? "measured" : "left out")],
};

/** `prefetch` is `made ready ahead`; what has no words of its own is its name, with spaces. */
export function settingName(name: string): string {
  return Object.hasOwn(WORDS, name)
    ? WORDS[name]![0]
    : name.replaceAll(/(?<=[a-z])[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

/** With its unit; empty for an empty list. */
export function settingText(name: string, value: Setting): string {
  const words = Object.hasOwn(WORDS, name) ? WORDS[name]![1] : undefined;
  const parts = (typeof value === "object" ? value : [value]).map(String);
  return parts.map((part) => words?.(part) ?? part).join(", ");
}

/** All but those that are empty. */
export function settingRows(settings: RunRecord["settings"]): [name: string, value: string][] {
  return Object.entries(settings)
    .map(([name, value]): [string, string] => [settingName(name), settingText(name, value)])
    .filter(([, text]) => text !== "");
}
