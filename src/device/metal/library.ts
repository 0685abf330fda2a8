/** Finds, checks and binds libHeadraceMetal. */
import { dlopen } from "bun:ffi";
import { statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { HeadraceError } from "../../errors.ts";
import { ABI_VERSION, STRUCTS } from "./abi.ts";
import { type Image, readImage } from "./image.ts";
import { type Checked, checked, SYMBOLS, VERSION_SYMBOLS } from "./symbols.ts";

/** The bound library; it stays loaded until the process ends. */
export interface MetalLibrary {
  readonly path: string;
  /** Whether the caller or the environment named it. */
  readonly named: boolean;
  readonly symbols: Checked<typeof SYMBOLS>;
}

/** What mends the package's own library where it is missing or of another version. */
const BUILD = "`bun run native` builds it";
const VARIABLE = "HEADRACE_METAL_LIBRARY";

const loaded = new Map<string, Omit<MetalLibrary, "named">>();

/** Throws `DEVICE_UNAVAILABLE` with what is wrong, where, and the command that mends it. */
export function loadLibrary(option: string | undefined): MetalLibrary {
  const { path, named } = findLibrary(option);
  let library = loaded.get(path);
  if (library === undefined) {
    library = bindLibrary(path, mendOf(path, named, option));
    loaded.set(path, library);
  }
  return { ...library, named };
}

/** The library that `option` or else the environment names; an empty name is none. */
export function namedLibrary(option: string | undefined): string | undefined {
  return (option ?? process.env[VARIABLE]) || undefined;
}

/** Where the library is; looks at no more than whether it is there. */
export function findLibrary(option: string | undefined): { readonly path: string; readonly named: boolean } {
  const wanted = namedLibrary(option);
  if (wanted !== undefined) {
    const path = resolve(wanted);
    if (isFile(path)) return { path, named: true };
    const by = option === undefined ? `${VARIABLE} names it` : "option library names it";
    const what = isFolder(path) ? "is a folder" : "is not there";
    throw unavailable(`${path} ${what}, and ${by}; ${mendOf(path, true, option)}`);
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

function bindLibrary(path: string, mend: string): Omit<MetalLibrary, "named"> {
  checkImage(path, mend);
  checkVersion(path, mend);
  let bound: object;
  try {
    bound = dlopen(path, SYMBOLS).symbols;
  } catch (error) {
    const text = messageOf(error);
    throw unavailable(`${path} cannot be used: ${text}; ${loadMend(text, mend)}`, error);
  }
  const symbols = checked(SYMBOLS, bound);
  if (symbols.hr_device_count() === 0) throw unavailable(`${path}: Metal has no device on this machine`);
  return { path, symbols };
}

function checkVersion(path: string, mend: string): void {
  let bound: object;
  try {
    bound = dlopen(path, VERSION_SYMBOLS).symbols;
  } catch (error) {
    const text = messageOf(error);
    throw unavailable(`${path} cannot be loaded: ${text}; ${loadMend(text, mend)}`, error);
  }
  const { hr_abi_version, hr_struct_sizes } = checked(VERSION_SYMBOLS, bound);
  const version = hr_abi_version();
  if (version !== ABI_VERSION) {
    throw unavailable(
      `${path} has version ${version} of the interface, and ${ABI_VERSION} is needed; ${mend}`,
    );
  }
  const expected = Object.entries(STRUCTS);
  const sizes = new Uint32Array(new ArrayBuffer(4 * (expected.length + 1)));
  const count = hr_struct_sizes(sizes, sizes.length);
  if (count !== expected.length) {
    throw unavailable(`${path} knows ${count} structs, and ${expected.length} are needed; ${mend}`);
  }
  for (const [index, [name, { byteLength }]] of expected.entries()) {
    if (sizes[index] === byteLength) continue;
    throw unavailable(`${path}: ${name} has ${sizes[index]} bytes, and ${byteLength} are needed; ${mend}`);
  }
}

/** The loader's own words for this are of little help, and a file that was cut off would end the process. */
function checkImage(path: string, mend: string): void {
  let image: Image | undefined;
  try {
    image = readImage(path);
  } catch (error) {
    throw unavailable(`${path} cannot be read: ${messageOf(error)}`, error);
  }
  if (image === undefined) throw unavailable(`${path} is no library of this system; ${mend}`);
  const { architectures, byteLength, neededBytes } = image;
  if (!architectures.includes(process.arch)) {
    const found = architectures.join(" and ");
    throw unavailable(`${path} is for ${found}, and this process is ${process.arch}; ${mend}`);
  }
  if (byteLength >= neededBytes) return;
  throw unavailable(
    `${path} is not whole: it has ${byteLength} bytes, and ${neededBytes} are needed; ${mend}`,
  );
}

/** What mends a library at `path`. `bun run native` builds the package's own, and no other. */
function mendOf(path: string, named: boolean, option: string | undefined): string {
  if (!named || path === libraryPlaces(import.meta.dir, process.execPath)[0]) return BUILD;
  return option === undefined ? `correct or unset ${VARIABLE}` : "correct or leave out the option library";
}

/** Libraries that come with Swift, in the words of the loader of Linux. */
const NO_SWIFT =
  /\blib(?:swift\w*|_?Foundation\w*|dispatch|BlocksRuntime)\.so\S*: cannot open shared object file/;

/** What mends a library that the system's loader refuses with `text`. */
function loadMend(text: string, mend: string): string {
  if (process.platform !== "linux" || !NO_SWIFT.test(text)) return mend;
  return "it needs the Swift that it was built with: run the command through `scripts/linux-swift`";
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
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
