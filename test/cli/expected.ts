/** The datasets as read without this library: what the commands have to agree with. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { tableFromIPC } from "apache-arrow";
import { DATASETS } from "./process.ts";

export type Digests = Record<string, string>;

/** Tensors of one safetensors file, in the order of their bytes. */
export function tensorsOf(path: string): { name: string; bytes: Uint8Array }[] {
  const file = readFileSync(path);
  const dataStart = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, dataStart)) as Record<
    string,
    { data_offsets: [number, number] }
  >;
  return Object.entries(header)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, { data_offsets }]) => ({ name, data_offsets }))
    .sort((a, b) => a.data_offsets[0] - b.data_offsets[0])
    .map(({ name, data_offsets: [start, end] }) => ({
      name,
      bytes: file.subarray(dataStart + start, dataStart + end),
    }));
}

export function shardsOf(dataset: string, extension: string): string[] {
  return readdirSync(join(DATASETS, dataset))
    .filter((name) => name.endsWith(extension))
    .sort()
    .map((name) => join(DATASETS, dataset, name));
}

/** Per name, the sha256 of the bytes in the order of `parts`. */
export function digestsOf(parts: Iterable<{ name: string; bytes: Uint8Array }>): Digests {
  const hashes = new Map<string, ReturnType<typeof createHash>>();
  for (const { name, bytes } of parts) {
    const hash = hashes.get(name) ?? createHash("sha256");
    hashes.set(name, hash.update(bytes));
  }
  return Object.fromEntries([...hashes].map(([name, hash]) => [name, hash.digest("hex")]));
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** One row of `datasets/prose`. */
export interface ProseRow {
  readonly id: number;
  readonly source: string;
  readonly text: string;
  readonly tokens: Int32Array;
  readonly length: number;
}

export function proseRows(): ProseRow[] {
  return shardsOf("prose", ".arrow").flatMap((path) => {
    const table = tableFromIPC(readFileSync(path));
    return Array.from({ length: table.numRows }, (_, i) => {
      const at = (name: string) => table.getChild(name)!.get(i);
      return {
        id: at("id"),
        source: at("source"),
        text: at("text"),
        tokens: Int32Array.from(at("tokens")),
        length: at("length"),
      };
    });
  });
}

/** The digests of `rows`, with codes into `sources`. */
export function proseDigests(rows: readonly ProseRow[], sources: readonly string[]): Digests {
  const bytesOf = (values: ArrayLike<number>) => new Uint8Array(Int32Array.from(values).buffer);
  return digestsOf(
    rows.flatMap(({ id, source, text, tokens, length }) => [
      { name: "id", bytes: bytesOf([id]) },
      { name: "source", bytes: bytesOf([sources.indexOf(source)]) },
      { name: "text", bytes: new TextEncoder().encode(text) },
      { name: "tokens", bytes: bytesOf(tokens) },
      { name: "length", bytes: bytesOf([length]) },
    ]),
  );
}
