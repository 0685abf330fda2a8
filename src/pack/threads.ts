/** How many threads work. */
import { availableParallelism } from "node:os";

/** More of them wait for the one that writes. */
const MOST = 8;

/** Workers of a run; results do not depend on it. */
export function threadsOf({ threads }: { readonly threads?: number | undefined }): number {
  return threads ?? Math.min(availableParallelism(), MOST);
}
