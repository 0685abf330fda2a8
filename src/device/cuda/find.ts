/** Where the parts of the CUDA toolkit may lie that come without the driver: toolkits, and Python's packages. */
import { readdirSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";

/** What decides where to look; tests make up their own. */
export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Where toolkits are installed: `/usr/local`. */
  readonly local: string;
  readonly home: string;
  /** Of this process: `x64`, `arm64`. */
  readonly arch: string;
}

/** Those of this process. */
export function surroundingsHere(): Surroundings {
  return { env: process.env, local: "/usr/local", home: homedir(), arch: process.arch };
}

/** Toolkits' names for a processor; Arm servers and Jetson differ. */
const TARGETS: Readonly<Record<string, readonly string[]>> = {
  x64: ["x86_64-linux"],
  arm64: ["sbsa-linux", "aarch64-linux"],
};

/** Files called `name`, such as `libnvrtc.so`, or that with a version behind: in toolkits that the environment names,
 * in those of {@link Surroundings.local}, and in the Python that the user would start. The newest of a folder comes
 * first, and a file that several names lead to comes once. Looks, and starts nothing. */
export function findLibraries(name: string, surroundings: Surroundings): string[] {
  const found = new Map<string, string>();
  for (const folder of libraryFolders(surroundings)) {
    const files = entriesOf(folder).filter((file) => versionOf(file, name) !== undefined);
    for (const file of files.sort((a, b) => newerFirst(a, b, name))) {
      const path = join(folder, file);
      const real = realPath(path);
      if (real !== undefined && !found.has(real)) found.set(real, path);
    }
  }
  return [...found.values()];
}

/** In the order in which they are looked through; many are not there. */
export function libraryFolders(surroundings: Surroundings): string[] {
  const { env, local } = surroundings;
  const toolkits = [env.CUDA_HOME, env.CUDA_PATH].filter(isNamed);
  const installed = entriesOf(local).filter((entry) => /^cuda(?:-\d+(?:\.\d+)*)?$/.test(entry));
  // `cuda` is a link to the one that the machine's owner has chosen.
  installed.sort((a, b) => (a === "cuda" ? -1 : b === "cuda" ? 1 : newerFirst(a, b, "cuda-")));
  toolkits.push(...installed.map((entry) => join(local, entry)));
  const folders = toolkits.flatMap((toolkit) => toolkitFolders(toolkit, surroundings));
  for (const prefix of pythonPrefixes(surroundings)) {
    folders.push(...packageFolders(prefix));
    // Conda puts toolkits into its environments.
    folders.push(...toolkitFolders(prefix, surroundings));
  }
  return [...new Set(folders)];
}

function toolkitFolders(toolkit: string, { arch }: Surroundings): string[] {
  const targets = (TARGETS[arch] ?? []).map((target) => join("targets", target, "lib"));
  return ["lib64", "lib", ...targets].map((folder) => join(toolkit, folder));
}

/** Of the environment that is active, of `python3`, and of the user's own packages. */
function pythonPrefixes({ env, home, local }: Surroundings): string[] {
  const prefixes = [env.VIRTUAL_ENV, env.CONDA_PREFIX].filter(isNamed);
  const python = Bun.which("python3", { PATH: env.PATH ?? "" });
  if (python !== null) {
    prefixes.push(dirname(dirname(python)), dirname(dirname(realPath(python) ?? python)));
  }
  prefixes.push(join(home, ".local"), local);
  return [...new Set(prefixes)];
}

/** Where NVIDIA's packages keep libraries: `nvidia/<part>/lib` among the packages of each Python of a prefix. */
function packageFolders(prefix: string): string[] {
  const pythons = ["lib", "lib64"].flatMap((lib) =>
    entriesOf(join(prefix, lib))
      .filter((entry) => /^python3(?:\.\d+)?$/.test(entry))
      .map((entry) => join(prefix, lib, entry)),
  );
  const packages = pythons.flatMap((python) => [
    join(python, "site-packages"),
    join(python, "dist-packages"),
  ]);
  return packages.flatMap((folder) =>
    entriesOf(join(folder, "nvidia")).map((part) => join(folder, "nvidia", part, "lib")),
  );
}

function isNamed(value: string | undefined): value is string {
  return value !== undefined && value !== "";
}

/** What is in a folder, in order; nothing where it is not there or cannot be read. */
function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

/** `[12, 4]` for `libnvrtc.so.12.4` and `[]` for `libnvrtc.so` itself; undefined for another file. */
function versionOf(file: string, name: string): number[] | undefined {
  if (!file.startsWith(name)) return undefined;
  const parts = file.slice(name.length).replace(/^\./, "");
  if (parts === "") return [];
  return /^\d+(?:\.\d+)*$/.test(parts) ? parts.split(".").map(Number) : undefined;
}

/** Files without a version come last: what they lead to has come already. */
function newerFirst(a: string, b: string, name: string): number {
  const left = versionOf(a, name) ?? [];
  const right = versionOf(b, name) ?? [];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (right[i] ?? -1) - (left[i] ?? -1);
    if (difference !== 0) return difference;
  }
  return 0;
}
