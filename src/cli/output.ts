/** What the commands share in how they speak: exit codes, numbers for people, tables, option values. */
import { fstatSync, writeSync } from "node:fs";
import { InvalidArgumentError } from "commander";
import { HeadraceError } from "../index.ts";

/** What a shell sees. */
export const ExitCode = { done: 0, failed: 1, usage: 2, interrupted: 130, terminated: 143 } as const;

/** Columns of a table are not made narrower than this. */
const LEAST_COLUMN = 8;
const GAP = 2;

/** Bytes in decimal units, three digits: `12.3 MB`. */
export function bytesText(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
  let unit = 0;
  let value = bytes;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? Math.round(value) : value.toPrecision(3)} ${units[unit]}`;
}

/** A count with thousands set apart. */
export function countText(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** A count with its noun: `1 batch`, `2,000 batches`. */
export function amountText(value: number, one: string, many = `${one}s`): string {
  return `${countText(value)} ${value === 1 ? one : many}`;
}

/** A duration: `0.25 ms`, `12.3 s`, `5 min 3 s`, `2 h 4 min`. */
export function timeText(ms: number): string {
  if (ms < 999.5) return `${ms.toPrecision(3)} ms`;
  if (ms < 99_950) return `${(ms / 1000).toPrecision(3)} s`;
  const seconds = Math.round(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 100) return `${minutes} min ${seconds % 60} s`;
  return `${countText(Math.floor(minutes / 60))} h ${minutes % 60} min`;
}

/** `text` without what a terminal would obey: names come out of files. */
export function printable(text: string): string {
  return text.replace(
    UNSAFE,
    (character) => `\\u{${character.codePointAt(0)!.toString(16).padStart(4, "0")}}`,
  );
}

/** Control characters, line and paragraph separators, and marks that turn the direction of text. */
const UNSAFE = /[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/** Whether stdout (1) or stderr (2) is a terminal. Making the streams of `process` takes longer than loading a
 * small dataset, so pipes and files are told apart without them. */
export function isTerminal(fd: 1 | 2): boolean {
  try {
    if (!fstatSync(fd).isCharacterDevice()) return false;
  } catch {
    return false;
  }
  return (fd === 1 ? process.stdout : process.stderr).isTTY === true;
}

/** Prints a line that somebody's program waits for. Throws `IO_ERROR` where stdout does not take all of it. */
export function printLine(text: string): void {
  const bytes = new TextEncoder().encode(`${text}\n`);
  try {
    for (let at = 0; at < bytes.length; ) at += writeSome(bytes, at);
  } catch (cause) {
    throw new HeadraceError("IO_ERROR", `stdout: ${(cause as Error).message}`, { cause });
  }
}

/** Waits where a pipe is full whose reader has set it not to block. */
function writeSome(bytes: Uint8Array, at: number): number {
  try {
    return writeSync(1, bytes, at);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
    Bun.sleepSync(1);
    return 0;
  }
}

/** Prints pairs of name and value, one a line. Long values run on. */
export function printPairs(pairs: readonly (readonly [name: string, value: string])[]): void {
  const safe = pairs.map(([name, value]) => [printable(name), printable(value)] as const);
  const width = Math.max(...safe.map(([name]) => Bun.stringWidth(name)));
  const lines = safe.map(([name, value]) => name + " ".repeat(width - Bun.stringWidth(name) + GAP) + value);
  console.log(lines.join("\n"));
}

/** Prints a table without rules between its rows. On a terminal, cells are cut so that it fits. */
export async function printTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
): Promise<void> {
  const { default: Table } = await import("cli-table3");
  const onTerminal = isTerminal(1);
  const heads = head.map(printable);
  const cells = rows.map((row) => row.map(printable));
  const widths = fitWidths(naturalWidths([heads, ...cells]), onTerminal ? process.stdout.columns : undefined);
  const table = new Table({
    head: heads,
    chars: PLAIN_LINES,
    colWidths: widths.map((width) => width + GAP),
    style: {
      "padding-left": 0,
      "padding-right": GAP,
      head: onTerminal ? ["bold"] : [],
      border: [],
      compact: true,
    },
  });
  for (const row of cells) table.push(row.map((cell, i) => cutFront(cell, widths[i]!)));
  console.log(table.toString().replaceAll(/ +$/gm, ""));
}

/** Cuts a cell of one word, such as a path, to `width` columns: its end tells it from others. The table cuts
 * other cells at their end. */
export function cutFront(cell: string, width: number): string {
  if (cell.includes(" ") || Bun.stringWidth(cell) <= width) return cell;
  const characters = [...cell];
  while (Bun.stringWidth(characters.join("")) > width - 1) characters.shift();
  return `…${characters.join("")}`;
}

function naturalWidths(rows: readonly (readonly string[])[]): number[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, Bun.stringWidth(cell));
    });
  }
  return widths;
}

/** Widths that fit into `columns` with gaps between: the widest give way, none below its least. */
export function fitWidths(natural: readonly number[], columns: number | undefined): number[] {
  const widths = [...natural];
  if (columns === undefined || columns <= 0) return widths;
  const gaps = GAP * widths.length;
  for (let excess = sum(widths) + gaps - columns; excess > 0; excess--) {
    const widest = widths.indexOf(Math.max(...widths));
    if (widths[widest]! <= LEAST_COLUMN) break;
    widths[widest]!--;
  }
  return widths;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

const PLAIN_LINES = Object.fromEntries(
  ["top", "bottom", "left", "right", "mid"]
    .flatMap((side) => [side, `${side}-mid`, `${side}-left`, `${side}-right`])
    .concat(["middle"])
    .map((name) => [name, ""]),
);

/** Parses a whole number of an option from `least` to `most`. */
export function wholeNumber(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  const bounds = most === Number.MAX_SAFE_INTEGER ? `${least}` : `${least} to ${most}`;
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${bounds}.`);
  };
}

/** What `--ordinal` says of itself, and its bound; which of them are there is the driver's to say. */
export const ORDINAL_HELP = "with --device cuda: which GPU, as the driver counts them (default: 0)";
export const MAX_ORDINAL = 255;

/** Parses a number of an option. */
export function anyNumber(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value)) return value;
  throw new InvalidArgumentError("It must be a number.");
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
  t: 1e12,
  tb: 1e12,
  tib: 2 ** 40,
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
