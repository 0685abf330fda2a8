// What the mock and a kernel's compiled text have in common. The prelude in front of that text declares the same: keep
// the two alike.
#pragma once

#include <cstdint>

namespace mock {

// Where a thread is; all x, y, z.
struct ThreadPlace {
  uint32_t thread[3], block[3], block_size[3], grid[3];
};

// What compiled text asks of the mock.
struct Runtime {
  void (*touch)(const volatile void *address, unsigned long bytes, int write, int aligned);
  void (*barrier)();
  // Gives the values of the warp's lanes, 16 bytes each, and which of them came.
  uint32_t (*exchange)(uint32_t mask, const void *value, uint32_t bytes, void *values);
  void (*trap)();
};

struct KernelEntry {
  const char *name;
  void (*call)(void **arguments);
  const uint32_t *sizes;  // of the arguments
  uint32_t arguments, max_threads;
};

// `mock_module` of a compiled text.
struct ModuleEntry {
  const KernelEntry *kernels;
  uint32_t kernel_count;
  const ThreadPlace **place;  // the mock keeps it at the thread that runs
  const Runtime **runtime;
  char *shared, *shared_end;
};

}  // namespace mock
