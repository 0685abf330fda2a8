/** The rules of which file may see which, as functions from parsed files to lines that say what is wrong. */
import { posix } from "node:path";
import type { Import, Module } from "./layering-parse.ts";

/** Lines of the longest file, and of the longest function. */
export const MAX_FILE_LINES = 400;
export const MAX_FUNCTION_LINES = 80;
/** Functions should stay below this; longer ones are listed, not refused. */
export const LONG_FUNCTION_LINES = 60;

type Layer =
  | "base"
  | "format"
  | "plan"
  | "codec"
  | "kernels"
  | "device"
  | "concrete"
  | "device/open"
  | "loader"
  | "loader/open"
  | "infer"
  | "pack"
  | "index"
  | "bench"
  | "cli";

/** What each layer may see. Arrows point down alone; `format` and `plan` do not see each other. */
const SEES: Readonly<Record<Layer, readonly Layer[]>> = {
  base: ["base"],
  format: ["base", "format"],
  plan: ["base", "plan"],
  codec: ["base", "format", "codec"],
  kernels: ["base", "kernels", "device"],
  device: ["base", "format", "plan", "device"],
  concrete: ["base", "format", "plan", "codec", "kernels", "device", "concrete"],
  "device/open": ["base", "device", "concrete"],
  loader: ["base", "format", "plan", "codec", "device", "loader"],
  "loader/open": ["base", "format", "plan", "device", "loader", "device/open"],
  infer: ["base", "format", "plan", "kernels", "device", "loader", "loader/open", "infer"],
  pack: [
    "base",
    "format",
    "plan",
    "codec",
    "device",
    "device/open",
    "loader",
    "loader/open",
    "infer",
    "pack",
  ],
  index: [
    "base",
    "format",
    "plan",
    "codec",
    "kernels",
    "device",
    "device/open",
    "loader",
    "loader/open",
    "infer",
    "pack",
  ],
  bench: ["index", "bench"],
  cli: ["index", "bench", "cli"],
};

const PURE: readonly Layer[] = ["base", "format", "plan"];
/** Packages that speak to people. */
const CLI_PACKAGES = ["commander", "cli-table3", "cli-progress"];
/** Members of these reach a clock, the disk or the process. */
const IMPURE_GLOBALS = ["Bun", "process", "performance", "Date", "console", "crypto", "Atomics"];

/** The layer of a file of `src`, or undefined where it belongs to none. */
export function layerOf(path: string): Layer | undefined {
  const [root, folder, ...rest] = path.split("/");
  if (root !== "src" || folder === undefined) return undefined;
  if (rest.length === 0) {
    if (folder === "index.ts") return "index";
    return folder === "types.ts" || folder === "errors.ts" ? "base" : undefined;
  }
  if (folder === "device") {
    if (rest.length > 1) return "concrete";
    return rest[0] === "open.ts" ? "device/open" : "device";
  }
  if (folder === "loader") return rest.join("/") === "open.ts" ? "loader/open" : "loader";
  const named = folder as Layer;
  const folders = ["format", "plan", "codec", "kernels", "infer", "pack", "bench", "cli"];
  return folders.includes(folder) ? named : undefined;
}

/** The file that a relative import means. */
function targetOf(module: Module, { specifier }: Import): string | undefined {
  if (!specifier.startsWith(".")) return undefined;
  return posix.join(posix.dirname(module.path), specifier);
}

/** Arrows that point up or sideways, packages where they do not belong, paths without an ending. */
export function checkArrows(modules: readonly Module[]): string[] {
  const known = new Set(modules.map((module) => module.path));
  return modules.flatMap((module) => {
    const layer = layerOf(module.path);
    if (layer === undefined) return [`${module.path}: belongs to no layer`];
    return module.imports.flatMap((one) => {
      const at = `${module.path}:${one.line}`;
      const target = targetOf(module, one);
      if (target === undefined) return checkPackage(at, layer, one.specifier);
      // A text or a module for WebAssembly beside the file, which belongs to it.
      if (/\.(h|wasm)$/.test(target) && layerOf(target) === layer) return [];
      if (!/\.(ts|json)$/.test(target)) return [`${at}: ${one.specifier} has no ending`];
      if (!known.has(target)) return [`${at}: ${one.specifier} is no file of src`];
      const seen = layerOf(target);
      if (seen !== undefined && SEES[layer].includes(seen)) return [];
      return [`${at}: ${layer} may not see ${seen ?? "a file of no layer"} (${target})`];
    });
  });
}

function checkPackage(at: string, layer: Layer, specifier: string): string[] {
  const io = specifier === "bun" || /^(node|bun):/.test(specifier);
  if (io && PURE.includes(layer)) return [`${at}: ${layer} is pure and may not see ${specifier}`];
  if (io && layer === "index") return [`${at}: index only exports`];
  if (CLI_PACKAGES.includes(specifier) && layer !== "cli")
    return [`${at}: ${specifier} is for the cli alone`];
  return [];
}

/** Circles of imports that are there when the code runs (types vanish, and may name one another in a layer). */
export function checkCycles(modules: readonly Module[]): string[] {
  const next = new Map(modules.map((module) => [module.path, valueTargets(module)]));
  const state = new Map<string, "open" | "done">();
  const found: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    if (state.get(path) === "done" || !next.has(path)) return;
    if (state.get(path) === "open") {
      found.push(`a circle: ${[...trail.slice(trail.indexOf(path)), path].join(" -> ")}`);
      return;
    }
    state.set(path, "open");
    for (const target of next.get(path)!) visit(target, [...trail, path]);
    state.set(path, "done");
  };
  for (const { path } of modules) visit(path, []);
  return found;
}

function valueTargets(module: Module): string[] {
  return module.imports.flatMap((one) => (one.typeOnly ? [] : (targetOf(module, one) ?? [])));
}

/** Files that load others by `require`, but for the one that opens devices: elsewhere imports say it. */
export function checkLate(modules: readonly Module[]): string[] {
  return modules
    .filter(({ path }) => path !== "src/device/open.ts")
    .flatMap(({ path, imports }) =>
      imports
        .filter(({ late }) => late)
        .map(({ line, specifier }) => `${path}:${line}: requires ${specifier}`),
    );
}

/** Clocks, disks and prints in pure layers, and `console` outside the cli. */
export function checkGlobals(modules: readonly Module[]): string[] {
  return modules.flatMap((module) => {
    const layer = layerOf(module.path);
    const banned = PURE.some((pure) => pure === layer) ? IMPURE_GLOBALS : layer === "cli" ? [] : ["console"];
    return banned.flatMap((name) => {
      const line = module.globals.get(name);
      return line === undefined ? [] : [`${module.path}:${line}: ${name} does not belong in ${layer}`];
    });
  });
}

/** Files of `src` that only pass others on, but for the public one. */
export function checkBarrels(modules: readonly Module[]): string[] {
  return modules
    .filter(({ path, reexportsOnly }) => reexportsOnly && path !== "src/index.ts")
    .map(({ path }) => `${path}: only exports what other files hold`);
}

/** Files that are too long. */
export function checkFileLines(modules: readonly Module[]): string[] {
  return modules
    .filter(({ lines }) => lines > MAX_FILE_LINES)
    .map(({ path, lines }) => `${path}: ${lines} lines, at most ${MAX_FILE_LINES}`);
}

/** Functions of more than `most` lines. */
export function checkFunctionLines(modules: readonly Module[], most = MAX_FUNCTION_LINES): string[] {
  return modules.flatMap(({ path, functions }) =>
    functions
      .filter(({ lines }) => lines > most)
      .map(({ line, lines }) => `${path}:${line}: a function of ${lines} lines, at most ${most}`),
  );
}

/** Imports between files without the ending of the file. */
export function checkEndings(modules: readonly Module[]): string[] {
  return modules.flatMap((module) =>
    module.imports
      .filter(({ specifier }) => specifier.startsWith(".") && !/\.(ts|json|wasm)$/.test(specifier))
      .map(({ specifier, line }) => `${module.path}:${line}: ${specifier} has no ending`),
  );
}

/** Codes that no file but their list names. */
export function unusedCodes(modules: readonly Module[], codes: readonly string[]): string[] {
  const users = modules.filter(({ path }) => path !== "src/errors.ts");
  return codes.filter((code) => !users.some(({ strings }) => strings.has(code)));
}

/** Codes of the table whose rows start with "| `CODE` |". */
export function documentedCodes(markdown: string): string[] {
  return [...markdown.matchAll(/^\| `([A-Z][A-Z0-9_]+)` +\|/gm)].map((match) => match[1]!);
}
