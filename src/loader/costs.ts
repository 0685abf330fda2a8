/** What the limits of a batch count. */
import { HeadraceError } from "../errors.ts";
import type { Dataset } from "./dataset.ts";
import type { ResolvedOptions } from "./options.ts";

/** The most that a batch's samples may cost together; undefined where only their number is bounded. */
export function costLimitOf(dataset: Dataset, options: ResolvedOptions): number | undefined {
  const { batchBytes, batchLength, pad } = options;
  if (batchBytes === undefined) return batchLength;
  // Each ragged column has one offset more than the batch has samples.
  const numOffsets = pad === undefined ? dataset.schema.columns.filter((column) => column.ragged).length : 0;
  return Math.max(1, batchBytes - 4 * numOffsets);
}

/** Index of the column whose elements `batchLength` counts; undefined without that limit. Throws
 * `BAD_OPTION` where it is not clear which. */
export function lengthColumnOf(dataset: Dataset, options: ResolvedOptions): number | undefined {
  if (options.batchLength === undefined) return undefined;
  const { columns } = dataset.schema;
  const name = options.lengthColumn;
  const ragged = columns.filter((column) => column.ragged);
  if (name === undefined && ragged.length === 1) return columns.indexOf(ragged[0]!);
  const index = columns.findIndex((column) => column.name === name && column.ragged);
  if (index >= 0) return index;
  const names = ragged.map((column) => column.name).join(", ") || "none";
  throw new HeadraceError(
    "BAD_OPTION",
    `batchLength needs lengthColumn to name a ragged column (there are: ${names}); it is ${name ?? "unset"}`,
  );
}
