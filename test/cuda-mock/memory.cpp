#include "memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace mock {

constexpr uint64_t PAGE = 4096;
// Addresses for each byte of memory.
constexpr uint64_t ROOM = 4;
constexpr unsigned char POISON[] = {0xd5, 0x7f, 0xfc, 0xa3, 0x6b, 0xf9, 0x9e};

static uint64_t pages(uint64_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

Memory &memory() {
  static Memory &the_one = *new Memory;
  return the_one;
}

CUresult Memory::arena(int device, Arena **found) {
  Arena &made = arenas_[device];
  *found = &made;
  if (made.inner != nullptr) return CUDA_SUCCESS;
  uint64_t total = pages(config().total_bytes), span = total * ROOM + (uint64_t(16) << 20);
  made.file = memfd_create("mock-gpu", MFD_CLOEXEC);
  if (made.file < 0 || ftruncate(made.file, off_t(span)) != 0) return CUDA_ERROR_OPERATING_SYSTEM;
  void *outer = mmap(nullptr, span, PROT_NONE, MAP_SHARED, made.file, 0);
  void *inner = mmap(nullptr, span, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, made.file, 0);
  if (outer == MAP_FAILED || inner == MAP_FAILED) return CUDA_ERROR_OPERATING_SYSTEM;
  made.outer = reinterpret_cast<uintptr_t>(outer);
  made.inner = static_cast<char *>(inner);
  made.span = span;
  made.total = total;
  return CUDA_SUCCESS;
}

void Memory::protect(const Allocation &allocation, bool open) const {
  mprotect(reinterpret_cast<void *>(allocation.base), allocation.span, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

// The first free range from where the last one ended, with a page between neighbours; once around.
static uint64_t find_room(const std::map<uintptr_t, Allocation> &taken, const Arena &arena, uint64_t span) {
  for (uint64_t start : {arena.next, uint64_t(0)}) {
    uintptr_t at = arena.outer + start;
    auto next = taken.lower_bound(at);
    if (next != taken.begin()) {
      auto before = std::prev(next);
      uintptr_t end = before->second.base + before->second.span + PAGE;
      if (before->second.base >= arena.outer && end > at) at = end;
    }
    for (; next != taken.end() && next->second.base < arena.outer + arena.span; ++next) {
      if (at + span + PAGE <= next->second.base) return at - arena.outer;
      at = next->second.base + next->second.span + PAGE;
    }
    if (at + span + PAGE <= arena.outer + arena.span) return at - arena.outer;
  }
  return UINT64_MAX;
}

CUresult Memory::allocate(int device, void *context, uint64_t bytes, CUdeviceptr *made) {
  std::unique_lock<std::shared_mutex> hold(lock);
  Arena *from;
  if (CUresult code = arena(device, &from)) return code;
  uint64_t span = pages(bytes);
  if (bytes > from->total || span > from->total - from->used) return CUDA_ERROR_OUT_OF_MEMORY;
  uint64_t offset = find_room(allocations_, *from, span);
  if (offset == UINT64_MAX) return CUDA_ERROR_OUT_OF_MEMORY;
  from->used += span;
  from->next = offset + span + PAGE;
  Allocation allocation{++ids_, from->outer + offset, bytes, span, device, context};
  char *inner = from->inner + offset;
  for (uint64_t i = 0; i < PAGE; i++) inner[i] = char(POISON[i % sizeof POISON]);
  for (uint64_t at = PAGE; at < span; at += PAGE) memcpy(inner + at, inner, PAGE);
  if (kernels_ > 0) protect(allocation, true);
  allocations_[allocation.base] = allocation;
  *made = allocation.base;
  return CUDA_SUCCESS;
}

void Memory::give_back(const Allocation &allocation) {
  Arena &arena = arenas_[allocation.device];
  protect(allocation, false);
  arena.used -= allocation.span;
  uint64_t offset = allocation.base - arena.outer;
  fallocate(arena.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(offset), off_t(allocation.span));
}

CUresult Memory::release(CUdeviceptr address, void *context) {
  std::unique_lock<std::shared_mutex> hold(lock);
  auto found = allocations_.find(uintptr_t(address));
  if (found == allocations_.end() || found->second.context != context) {
    report("cuMemFree of %#llx, which no allocation of this context begins with", address);
    return CUDA_ERROR_INVALID_VALUE;
  }
  give_back(found->second);
  allocations_.erase(found);
  return CUDA_SUCCESS;
}

void Memory::usage(int device, uint64_t *free, uint64_t *total) {
  std::unique_lock<std::shared_mutex> hold(lock);
  Arena *of;
  arena(device, &of);
  *free = of->total - of->used;
  *total = of->total;
}

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

// Pins as the driver does: by touching all pages. False where that cannot be, as past the end of a file or mapping.
static bool can_pin(uintptr_t base, uint64_t bytes, bool for_writing) {
  void *from = reinterpret_cast<void *>(base);
  if (madvise(from, bytes, for_writing ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0) return true;
  if (errno != EINVAL) return false;
  // EINVAL: no rights to write, or a system without this advice, which then cannot tell more than what is mapped.
  static char own[PAGE * 2];
  void *page = reinterpret_cast<void *>(pages(reinterpret_cast<uintptr_t>(own)));
  bool known = madvise(page, PAGE, MADV_POPULATE_READ) == 0;
  return !known && msync(from, bytes, MS_ASYNC) == 0;
}

CUresult Memory::enroll(uintptr_t base, uint64_t bytes, unsigned flags, void *context, bool read_only_works) {
  constexpr unsigned KNOWN = REGISTER_PORTABLE | REGISTER_DEVICEMAP | REGISTER_IOMEMORY | REGISTER_READ_ONLY;
  if (base == 0 || bytes == 0 || base + bytes < base || (flags & ~KNOWN) != 0) return CUDA_ERROR_INVALID_VALUE;
  if ((flags & REGISTER_IOMEMORY) != 0) return CUDA_ERROR_NOT_PERMITTED;
  if ((flags & REGISTER_READ_ONLY) != 0 && !read_only_works) return CUDA_ERROR_NOT_SUPPORTED;
  uintptr_t first = base / PAGE * PAGE, end = pages(base + bytes);
  if (!can_pin(first, end - first, (flags & REGISTER_READ_ONLY) == 0)) {
    report("cuMemHostRegister of %#zx, %llu bytes: not all of it is mapped memory with the rights that it takes",
           size_t(base), static_cast<unsigned long long>(bytes));
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::unique_lock<std::shared_mutex> hold(lock);
  for (const auto &entry : arenas_)
    if (base < entry.second.outer + entry.second.span && entry.second.outer < end) return CUDA_ERROR_INVALID_VALUE;
  // Pages are what is registered.
  auto next = registrations_.lower_bound(end);
  if (next != registrations_.begin()) {
    const Registration &before = std::prev(next)->second;
    if (pages(before.base + before.bytes) > first) return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  }
  registrations_[base] = {++ids_, base, bytes, flags, context};
  return CUDA_SUCCESS;
}

CUresult Memory::withdraw(uintptr_t base, void *context) {
  std::unique_lock<std::shared_mutex> hold(lock);
  auto found = registrations_.find(base);
  bool mine = found != registrations_.end() &&
              (found->second.context == context || (found->second.flags & REGISTER_PORTABLE) != 0);
  if (!mine) {
    report("cuMemHostUnregister of %#zx, which no registration begins with", size_t(base));
    return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
  }
  registrations_.erase(found);
  return CUDA_SUCCESS;
}

size_t Memory::clear(void *context) {
  std::unique_lock<std::shared_mutex> hold(lock);
  size_t removed = 0;
  for (auto at = allocations_.begin(); at != allocations_.end();) {
    if (at->second.context != context) {
      ++at;
      continue;
    }
    give_back(at->second);
    at = allocations_.erase(at);
    removed++;
  }
  for (auto at = registrations_.begin(); at != registrations_.end();) {
    bool mine = at->second.context == context;
    removed += mine;
    at = mine ? registrations_.erase(at) : std::next(at);
  }
  return removed;
}

// Of maps by base: the last one that begins at or before an address.
template <typename T> static const T *at_or_before(const std::map<uintptr_t, T> &map, uintptr_t address) {
  auto next = map.upper_bound(address);
  return next == map.begin() ? nullptr : &std::prev(next)->second;
}

CUresult Memory::find(uintptr_t address, uint64_t bytes, void *context, Place *place) const {
  *place = Place();
  if (address == 0 || address + bytes < address) return CUDA_ERROR_INVALID_VALUE;
  for (const auto &entry : arenas_) {
    const Arena &arena = entry.second;
    if (address < arena.outer || address >= arena.outer + arena.span) continue;
    const Allocation *one = at_or_before(allocations_, address);
    if (one == nullptr || address - one->base > one->bytes || bytes > one->bytes - (address - one->base))
      return CUDA_ERROR_INVALID_VALUE;
    place->kind = Place::Device;
    place->id = one->id;
    place->bytes = arena.inner + (address - arena.outer);
    place->mapped = true;
    return CUDA_SUCCESS;
  }
  bool alias = address >= ALIAS;
  uintptr_t host = alias ? address - ALIAS : address;
  place->bytes = reinterpret_cast<char *>(host);
  const Registration *one = at_or_before(registrations_, host + (bytes > 0 ? bytes - 1 : 0));
  bool touched = one != nullptr && host < one->base + one->bytes;
  if (!touched) return alias ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  if (host < one->base || host + bytes > one->base + one->bytes) return CUDA_ERROR_INVALID_VALUE;
  // Another context's memory is as any other to this one.
  if (one->context != context && (one->flags & REGISTER_PORTABLE) == 0) return CUDA_SUCCESS;
  place->kind = Place::Pinned;
  place->id = one->id;
  place->writable = (one->flags & REGISTER_READ_ONLY) == 0;
  place->mapped = (one->flags & REGISTER_DEVICEMAP) != 0;
  return CUDA_SUCCESS;
}

bool Memory::reach(uintptr_t address, void *context, Reach *found) const {
  if (const Allocation *one = at_or_before(allocations_, address)) {
    if (one->context == context && address - one->base < one->bytes) {
      *found = {one->base, one->base + one->bytes, true};
      return true;
    }
  }
  const Registration *one = at_or_before(registrations_, address);
  if (one == nullptr || address - one->base >= one->bytes || (one->flags & REGISTER_DEVICEMAP) == 0) return false;
  if (one->context != context && (one->flags & REGISTER_PORTABLE) == 0) return false;
  *found = {one->base, one->base + one->bytes, (one->flags & REGISTER_READ_ONLY) == 0};
  return true;
}

void Memory::open_for_kernels() {
  std::unique_lock<std::shared_mutex> hold(lock);
  if (kernels_++ > 0) return;
  for (const auto &entry : allocations_) protect(entry.second, true);
}

void Memory::close_for_kernels() {
  std::unique_lock<std::shared_mutex> hold(lock);
  if (--kernels_ > 0) return;
  for (const auto &entry : allocations_) protect(entry.second, false);
}

bool Memory::forget_arenas() {
  std::unique_lock<std::shared_mutex> hold(lock);
  if (!allocations_.empty() || kernels_ > 0) return false;
  for (const auto &entry : arenas_) {
    if (entry.second.inner == nullptr) continue;
    munmap(entry.second.inner, entry.second.span);
    munmap(reinterpret_cast<void *>(entry.second.outer), entry.second.span);
    close(entry.second.file);
  }
  arenas_.clear();
  return true;
}

void Memory::live(uint64_t *allocations, uint64_t *bytes, uint64_t *registrations, uint64_t *registered) {
  std::shared_lock<std::shared_mutex> hold(lock);
  *allocations = allocations_.size();
  *registrations = registrations_.size();
  *bytes = *registered = 0;
  for (const auto &entry : allocations_) *bytes += entry.second.bytes;
  for (const auto &entry : registrations_) *registered += entry.second.bytes;
}

}  // namespace mock
