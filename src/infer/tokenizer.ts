/** Text in and out of token ids: by a model's `tokenizer.json`, or by bytes where its vocabulary is one of bytes. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { HeadraceError } from "../errors.ts";

/** Ids below this are bytes to the byte tokenizer; those from here on are special. */
const BYTES = 256;
/** Special tokens, and rows that only round a vocabulary up, of a model whose tokens are bytes. */
const MOST_SPECIAL = 64;
/** The id that byte vocabularies begin a text with, where `config.json` names none. */
const DEFAULT_BOS = 256;

/** Turns text into token ids and back. Holds no state between calls. */
export interface Tokenizer {
  readonly kind: "bytes" | "tokenizer.json";
  /** Of all that decides what it gives, sha256 in hex. */
  readonly fingerprint: string;
  /** All ids are below it. */
  readonly vocabSize: number;
  /** Ids of `text`, with what the model's prompts begin or end with (BOS, most often) unless `addSpecial` is false. Any
   * string is taken. */
  encode(text: string, addSpecial?: boolean): Int32Array;
  /** The text of `tokens`, special ones left out. Bytes that are no UTF-8, also a character that is not whole yet,
   * become U+FFFD. */
  decode(tokens: ArrayLike<number>): string;
}

/**
 * The tokenizer of the model in `folder`: that of `tokenizer.json`; without such a file, bytes, where the `vocab_size` of
 * `config.json` is 256 and at most 64 more and no special id of it is a byte. Undefined where it is neither: then there
 * are tokens and no text. Throws `BAD_MODEL` for files that cannot be used, `SOURCE_NOT_FOUND` without `config.json`,
 * `IO_ERROR`.
 */
export function openTokenizer(folder: string): Tokenizer | undefined {
  const path = join(folder, "tokenizer.json");
  const text = readText(path);
  if (text !== undefined) return fromTokenizerJson(folder, path, text);
  const config = readObject(join(folder, "config.json"));
  if (config === undefined) {
    throw new HeadraceError(
      "SOURCE_NOT_FOUND",
      `${folder}: holds neither tokenizer.json nor config.json; a model folder has both, or config.json alone`,
    );
  }
  return isByteVocabulary(config) ? byteTokenizer(bosOf(config)) : undefined;
}

/** Bytes 0 to 255 are themselves; `bos`, where there is one, begins every text; ids from 256 on have no text. */
export function byteTokenizer(bos: number | undefined): Tokenizer {
  const encoder = new TextEncoder();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return {
    kind: "bytes",
    fingerprint: digestOf(["bytes", String(bos)]),
    vocabSize: Math.max(BYTES, (bos ?? 0) + 1),
    encode(text, addSpecial = true) {
      const bytes = encoder.encode(text);
      const start = bos === undefined || !addSpecial ? 0 : 1;
      const tokens = new Int32Array(start + bytes.length);
      if (start === 1) tokens[0] = bos!;
      tokens.set(bytes, start);
      return tokens;
    },
    decode(tokens) {
      const bytes = new Uint8Array(tokens.length);
      let length = 0;
      for (let i = 0; i < tokens.length; i++) {
        const token = tokens[i]!;
        if (token >= 0 && token < BYTES) bytes[length++] = token;
      }
      return decoder.decode(bytes.subarray(0, length));
    },
  };
}

function fromTokenizerJson(folder: string, path: string, text: string): Tokenizer {
  const configPath = join(folder, "tokenizer_config.json");
  const configText = readText(configPath) ?? "{}";
  const config = parseObject(configPath, configText);
  const tokenizer = createTokenizer(path, parseObject(path, text), config);
  return {
    kind: "tokenizer.json",
    fingerprint: digestOf(["tokenizer.json", text, configText]),
    vocabSize:
      1 +
      tokenizer
        .get_vocab(true)
        .values()
        .reduce((a, b) => Math.max(a, b), -1),
    encode: (prompt, addSpecial = true) =>
      Int32Array.from(tokenizer.encode(prompt, { add_special_tokens: addSpecial }).ids),
    // The library has no text for an empty list.
    decode: (tokens) =>
      tokens.length === 0 ? "" : tokenizer.decode(Array.from(tokens), { skip_special_tokens: true }),
  };
}

/** What the library throws is of the file's parts: a type that it does not know, a pattern it cannot translate. */
function createTokenizer(path: string, model: object, config: object): HuggingFaceTokenizer {
  try {
    return new HuggingFaceTokenizer(model, config);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new HeadraceError("BAD_MODEL", `${path}: cannot be used as a tokenizer: ${why}`, { cause });
  }
}

function isByteVocabulary(config: Readonly<Record<string, unknown>>): boolean {
  const size = config.vocab_size;
  if (typeof size !== "number" || size < BYTES || size > BYTES + MOST_SPECIAL) return false;
  const special = [config.bos_token_id, config.eos_token_id, config.pad_token_id].flat();
  return special.every((id) => typeof id !== "number" || id >= BYTES);
}

/** None where `config.json` says null, or where the vocabulary ends before it. */
function bosOf({
  bos_token_id: bos,
  vocab_size: size,
}: Readonly<Record<string, unknown>>): number | undefined {
  if (typeof bos === "number") return bos;
  return bos === undefined && (size as number) > DEFAULT_BOS ? DEFAULT_BOS : undefined;
}

function readObject(path: string): Readonly<Record<string, unknown>> | undefined {
  const text = readText(path);
  return text === undefined ? undefined : parseObject(path, text);
}

/** Undefined where there is no such file. */
function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    const { code } = cause as { code?: string };
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new HeadraceError("IO_ERROR", `${path}: cannot be read: ${code ?? String(cause)}`, { cause });
  }
}

function parseObject(path: string, text: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HeadraceError("BAD_MODEL", `${path}: is not JSON: ${(cause as Error).message}`, { cause });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new HeadraceError("BAD_MODEL", `${path}: does not hold a JSON object`);
}

function digestOf(parts: readonly string[]): string {
  return new Bun.CryptoHasher("sha256").update(JSON.stringify(parts)).digest("hex");
}
