/** Which columns lines of JSON have, and of which types, found out from the first of them. */
import { chooseNames } from "../../loader/schema.ts";
import type { DType } from "../../types.ts";
import type { PackField } from "../rows.ts";
import type { KeyPath } from "./json-plan.ts";
import {
  CLOSE_BRACE,
  CLOSE_BRACKET,
  COLON,
  COMMA,
  JsonScanner,
  LINE_END,
  type LineProblem,
  OPEN_BRACE,
  OPEN_BRACKET,
  problem,
  QUOTE,
  skipSpace,
} from "./json-scanner.ts";
import { badInput, OR_SKIP } from "./source.ts";
import { parseFieldType } from "./types.ts";

/** Columns that are packed, at most: each row has a place in each. */
const MAX_COLUMNS = 10_000;
/** Objects within objects that become columns. */
const MAX_DEPTH = 16;

const KINDS = [
  "numbers",
  "booleans",
  "text",
  "objects",
  "lists of numbers",
  "lists of booleans",
  "empty lists",
] as const;
const OTHERS = "lists of text, of objects, or of mixed values";
/** Shards know nulls of whole rows alone. */
const WITH_NULL = "a list with null in it";
/** What a column of text takes as it is written, where that is asked for. */
const SCALARS: readonly Kind[] = ["text", "numbers", "booleans"];
type Kind = (typeof KINDS)[number] | typeof OTHERS | typeof WITH_NULL;

/** Numbers, the ones in lists included. */
interface NumbersSeen {
  floats: boolean;
  negative: boolean;
  /** An integer past 2^63. */
  big: boolean;
  /** An integer that 64 bits cannot hold. */
  huge: boolean;
  /** An integer that a double would round. */
  rounded: boolean;
}

interface Seen {
  readonly path: KeyPath;
  readonly name: string;
  /** The line that a kind was first seen in, from 1. */
  readonly kinds: Map<Kind, number>;
  readonly numbers: NumbersSeen;
  /** Of lists: the shape of all of them, or undefined where they differ. */
  shape: readonly number[] | undefined;
  /** How deep lists lie within lists. */
  rank: number;
  lists: number;
}

export interface InferOptions {
  readonly columns?: readonly string[] | undefined;
  readonly schema?: Readonly<Record<string, string>> | undefined;
  readonly skipBad: boolean;
}

export interface Inferred {
  readonly fields: readonly PackField[];
  readonly paths: readonly KeyPath[];
  /** By field: whether its type was given, not found out. */
  readonly given: readonly boolean[];
}

/** Looks at lines, in order, and then says what they hold. */
export class JsonInference {
  readonly #path: string;
  readonly #scanner = new JsonScanner();
  readonly #seen = new Map<string, Seen>();
  readonly #skipBad: boolean;
  #line = 0;
  #rows = 0;

  /** `path` is for messages. */
  constructor(path: string, skipBad: boolean) {
    this.#path = path;
    this.#skipBad = skipBad;
  }

  /** Objects that were looked at. */
  get numRows(): number {
    return this.#rows;
  }

  /** Lines in bytes `[start, end)`. Throws `BAD_INPUT` for one that is no JSON. */
  add(bytes: Buffer, start: number, end: number): void {
    for (let at = start; at < end; ) {
      this.#line++;
      const next = bytes.indexOf(LINE_END, at) + 1;
      const first = skipSpace(bytes, at);
      try {
        if (bytes[first] !== LINE_END) this.#addLine(bytes, first);
      } catch (error) {
        if (typeof (error as LineProblem).at !== "number") throw error;
        if (!this.#skipBad)
          throw badInput(this.#path, `line ${this.#line} ${(error as LineProblem).message}${OR_SKIP}`);
      }
      at = next;
    }
  }

  /** The columns, in the order in which they were seen first, those of `schema` that were not seen at the end. Throws
   * `BAD_INPUT` for columns that have no type, `UNKNOWN_COLUMN`, `BAD_OPTION`. */
  result({ columns, schema = {} }: InferOptions): Inferred {
    const all = [...this.#seen.values()].filter(({ kinds }) => !kinds.has("objects") || kinds.size > 1);
    const known = new Set(all.map(({ name }) => name));
    const added = Object.keys(schema).filter((name) => !known.has(name));
    const names = [...known, ...added];
    const wanted = new Set(columns === undefined ? names : chooseNames(names, columns));
    if (wanted.size > MAX_COLUMNS)
      throw badInput(
        this.#path,
        `its first ${this.#line} lines have ${wanted.size} columns, of at most ${MAX_COLUMNS}; choose some by --columns, ` +
          "or write keys that differ from row to row as values of one column",
      );
    const fields: PackField[] = [];
    const paths: KeyPath[] = [];
    const given: boolean[] = [];
    for (const seen of all) {
      if (!wanted.has(seen.name)) continue;
      const type = Object.hasOwn(schema, seen.name) ? schema[seen.name] : undefined;
      fields.push(type === undefined ? this.#fieldOf(seen) : parseFieldType(seen.name, type));
      paths.push(seen.path);
      given.push(type !== undefined);
    }
    for (const name of added) {
      if (!wanted.has(name)) continue;
      fields.push(parseFieldType(name, schema[name]!));
      paths.push([name]);
      given.push(true);
    }
    return { fields, paths, given };
  }

  #addLine(bytes: Buffer, at: number): void {
    this.#rows++;
    if (bytes[at] !== OPEN_BRACE) throw problem(at, "holds no object; each line must be one JSON object");
    const end = skipSpace(bytes, this.#addObject(bytes, at + 1, []));
    if (bytes[end] !== LINE_END) throw problem(end, "goes on behind its object");
  }

  #addObject(bytes: Buffer, start: number, path: KeyPath): number {
    if (path.length > MAX_DEPTH) throw problem(start, `has objects within objects deeper than ${MAX_DEPTH}`);
    let at = skipSpace(bytes, start);
    if (bytes[at] === CLOSE_BRACE) return at + 1;
    for (;;) {
      if (bytes[at] !== QUOTE) throw problem(at, "is no JSON: a key in quotes should follow");
      const key = this.#scanner.text(bytes, at);
      at = skipSpace(bytes, this.#scanner.end);
      if (bytes[at] !== COLON) throw problem(at, "is no JSON: a colon should follow its key");
      at = skipSpace(bytes, this.#addValue(bytes, skipSpace(bytes, at + 1), [...path, key]));
      if (bytes[at] === CLOSE_BRACE) return at + 1;
      if (bytes[at] !== COMMA)
        throw problem(
          at,
          bytes[at] === LINE_END ? "ends within its object" : "is no JSON: a comma should follow",
        );
      at = skipSpace(bytes, at + 1);
    }
  }

  #addValue(bytes: Buffer, at: number, path: KeyPath): number {
    const seen = this.#seenAt(path);
    if (this.#scanner.isNull(bytes, at)) return at + 4;
    const byte = bytes[at];
    if (byte === OPEN_BRACE) {
      this.#note(seen, "objects");
      return this.#addObject(bytes, at + 1, path);
    }
    if (byte === OPEN_BRACKET) return this.#addList(bytes, at, seen);
    if (byte === QUOTE) {
      this.#note(seen, "text");
      return this.#scanner.skip(bytes, at);
    }
    const truth = this.#scanner.truth(bytes, at);
    if (truth >= 0) {
      this.#note(seen, "booleans");
      return at + (truth === 1 ? 4 : 5);
    }
    const end = this.#number(bytes, at, seen.numbers);
    if (end < 0)
      throw problem(at, `is no JSON: ${this.#scanner.describe(bytes, at)} stands where a value should`);
    this.#note(seen, "numbers");
    return end;
  }

  /** Returns where the number ends, or -1. */
  #number(bytes: Buffer, at: number, seen: NumbersSeen): number {
    const { numbers } = this.#scanner;
    const end = numbers.read(bytes, at);
    if (end < 0) {
      const special = this.#scanner.special(bytes, at);
      if (special >= 0) seen.floats = true;
      return special;
    }
    if (!numbers.isInteger) seen.floats = true;
    else {
      seen.negative ||= numbers.value < 0;
      if (numbers.isBig) {
        const big = end - at > 21 ? 2n ** 65n : BigInt(bytes.toString("latin1", at, end));
        seen.big ||= big >= 2n ** 63n;
        seen.huge ||= big >= 2n ** 64n || big < -(2n ** 63n);
        seen.rounded ||= numbers.isRounded(bytes, at, end);
      }
    }
    return end;
  }

  #addList(bytes: Buffer, start: number, seen: Seen): number {
    const shape: number[] = [];
    const found: { kind: Kind } = { kind: "empty lists" };
    const rectangular = { value: true };
    const end = this.#walkList(bytes, start, 0, shape, rectangular, found, seen.numbers);
    if (end < 0) {
      this.#note(seen, found.kind === WITH_NULL ? WITH_NULL : OTHERS);
      return this.#scanner.skip(bytes, start);
    }
    this.#note(seen, found.kind);
    const known = rectangular.value ? shape : undefined;
    if (seen.lists++ === 0) seen.shape = known;
    else if (known === undefined || seen.shape?.join() !== known.join()) seen.shape = undefined;
    if (found.kind !== "empty lists" || shape.length > 1) seen.rank = Math.max(seen.rank, shape.length);
    return end;
  }

  /** Walks a list of numbers or booleans, or of such lists. Returns where it ends, or -1 where it holds anything else. */
  #walkList(
    bytes: Buffer,
    start: number,
    depth: number,
    shape: number[],
    rectangular: { value: boolean },
    found: { kind: Kind },
    numbers: NumbersSeen,
  ): number {
    let size = 0;
    let holdsLists = false;
    let at = skipSpace(bytes, start + 1);
    while (bytes[at] !== CLOSE_BRACKET) {
      if (size > 0) {
        if (bytes[at] !== COMMA) return -1;
        at = skipSpace(bytes, at + 1);
      }
      if (bytes[at] === OPEN_BRACKET) {
        // Elements and lists do not go into one list.
        if (depth === 7 || (size > 0 && !holdsLists)) return -1;
        holdsLists = true;
        at = this.#walkList(bytes, at, depth + 1, shape, rectangular, found, numbers);
        if (at < 0) return -1;
      } else {
        const truth = this.#scanner.truth(bytes, at);
        const end = truth >= 0 ? at + (truth === 1 ? 4 : 5) : this.#number(bytes, at, numbers);
        const kind = truth >= 0 ? "lists of booleans" : "lists of numbers";
        if (end < 0 && this.#scanner.isNull(bytes, at)) found.kind = WITH_NULL;
        if (end < 0 || holdsLists || (found.kind !== "empty lists" && found.kind !== kind)) return -1;
        found.kind = kind;
        at = end;
      }
      size++;
      at = skipSpace(bytes, at);
    }
    if (shape[depth] === undefined) {
      while (shape.length < depth) shape.push(-1);
      shape[depth] = size;
    } else if (shape[depth] === -1) shape[depth] = size;
    else if (shape[depth] !== size) rectangular.value = false;
    return at + 1;
  }

  #seenAt(path: KeyPath): Seen {
    const key = JSON.stringify(path);
    let seen = this.#seen.get(key);
    if (seen === undefined) {
      const numbers = { floats: false, negative: false, big: false, huge: false, rounded: false };
      seen = { path, name: path.join("."), kinds: new Map(), numbers, shape: undefined, rank: 0, lists: 0 };
      this.#seen.set(key, seen);
    }
    return seen;
  }

  #note(seen: Seen, kind: Kind): void {
    if (seen.kinds.has(kind)) return;
    // A line that does not fit the first is left out later on, where that was asked for.
    if (this.#skipBad && seen.kinds.size > 0 && !agree(kind, seen.kinds.keys().next().value!)) return;
    seen.kinds.set(kind, this.#line);
  }

  #fieldOf(seen: Seen): PackField {
    const { name, kinds } = seen;
    const remedy = `give its type by --schema '${name}=TYPE', or leave it out by --columns`;
    const column = `column ${JSON.stringify(name)}`;
    if (kinds.size > 1) kinds.delete("empty lists");
    const [first, second] = [...kinds].sort((a, b) => a[1] - b[1]);
    if (first === undefined)
      throw badInput(this.#path, `${column} has no value in the first ${this.#line} lines; ${remedy}`);
    const [kind, line] = first;
    if (second !== undefined) {
      const text = `line ${second[1]} has ${second[0]} in ${column}, and line ${line} has ${kind}; `;
      const asText = [...kinds.keys()].every((one) => SCALARS.includes(one));
      throw badInput(
        this.#path,
        text +
          (asText
            ? `take them as text, as they are written, by --schema '${name}=utf8', or leave it out by --columns`
            : "make them alike, or leave it out by --columns"),
      );
    }
    if (kind === OTHERS || kind === WITH_NULL)
      throw badInput(
        this.#path,
        `line ${line} has ${kind} in ${column}, which shards cannot hold; ${remedy.slice(remedy.indexOf("leave"))}`,
      );
    if (kind === "empty lists")
      throw badInput(
        this.#path,
        `${column} has nothing but empty lists in the first ${this.#line} lines; ${remedy}`,
      );
    if (kind === "text") return { name, kind: "utf8", dtype: "U8", shape: [], nullable: true };
    const dtype: DType =
      kind === "booleans" || kind === "lists of booleans" ? "BOOL" : this.#numberType(seen, column);
    if (!kind.startsWith("lists")) return { name, kind: "fixed", dtype, shape: [], nullable: true };
    const { shape, rank, lists } = seen;
    if (shape?.every((size) => size > 0) && (lists > 1 || rank > 1))
      return { name, kind: "fixed", dtype, shape, nullable: true };
    if (rank <= 1) return { name, kind: "list", dtype, shape: [], nullable: true };
    throw badInput(
      this.#path,
      `${column} has lists of lists of different sizes, which shards cannot hold; ${remedy.slice(remedy.indexOf("leave"))}`,
    );
  }

  #numberType({ numbers, name, lists, rank, shape }: Seen, column: string): DType {
    const { floats, negative, big, huge, rounded } = numbers;
    if (floats && !rounded) return "F64";
    if (!floats && !big && !huge) return "I64";
    if (!floats && !huge && !negative) return "U64";
    const what = floats
      ? "has fractions, and integers past 2^53 that F64 cannot hold"
      : "has integers that 64 bits cannot hold";
    const type = lists === 0 ? "f64" : `f64[${rank > 1 ? (shape ?? []).join(",") : ""}]`;
    throw badInput(this.#path, `${column} ${what}; --schema '${name}=${type}' rounds them`);
  }
}

/** Whether one column can hold both. */
function agree(a: Kind, b: Kind): boolean {
  const lists = (kind: Kind) =>
    kind.startsWith("lists of n") || kind.startsWith("lists of b") || kind === "empty lists";
  return lists(a) && lists(b) && (a === "empty lists" || b === "empty lists");
}
