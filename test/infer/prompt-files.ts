/** Makes small datasets of prompts. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as arrow from "apache-arrow";

export type ColumnValues = readonly unknown[];

/** A column by the type of its values. */
export interface PromptColumn {
  readonly type: arrow.DataType;
  readonly values: ColumnValues;
}

export const tokenList = (child: arrow.DataType = new arrow.Int32()) =>
  new arrow.List(new arrow.Field("item", child, false));

/** Writes one Arrow file with these columns. */
export function writeShard(path: string, columns: Readonly<Record<string, PromptColumn>>): string {
  const vectors = Object.entries(columns).map(([name, { type, values }]) => {
    const builder = arrow.makeBuilder({ type, nullValues: [null] });
    for (const value of values) builder.append(value as never);
    return [name, builder.finish().toVector()] as const;
  });
  const table = new arrow.Table(Object.fromEntries(vectors));
  writeFileSync(path, arrow.tableToIPC(table, "file"));
  return path;
}

/** A folder of shards `part-0.arrow`, … whose column `tokens` has these prompts. */
export function writeTokens(folder: string, shards: readonly (readonly (readonly number[])[])[]): string {
  mkdirSync(folder, { recursive: true });
  shards.forEach((values, i) => {
    writeShard(join(folder, `part-${i}.arrow`), { tokens: { type: tokenList(), values } });
  });
  return folder;
}
