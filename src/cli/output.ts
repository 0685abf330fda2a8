/** What the commands share in how they speak: exit codes, numbers for people, tables, option values. */
import { InvalidArgumentError } from "commander";

/** What a shell sees. */
export const ExitCode = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** Bytes in decimal units, three digits: `12.3 MB`. */
export function bytesText(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  let value = bytes;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${units[unit]}`;
}

/** A count with thousands set apart. */
export function countText(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** Seconds or milliseconds, three digits. */
export function timeText(ms: number): string {
  return ms >= 1000 ? `${(ms / 1000).toPrecision(3)} s` : `${ms.toPrecision(3)} ms`;
}

/** Prints a table without rules between its rows. The first row is the head where `head` is given. */
export async function printTable(
  rows: readonly (readonly string[])[],
  head?: readonly string[],
): Promise<void> {
  const { default: Table } = await import("cli-table3");
  const plain = !process.stdout.isTTY;
  const table = new Table({
    ...(head === undefined ? {} : { head: [...head] }),
    chars: PLAIN_LINES,
    style: { "padding-left": 0, "padding-right": 2, head: plain ? [] : ["bold"], border: [], compact: true },
  });
  for (const row of rows) table.push([...row]);
  console.log(table.toString().replaceAll(/ +$/gm, ""));
}

const PLAIN_LINES = Object.fromEntries(
  ["top", "bottom", "left", "right", "mid"]
    .flatMap((side) => [side, `${side}-mid`, `${side}-left`, `${side}-right`])
    .concat(["middle"])
    .map((name) => [name, ""]),
);

/** Parses a whole number of an option from `least`. */
export function wholeNumber(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= least) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${least}.`);
  };
}

const BYTE_UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 1e3,
  kb: 1e3,
  kib: 2 ** 10,
  m: 1e6,
  mb: 1e6,
  mib: 2 ** 20,
  g: 1e9,
  gb: 1e9,
  gib: 2 ** 30,
};

/** Parses `4096`, `64MiB`, `1.5GB` to bytes. */
export function byteCount(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text);
  const unit = BYTE_UNITS[match?.[2]?.toLowerCase() ?? "?"];
  const bytes = Math.floor(Number(match?.[1]) * (unit ?? Number.NaN));
  if (Number.isSafeInteger(bytes) && bytes >= 1) return bytes;
  throw new InvalidArgumentError("It must be a number of bytes, such as 4096, 64MiB or 1.5GB.");
}

/** Parses `a,b,c`. */
export function nameList(text: string): string[] {
  const names = text
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
  if (names.length > 0) return names;
  throw new InvalidArgumentError("It must be names with commas between.");
}
