/** Which key of a line's object is which column: a tree, since objects within objects are columns `a.b`. */
import { HeadraceError } from "../../errors.ts";
import type { PackField } from "../rows.ts";
import { ColumnBuilder } from "./builder.ts";

/** One key. */
export interface PlanNode {
  readonly key: string;
  /** Of the key as JSON writes it where nothing is escaped. */
  readonly bytes: Uint8Array;
  /** Its number among all nodes. */
  readonly id: number;
  /** Its place among the keys of its object. */
  readonly index: number;
  /** A column, or an object with keys of its own. */
  readonly column?: ColumnBuilder | undefined;
  readonly object?: PlanObject | undefined;
}

export interface PlanObject {
  readonly nodes: PlanNode[];
  readonly byKey: Map<string, PlanNode>;
}

/** A key as one column, and as an object with columns. */
export type KeyPath = readonly string[];

export interface Plan {
  readonly root: PlanObject;
  readonly columns: readonly ColumnBuilder[];
  readonly numNodes: number;
}

/** `paths` are the fields' keys, from the outermost object inwards. Throws `BAD_INPUT` where two come to one. */
export function planOf(fields: readonly PackField[], paths: readonly KeyPath[]): Plan {
  const root: PlanObject = { nodes: [], byKey: new Map() };
  let numNodes = 0;
  const columns = fields.map((field, i) => {
    const column = new ColumnBuilder(field, fields.length);
    const path = paths[i]!;
    let object = root;
    path.forEach((key, depth) => {
      const leaf = depth === path.length - 1;
      let node = object.byKey.get(key);
      if (node === undefined) {
        const bytes = new TextEncoder().encode(key);
        const inner = leaf ? undefined : { nodes: [], byKey: new Map() };
        node = {
          key,
          bytes,
          id: numNodes++,
          index: object.nodes.length,
          column: leaf ? column : undefined,
          object: inner,
        };
        object.nodes.push(node);
        object.byKey.set(key, node);
      } else if (leaf || node.object === undefined) {
        throw new HeadraceError(
          "BAD_INPUT",
          `key ${JSON.stringify(path.slice(0, depth + 1).join("."))} is an object and a value; leave one of them out by --columns`,
        );
      }
      if (node.object !== undefined) object = node.object;
    });
    return column;
  });
  return { root, columns, numNodes };
}
