/** The folder that is packed to: whether it may be, and what goes when packing fails. */
import { existsSync, realpathSync } from "node:fs";
import { basename, dirname, join, resolve, sep } from "node:path";
import { HeadraceError } from "../errors.ts";
import { parseManifest } from "../format/manifest.ts";
import { type FileOps, readWhole } from "../loader/writeback/files.ts";
import { writing } from "./files.ts";

const MANIFEST_NAME = "dataset.json";

/** What the shards of one run are called. */
export interface ShardNames {
  readonly folder: string;
  readonly name: string;
}

/** A folder that takes shards. */
export class OutFolder {
  readonly #ops: FileOps;
  readonly #folder: string;
  readonly #name: string;
  readonly #made: boolean;

  private constructor(ops: FileOps, { folder, name }: ShardNames, made: boolean) {
    this.#ops = ops;
    this.#folder = folder;
    this.#name = name;
    this.#made = made;
  }

  /**
   * Makes the folder, or sees that it is empty. With `overwrite`, what an earlier run left goes: its `dataset.json`, the
   * shards that are listed there, and files named like those of this run; others stay. Throws `OTHER_JOB` for a folder
   * that holds anything else without `overwrite`, `IO_ERROR`.
   */
  static async open(ops: FileOps, target: ShardNames, overwrite: boolean): Promise<OutFolder> {
    const { folder } = target;
    return await writing(folder, async () => {
      const names = await ops.list(folder);
      if (names === undefined) await ops.makeFolder(folder);
      const opened = new OutFolder(ops, target, names === undefined);
      if (names === undefined || names.length === 0) return opened;
      if (!overwrite) {
        const few = names.toSorted().slice(0, 3).join(", ");
        const text = `${folder}: is not empty (${few}${names.length > 3 ? ", …" : ""}); name another folder by out, or set overwrite`;
        throw new HeadraceError("OTHER_JOB", text);
      }
      await opened.#clear(names);
      return opened;
    });
  }

  /** Removes what this run wrote: its manifest, files named like its own, `files`, and the folder where it was made for them and holds
   * nothing else. Never throws. */
  async remove(files: readonly string[]): Promise<void> {
    const names = (await this.#ops.list(this.#folder).catch(() => undefined)) ?? [];
    for (const name of names) {
      if (!isOurs(name, this.#name) && name !== MANIFEST_NAME && !files.includes(name)) continue;
      await this.#ops.remove(join(this.#folder, name)).catch(() => {});
    }
    if (this.#made) await this.#ops.removeFolder(this.#folder).catch(() => {});
  }

  async #clear(names: readonly string[]): Promise<void> {
    const listed = await this.#listedShards();
    // The manifest goes first: without it nobody takes the rest for a whole dataset.
    for (const old of [MANIFEST_NAME, ...listed]) await this.#ops.remove(join(this.#folder, old));
    for (const old of names) if (isOurs(old, this.#name)) await this.#ops.remove(join(this.#folder, old));
  }

  async #listedShards(): Promise<readonly string[]> {
    const bytes = await readWhole(this.#ops, join(this.#folder, MANIFEST_NAME));
    if (bytes === undefined) return [];
    try {
      return parseManifest(new TextDecoder().decode(bytes)).shards.map(({ path }) => path);
    } catch {
      return [];
    }
  }
}

/** Throws `BAD_OPTION` where a source lies in the folder that is packed to: it might be replaced before it is read. */
export function checkApart(sources: readonly string[], out: string): void {
  const folder = realPath(out);
  for (const source of sources) {
    const path = realPath(source);
    if (path !== folder && !path.startsWith(folder + sep)) continue;
    throw new HeadraceError(
      "BAD_OPTION",
      `out is ${out}, where the source ${source} lies; name another folder`,
    );
  }
}

/** Without links, as far as there is anything. */
function realPath(path: string): string {
  const whole = resolve(path);
  if (existsSync(whole)) return realpathSync(whole);
  const parent = dirname(whole);
  return parent === whole ? whole : join(realPath(parent), basename(whole));
}

/** Whether `file` is named like a shard of this run, or its index, or like one that is being written. */
function isOurs(file: string, name: string): boolean {
  const plain = file.startsWith(".") && file.endsWith(".packing") ? file.slice(1) : file;
  return (
    plain.startsWith(name) && /^(-\d{5,}(-of-\d{5,})?)?\.(arrow|safetensors)\b/.test(plain.slice(name.length))
  );
}
