// Stacks of one system thread that give way to one another: threads of a block that wait for each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

namespace mock {

struct Fiber {
#if defined(__x86_64__) || defined(__aarch64__)
  void *stack = nullptr;
#else
  ucontext_t context;
#endif
  // What sanitizers are told of it.
  void *known = nullptr;
  const void *low = nullptr;
  size_t bytes = 0;
};

// The first thing that an entry does.
void entered_fiber();
// Leaves `from`, goes on in `to`.
void switch_fiber(Fiber &from, Fiber &to);

// Stacks, made when they are first asked for; each has a page below it that faults.
class Stacks {
 public:
  ~Stacks();
  // Prepares a fiber on stack number `index` (0 to 1023) that begins in `entry`, which must not return.
  void prepare(Fiber &fiber, size_t index, void (*entry)());
  // Whether an address lies on stack number `index`.
  bool holds(size_t index, uintptr_t address) const;

 private:
  char *base_ = nullptr;
  std::vector<bool> guarded_;
};

}  // namespace mock
