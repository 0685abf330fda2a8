/** Compressed shards without random access: each is decoded once, before the dataset is opened, and then read as a plain
 * file. */
import { decodeWhole, type WholeFile } from "../codec/whole.ts";
import type { Device } from "../device/device.ts";
import { HeadraceError } from "../errors.ts";
import { describeContainer } from "../format/container.ts";
import { isContainerName, parseContainerName } from "../format/container-names.ts";
import { findSource, type Source } from "./source.ts";

/** A shard that was decoded as a whole. */
export interface WholeShard {
  /** Of what it decodes to. */
  readonly file: WholeFile;
  /** For people: why it has no random access. */
  readonly reason: string;
}

/** A source that is ready to be opened, with what was decoded of it. Closed after what was opened from it. */
export class PreparedSource implements Disposable {
  /** @internal */
  readonly source: Source;
  /** @internal By the shard's path. */
  readonly wholes: ReadonlyMap<string, WholeShard>;

  constructor(source: Source, wholes: ReadonlyMap<string, WholeShard>) {
    this.source = source;
    this.wholes = wholes;
  }

  close(): void {
    for (const { file } of this.wholes.values()) file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

export interface PrepareOptions {
  /** Whether checksums are verified; default true. */
  readonly checksums?: boolean | undefined;
  /** Ends the decoding with `CANCELLED`. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Finds the shards of `source`, and decodes those that can only be decoded from their start to their end into temporary
 * files without a name, which takes as much room on the disk. Other shards are not touched but for the tables of
 * compressed ones. Throws what finding shards throws, and `BAD_CHUNK`, `UNSUPPORTED_COMPRESSION`, `DISK_FULL`, `IO_ERROR`,
 * `CANCELLED`.
 */
export async function prepareSource(
  source: string | readonly string[],
  device: Device,
  options: PrepareOptions = {},
): Promise<PreparedSource> {
  const found = findSource(source);
  const wholes = new Map<string, WholeShard>();
  const prepared = new PreparedSource(found, wholes);
  try {
    for (const { path } of found.shards) {
      if (!isContainerName(path)) continue;
      const reason = wholeReasonOf(device, path);
      if (reason === undefined) continue;
      const { codec } = parseContainerName(path)!;
      wholes.set(path, { file: await decodeWhole(path, { codec, ...options }), reason });
    }
    return prepared;
  } catch (error) {
    prepared.close();
    throw error;
  }
}

/** Why the shard at `path` has no random access; undefined where it has. */
function wholeReasonOf(device: Device, path: string): string | undefined {
  using file = device.openFile(path);
  const read = (byteOffset: number, byteLength: number) => file.readSync(byteOffset, byteLength);
  const container = describeContainer(read, file.byteLength, path);
  return container.seekable ? undefined : container.wholeReason;
}

/** For a dataset that was opened without its source being prepared. */
export function notPrepared(path: string, reason: string): HeadraceError {
  return new HeadraceError(
    "UNSUPPORTED",
    `${path}: has no random access: ${reason}; open it by openLoader or prepareSource, which decode it once, or pack it again`,
  );
}
