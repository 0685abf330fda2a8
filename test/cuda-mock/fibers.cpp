#include "fibers.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

// Clang tells of its sanitizers in another way.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#elif __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#elif defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace mock {

constexpr size_t STACK = 256 << 10, GUARD = 64 << 10, COUNT = 1025;

Stacks::~Stacks() {
  if (base_ != nullptr) munmap(base_, STACK * COUNT);
}

bool Stacks::holds(size_t index, uintptr_t address) const {
  return address - reinterpret_cast<uintptr_t>(base_ + index * STACK) < STACK;
}

#if defined(__x86_64__)

// rdi: where the stack pointer of who leaves is kept; rsi: the one of who goes on.
extern "C" void mock_switch_stack(void **left, void *entered);
__asm__(R"(
.text
.type mock_switch_stack, @function
.local mock_switch_stack
mock_switch_stack:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret
.size mock_switch_stack, . - mock_switch_stack
)");

// As if the entry had been called from nowhere, and had been left with six registers kept.
static void *first_frame(char *top, void (*entry)()) {
  auto *slot = reinterpret_cast<uintptr_t *>(top);
  *--slot = 0;
  *--slot = reinterpret_cast<uintptr_t>(entry);
  for (int i = 0; i < 6; i++) *--slot = 0;
  return slot;
}

#elif defined(__aarch64__)

extern "C" void mock_switch_stack(void **left, void *entered);
__asm__(R"(
.text
.type mock_switch_stack, %function
.local mock_switch_stack
mock_switch_stack:
  sub sp, sp, #176
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #176
  ret
.size mock_switch_stack, . - mock_switch_stack
)");

static void *first_frame(char *top, void (*entry)()) {
  char *frame = top - 176;
  memset(frame, 0, 176);
  auto address = reinterpret_cast<uintptr_t>(entry);
  memcpy(frame + 88, &address, 8);  // x30
  return frame;
}

#endif

void Stacks::prepare(Fiber &fiber, size_t index, void (*entry)()) {
  if (base_ == nullptr) {
    void *made = mmap(nullptr, STACK * COUNT, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made == MAP_FAILED) abort();
    base_ = static_cast<char *>(made);
    guarded_.resize(COUNT);
  }
  char *low = base_ + index * STACK;
  if (!guarded_[index]) mprotect(low, GUARD, PROT_NONE);
  guarded_[index] = true;
#if defined(__SANITIZE_ADDRESS__)
  // Frames that were left in the middle have marked what lies around them.
  __asan_unpoison_memory_region(low, STACK);
  fiber.low = low + GUARD;
  fiber.bytes = STACK - GUARD;
#endif
#if defined(__x86_64__) || defined(__aarch64__)
  fiber.stack = first_frame(low + STACK, entry);
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = low + GUARD;
  fiber.context.uc_stack.ss_size = STACK - GUARD;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#endif
#if defined(__SANITIZE_THREAD__)
  if (fiber.known != nullptr) __tsan_destroy_fiber(fiber.known);
  fiber.known = __tsan_create_fiber(0);
#endif
}

#if defined(__SANITIZE_ADDRESS__)
// Whose stack this system thread has just left.
static thread_local Fiber *left = nullptr;
#endif

void entered_fiber() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &left->low, &left->bytes);
#endif
}

void switch_fiber(Fiber &from, Fiber &to) {
#if defined(__SANITIZE_THREAD__)
  from.known = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.known, 0);
#elif defined(__SANITIZE_ADDRESS__)
  void *kept = nullptr;
  left = &from;
  __sanitizer_start_switch_fiber(&kept, to.low, to.bytes);
#endif
#if defined(__x86_64__) || defined(__aarch64__)
  mock_switch_stack(&from.stack, to.stack);
#else
  swapcontext(&from.context, &to.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(kept, &left->low, &left->bytes);
#endif
}

}  // namespace mock
