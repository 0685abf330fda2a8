/** Int32 words of the control block of a Worker that waits. Apart from the Worker's own file, which belongs to its
 * thread alone: loaded by another, it would listen there, and keep the process alive. */
export const WAIT_CONTROL = {
  /** Events written to the ring so far. */
  head: 0,
  /** 1 when the Worker must end. */
  stop: 1,
  words: 2,
} as const;
