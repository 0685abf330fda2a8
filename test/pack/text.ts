/** What tests of packed text share: files of it, and rows as they come back. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { HeadraceError, openLoader, type PackOptions, pack } from "../../src/index.ts";

export type Row = Record<string, unknown>;

/** Writes `text` to a file and returns its path. */
export function textFile(folder: string, name: string, text: string | Uint8Array): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
}

/** All rows of a packed folder, numbers as numbers or, past 2^53, as bigints. */
export async function readRows(folder: string): Promise<Row[]> {
  const rows: Row[] = [];
  await using loader = await openLoader(folder, { device: "host", batchSize: 1000 });
  for await (using batch of loader) {
    for (let row = 0; row < batch.numSamples; row++) {
      const entries = [...batch.columns.values()].map((column) => {
        if (column.validity?.view[row] === 0) return [column.name, null];
        if (column.logical === "utf8") return [column.name, column.text(row)];
        const values = Array.from(column.row(row) as ArrayLike<number | bigint>, (value) =>
          typeof value === "bigint" && Number.isSafeInteger(Number(value)) ? Number(value) : value,
        );
        const isScalar = column.offsets === undefined && column.shape.length === 1;
        return [column.name, isScalar ? values[0] : values];
      });
      rows.push(Object.fromEntries(entries));
    }
  }
  return rows;
}

/** Packs a text and reads it back. */
export async function packed(
  folder: string,
  name: string,
  text: string | Uint8Array,
  options: Partial<PackOptions> = {},
): Promise<Row[]> {
  const out = join(folder, `${name}-out`);
  await pack(textFile(folder, name, text), { out, threads: 1, overwrite: true, ...options });
  return await readRows(out);
}

/** What `work` is rejected with; an error of its own where that is no HeadraceError. */
export async function rejection(work: () => Promise<unknown>): Promise<HeadraceError> {
  const error = await work().then(
    () => undefined,
    (error: unknown) => error,
  );
  if (error instanceof HeadraceError) return error;
  throw error ?? new Error("nothing was thrown");
}

/** Types of the columns of a packed folder: `id: I64`. */
export function schemaOf(folder: string): string[] {
  const { schema } = JSON.parse(readFileSync(join(folder, "dataset.json"), "utf8")) as {
    schema: { columns: { name: string; dtype: string; shape: number[]; ragged: boolean; logical: string }[] };
  };
  return schema.columns.map(({ name, dtype, shape, ragged, logical }) => {
    const type = logical === "number" ? dtype : logical;
    return `${name}: ${type}${shape.length > 0 ? `[${shape.join()}]` : ""}${ragged && logical === "number" ? "[]" : ""}`;
  });
}
