/** "Did you mean …?": the known names nearest to one that was not found. */

/** Differences to look for, and names to look at, at most: keeps a miss among 10^5 names under 100 ms. */
const MAX_DISTANCE = 3;
const MAX_NAME_LENGTH = 256;

/**
 * Up to `count` of `candidates` that are nearest to `name`, nearest first, then in code-unit order.
 *
 * Near is the same but for case, or at most 3 insertions, deletions and replacements away and no more than a
 * third of the name's length. Names over 256 characters are near to nothing.
 */
export function nearestNames(name: string, candidates: Iterable<string>, count = 3): string[] {
  if (name.length > MAX_NAME_LENGTH) return [];
  const limit = Math.min(MAX_DISTANCE, Math.max(1, Math.floor(name.length / 3)));
  const lower = name.toLowerCase();
  const found: { candidate: string; distance: number }[] = [];
  for (const candidate of candidates) {
    if (Math.abs(candidate.length - name.length) > limit) continue;
    const distance = candidate.toLowerCase() === lower ? 0 : editDistance(name, candidate, limit);
    if (distance > limit) continue;
    found.push({ candidate, distance });
    if (found.length >= 8 * count) keepNearest(found, count);
  }
  keepNearest(found, count);
  return found.map(({ candidate }) => candidate);
}

/** The end of a message: `; did you mean "a" or "b"?`, or nothing where no name is near. */
export function didYouMean(name: string, candidates: Iterable<string>): string {
  const near = nearestNames(name, candidates).map((candidate) => JSON.stringify(candidate));
  return near.length === 0 ? "" : `; did you mean ${near.join(" or ")}?`;
}

function keepNearest(found: { candidate: string; distance: number }[], count: number): void {
  found.sort((a, b) => a.distance - b.distance || (a.candidate < b.candidate ? -1 : 1));
  if (found.length > count) found.length = count;
}

/** Levenshtein's distance of two strings in UTF-16 units, or any number above `limit` once it is passed. */
function editDistance(left: string, right: string, limit: number): number {
  const [a, b] = withoutCommonEnds(left, right);
  let previous = new Uint16Array(b.length + 1).map((_, column) => column);
  let current = new Uint16Array(b.length + 1);
  for (let row = 1; row <= a.length; row++) {
    current[0] = row;
    let best = row;
    for (let column = 1; column <= b.length; column++) {
      const replaced = previous[column - 1]! + (a[row - 1] === b[column - 1] ? 0 : 1);
      const distance = Math.min(replaced, previous[column]! + 1, current[column - 1]! + 1);
      current[column] = distance;
      best = Math.min(best, distance);
    }
    if (best > limit) return best;
    [previous, current] = [current, previous];
  }
  return previous[b.length]!;
}

/** Both strings less what they start and end with alike: for names of one model, most of them. */
function withoutCommonEnds(a: string, b: string): [string, string] {
  const shorter = Math.min(a.length, b.length);
  let start = 0;
  while (start < shorter && a[start] === b[start]) start++;
  let end = 0;
  while (end < shorter - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  return [a.slice(start, a.length - end), b.slice(start, b.length - end)];
}
