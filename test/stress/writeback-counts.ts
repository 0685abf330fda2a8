/** Rows of each shard of the job that is killed again and again: many small ones, so that it is often at a rename. */
export const KILL_COUNTS: readonly number[] = Array.from({ length: 300 }, (_, i) =>
  i % 11 === 5 ? 0 : 30 + (i % 37),
);
