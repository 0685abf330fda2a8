/*
 * For the stand-in's own sources: the configuration in force, and the counts of live objects.
 */
#ifndef HEADRACE_STANDIN_COUNTS_H
#define HEADRACE_STANDIN_COUNTS_H

#include <stdint.h>

#include "standin.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One for each field of standin_counts, in its order. */
enum {
    STANDIN_LIVE_BUFFERS = 0, STANDIN_LIVE_HEAPS, STANDIN_LIVE_EVENTS, STANDIN_LIVE_QUEUES,
    STANDIN_LIVE_COMMAND_BUFFERS, STANDIN_LIVE_IO_QUEUES, STANDIN_LIVE_IO_HANDLES, STANDIN_LIVE_RESIDENCY_SETS,
    STANDIN_LIVE_RESIDENT_BYTES, STANDIN_LIVE_UNCOMMITTED_IO_COMMAND_BUFFERS,
    STANDIN_NUM_COUNTS
};
/* Adds `change`, which may be negative, to a count. Counts outlive faults and configuration. */
void standin_count(uint32_t field, int64_t change);

/* The configuration in force with every default filled in. */
standin_config standin_current_config(void);

/* 1 where [pointer, pointer + length) lies in one mapping of this process that can be read. The last bytes, fewer
 * than one page of 16,384, may lie in a mapping of their own: this machine's pages can be smaller than the
 * pretended ones, so that the end of a file's last page needs another mapping. */
int standin_in_one_mapping(const void *pointer, uint64_t length);

#ifdef __cplusplus
}
#endif

#endif
