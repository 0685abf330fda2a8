/** Finds, checks and binds libHeadraceMetal. */
import { dlopen } from "bun:ffi";
import { closeSync, openSync, readSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { HeadraceError } from "../../errors.ts";
import { ABI_VERSION, STRUCTS } from "./abi.ts";
import { type Checked, checked, SYMBOLS, VERSION_SYMBOLS } from "./symbols.ts";

/** The bound library; it stays loaded until the process ends. */
export interface MetalLibrary {
  readonly path: string;
  /** Whether the caller or the environment named it. */
  readonly named: boolean;
  readonly symbols: Checked<typeof SYMBOLS>;
}

/** What mends a library that is missing or of another version. */
const BUILD = "`bun run native` builds it";
const VARIABLE = "HEADRACE_METAL_LIBRARY";

const loaded = new Map<string, Omit<MetalLibrary, "named">>();

/** Throws `DEVICE_UNAVAILABLE` with what is wrong, where, and the command that mends it. */
export function loadLibrary(option: string | undefined): MetalLibrary {
  const { path, named } = findLibrary(option);
  let library = loaded.get(path);
  if (library === undefined) {
    library = bindLibrary(path);
    loaded.set(path, library);
  }
  return { ...library, named };
}

/** Where the library is; looks at no more than whether it is there. */
export function findLibrary(option: string | undefined): { readonly path: string; readonly named: boolean } {
  const wanted = option ?? process.env[VARIABLE];
  if (wanted !== undefined && wanted !== "") {
    const path = resolve(wanted);
    if (isFile(path)) return { path, named: true };
    const by = option === undefined ? `${VARIABLE} names it` : "option library names it";
    throw unavailable(`${path} is not there, and ${by}; ${BUILD}`);
  }
  if (process.platform !== "darwin") {
    throw unavailable(`needs a Mac, and this is ${process.platform}; use host, which works on every machine`);
  }
  const places = libraryPlaces(import.meta.dir, process.execPath);
  const path = places.find(isFile);
  if (path !== undefined) return { path, named: false };
  throw unavailable(`no library at ${places.join(", ")}; ${BUILD}, or set ${VARIABLE}`);
}

/** In the package, beside it, and beside the executable. */
export function libraryPlaces(folder: string, executable: string): string[] {
  const root = resolve(folder, "../../..");
  const name = `libHeadraceMetal.${process.platform === "darwin" ? "dylib" : "so"}`;
  return [
    join(root, "metal-lib/.build/release", name),
    join(root, name),
    join(dirname(root), name),
    join(dirname(executable), name),
  ];
}

function bindLibrary(path: string): Omit<MetalLibrary, "named"> {
  checkArchitecture(path);
  checkVersion(path);
  let bound: object;
  try {
    bound = dlopen(path, SYMBOLS).symbols;
  } catch (error) {
    throw unavailable(`${path} cannot be used: ${messageOf(error)}; ${BUILD}`, error);
  }
  const symbols = checked(SYMBOLS, bound);
  if (symbols.hr_device_count() === 0) throw unavailable(`${path}: Metal has no device on this machine`);
  return { path, symbols };
}

function checkVersion(path: string): void {
  let bound: object;
  try {
    bound = dlopen(path, VERSION_SYMBOLS).symbols;
  } catch (error) {
    throw unavailable(`${path} cannot be loaded: ${messageOf(error)}; ${BUILD}`, error);
  }
  const { hr_abi_version, hr_struct_sizes } = checked(VERSION_SYMBOLS, bound);
  const version = hr_abi_version();
  if (version !== ABI_VERSION) {
    throw unavailable(
      `${path} has version ${version} of the interface, and ${ABI_VERSION} is needed; ${BUILD}`,
    );
  }
  const expected = Object.entries(STRUCTS);
  const sizes = new Uint32Array(new ArrayBuffer(4 * (expected.length + 1)));
  const count = hr_struct_sizes(sizes, sizes.length);
  if (count !== expected.length) {
    throw unavailable(`${path} knows ${count} structs, and ${expected.length} are needed; ${BUILD}`);
  }
  for (const [index, [name, { byteLength }]] of expected.entries()) {
    if (sizes[index] === byteLength) continue;
    throw unavailable(`${path}: ${name} has ${sizes[index]} bytes, and ${byteLength} are needed; ${BUILD}`);
  }
}

/** CPU types of Mach-O and machines of ELF, by the names of `process.arch`. */
const MACH_O: ReadonlyMap<number, string> = new Map([
  [0x0100000c, "arm64"],
  [0x01000007, "x64"],
]);
const ELF: ReadonlyMap<number, string> = new Map([
  [183, "arm64"],
  [62, "x64"],
]);

/** The loader's own words for this are of little help. */
function checkArchitecture(path: string): void {
  const found = architecturesOf(path);
  if (found === undefined) throw unavailable(`${path} is no library of this system; ${BUILD}`);
  if (found.includes(process.arch)) return;
  throw unavailable(`${path} is for ${found.join(" and ")}, and this process is ${process.arch}; ${BUILD}`);
}

/** What a library's header says that it is for; undefined where this system could not load it at all. */
export function architecturesOf(path: string): string[] | undefined {
  const header = new DataView(new ArrayBuffer(4096));
  let length: number;
  try {
    const fd = openSync(path, "r");
    try {
      length = readSync(fd, header, 0, 4096, 0);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw unavailable(`${path} cannot be read: ${messageOf(error)}`, error);
  }
  if (length < 64) return undefined;
  const known = (table: ReadonlyMap<number, string>, type: number) =>
    table.get(type) ?? `machine 0x${type.toString(16)}`;
  const magic = header.getUint32(0, false);
  if (process.platform === "linux") {
    return magic === 0x7f454c46 ? [known(ELF, header.getUint16(18, true))] : undefined;
  }
  if (magic === 0xcffaedfe) return [known(MACH_O, header.getUint32(4, true))];
  if (magic !== 0xcafebabe) return undefined;
  const count = Math.min(header.getUint32(4, false), Math.floor((length - 8) / 20));
  return Array.from({ length: count }, (_, i) => known(MACH_O, header.getUint32(8 + 20 * i, false)));
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replaceAll("\n", " ");
}

function unavailable(message: string, cause?: unknown): HeadraceError {
  return new HeadraceError(
    "DEVICE_UNAVAILABLE",
    `device metal: ${message}`,
    cause === undefined ? {} : { cause },
  );
}
