/** Sorting of indices by numbers that lie elsewhere. */

/**
 * Sorts the first `length` of `order`, indices into `major` and `minor`, by (`major`, `minor`) ascending;
 * equal ones keep their order. Bottom-up merge sort between `order` and `scratch` (as long at least, its
 * contents lost): no allocation and no call for each comparison, unlike a typed array's own `sort`.
 */
export function sortIndices(
  order: Int32Array,
  scratch: Int32Array,
  length: number,
  major: Int32Array,
  minor: Float64Array,
): void {
  let from = order;
  let to = scratch;
  for (let width = 1; width < length; width *= 2) {
    for (let start = 0; start < length; start += 2 * width) {
      const middle = Math.min(start + width, length);
      const end = Math.min(middle + width, length);
      let left = start;
      let right = middle;
      for (let out = start; out < end; out++) {
        const takeLeft =
          left < middle && (right === end || !isAfter(from[left]!, from[right]!, major, minor));
        to[out] = takeLeft ? from[left++]! : from[right++]!;
      }
    }
    const swapped = from;
    from = to;
    to = swapped;
  }
  if (from !== order) order.set(from.subarray(0, length));
}

/** Whether index `x` sorts after index `y`. */
export function isAfter(x: number, y: number, major: Int32Array, minor: Float64Array): boolean {
  const byMajor = major[x]! - major[y]!;
  return byMajor > 0 || (byMajor === 0 && minor[x]! > minor[y]!);
}
