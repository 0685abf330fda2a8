/** What the layering rules need to know of a source file: its imports, its functions' lengths, its calls. */
import { SyntaxKind } from "typescript/unstable/ast";
import { createScanner } from "typescript/unstable/ast/scanner";

/** One import, export from, dynamic import, `require` or worker address. */
export interface Import {
  /** As it is written. */
  readonly specifier: string;
  /** Whether it vanishes when types are stripped. */
  readonly typeOnly: boolean;
  /** Whether it is loaded where the code comes by, by `require`. */
  readonly late: boolean;
  readonly line: number;
}

export interface FunctionBody {
  /** Where its body starts, from 1. */
  readonly line: number;
  /** Lines of its body. */
  readonly lines: number;
}

export interface Module {
  /** From the repository's root, with `/`. */
  readonly path: string;
  readonly lines: number;
  readonly imports: readonly Import[];
  readonly functions: readonly FunctionBody[];
  /** All string literals without substitutions. */
  readonly strings: ReadonlySet<string>;
  /** Globals whose members are used, with the first line of each. */
  readonly globals: ReadonlyMap<string, number>;
  /** Whether it holds nothing but imports and `export … from`, and at least one of the latter. */
  readonly reexportsOnly: boolean;
}

interface Token {
  readonly kind: SyntaxKind;
  readonly text: string;
  readonly value: string;
  readonly line: number;
}

/** Parses TypeScript without JSX, laid out as the formatter does it. */
export function parseModule(path: string, text: string): Module {
  const tokens = tokensOf(text);
  const strings = tokens.filter(({ kind }) => isString(kind)).map(({ value }) => value);
  const lines = text === "" ? 0 : text.replace(/\n$/, "").split("\n").length;
  return {
    path,
    lines,
    imports: importsOf(tokens),
    functions: functionsOf(tokens),
    strings: new Set(strings),
    globals: globalsOf(tokens),
    reexportsOnly: reexportsOnly(tokens),
  };
}

function isString(kind: SyntaxKind): boolean {
  return kind === SyntaxKind.StringLiteral || kind === SyntaxKind.NoSubstitutionTemplateLiteral;
}

/** The tokens of `text` without comments. Slashes and braces of templates depend on what stands before. */
function tokensOf(text: string): Token[] {
  const scanner = createScanner(true, undefined, text);
  const tokens: Token[] = [];
  const templates: number[] = [];
  let depth = 0;
  let line = 1;
  let counted = 0;
  for (let kind = scanner.scan(); kind !== SyntaxKind.EndOfFile; kind = scanner.scan()) {
    if ((kind === SyntaxKind.SlashToken || kind === SyntaxKind.SlashEqualsToken) && !endsValue(tokens.at(-1)))
      kind = scanner.reScanSlashToken();
    if (kind === SyntaxKind.CloseBraceToken && templates.at(-1) === depth) {
      kind = scanner.reScanTemplateToken(false);
      if (kind === SyntaxKind.TemplateTail) templates.pop();
    } else if (kind === SyntaxKind.OpenBraceToken) depth++;
    else if (kind === SyntaxKind.CloseBraceToken) depth--;
    else if (kind === SyntaxKind.TemplateHead) templates.push(depth);
    const start = scanner.getTokenStart();
    for (; counted < start; counted++) if (text.charCodeAt(counted) === 10) line++;
    tokens.push({ kind, text: scanner.getTokenText(), value: scanner.getTokenValue(), line });
  }
  return tokens;
}

/** Whether a slash after `token` divides, rather than starting a regular expression. */
function endsValue(token: Token | undefined): boolean {
  if (token === undefined) return false;
  return (
    /^[\])}]$/.test(token.text) ||
    token.kind === SyntaxKind.Identifier ||
    token.kind === SyntaxKind.NumericLiteral ||
    token.kind === SyntaxKind.TemplateTail ||
    ["this", "super", "null", "true", "false"].includes(token.text) ||
    isString(token.kind)
  );
}

function importsOf(tokens: readonly Token[]): Import[] {
  const imports: Import[] = [];
  tokens.forEach((token, i) => {
    const next = tokens[i + 1];
    const add = (at: number, typeOnly: boolean, late = false) =>
      imports.push({ specifier: tokens[at]!.value, typeOnly, late, line: token.line });
    if (token.text === "require" && next?.text === "(" && isString(tokens[i + 2]?.kind ?? 0))
      add(i + 2, false, true);
    else if (token.text === "import" && next?.text === "(" && isString(tokens[i + 2]?.kind ?? 0))
      add(i + 2, tokens[i - 1]?.text === "typeof");
    else if (token.text === "import" && next !== undefined && isString(next.kind)) add(i + 1, false);
    else if ((token.text === "import" || token.text === "export") && next?.text !== ".") {
      const from = clauseEnd(tokens, i + 1);
      if (from !== undefined) add(from + 1, next?.text === "type" && tokens[i + 2]?.text !== "from");
    } else if (token.text === "URL" && next?.text === "(" && isFileBeside(tokens, i + 2)) add(i + 2, false);
  });
  return imports;
}

/** The index of the `from` of the import or export clause that starts at `at`, if it is one. */
function clauseEnd(tokens: readonly Token[], at: number): number | undefined {
  for (let i = at; i < tokens.length; i++) {
    const token = tokens[i]!;
    if (token.text === "from" && isString(tokens[i + 1]?.kind ?? 0)) return i;
    if (token.kind !== SyntaxKind.Identifier && !/^([{},*]|\w+)$/.test(token.text)) return undefined;
    if (/^(const|let|function|class|interface|enum|async|abstract)$/.test(token.text)) return undefined;
  }
  return undefined;
}

/** Whether `at` starts the arguments `"./file", import.meta.url`; a folder is no module. */
function isFileBeside(tokens: readonly Token[], at: number): boolean {
  const texts = tokens.slice(at + 1, at + 7).map(({ text }) => text);
  return texts.join("") === ",import.meta.url" && !tokens[at]!.value.endsWith("/");
}

function globalsOf(tokens: readonly Token[]): Map<string, number> {
  const globals = new Map<string, number>();
  tokens.forEach(({ kind, text, line }, i) => {
    const before = tokens[i - 1]?.text;
    const isGlobal = kind === SyntaxKind.Identifier && tokens[i + 1]?.text === "." && before !== ".";
    if (isGlobal && !globals.has(text)) globals.set(text, line);
  });
  return globals;
}

function reexportsOnly(tokens: readonly Token[]): boolean {
  let reexports = 0;
  for (let i = 0; i < tokens.length; ) {
    if (tokens[i]!.text !== "import" && tokens[i]!.text !== "export") return false;
    const from = isString(tokens[i + 1]?.kind ?? 0) ? i : clauseEnd(tokens, i + 1);
    if (from === undefined) return false;
    if (tokens[i]!.text === "export") reexports++;
    i = from + 2;
    if (tokens[i]?.text === ";") i++;
  }
  return reexports > 0;
}

/** Blocks that are bodies: after `=>`, after a `)`, or after a `)` and a type. Blocks of loops and conditions
 * are among them, which are no longer than the function that they are in. */
function functionsOf(tokens: readonly Token[]): FunctionBody[] {
  const functions: FunctionBody[] = [];
  const open: number[] = [];
  tokens.forEach((token, i) => {
    if (token.text === "{" && token.kind === SyntaxKind.OpenBraceToken) open.push(i);
    else if (token.kind === SyntaxKind.CloseBraceToken) {
      const start = open.pop();
      if (start === undefined || !isBody(tokens, start)) return;
      const line = tokens[start]!.line;
      functions.push({ line, lines: token.line - line + 1 });
    }
  });
  return functions.sort((a, b) => a.line - b.line);
}

const CLOSING: Readonly<Record<string, string>> = { ")": "(", "]": "[", "}": "{", ">": "<" };

function isBody(tokens: readonly Token[], brace: number): boolean {
  const before = tokens[brace - 1]?.text;
  if (before === "=>" || before === ")") return true;
  let i = brace - 1;
  for (let colon = false; i >= 0; i--) {
    const { text } = tokens[i]!;
    if (text === ")" && colon) return true;
    if (CLOSING[text] !== undefined) i = openingOf(tokens, i);
    else if (
      /^([;({[=]|class|interface|extends|implements|return|import|export|else|try|finally|do)$/.test(text)
    )
      return false;
    colon = text === ":";
    if (colon && i === brace - 1) return false;
  }
  return false;
}

/** The index of the bracket that the one at `at` closes; -1 where none does. */
function openingOf(tokens: readonly Token[], at: number): number {
  const close = tokens[at]!.text;
  let depth = 0;
  for (let i = at; i >= 0; i--) {
    if (tokens[i]!.text === close) depth++;
    else if (tokens[i]!.text === CLOSING[close] && --depth === 0) return i;
  }
  return -1;
}
