/** The forms in which a dataset is stored, by name, and the ways that lead to each. */
import { HeadraceError } from "../index.ts";

/** One form. */
export interface Format {
  /** As it was typed, with its level: `safetensors.zst-3`. */
  readonly name: string;
  readonly base: "safetensors" | "arrow";
  /** As `pack` names it; absent where nothing is compressed. */
  readonly codec?: "zstd" | "lz4" | "zstd-body" | "lz4-body" | undefined;
  readonly level?: number | undefined;
  /** Whether the bytes of floats are split into planes first. */
  readonly planes: boolean;
}

/** Levels of each codec, and the one that stands where none is named. */
const LEVELS = {
  zst: { least: 1, most: 19, usual: 3, codec: "zstd" },
  lz4: { least: 1, most: 12, usual: 1, codec: "lz4" },
} as const;

const GRAMMAR =
  "safetensors or arrow, with .zst-LEVEL, .lz4-LEVEL, .bp.zst-LEVEL, .zstd-body or .lz4-body behind";

/** Parses `safetensors`, `arrow.zst-9`, `safetensors.bp.zst-3`, `arrow.lz4-body`. Throws `BAD_OPTION`. */
export function parseFormat(text: string): Format {
  const match = /^(safetensors|arrow)(?:\.(.+))?$/.exec(text);
  if (match === null) throw bad(text);
  const base = match[1] as Format["base"];
  const form = match[2];
  if (form === undefined) return { name: base, base, planes: false };
  const body = /^(zstd|lz4)-body(?:-(\d+))?$/.exec(form);
  if (body !== null) {
    if (base !== "arrow") throw bad(text, "bodies are Arrow's");
    const { level, suffix } = levelOf(text, body[1] === "zstd" ? "zst" : "lz4", body[2], "");
    const codec = `${body[1] as "zstd" | "lz4"}-body` as const;
    return { name: `${base}.${codec}${suffix}`, base, codec, level, planes: false };
  }
  const container = /^(bp\.)?(zst|lz4)(?:-(\d+))?$/.exec(form);
  if (container === null) throw bad(text);
  const kind = container[2] as "zst" | "lz4";
  const planes = container[1] !== undefined;
  if (planes && (base !== "safetensors" || kind !== "zst"))
    throw bad(text, "planes are for safetensors.bp.zst");
  const { level } = levelOf(text, kind, container[3], "-");
  return {
    name: `${base}.${planes ? "bp." : ""}${kind}-${level}`,
    base,
    codec: LEVELS[kind].codec,
    level,
    planes,
  };
}

function levelOf(text: string, kind: "zst" | "lz4", digits: string | undefined, always: string) {
  const { least, most, usual } = LEVELS[kind];
  const level = digits === undefined ? usual : Number(digits);
  if (level < least || level > most) throw bad(text, `its level must be ${least} to ${most}`);
  return { level, suffix: digits === undefined && always === "" ? "" : `-${level}` };
}

function bad(text: string, why?: string): HeadraceError {
  return new HeadraceError("BAD_OPTION", `formats: ${text} is none: ${why ?? `it must be ${GRAMMAR}`}`);
}

/** Ways of this project, then those that users take without it. */
export const PATHS = [
  "map",
  "read",
  "stream",
  "mtlio-raw",
  "mtlio-compressed",
  "js-read",
  "apache-arrow",
] as const;

/** Codecs of MTLIO that a path can name: `mtlio-lz4` and so on; `mtlio-compressed` is the first. */
export const MTLIO_CODECS = ["lz4", "lzfse", "zlib", "lzma", "lzbitmap"] as const;

export type MtlioCodec = (typeof MTLIO_CODECS)[number];

/** The codec of an MTLIO path; undefined for a path without. */
export function mtlioCodecOf(path: string): MtlioCodec | undefined {
  if (path === "mtlio-compressed") return MTLIO_CODECS[0];
  return MTLIO_CODECS.find((codec) => path === `mtlio-${codec}`);
}

/** Throws `BAD_OPTION` where `path` is no way that is known. */
export function checkPath(path: string): void {
  if ((PATHS as readonly string[]).includes(path) || mtlioCodecOf(path) !== undefined) return;
  const codecs = MTLIO_CODECS.map((codec) => `mtlio-${codec}`).join(", ");
  throw new HeadraceError("BAD_OPTION", `paths: ${path} is none of ${PATHS.join(", ")}, ${codecs}`);
}

/** Why `path` does not lead to `format`: such cells are no cells; undefined where it does. */
export function notFor(path: string, format: Format): string | undefined {
  const compressed = format.codec !== undefined;
  switch (path) {
    case "stream":
      return compressed ? undefined : "it is not compressed";
    case "js-read":
      if (format.base === "arrow") return "apache-arrow is how JavaScript reads Arrow";
      if (format.planes) return "no other reader joins byte planes";
      return format.codec === "lz4" ? "Bun has no LZ4" : undefined;
    case "apache-arrow":
      if (format.base !== "arrow") return "it is no Arrow file";
      if (format.codec === "lz4") return "Bun has no LZ4";
      return format.codec === "lz4-body" ? "apache-arrow has no LZ4 of its own" : undefined;
    default:
      return compressed ? "a compressed shard is streamed" : undefined;
  }
}
