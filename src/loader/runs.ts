/** Joins what lies one after another. */

/** Calls `take` for each run of `count` pieces, back to back where they come from, that also follow one another in their
 * target: where it begins, counted from the first piece, its place in the target, and bytes. */
export function eachRun(
  count: number,
  targetOf: (index: number) => number,
  lengthOf: (index: number) => number,
  take: (from: number, to: number, byteLength: number) => void,
): void {
  let from = 0;
  let to = 0;
  let length = 0;
  for (let i = 0; i < count; i++) {
    const target = targetOf(i);
    if (target !== to + length) {
      if (length > 0) take(from, to, length);
      from += length;
      to = target;
      length = 0;
    }
    length += lengthOf(i);
  }
  if (length > 0) take(from, to, length);
}
