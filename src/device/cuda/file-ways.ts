/** Ways to a file that go past the page cache: O_DIRECT, and GPUDirect Storage. Each is tried where it was asked for, and
 * left where file system or machine do not have it. */
import { closeSync, constants, openSync } from "node:fs";
import type { Declined } from "../device.ts";
import type { FileWay } from "../host/context.ts";
import {
  type CuFile,
  closeGdsDriver,
  deregisterFile,
  openCuFile,
  openGdsDriver,
  registerFile,
} from "./gds.ts";
import { wayNumbers } from "./lane-ops.ts";
import type { CudaSettings } from "./options.ts";

export class FileWays {
  readonly #direct: boolean;
  readonly #cufile: CuFile | undefined;
  readonly #numFiles = { direct: 0, gds: 0 };
  #declined: string | undefined;
  /** How GPUDirect Storage works, or why not; undefined where it was not asked for. */
  readonly gds: string | undefined;

  /** A context of CUDA's is current. */
  constructor({ direct, gds }: Pick<CudaSettings, "direct" | "gds">) {
    this.#direct = direct;
    if (gds === false) return;
    const opened = openGds(gds === "compatibility");
    if ("declined" in opened) this.gds = `declined: ${opened.declined}`;
    else {
      this.#cufile = opened.cufile;
      this.gds = opened.mode;
    }
  }

  /** Path of libcufile, for lanes; undefined where it is not used. */
  get cufile(): string | undefined {
    return this.#cufile?.path;
  }

  /** What became of the files that were opened. */
  get facts(): Readonly<Record<string, string | number>> {
    if (!this.#direct && this.gds === undefined) return {};
    const { direct, gds } = this.#numFiles;
    const files = { directFiles: direct, gdsFiles: gds };
    return this.#declined === undefined ? files : { ...files, fileWayDeclined: this.#declined };
  }

  open(path: string): FileWay | undefined {
    if (!this.#direct && this.#cufile === undefined) return undefined;
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
    } catch (error) {
      this.#declined = `${path}: O_DIRECT: ${error instanceof Error ? error.message : String(error)}`;
      return undefined;
    }
    const way = this.#cufile === undefined ? undefined : this.#register(this.#cufile, path, fd);
    if (way !== undefined) return way;
    if (this.#direct) {
      this.#numFiles.direct++;
      return { number: wayNumbers.ofDirect(fd), close: () => closeSync(fd) };
    }
    closeSync(fd);
    return undefined;
  }

  /** When all files are closed. */
  close(): void {
    if (this.#cufile !== undefined) closeGdsDriver(this.#cufile);
  }

  #register(cufile: CuFile, path: string, fd: number): FileWay | undefined {
    const handle = registerFile(cufile, fd);
    if (typeof handle !== "number") {
      this.#declined = `${path}: ${handle.declined}`;
      return undefined;
    }
    this.#numFiles.gds++;
    return {
      number: wayNumbers.ofHandle(handle),
      close: () => {
        deregisterFile(cufile, handle);
        closeSync(fd);
      },
    };
  }
}

function openGds(compatible: boolean): { readonly cufile: CuFile; readonly mode: string } | Declined {
  const cufile = openCuFile();
  if ("declined" in cufile) return cufile;
  const state = openGdsDriver(cufile);
  if ("declined" in state) return state;
  if (state.mode === "direct" || compatible) return { cufile, mode: state.mode };
  closeGdsDriver(cufile);
  return {
    declined: `cuFile is in ${state.mode} mode, in which it reads into host memory itself: lanes do that faster`,
  };
}
