/* Stacks that give way to one another, for the threads of a threadgroup. */
#ifndef HEADRACE_FIBERS_H
#define HEADRACE_FIBERS_H

#include <stdint.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

typedef struct {
#if defined(__x86_64__) || defined(__aarch64__)
    void *stack;
#else
    ucontext_t context;
#endif
} fiber;

/* Memory of stacks; all zero is none. */
typedef struct {
    void *memory;
    uint32_t count;
} fiber_stacks;

/* Makes room for `count` fibers; none of `stacks` may be in use. 0 where there is no memory. */
int fiber_reserve(fiber_stacks *stacks, uint32_t count);
/* Fiber number `index` will begin in `entry`, which must not return, when it is first switched to. */
void fiber_prepare(fiber *made, const fiber_stacks *stacks, uint32_t index, void (*entry)(void));
/* Goes on in `to`; returns when something switches back to `from`. */
void headrace_fiber_switch(fiber *from, fiber *to);

#endif
