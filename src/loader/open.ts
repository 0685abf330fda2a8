/** The two ways in: a dataset to look at, a loader to loop over. */
import type { Device } from "../device/device.ts";
import { type OpenDeviceOptions, openDevice } from "../device/open.ts";
import { HeadraceError } from "../errors.ts";
import { Dataset, type DatasetOptions } from "./dataset.ts";
import { Loader } from "./loader.ts";
import type { LoaderOptions } from "./options.ts";
import { findSource } from "./source.ts";
import { PreparedSource, prepareSource } from "./whole.ts";

/** Options of {@link openLoader}: the dataset's, the loader's, and where to. */
export interface OpenOptions extends DatasetOptions, LoaderOptions {
  /** A device, borrowed; or the name of one, opened and owned by the loader. Default `auto`. */
  readonly device?: Device | string | undefined;
  /** How the device that was named is opened; not for one that is open. */
  readonly deviceOptions?: OpenDeviceOptions | undefined;
  /** A state that {@link Loader.state} gave, to go on from. */
  readonly resume?: unknown;
}

/**
 * Opens the shards of `source` (a file, folder, glob, index or manifest, or several) without touching their
 * data. Borrows `device`, and the source where it was prepared. Throws what finding and describing shards throws, and
 * `UNSUPPORTED` for compressed shards without random access where the source was not prepared.
 */
export function openDataset(
  source: string | readonly string[] | PreparedSource,
  device: Device,
  options: DatasetOptions = {},
): Dataset {
  if (!(source instanceof PreparedSource)) return new Dataset(findSource(source), device, options);
  return new Dataset(source.source, device, options, source.wholes);
}

/**
 * Opens `source` as batches on a device. The loader owns the dataset, and the device where it was named;
 * close it, or let `await using` do it. Throws what {@link openDevice}, {@link openDataset} and {@link Loader} throw, and
 * `BAD_OPTION` for `deviceOptions` beside a device that is open.
 *
 * @example
 * await using loader = await openLoader("datasets/prose", { batchSize: 32, shuffle: true });
 * for await (using batch of loader) consume(batch.column("tokens"));
 */
export async function openLoader(
  source: string | readonly string[],
  options: OpenOptions = {},
): Promise<Loader> {
  const owned: (() => void | Promise<void>)[] = [];
  try {
    let device: Device;
    if (typeof options.device === "object") {
      device = options.device;
      if (options.deviceOptions !== undefined) throw openAlready(device);
    } else {
      device = openDevice(options.device ?? "auto", options.deviceOptions);
      owned.unshift(() => device.close());
    }
    const prepared = await prepareSource(source, device, options);
    owned.unshift(() => prepared.close());
    const dataset = openDataset(prepared, device, options);
    owned.unshift(() => dataset.close());
    return new Loader(dataset, device, options, options.resume, owned);
  } catch (error) {
    for (const close of owned) await close();
    throw error;
  }
}

function openAlready({ capabilities: { name } }: Device): HeadraceError {
  const text = `deviceOptions are for a device that is named, and device ${name} is open already`;
  return new HeadraceError("BAD_OPTION", `${text}; give them to openDevice`);
}
