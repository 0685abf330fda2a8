/*
 * The C ABI of libHeadraceMetal: files, memory and compute of one Metal device.
 *
 * Rules
 *  1. Version. `hr_abi_version` must equal HR_ABI_VERSION and `hr_struct_sizes` the sizes below; the caller
 *     compares both before anything else.
 *  2. Handles are 32-bit: kind (4 bits), generation (12), index (16); 0 is never one. A handle that was closed
 *     gives HR_CLOSED, one of the wrong kind HR_INVALID; never a crash.
 *  3. Ownership. The caller owns all memory that it passes, and nothing of it is used after return, except
 *     where a function says so. The library owns what is behind a handle. Children keep their parents' objects
 *     alive, and work in flight keeps the files and buffers that it uses: closing early is safe, and memory
 *     goes with its last user. Closing a device closes all that it made.
 *  4. Errors. A status is returned; the optional hr_error (NULL is fine) has the text, UTF-8, one line. The
 *     outcome of submitted work comes as a completion; its text by `hr_queue_error`.
 *  5. Completions. No function ever calls back. `wake_fd` of a device turns readable when a completion waits
 *     that was not announced before; read it empty, then call `hr_device_poll` until it gives 0.
 *  6. Threads. Every function may be called from any thread. None waits for data or for other work, except
 *     `hr_device_wait`, `hr_file_read`, and the compilers `hr_library_create` and `hr_pipeline_create`.
 *  7. Numbers. Rows that are made and read for each batch (hr_request, hr_completion, hr_binding) hold whole
 *     numbers below 2^53 as doubles: a JavaScript runtime writes and reads those without conversion.
 */
#ifndef HEADRACE_H
#define HEADRACE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HR_ABI_VERSION 2u

typedef uint32_t hr_handle;
/* HR_OK or a positive count; negative is one of the codes below. */
typedef int32_t hr_status;

enum {
    HR_OK = 0,
    HR_INVALID = -1,       /* an argument makes no sense here */
    HR_CLOSED = -2,        /* the handle, or an object that the work needs, was closed */
    HR_UNSUPPORTED = -3,   /* this device or system cannot do it */
    HR_OUT_OF_MEMORY = -4,
    HR_OUT_OF_RANGE = -5,  /* bytes outside a file or buffer */
    HR_IO = -6,            /* a system call failed: os_errno */
    HR_SHORT_READ = -7,    /* the file ended early */
    HR_FILE_CHANGED = -8,  /* the file is shorter than when it was opened */
    HR_NOT_A_FILE = -9,    /* a directory, a pipe, a socket, a device */
    HR_CANCELLED = -10,
    HR_TIMED_OUT = -11,
    HR_DEVICE_FAILED = -12, /* the work failed on the GPU; the device goes on */
    HR_DEVICE_LOST = -13,  /* the device is gone for good */
    HR_DECLINED = -14,     /* should not be mapped: read instead; the text has the reason */
    HR_COMPILE_FAILED = -15, /* kernel source; the text has the compiler's first error */
    HR_CORRUPT = -16       /* a compressed file is not what it should be */
};

typedef struct {
    int32_t status;
    int32_t os_errno;      /* 0 where no system call was the cause */
    char message[248];     /* UTF-8, ends in 0 */
} hr_error;

/* hr_device_info.flags */
enum {
    HR_DEVICE_UNIFIED_MEMORY = 1,
    HR_DEVICE_RESIDENCY_SETS = 2,
    HR_DEVICE_CAN_STREAM = 4,     /* MTLIO queues */
    HR_DEVICE_STAND_IN = 8,       /* a test instrument, no GPU */
    HR_DEVICE_REMOVABLE = 16,
    HR_DEVICE_LOW_POWER = 32,
    HR_DEVICE_MATMUL = 64         /* hr_matmul_create works */
};

/* Bit n of hr_device_info.codecs, and `codec` of `hr_file_open` and `hr_compress`: the raw values of
 * MTLIOCompressionMethod. */
enum { HR_CODEC_ZLIB = 0, HR_CODEC_LZFSE = 1, HR_CODEC_LZ4 = 2, HR_CODEC_LZMA = 3, HR_CODEC_LZBITMAP = 4 };
#define HR_CODEC_NONE 0xffffffffu

typedef struct {
    uint32_t flags;
    uint32_t gpu_family;          /* highest Apple family: 7 is M1; 0 is none */
    uint32_t metal_version;       /* highest MSL version: major << 16 | minor */
    uint32_t simd_width;
    uint32_t codecs;
    uint32_t lanes;               /* threads that read */
    uint32_t performance_cores;
    uint32_t ordinal;
    uint64_t page_size;
    uint64_t max_buffer_length;
    uint64_t working_set;         /* recommendedMaxWorkingSetSize */
    uint64_t max_map_length;      /* the largest window worth mapping at once */
    uint64_t map_budget;          /* bytes of windows that may be mapped at the same time */
    uint64_t max_threadgroup_memory;
    uint64_t allocated_size;      /* currentAllocatedSize */
    uint64_t registry_id;
    char name[128];
} hr_device_info;                 /* 224 bytes */

/* hr_device_options.flags */
enum {
    HR_OPTION_RETRY_ONCE = 1,        /* run GPU work again once after a timeout, page fault or reset */
    HR_OPTION_NO_RESIDENCY = 2,      /* no residency sets */
    HR_OPTION_BARRIER_FSYNC = 4,     /* `sync` requests order writes (F_BARRIERFSYNC) */
    HR_OPTION_FULL_FSYNC = 8,        /* `sync` requests reach the medium (F_FULLFSYNC) */
    HR_OPTION_GPU_BEHIND = 16        /* GPU work gets to the GPU only after streamed reads before it have ended well */
};

/* A zero in a field means its default. */
typedef struct {
    uint32_t flags;
    uint32_t lanes;                  /* 1 to 64; default 8 to 12, by the performance cores */
    uint32_t write_lanes;            /* 1 to 16; default 3 */
    uint32_t io_queues;              /* MTLIO queues for compressed files; 1 to 16, default by the cores */
    uint32_t io_max_commands;        /* maxCommandsInFlight; 0 lets the system choose */
    uint32_t io_max_command_buffers; /* maxCommandBufferCount; default 64 */
    uint32_t io_priority;            /* 0 high, 1 normal, 2 low */
    uint32_t io_serial;              /* 1: serial MTLIO queues */
    uint64_t piece_bytes;            /* longer reads are cut; 4 KiB to 1 GiB, default 8 MiB */
    uint64_t inline_copy_bytes;      /* copies up to this many bytes are made by `hr_queue_submit`; default 1 MiB */
    uint64_t map_budget;             /* default three quarters of the working set */
    uint64_t io_scratch_bytes;       /* bound of MTLIO scratch memory; default 256 MiB */
    uint64_t keep_alive_ms;          /* residency is asked for again this long after the last GPU work; default 3 min */
} hr_device_options;                 /* 72 bytes */

typedef struct {
    uint64_t byte_length;
    uint64_t host_address;        /* 0 where the host cannot see the memory */
    uint64_t gpu_address;
    uint64_t native_object;       /* the MTLBuffer, borrowed until close */
} hr_buffer_info;                 /* 32 bytes */

/* hr_request.op */
enum {
    HR_READ = 1,                  /* file -> buffer */
    HR_WRITE = 2,                 /* buffer -> file */
    HR_COPY = 3,                  /* buffer -> buffer; must not overlap */
    HR_SYNC = 4,                  /* makes written data of file `source` durable */
    HR_BARRIER = 5,
    HR_DISPATCH = 6,              /* `source` numbers an hr_dispatch of the submission */
    HR_SIGNAL = 7,                /* event `source` reaches value byte_length */
    HR_WAIT = 8,
    HR_REPLAY = 9                 /* sequence `source` with `byte_length` hr_offsets from number source_offset */
};

/* `source` and `target` index the submission's objects; -1 is none. Requests between two ordering ones
 * (barrier, dispatch, replay, signal, wait) run side by side in any order.
 *
 * Behind a request that failed nothing is started, but for what follows streamed reads directly and was handed on
 * before: streamed reads behind a barrier, which are cancelled, and GPU work (dispatch, replay, copies with a private
 * side), which runs over what bytes are there. What a failed ticket was to write is undefined, and a kernel must stay
 * inside its buffers whatever their bytes are. With HR_OPTION_GPU_BEHIND no GPU work is handed on early. */
typedef struct {
    double op, source, source_offset, target, target_offset, byte_length;
} hr_request;                     /* 48 bytes */

/* One kernel launch: bindings [first_binding, first_binding + binding_count) and constants
 * [constants_offset, constants_offset + constants_length) of the same call. Constants are bound at index
 * `constants_index` by value, at most 4096 bytes. */
typedef struct {
    hr_handle pipeline;
    uint32_t first_binding, binding_count;
    uint32_t constants_offset, constants_length, constants_index;
    uint32_t threads[3];          /* of the whole grid */
    uint32_t group[3];            /* of a threadgroup; 0 lets the library choose */
    uint32_t threadgroup_memory;  /* bytes, at index 0; 0 is none */
    uint32_t reserved;
} hr_dispatch;                    /* 56 bytes */

typedef struct {
    double buffer;                /* in a submission: index of the object; in a sequence: handle */
    double offset;                /* bytes */
    double index;                 /* of the kernel's buffer argument */
    double slot;                  /* in a sequence: a replay may replace the offset by this number; -1: fixed */
} hr_binding;                     /* 32 bytes */

typedef struct {
    double slot, offset;
} hr_offset;                      /* 16 bytes */

typedef struct {
    const hr_request *requests;
    const hr_handle *objects;
    const hr_dispatch *dispatches;
    const hr_binding *bindings;
    const uint8_t *constants;
    const hr_offset *offsets;
    uint32_t request_count, object_count, dispatch_count, binding_count, constants_length, offset_count;
} hr_submission;                  /* 72 bytes */

/* hr_completion.flags */
enum {
    HR_ENDED = 1,                 /* the ticket has its outcome */
    HR_QUIET = 2                  /* no memory of it is in use any more */
};

/* Most tickets end and are quiet at once: one row. One that was cancelled while a request was under way gives
 * two rows, HR_ENDED first. Times are `hr_clock_ms`, 0 for what did not happen. */
typedef struct {
    double queue, ticket;
    double status, flags;
    double bytes_done;            /* by read, write and copy; exact on success */
    double submitted_ms;
    double started_ms;            /* the first lane or encoder took it up */
    double encoded_ms, committed_ms, scheduled_ms;
    double kernel_start_ms, kernel_end_ms;  /* the driver's scheduling on the CPU */
    double gpu_start_ms, gpu_end_ms;
    double ended_ms;
    double os_errno;
} hr_completion;                  /* 128 bytes */

/* A value for a function constant of a kernel. */
typedef struct {
    uint32_t index;
    uint32_t type;                /* 0 bool, 1 int32, 2 uint32, 3 float */
    uint32_t bits;                /* the value's 32 bits */
    uint32_t reserved;
} hr_constant;                    /* 16 bytes */

typedef struct {
    uint32_t simd_width;
    uint32_t max_threads;         /* of a threadgroup */
    uint32_t static_threadgroup_memory;
    uint32_t from_archive;        /* 1: not compiled anew */
} hr_pipeline_info;               /* 16 bytes */

/* hr_file_open flags */
enum {
    HR_FILE_WRITE = 1,            /* creates; may be read as well */
    HR_FILE_NO_CACHE = 2,         /* F_NOCACHE: reads and writes leave the page cache as it is */
    HR_FILE_STREAM = 4            /* reads go through an MTLIO queue */
};

/* `storage` of buffers and heaps */
enum { HR_SHARED = 0, HR_PRIVATE = 1 };

/* Element types of matrix products */
enum { HR_F32 = 0, HR_F16 = 1 };

/* `advice` of hr_buffer_advise */
enum { HR_SEQUENTIAL = 0, HR_RANDOM = 1, HR_WILL_NEED = 2, HR_DONT_NEED = 3 };

/* Swift defines the functions, so it takes only the types above from here. */
#ifndef HR_TYPES_ONLY

uint32_t hr_abi_version(void);
/* Sizes in bytes of: hr_error, hr_device_info, hr_device_options, hr_buffer_info, hr_request, hr_dispatch,
 * hr_binding, hr_offset, hr_submission, hr_completion, hr_constant, hr_pipeline_info. Returns how many there
 * are; writes at most `capacity`. */
uint32_t hr_struct_sizes(uint32_t *sizes, uint32_t capacity);
/* The clock of all times: milliseconds, monotonic. */
double hr_clock_ms(void);

uint32_t hr_device_count(void);
/* Ordinal 0 is the system's default device. `wake_fd` is borrowed: the library closes it with the device. */
hr_status hr_device_open(uint32_t ordinal, const hr_device_options *options, hr_handle *device, int32_t *wake_fd, hr_error *error);
hr_status hr_device_info_get(hr_handle device, hr_device_info *info, hr_error *error);
/* Moves completions out; returns how many. Also when the device was closed, until all have been taken. */
hr_status hr_device_poll(hr_handle device, hr_completion *completions, uint32_t capacity);
/* Like poll, but waits for one; 0 after `timeout_ms`, HR_CLOSED when the device is closed and empty. */
hr_status hr_device_wait(hr_handle device, hr_completion *completions, uint32_t capacity, uint32_t timeout_ms);
/* Posts a completion of queue 0 and ticket 0, to try the way of the wake-up. */
hr_status hr_device_ping(hr_handle device);
/* Handles that are open, the device's own not counted. */
hr_status hr_device_open_handles(hr_handle device);

/* `codec` is HR_CODEC_NONE, or with HR_FILE_STREAM the method of a compressed file, whose offsets are then those
 * of the uncompressed bytes; `byte_length` is then in-out: the caller gives the uncompressed length. */
hr_status hr_file_open(hr_handle device, const char *path, uint32_t flags, uint32_t codec, hr_handle *file, uint64_t *byte_length, hr_error *error);
/* The length now. */
hr_status hr_file_length(hr_handle file, uint64_t *byte_length, hr_error *error);
/* Reads at once, on the calling thread; `done` is what was there up to the end of the file. */
hr_status hr_file_read(hr_handle file, uint64_t offset, uint64_t byte_length, void *bytes, uint64_t *done, hr_error *error);
/* Reserves space (F_PREALLOCATE) without changing the length; HR_UNSUPPORTED where the volume cannot. */
hr_status hr_file_preallocate(hr_handle file, uint64_t byte_length, hr_error *error);
/* Shows bytes of a file as a read-only buffer, without a copy, or HR_DECLINED. Any offset and length. */
hr_status hr_file_map(hr_handle file, uint64_t offset, uint64_t byte_length, hr_handle *buffer, hr_error *error);

/* Zeroed memory. `parent` is a device, or a heap, whose storage must be the same. */
hr_status hr_buffer_create(hr_handle parent, uint64_t byte_length, uint32_t storage, hr_handle *buffer, hr_error *error);
hr_status hr_buffer_info_get(hr_handle buffer, hr_buffer_info *info, hr_error *error);
/* HR_FILE_CHANGED where the file behind a mapping has become too short to touch it. */
hr_status hr_buffer_check(hr_handle buffer, hr_error *error);
/* A hint for a range of a mapping; ignored for other memory. HR_WILL_NEED brings pages in on the read lanes. */
hr_status hr_buffer_advise(hr_handle buffer, uint32_t advice, uint64_t offset, uint64_t byte_length);
/* One allocation that buffers are cut from. */
hr_status hr_heap_create(hr_handle device, uint64_t byte_length, uint32_t storage, hr_handle *heap, hr_error *error);
/* A shared buffer of 64-bit GPU addresses, `buffers[i]` plus `offsets[i]` bytes, that kernels can index. It keeps
 * the buffers, and work that uses it may use them. */
hr_status hr_address_table_create(hr_handle device, const hr_handle *buffers, const double *offsets, uint32_t count, hr_handle *table, hr_error *error);

/* An MTLSharedEvent. */
hr_status hr_event_create(hr_handle device, hr_handle *event, hr_error *error);
/* A value that is not above the present one changes nothing. */
hr_status hr_event_signal(hr_handle event, uint64_t value, hr_error *error);
hr_status hr_event_value(hr_handle event, uint64_t *value, hr_error *error);

/* Compiles MSL text with safe math. `macros` is "NAME=VALUE" lines. `language` is hr_device_info.metal_version's
 * form; 0 is the newest. */
hr_status hr_library_create(hr_handle device, const char *source, const char *macros, uint32_t language, hr_handle *library, hr_error *error);
/* `archive` is the path of a binary archive to look in and to add to, or NULL. */
hr_status hr_pipeline_create(hr_handle library, const char *function, const hr_constant *constants, uint32_t count, const char *archive, hr_handle *pipeline, hr_pipeline_info *info, hr_error *error);
/* A matrix product by Metal Performance Shaders, y[T, outputs] = x[T, inner] * transposed w[outputs, inner]: a pipeline
 * whose launches bind x, w and y at 0, 1 and 2, have threads[0] = T and no constants. Rows of y start `output_stride`
 * elements apart. x and w are of `type`, y of `output_type`, HR_F32 or HR_F16; `accumulate` 1 adds to what y holds.
 * HR_UNSUPPORTED where the system does not have it for the device: HR_DEVICE_MATMUL. */
hr_status hr_matmul_create(hr_handle device, uint32_t inner, uint32_t outputs, uint32_t output_stride, uint32_t type, uint32_t output_type, uint32_t accumulate, hr_handle *pipeline, hr_error *error);
/* Checks and resolves dispatches once; HR_REPLAY runs them in order, with other offsets where bindings have a slot. */
hr_status hr_sequence_create(hr_handle device, const hr_dispatch *dispatches, uint32_t dispatch_count, const hr_binding *bindings, uint32_t binding_count, const uint8_t *constants, uint32_t constants_length, hr_handle *sequence, hr_error *error);

hr_status hr_queue_create(hr_handle device, hr_handle *queue, hr_error *error);
/* Takes all requests, or none. Returns 1 where the ticket ended before return: `ended` has its row, which is not
 * given again. The caller numbers its tickets 1, 2, 3, … */
hr_status hr_queue_submit(hr_handle queue, const hr_submission *submission, double ticket, hr_completion *ended, hr_error *error);
/* The ticket ends with `status` (HR_CANCELLED or HR_TIMED_OUT) unless it has ended. */
hr_status hr_queue_cancel(hr_handle queue, double ticket, hr_status status);
/* The text of a failed ticket, kept until 1024 later ones of its queue have failed. */
hr_status hr_queue_error(hr_handle queue, double ticket, hr_error *error);

/* Writes `target` as an MTLIO file of `source`, reads it back through an MTLIO queue and compares. Ends as ticket
 * `ticket` of `queue`, with the source's bytes as bytes_done. `target` appears whole or not at all. */
hr_status hr_compress(hr_handle queue, const char *source, const char *target, uint32_t codec, uint64_t chunk_bytes, double ticket, hr_error *error);

/* How far `hr_compress` has come, up to the source's bytes: half of them written, half compared. 0 before it has begun,
 * for other work, and for a ticket that is over. */
hr_status hr_compress_progress(hr_handle queue, double ticket, double *bytes_done, hr_error *error);

/* Ends the life of any handle. Queues cancel what is in flight; a device closes all its handles. */
hr_status hr_close(hr_handle any);

#endif

#ifdef __cplusplus
}
#endif

#endif
