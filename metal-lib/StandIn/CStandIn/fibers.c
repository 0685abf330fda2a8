/* Stacks that give way to one another: a register switch of our own where we have one (no system call), else
 * ucontext. */
#include "fibers.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { STACK_BYTES = 128 * 1024, GUARD_BYTES = 65536 };

static char *stack_top(const fiber_stacks *stacks, uint32_t index) {
    return (char *)stacks->memory + (size_t)(index + 1) * STACK_BYTES;
}

/* Address space only: pages come when they are touched. The lowest pages of each are left out of bounds. */
int fiber_reserve(fiber_stacks *stacks, uint32_t count) {
    if (count <= stacks->count) return 1;
    if (stacks->memory != NULL) munmap(stacks->memory, (size_t)stacks->count * STACK_BYTES);
    stacks->count = 0;
    stacks->memory = mmap(NULL, (size_t)count * STACK_BYTES, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks->memory == MAP_FAILED) {
        stacks->memory = NULL;
        return 0;
    }
    stacks->count = count;
    for (uint32_t i = 0; i < count; i++) mprotect(stack_top(stacks, i) - STACK_BYTES, GUARD_BYTES, PROT_NONE);
    return 1;
}

#if defined(__x86_64__)

__asm__(
    ".text\n"
    ".globl headrace_fiber_switch\n"
    ".hidden headrace_fiber_switch\n"
    ".type headrace_fiber_switch, @function\n"
    "headrace_fiber_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq (%rsi), %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size headrace_fiber_switch, . - headrace_fiber_switch\n");

void fiber_prepare(fiber *made, const fiber_stacks *stacks, uint32_t index, void (*entry)(void)) {
    uintptr_t *top = (uintptr_t *)stack_top(stacks, index);
    /* A return address of 0, so that the entry finds the stack as a call leaves it; the entry; six registers. */
    *--top = 0;
    *--top = (uintptr_t)entry;
    for (int i = 0; i < 6; i++) *--top = 0;
    made->stack = top;
}

#elif defined(__aarch64__)

__asm__(
    ".text\n"
    ".globl headrace_fiber_switch\n"
    ".hidden headrace_fiber_switch\n"
    ".type headrace_fiber_switch, %function\n"
    "headrace_fiber_switch:\n"
    "  stp x19, x20, [sp, #-160]!\n"
    "  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n"
    "  ldr x9, [x1]\n  mov sp, x9\n"
    "  ldp d14, d15, [sp, #144]\n  ldp d12, d13, [sp, #128]\n  ldp d10, d11, [sp, #112]\n  ldp d8, d9, [sp, #96]\n"
    "  ldp x29, x30, [sp, #80]\n  ldp x27, x28, [sp, #64]\n"
    "  ldp x25, x26, [sp, #48]\n  ldp x23, x24, [sp, #32]\n  ldp x21, x22, [sp, #16]\n"
    "  ldp x19, x20, [sp], #160\n"
    "  ret\n"
    ".size headrace_fiber_switch, . - headrace_fiber_switch\n");

void fiber_prepare(fiber *made, const fiber_stacks *stacks, uint32_t index, void (*entry)(void)) {
    char *top = stack_top(stacks, index) - 160;
    memset(top, 0, 160);
    ((uintptr_t *)top)[11] = (uintptr_t)entry; /* x30 */
    made->stack = top;
}

#else

void fiber_prepare(fiber *made, const fiber_stacks *stacks, uint32_t index, void (*entry)(void)) {
    getcontext(&made->context);
    made->context.uc_stack.ss_sp = stack_top(stacks, index) - STACK_BYTES + GUARD_BYTES;
    made->context.uc_stack.ss_size = STACK_BYTES - GUARD_BYTES;
    made->context.uc_link = NULL;
    makecontext(&made->context, entry, 0);
}

void headrace_fiber_switch(fiber *from, fiber *to) { swapcontext(&from->context, &to->context); }

#endif
