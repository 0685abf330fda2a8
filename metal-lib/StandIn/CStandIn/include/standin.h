/*
 * What tests may ask of the stand-in: sizes of the device that it plays, and failures. Exported by the Linux build
 * of the library only.
 */
#ifndef HEADRACE_STANDIN_H
#define HEADRACE_STANDIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Calls that can fail. The first five are system calls of the library, the rest Metal's. */
enum {
    STANDIN_PREAD = 0, STANDIN_PWRITE = 1, STANDIN_SYNC = 2, STANDIN_MMAP = 3, STANDIN_FSTAT = 4,
    STANDIN_MAKE_BUFFER = 5,      /* returns nil; heaps count too */
    STANDIN_MAKE_QUEUE = 6,       /* returns nil */
    STANDIN_MAKE_EVENT = 7,       /* returns nil */
    STANDIN_COMMAND_BUFFER = 8,   /* a GPU command buffer ends with MTLCommandBufferError `code` */
    STANDIN_IO_COMMAND_BUFFER = 9,/* an MTLIO command buffer ends with status error, or cancelled with code -1 */
    STANDIN_IO_HANDLE = 10,       /* makeIOFileHandle throws */
    STANDIN_IO_SCRATCH = 11,      /* the scratch allocator's answer is taken for nil */
    STANDIN_COMPRESS = 12,        /* MTLIOFlushAndDestroyCompressionContext gives .error */
    STANDIN_RESIDENCY = 13,       /* makeResidencySet throws */
    STANDIN_PIPELINE = 14,        /* makeComputePipelineState throws */
    STANDIN_IO_STATUS = 15,       /* copyStatus writes `code` instead of the status, or nothing with code -1 */
    STANDIN_IO_SIGNAL = 16,       /* an MTLIO command buffer's signal is left out with code 1 */
    STANDIN_IO_WAIT = 17,         /* counted when it is met; cannot fail, nor can the next two */
    STANDIN_IO_BARRIER = 18,
    STANDIN_GPU_WAIT = 19,        /* a GPU command buffer's wait for an event */
    STANDIN_NUM_CALLS = 20
};

/* A failure for calls number `nth` (from 1, counted from when this was said) to `nth + times - 1`. */
typedef struct {
    uint32_t call;
    uint32_t nth, times;
    int32_t code;        /* errno of a system call, or the MTL error's code; 0 with `limit` or a delay alone */
    int64_t limit;       /* pread and pwrite move at most so many bytes; -1 is no limit */
    uint32_t delay_us;   /* the call, or its completion, comes so much later */
} standin_fault;

/* Replaces all faults and starts counting anew. At most 64. */
void standin_set_faults(const standin_fault *faults, uint32_t count);
/* How often a call was made since the faults were set. */
uint64_t standin_calls(uint32_t call);

#define STANDIN_NO_DEVICES 0xffffffffu

/* What a device says of itself; 0 leaves the default. Takes effect for devices made later. */
typedef struct {
    uint64_t max_buffer_length;     /* default 16 GiB */
    uint64_t working_set;           /* default 17.8 GiB, of a 24 GiB machine */
    uint64_t bytes_per_second;      /* of MTLIO loads: a slow disk */
    uint32_t num_devices;           /* default 1; STANDIN_NO_DEVICES is none */
    uint32_t not_unified;           /* 1: hasUnifiedMemory is false */
    uint32_t shuffle_completions;   /* 1: command buffers complete out of order and late */
    uint32_t reserved;
} standin_config;
void standin_configure(const standin_config *config);

/* Live objects of the stand-in, for leak tests. */
typedef struct {
    uint64_t buffers, heaps, events, queues, command_buffers, io_queues, io_handles, residency_sets, resident_bytes;
    uint64_t uncommitted_io_command_buffers;
} standin_counts;
void standin_live(standin_counts *counts);

/* For the sources of the stand-in and of the library's system calls. */
typedef struct {
    int32_t code;
    int64_t limit;
    uint32_t delay_us;
    uint32_t met;        /* 0: no fault, the rest is 0 too, with limit -1 */
} standin_outcome;
/* Counts a call and tells what becomes of it. Does not sleep. */
standin_outcome standin_meet(uint32_t call);

#ifdef __cplusplus
}
#endif

#endif
