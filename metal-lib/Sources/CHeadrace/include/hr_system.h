/*
 * System calls that Swift cannot or should not make itself: variadic ones, those that differ between macOS and Linux,
 * and those that tests make fail. Results are counts, descriptors or 0; negative ones are -errno.
 */
#ifndef HEADRACE_SYSTEM_H
#define HEADRACE_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Locks. */

/* A mutex with a condition variable. */
typedef struct hr_gate hr_gate;
/* NULL without memory. */
hr_gate *_Nullable hr_gate_create(void);
/* Nobody may hold it or wait for it any more. */
void hr_gate_destroy(hr_gate *_Nonnull gate);
void hr_gate_lock(hr_gate *_Nonnull gate);
void hr_gate_unlock(hr_gate *_Nonnull gate);
/* Call with the lock held. May return early. A negative timeout waits for a signal alone. */
void hr_gate_wait(hr_gate *_Nonnull gate, double timeout_ms);
void hr_gate_signal(hr_gate *_Nonnull gate);
void hr_gate_broadcast(hr_gate *_Nonnull gate);

/* Threads and the machine. */

/* Starts a detached thread at the quality of service of work that the user waits for. */
int32_t hr_thread_start(void (*_Nonnull body)(void *_Nullable), void *_Nullable context, const char *_Nonnull name);
double hr_monotonic_ms(void);
uint32_t hr_performance_cores(void);
/* Of the device's memory; mappings start and end on multiples of it. */
size_t hr_page_size(void);

/* Files. */

enum { HR_TYPE_MISSING = 0, HR_TYPE_FILE = 1, HR_TYPE_DIRECTORY = 2, HR_TYPE_PIPE = 3, HR_TYPE_SOCKET = 4, HR_TYPE_DEVICE = 5 };
/* What lies at a path, links followed. */
int32_t hr_path_type(const char *_Nonnull path);
/* Without waiting for anything, and closed in child processes. `writable` creates the file. */
int32_t hr_open(const char *_Nonnull path, bool writable);
int32_t hr_close_descriptor(int32_t descriptor);
/* HR_TYPE_ and, in `byte_length`, the length now. */
int32_t hr_file_stat(int32_t descriptor, int64_t *_Nonnull byte_length);
int64_t hr_pread(int32_t descriptor, void *_Nonnull bytes, size_t byte_length, int64_t offset);
int64_t hr_pwrite(int32_t descriptor, const void *_Nonnull bytes, size_t byte_length, int64_t offset);
enum { HR_SYNC_PLAIN = 0, HR_SYNC_BARRIER = 1, HR_SYNC_FULL = 2 };
int32_t hr_sync_file(int32_t descriptor, int32_t how);
/* Reads and writes of the descriptor leave the page cache as it is, where the system can. */
int32_t hr_no_cache(int32_t descriptor);
/* Reserves space; the length stays. */
int32_t hr_preallocate(int32_t descriptor, int64_t byte_length);
/* 1 where the file lies on a disk of this machine. */
int32_t hr_is_local(int32_t descriptor);

/* Memory. Addresses and lengths are multiples of hr_page_size. */

/* Shared and read-only. */
int32_t hr_map_file(int32_t descriptor, int64_t offset, size_t byte_length, void *_Nullable *_Nonnull address);
/* Zeroed; aligned to 2 MiB from 2 MiB on. */
int32_t hr_map_memory(size_t byte_length, void *_Nullable *_Nonnull address);
int32_t hr_unmap(void *_Nonnull address, size_t byte_length);
enum { HR_MEMORY_SEQUENTIAL = 0, HR_MEMORY_RANDOM = 1, HR_MEMORY_WILL_NEED = 2, HR_MEMORY_DONT_NEED = 3 };
int32_t hr_advise(void *_Nonnull address, size_t byte_length, int32_t advice);
/* 1 where all pages are in memory, 0 where one is not. */
int32_t hr_is_resident(void *_Nonnull address, size_t byte_length);
/* Reads pages in, so that a later touch does not wait; -EFAULT where the file has become too short. -ENOSYS where the
 * system has no call for it. */
int32_t hr_populate(void *_Nonnull address, size_t byte_length);

/* Wake-ups. */

/* Two ends that do not block. */
int32_t hr_socket_pair(int32_t *_Nonnull ends);
/* A full socket is as good as written: its reader has yet to look. */
int32_t hr_write_wake(int32_t descriptor);

#ifdef __cplusplus
}
#endif

#endif
