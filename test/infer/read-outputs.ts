/** Reads folders of outputs without this project's own loader. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { tableFromIPC } from "apache-arrow";

export interface OutputRow {
  readonly row: number;
  readonly shard: string;
  readonly tokens: number[];
  readonly text: string | null;
  readonly finish: string;
  readonly error: string | null;
  readonly logprobs?: number[];
  readonly embedding?: number[];
}

export function outputFiles(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.endsWith(".arrow"))
    .sort();
}

/** All rows, shard by shard in the order of the files' names. */
export function readOutputs(folder: string): OutputRow[] {
  return outputFiles(folder).flatMap((name) => {
    const table = tableFromIPC(readFileSync(join(folder, name)));
    const names = table.schema.fields.map((field) => field.name);
    return Array.from({ length: table.numRows }, (_, i) =>
      Object.fromEntries(names.map((column) => [column, plain(table.getChild(column)!.get(i))])),
    ) as unknown as OutputRow[];
  });
}

function plain(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (value !== null && typeof value === "object" && Symbol.iterator in value) {
    return Array.from(value as Iterable<unknown>, plain);
  }
  return value;
}

/** Every shard's bytes by its name, and what else is to be the same of two runs of one job. */
export function outputBytes(folder: string): Record<string, string> {
  return Object.fromEntries(
    outputFiles(folder).map((name) => [
      name,
      new Bun.CryptoHasher("sha256").update(readFileSync(join(folder, name))).digest("hex"),
    ]),
  );
}
