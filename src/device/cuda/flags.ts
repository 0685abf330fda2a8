/** Values of `cuda.h` that several files pass. */

/** CU_CTX_SCHED_BLOCKING_SYNC: who waits sleeps. */
export const CONTEXT_BLOCKING = 4;
/** CU_STREAM_NON_BLOCKING: no order with the legacy default stream. */
export const STREAM_NON_BLOCKING = 1;
/** CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING: who waits sleeps, and nobody asks for times. */
export const EVENT_BLOCKING = 1 | 2;
/** CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP: for every context, at the same address. */
export const REGISTER_SHARED = 1 | 2;
/** The same with CU_MEMHOSTREGISTER_READ_ONLY, without which a mapping that cannot be written to is refused. */
export const REGISTER_READ_ONLY = REGISTER_SHARED | 8;
