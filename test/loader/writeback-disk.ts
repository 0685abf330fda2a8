/**
 * A disk in memory that can crash, fill up and fail at any operation, and a device that writes to it. What a crash
 * leaves is what file systems promise and no more: unsynced writes come through in part, and names that no folder was
 * synced for may be lost each on its own.
 */
import { dirname } from "node:path";
import type { Completion, Device, DeviceBuffer, DeviceFile, DeviceQueue } from "../../src/device/device.ts";
import { FIELDS, Op, type RequestList } from "../../src/device/requests.ts";
import { HeadraceError } from "../../src/index.ts";
import type { FileOps, OpenedFile } from "../../src/loader/writeback/files.ts";

type Change = { readonly at: number; readonly bytes: Uint8Array } | { readonly length: number };

class Inode {
  current: Uint8Array<ArrayBuffer> = new Uint8Array();
  durable: Uint8Array<ArrayBuffer> = new Uint8Array();
  readonly unsynced: Change[] = [];

  change(change: Change): void {
    this.current = applied(this.current, change);
    this.unsynced.push(change);
  }

  sync(): void {
    this.durable = this.current.slice();
    this.unsynced.length = 0;
  }
}

function applied(bytes: Uint8Array<ArrayBuffer>, change: Change): Uint8Array<ArrayBuffer> {
  const length = "length" in change ? change.length : Math.max(bytes.length, change.at + change.bytes.length);
  const next = new Uint8Array(length);
  next.set(bytes.subarray(0, length));
  if ("bytes" in change) next.set(change.bytes, change.at);
  return next;
}

/** What an operation meets when its turn comes. */
export type Fate = "crash" | "ENOSPC" | "EIO" | undefined;

export class CrashDisk {
  /** Operations so far. */
  operations = 0;
  /** Asked before each operation, which are numbered from 0. */
  fate: (operation: number) => Fate = () => undefined;
  names = new Map<string, Inode>();
  folders = new Set<string>();
  #durableNames = new Map<string, Inode>();
  readonly #unsyncedNames: {
    readonly paths: readonly string[];
    readonly apply: (names: Map<string, Inode>) => void;
  }[] = [];
  #life = 0;
  readonly random: (below: number) => number;

  constructor(random: (below: number) => number) {
    this.random = random;
  }

  /** Ends whoever uses the disk now: their operations fail from here on. With `power`, unsynced changes are lost at random. */
  crash(power: boolean): void {
    this.#life++;
    if (power) {
      for (const inode of new Set([...this.names.values(), ...this.#durableNames.values()]))
        this.#lose(inode);
      this.#loseNames();
    }
    // The lock of a process that is gone; taking one over has tests of its own.
    for (const path of [...this.names.keys()]) if (/\/lock-[^/]*$/.test(path)) this.names.delete(path);
  }

  /** Bytes of all files but those at work. */
  files(): Record<string, string> {
    const found = [...this.names].filter(([path]) => !path.includes("/.headrace/"));
    return Object.fromEntries(
      found.map(([path, { current }]) => [path, Buffer.from(current).toString("latin1")]).sort(),
    );
  }

  /** Throws what fate has for this operation. Writes may come through in part first. */
  #step(life: number, partly: () => void = () => {}): void {
    if (life !== this.#life) throw new Error("this process is gone");
    const fate = this.fate(this.operations++);
    if (fate === undefined) return;
    partly();
    if (fate === "crash") {
      this.crash(this.random(2) === 0);
      throw new Error("this process is gone");
    }
    throw Object.assign(new Error(fate), { code: fate });
  }

  #lose(inode: Inode): void {
    let bytes = inode.durable;
    for (const change of inode.unsynced) {
      const kept = this.random(3);
      if (kept === 0) bytes = applied(bytes, change);
      if (kept === 1 && "bytes" in change) {
        bytes = applied(bytes, {
          at: change.at,
          bytes: change.bytes.slice(0, this.random(change.bytes.length + 1)),
        });
      }
    }
    inode.current = bytes.slice();
    inode.sync();
  }

  /** Any changes of names may be lost, but none that a later one of the same file rests on. */
  #loseNames(): void {
    const lost = new Set<string>();
    for (const { paths, apply } of this.#unsyncedNames) {
      if (paths.some((path) => lost.has(path)) || this.random(2) === 0)
        for (const path of paths) lost.add(path);
      else apply(this.#durableNames);
    }
    this.names = new Map(this.#durableNames);
    this.#unsyncedNames.length = 0;
  }

  #rename(paths: readonly string[], apply: (names: Map<string, Inode>) => void): void {
    apply(this.names);
    this.#unsyncedNames.push({ paths, apply });
  }

  /** Makes the folder's names durable, and with them all that they rest on. */
  #syncFolder(folder: string): void {
    const wanted = new Set<string>();
    const kept = this.#unsyncedNames
      .splice(0)
      .reverse()
      .map((change) => {
        const now = change.paths.some((path) => dirname(path) === folder || wanted.has(path));
        if (now) for (const path of change.paths) wanted.add(path);
        return { change, now };
      })
      .reverse();
    for (const { change, now } of kept) {
      if (now) change.apply(this.#durableNames);
      else this.#unsyncedNames.push(change);
    }
  }

  /** Opens a file at once, as devices do. */
  openNow(path: string, create: boolean): Inode {
    let inode = this.names.get(path);
    if (inode !== undefined) return inode;
    if (!create) throw Object.assign(new Error("no such file"), { code: "ENOENT" });
    inode = new Inode();
    const made = inode;
    this.#rename([path], (names) => names.set(path, made));
    return made;
  }

  /** The operations of a process that starts now. */
  process(): FileOps {
    const life = this.#life;
    const step = async (partly?: () => void) => {
      await Promise.resolve();
      this.#step(life, partly);
    };
    return {
      open: async (path, create) => {
        await step();
        return this.#opened(path, this.openNow(path, create), step);
      },
      rename: async (from, to) => {
        await step();
        const inode = this.names.get(from);
        if (inode === undefined) throw Object.assign(new Error("no such file"), { code: "ENOENT" });
        this.#rename([from, to], (names) => {
          names.delete(from);
          names.set(to, inode);
        });
      },
      remove: async (path) => {
        await step();
        this.#rename([path], (names) => names.delete(path));
      },
      makeFolder: async (path) => {
        await step();
        this.folders.add(path);
      },
      removeFolder: async (path) => {
        await step();
        if (![...this.names.keys()].some((name) => name.startsWith(`${path}/`))) this.folders.delete(path);
      },
      list: async (folder) => {
        await step();
        return [...this.names.keys()]
          .filter((path) => dirname(path) === folder)
          .map((path) => path.slice(folder.length + 1));
      },
      exists: async (path) => {
        await step();
        return this.names.has(path) || this.folders.has(path);
      },
      syncFolder: async (folder) => {
        await step();
        this.#syncFolder(folder);
      },
    };
  }

  #opened(path: string, inode: Inode, step: (partly?: () => void) => Promise<void>): OpenedFile {
    return {
      path,
      byteLength: async () => {
        await step();
        return inode.current.length;
      },
      read: async (into, position) => {
        await step();
        const some = inode.current.subarray(position, position + into.length);
        into.set(some);
        return some.length;
      },
      write: async (bytes, position) => {
        const copy = bytes.slice();
        await step(() => inode.change({ at: position, bytes: copy.slice(0, this.random(copy.length + 1)) }));
        inode.change({ at: position, bytes: copy });
      },
      truncate: async (length) => {
        await step();
        inode.change({ length });
      },
      sync: async () => {
        await step();
        inode.sync();
      },
      close: async () => {},
    };
  }

  /** A device whose files are on this disk: as much of one as a writer needs. */
  device(): Device {
    const life = this.#life;
    const inodes = new WeakMap<DeviceFile, Inode>();
    const bytes = new WeakMap<DeviceBuffer, Uint8Array>();
    const run = (list: readonly number[][], objects: RequestList["objects"]): number => {
      let done = 0;
      for (const [op, source, from, target, to, length] of list as [
        number,
        number,
        number,
        number,
        number,
        number,
      ][]) {
        const target_ = objects[target];
        const source_ = objects[source];
        if (op === Op.sync) {
          this.#step(life);
          inodes.get(source_ as DeviceFile)!.sync();
          continue;
        }
        const taken = bytes.get(source_ as DeviceBuffer)!.slice(from, from + length);
        if (op === Op.copy) bytes.get(target_ as DeviceBuffer)!.set(taken, to);
        else {
          const inode = inodes.get(target_ as DeviceFile)!;
          this.#step(life, () => inode.change({ at: to, bytes: taken.slice(0, this.random(length + 1)) }));
          inode.change({ at: to, bytes: taken });
        }
        done += length;
      }
      return done;
    };
    const createQueue = () => {
      const ended = new Map<number, Promise<Completion>>();
      let tickets = 0;
      return {
        submit: (list: RequestList) => {
          const requests = Array.from({ length: list.length }, (_, i) => [
            ...list.numbers.subarray(i * FIELDS, (i + 1) * FIELDS),
          ]);
          const objects = [...list.objects];
          const ticket = ++tickets;
          const times = { submittedMs: 0, completedMs: 0, ticket };
          ended.set(
            ticket,
            (async () => {
              for (let i = this.random(4); i > 0; i--) await Promise.resolve();
              try {
                return { ...times, bytesDone: run(requests, objects) };
              } catch (error) {
                const code = (error as { code?: string }).code === "ENOSPC" ? "DISK_FULL" : "IO_ERROR";
                return { ...times, bytesDone: 0, error: new HeadraceError(code, String(error)) };
              }
            })(),
          );
          return ticket;
        },
        completion: (ticket: number) => ended.get(ticket)!,
        close: async () => {},
      } as unknown as DeviceQueue;
    };
    return {
      createQueue,
      createBuffer: (byteLength: number) => {
        const buffer = { byteLength, gpuAddress: 1, close() {} } as unknown as DeviceBuffer;
        bytes.set(buffer, new Uint8Array(byteLength));
        return buffer;
      },
      openFile: (path: string) => {
        this.#step(life);
        const file = { path, close() {} } as unknown as DeviceFile;
        inodes.set(file, this.openNow(path, true));
        return file;
      },
      fill: (buffer: DeviceBuffer, values: Uint8Array) => bytes.get(buffer)!.set(values),
    } as unknown as Device;
  }
}

/** Puts bytes into a buffer of {@link CrashDisk.device}. */
export function fillBuffer(device: Device, buffer: DeviceBuffer, values: Uint8Array): void {
  (device as unknown as { fill(buffer: DeviceBuffer, values: Uint8Array): void }).fill(buffer, values);
}
