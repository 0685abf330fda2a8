/** Figures of a benchmark in words. Rates are decimal: 1 GB/s is 10^9 bytes a second. */
import type { CellKey, Quantiles } from "./record.ts";

/** `2.13 GB/s`, and below a hundredth `8.21 MB/s`. */
export function rateText(gigabytesPerSecond: number): string {
  if (gigabytesPerSecond >= 0.01) return `${digits(gigabytesPerSecond)} GB/s`;
  return `${digits(gigabytesPerSecond * 1000)} MB/s`;
}

/** `2.13 GB/s (2.05 to 2.20)`: the median and the interval that it lies in with 95 %. */
export function intervalText({ median, low, high }: Quantiles): string {
  const scale = median >= 0.01 ? 1 : 1000;
  return `${rateText(median)} (${digits(low * scale)} to ${digits(high * scale)})`;
}

/** Three digits that count, without an exponent: `0.0123`, `2.13`, `17.3`, `1,230`. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return "-";
  if (value === 0) return "0";
  if (Math.abs(value) >= 999.5) return Math.round(value).toLocaleString("en-US");
  const places = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(places, 6));
}

/** `93 %` of a part, from 0 to 1. */
export function percentText(part: number): string {
  const percent = part * 100;
  return `${percent > 0 && percent < 10 ? digits(percent) : Math.round(percent)} %`;
}

/** Bytes of files and memory, decimal: `1.07 GB`. */
export function bytesText(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  let value = bytes;
  for (; value >= 999.5 && unit < units.length - 1; unit++) value /= 1000;
  return `${unit === 0 ? Math.round(value) : digits(value)} ${units[unit]}`;
}

/** Bytes of a request, which are powers of two: `4 MiB`. */
export function requestText(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  let value = bytes;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${Number.isInteger(value) ? value : digits(value)} ${units[unit]}`;
}

/** `0.25 ms`, `12.3 s`. */
export function timeText(ms: number): string {
  if (ms < 1) return `${digits(ms * 1000)} µs`;
  return ms < 1000 ? `${digits(ms)} ms` : `${digits(ms / 1000)} s`;
}

/** `1 cell`, `12 cells`. */
export function amountText(value: number, one: string, many = `${one}s`): string {
  return `${value.toLocaleString("en-US")} ${value === 1 ? one : many}`;
}

/** What was stored and how it was reached: `safetensors by read`, `arrow by pyarrow 24.0 (Python)`. */
export function wayText({ format, path, peer }: CellKey): string {
  return `${format} by ${peer ?? path}`;
}

/** The same without a peer's version: `arrow by pyarrow`. */
export function shortWayText({ format, path, peer }: CellKey): string {
  return `${format} by ${peer?.replace(/ v?\d.*$/, "") ?? path}`;
}

/** `8 lanes, 4 MiB a request`. */
export function settingsText({ lanes, requestBytes }: CellKey): string {
  const request = requestBytes === undefined ? [] : [`${requestText(requestBytes)} a request`];
  return [...(lanes > 0 ? [amountText(lanes, "lane")] : []), ...request].join(", ");
}

const CEILINGS: Readonly<Record<string, string>> = {
  "pread-cold": "bare cold reads",
  "pread-warm": "bare warm reads",
  memcpy: "copies in memory",
  link: "the link to the GPU",
  checksum: "the checksum alone",
  harness: "the harness alone",
};

/** What a ceiling's name stands for: `bare cold reads`. */
export function ceilingText(name: string): string {
  return Object.hasOwn(CEILINGS, name) ? CEILINGS[name]! : name;
}

/** `2026-11-22 17:07 UTC`; what is no date as it is. */
export function dateText(iso: string): string {
  return iso.replace(/^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):[\d.]+Z$/, "$1 $2 UTC");
}

/** `weights, cold, sequential`. */
export function groupText(group: Pick<CellKey, "data" | "temperature" | "order">): string {
  return `${group.data}, ${group.temperature}, ${group.order}`;
}

/** Names that a sentence lists before it counts. */
const LISTED = 3;

/** `a, b, c and 2 more`. */
export function listText(names: readonly string[]): string {
  const listed = names.slice(0, LISTED);
  if (names.length > LISTED) return `${listed.join(", ")} and ${names.length - LISTED} more`;
  return listed.length < 2 ? listed.join("") : `${listed.slice(0, -1).join(", ")} and ${listed.at(-1)}`;
}

/** `a`, `a or b`, `a, b or c`. */
export function orText(values: readonly (string | number)[]): string {
  if (values.length < 2) return values.join("");
  return `${values.slice(0, -1).join(", ")} or ${values.at(-1)}`;
}
