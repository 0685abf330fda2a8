/*
 * Compiling and running kernels in the stand-in: the compiler as a child process, the objects it makes, and grids
 * of threads.
 */
#ifndef HEADRACE_STANDIN_KERNELS_H
#define HEADRACE_STANDIN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    STANDIN_MAX_BUFFERS = 31,
    STANDIN_SIMD_WIDTH = 32,
    STANDIN_MAX_GROUP = 1024,
    STANDIN_MAX_GROUP_MEMORY = 32768
};

/* One launch. The compiled kernel reads it too: the shim's text has the same struct. */
typedef struct {
    void *buffers[STANDIN_MAX_BUFFERS];
    void *group_memory[STANDIN_MAX_BUFFERS];
    uint32_t grid[3];          /* threads */
    uint32_t group[3];         /* threads of a whole threadgroup */
    uint32_t groups[3];        /* threadgroups, the last of each row may be smaller */
} standin_launch;

/* The place of one thread; in the shim too. */
typedef struct {
    uint32_t in_grid[3], in_group[3], group_at[3];
    uint32_t group_size[3];    /* of this group */
    uint32_t index;            /* in the group */
    uint32_t group_threads;    /* of this group */
} standin_thread;

/* What a compiled kernel calls; in the shim too. Both give way to the other threads of the group. */
typedef struct {
    void (*barrier)(void);
    /* Gives `size` bytes (at most 16) to the other active lanes of the simdgroup, and writes theirs to `all`, 16
     * bytes a lane. Returns the mask of the lanes that took part: those at the same `site`, the number of the call
     * in the text. Where lanes are at different ones, the earliest goes first, so that they come together again. */
    uint32_t (*exchange)(const void *value, uint32_t size, void *all, uint32_t site);
    uint32_t (*lane)(void);
} standin_cooperation;

typedef struct {
    void (*run_thread)(const standin_launch *, const standin_thread *);
    /* All threads of the group of `first`, one after another: for kernels whose threads never wait. */
    void (*run_group)(const standin_launch *, const standin_thread *first);
    int cooperates;            /* its threads wait for one another */
    uint32_t group_memory[STANDIN_MAX_BUFFERS];  /* bytes */
} standin_kernel;

/* Runs all threads. Returns 0, or -1 with `error` filled where the kernel's threads wait for some that never come. */
int standin_run(const standin_kernel *kernel, standin_launch *launch, char error[256]);

/* Runs a command (found on the PATH) in folder `folder`; its output and errors go to file `log`. Returns its exit
 * status, or a negative errno where it could not be started. `arguments` ends with NULL. */
int standin_spawn(const char *const *arguments, const char *folder, const char *log);

/* Opens a shared object, with the functions that it calls. NULL and `error` filled where that fails. */
void *standin_open_object(const char *path, char error[256]);
void *standin_symbol(void *object, const char *name);
/* Bytes of `threadgroup` variables that functions named `function` declare, from the object's symbol table. */
uint64_t standin_static_memory(const char *path, const char *function);

#ifdef __cplusplus
}
#endif

#endif
