// Device memory and registered host memory.
//
// Each device has a range of addresses that it hands out, in which nothing can be read or written: code of the host that
// uses a device address faults, and a system call on one gives EFAULT. The bytes lie in a second mapping of the same
// memory, which copies use. While a kernel runs, live allocations are open at their own addresses too, so that a kernel
// may take addresses from its arguments and from tables alike; each of its accesses is checked against the tables here.
#pragma once

#include <map>
#include <shared_mutex>

#include "state.h"

namespace mock {

struct Allocation {
  uint64_t id;
  uintptr_t base;
  uint64_t bytes, span;  // as asked for; in whole pages
  int device;
  void *context;
};

struct Registration {
  uint64_t id;
  uintptr_t base;
  uint64_t bytes;
  unsigned flags;
  void *context;
};

// Where a range of addresses lies.
struct Place {
  enum Kind { Device, Pinned, Pageable } kind = Pageable;
  uint64_t id = 0;          // of the allocation or registration
  char *bytes = nullptr;    // where the mock may touch it
  bool writable = true;
  bool mapped = false;      // the device may use it by its device address
};

// Bytes that a kernel may touch.
struct Reach {
  uintptr_t from = 0, to = 0;
  bool writable = false;
};

struct Arena {
  uintptr_t outer = 0;   // addresses that are handed out
  char *inner = nullptr; // the same bytes
  int file = -1;
  uint64_t span = 0;     // of addresses: more than there is memory, so that freed ones are not used again soon
  uint64_t total = 0, used = 0, next = 0;
};

class Memory {
 public:
  CUresult allocate(int device, void *context, uint64_t bytes, CUdeviceptr *made);
  CUresult release(CUdeviceptr address, void *context);
  void usage(int device, uint64_t *free, uint64_t *total);
  CUresult enroll(uintptr_t base, uint64_t bytes, unsigned flags, void *context, bool read_only_works);
  CUresult withdraw(uintptr_t base, void *context);
  // Removes what a context owns; gives how many that were.
  size_t clear(void *context);

  // Locked by who calls, who uses what it finds under that lock. CUDA_ERROR_INVALID_VALUE where the range crosses the
  // end of what it begins in.
  CUresult find(uintptr_t address, uint64_t bytes, void *context, Place *place) const;
  // The widest range around an address that kernels of this context may touch; false where there is none.
  bool reach(uintptr_t address, void *context, Reach *found) const;

  // From the first kernel to the last, live allocations are open at their own addresses.
  void open_for_kernels();
  void close_for_kernels();

  // Without allocations and kernels: lets go of the ranges, so that they are made anew by another configuration.
  bool forget_arenas();
  void live(uint64_t *allocations, uint64_t *bytes, uint64_t *registrations, uint64_t *registered);

  std::shared_mutex lock;

 private:
  CUresult arena(int device, Arena **found);
  void give_back(const Allocation &allocation);
  void protect(const Allocation &allocation, bool open) const;

  std::map<int, Arena> arenas_;
  std::map<uintptr_t, Allocation> allocations_;
  std::map<uintptr_t, Registration> registrations_;
  uint64_t ids_ = 0;
  int kernels_ = 0;
};

Memory &memory();

// Device pointers of registered memory where the device cannot use the host's.
constexpr uintptr_t ALIAS = uintptr_t(1) << 47;

}  // namespace mock
