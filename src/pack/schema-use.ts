/** Whether the columns that `schema` gives types for are in the data at all: a name that is misspelt makes a column of nulls. */
import type { PackBatch, PackField } from "./rows.ts";

export class SchemaUse {
  /** Columns without a value so far. */
  readonly #unused: Map<number, string>;
  #numRows = 0;

  /** `fields` are the source's. */
  constructor(fields: readonly PackField[], schema: Readonly<Record<string, string>> = {}) {
    const given = fields.flatMap(({ name }, i): [number, string][] =>
      Object.hasOwn(schema, name) ? [[i, name]] : [],
    );
    this.#unused = new Map(given);
  }

  /** Rows as the source gives them. */
  add({ numRows, columns }: PackBatch): void {
    this.#numRows += numRows;
    for (const i of this.#unused.keys()) if (columns[i]!.nullCount < numRows) this.#unused.delete(i);
  }

  warnings(): readonly string[] {
    if (this.#numRows === 0) return [];
    return [...this.#unused.values()].map(
      (name) =>
        `schema names column ${JSON.stringify(name)}, and none of the ${this.#numRows} rows has a value there; is the name right?`,
    );
  }
}
