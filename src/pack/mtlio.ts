/**
 * `pack --codec mtlio-…`: shards as MTLIO reads them compressed, made by a Metal device.
 *
 * Such a file is of use on Macs alone and is derived data: the shards themselves are packed uncompressed, and the
 * compressed form of each goes to the device's cache, where mode `stream` finds it.
 */
import type { Device } from "../device/device.ts";
import { type OpenDeviceOptions, openDevice } from "../device/open.ts";
import { HeadraceError } from "../errors.ts";

/** MTLIO's five methods, by the names that `--codec` has for them. */
export const MTLIO_CODECS = [
  "mtlio-lz4",
  "mtlio-lzfse",
  "mtlio-zlib",
  "mtlio-lzma",
  "mtlio-lzbitmap",
] as const;

export type MtlioCodec = (typeof MTLIO_CODECS)[number];

export function isMtlioCodec(name: string): name is MtlioCodec {
  return (MTLIO_CODECS as readonly string[]).includes(name);
}

export interface MtlioOptions {
  /** Bytes that are compressed at a time; 4 KiB to 16 MiB, default 64 KiB. */
  readonly chunkBytes?: number | undefined;
  /** Where the forms go; default the folder of the user's cache where `load --stream-codec` looks. */
  readonly cacheFolder?: string | undefined;
  /** Called now and then with the bytes of all sources that are done. */
  readonly onProgress?: ((bytesDone: number, byteLength: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Of the Metal device: `library` and the like. */
  readonly device?: OpenDeviceOptions | undefined;
}

export interface MtlioReport {
  readonly codec: MtlioCodec;
  /** One for each source, in their order. */
  readonly forms: readonly {
    readonly source: string;
    readonly path: string;
    readonly byteLength: number;
    /** Whether this call made it; a valid one was there otherwise. */
    readonly made: boolean;
  }[];
  /** Of all sources, and of all forms. */
  readonly sourceBytes: number;
  readonly streamBytes: number;
}

/** Opens and closes the device, to learn before the work begins whether {@link prepareMtlio} can do it. Throws
 * `UNSUPPORTED` where it cannot, and `BAD_OPTION`. */
export async function checkMtlio(codec: MtlioCodec, options: MtlioOptions = {}): Promise<void> {
  await openMtlio(codec, options).close();
}

/**
 * Makes the compressed form of each source, one after the other: each is compressed as fast as the device can. A form
 * that is there and valid stays. What was finished stays also where a later one fails. Throws what
 * {@link checkMtlio} does, `CANCELLED`, `FILE_CHANGED`, `DISK_FULL`, `IO_ERROR`, and what opening a file throws.
 */
export async function prepareMtlio(
  sources: readonly string[],
  codec: MtlioCodec,
  options: MtlioOptions = {},
): Promise<MtlioReport> {
  const { signal, onProgress } = options;
  const device = openMtlio(codec, options);
  try {
    const lengths = sources.map((source) => lengthOf(device, source));
    const sourceBytes = lengths.reduce((total, length) => total + length, 0);
    const forms: MtlioReport["forms"][number][] = [];
    let before = 0;
    for (const [i, source] of sources.entries()) {
      const { path, byteLength, made } = await device.prepareStream!(source, {
        ...(signal === undefined ? {} : { signal }),
        onProgress: (done) => onProgress?.(before + done, sourceBytes),
      });
      forms.push({ source, path, byteLength, made });
      before += lengths[i]!;
    }
    const streamBytes = forms.reduce((total, form) => total + form.byteLength, 0);
    return { codec, forms, sourceBytes, streamBytes };
  } finally {
    await device.close();
  }
}

function openMtlio(codec: MtlioCodec, options: MtlioOptions): Device {
  const method = codec.slice("mtlio-".length);
  const { chunkBytes, cacheFolder } = options;
  const stream = {
    codec: method,
    ...(chunkBytes === undefined ? {} : { chunkBytes }),
    ...(cacheFolder === undefined ? {} : { cacheFolder }),
  };
  const remedy = `pack with the codec none, and on a Mac run: headrace load DIR --device metal --strategy stream --stream-codec ${method}`;
  let device: Device;
  try {
    device = openDevice("metal", { ...options.device, stream });
  } catch (error) {
    if (!(error instanceof HeadraceError) || error.code !== "DEVICE_UNAVAILABLE") throw error;
    throw new HeadraceError(
      "UNSUPPORTED",
      `codec ${codec} is made by a Metal device: ${error.message}; ${remedy}`,
      {
        cause: error,
      },
    );
  }
  const { name, canStream, codecs } = device.capabilities;
  if (canStream && device.prepareStream !== undefined && codecs.includes(method)) return device;
  device[Symbol.dispose]();
  const known = codecs.join(", ") || "nothing";
  throw new HeadraceError("UNSUPPORTED", `codec ${codec}: device ${name} compresses ${known}; ${remedy}`);
}

function lengthOf(device: Device, path: string): number {
  using file = device.openFile(path);
  return file.byteLength;
}
