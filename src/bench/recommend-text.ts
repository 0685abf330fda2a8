/** What a run recommends, in words, flags and code. */
import { parseFormat } from "./formats.ts";
import { type Advice, onlyOf, type Supported } from "./recommend.ts";
import { amountText, intervalText, orText, requestText, settingsText, wayText } from "./text.ts";

/** What of an advice settings are made of. */
type Settings = Omit<Advice, "best" | "tied" | "next">;

/** Name and value of each line that is said of `advice`. */
export function adviceRows(advice: Advice): [name: string, value: string][] {
  const { best, next, tied } = advice;
  const settings = settingsText(best.key);
  const rows: [string, string][] = [
    [
      tied.length > 1 ? "highest" : next === undefined ? "the only one measured" : "fastest",
      `${wayText(best.key)}${settings === "" ? "" : ` (${settings})`}, ${intervalText(best.record.gigabytesPerSecond)}`,
    ],
  ];
  if (tied.length > 1) {
    const others = amountText(tied.length - 1, "other setting");
    rows.push(["as fast", `${others}, by intervals that reach into that one`]);
  }
  if (next !== undefined) {
    const rate = intervalText(next.record.gigabytesPerSecond);
    rows.push(["slower", `${wayText(next.key)} (${settingsText(next.key)}), ${rate}`]);
  }
  rows.push(["format", valuesText(advice.format, String)], ["strategy", valuesText(advice.path, String)]);
  if (advice.lanes.values.length > 0) rows.push(["lanes", valuesText(advice.lanes, String)]);
  if (advice.requestBytes.values.length > 0)
    rows.push(["request", valuesText(advice.requestBytes, requestText)]);
  if (advice.prefetch !== undefined) {
    const share = Math.round(best.record.busyShare!.median * 100);
    rows.push(["prefetch", `${advice.prefetch}: the device was busy ${share} % of the time with it`]);
  }
  const pack = packFlags(advice);
  if (pack !== undefined) rows.push(["to store", pack]);
  rows.push(["to load", loadFlags(advice)], ["in code", loadCode(advice)]);
  return [...rows, ...advice.notes.map((note): [string, string] => ["note", note])];
}

function valuesText<T>({ values, varied }: Supported<T>, text: (value: T) => string): string {
  const texts = values.map(text);
  if (!varied) return `${texts.join("")}, the only one measured`;
  return texts.length === 1 ? texts[0]! : `either ${orText(texts)}: no clear difference`;
}

/** The command that stores a dataset in the one format that is recommended; undefined for several, and for one whose name
 * is none of ours. */
export function packFlags({ format }: Pick<Advice, "format">): string | undefined {
  const name = onlyOf(format);
  if (name === undefined) return undefined;
  try {
    const { base, codec, level, planes } = parseFormat(name);
    const how =
      codec === undefined ? "" : ` --codec ${codec}${level === undefined ? "" : ` --level ${level}`}`;
    return `headrace pack SOURCE --out DIR --to ${base}${how}${planes ? " --planes" : ""}`;
  } catch {
    return undefined;
  }
}

/** The flags of `load` that the figures support; what they leave open is left out. */
export function loadFlags(advice: Settings): string {
  const strategy = strategyOf(advice);
  const codec = streamCodecOf(advice);
  const lanes = onlyOf(advice.lanes);
  return [
    `headrace load SOURCE --device ${advice.device}`,
    ...(strategy === undefined ? [] : [`--strategy ${strategy}`]),
    ...(codec === undefined ? [] : [`--stream-codec ${codec}`]),
    ...(lanes === undefined || !advice.lanes.varied ? [] : [`--lanes ${lanes}`]),
    ...(advice.prefetch === undefined ? [] : [`--prefetch ${advice.prefetch}`]),
    ...(advice.order === "sequential" ? [] : ["--shuffle"]),
  ].join(" ");
}

/** The same as code. */
export function loadCode(advice: Settings): string {
  const strategy = strategyOf(advice);
  const codec = streamCodecOf(advice);
  const lanes = onlyOf(advice.lanes);
  const request = onlyOf(advice.requestBytes);
  const device = [
    ...(lanes === undefined || !advice.lanes.varied ? [] : [`lanes: ${lanes}`]),
    ...(request === undefined || !advice.requestBytes.varied ? [] : [`pieceBytes: ${request}`]),
    ...(codec === undefined ? [] : [`stream: { codec: "${codec}" }`]),
  ];
  const options = device.length === 0 ? "" : `, { ${device.join(", ")} }`;
  const loader = [
    `device: openDevice(${JSON.stringify(advice.device)}${options})`,
    ...(strategy === undefined ? [] : [`strategy: "${strategy}"`]),
    ...(advice.prefetch === undefined ? [] : [`prefetch: ${advice.prefetch}`]),
    ...(advice.order === "sequential" ? [] : ["shuffle: true"]),
  ];
  return `openLoader(source, { ${loader.join(", ")} })`;
}

/** As the loader names the one way that is recommended. A compressed shard is streamed whatever is asked for. */
function strategyOf({ path }: Settings): string | undefined {
  const way = onlyOf(path);
  return way?.startsWith("mtlio-") === true ? "stream" : way;
}

function streamCodecOf({ path }: Settings): string | undefined {
  const way = onlyOf(path);
  if (way === undefined || !way.startsWith("mtlio-") || way === "mtlio-raw") return undefined;
  return way === "mtlio-compressed" ? "lz4" : way.slice("mtlio-".length);
}
