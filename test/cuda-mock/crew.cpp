#include "crew.h"

#include <algorithm>
#include <cstring>

namespace mock {

// Whose block this system thread runs.
static thread_local Crew *running = nullptr;

static void touch_hook(const volatile void *address, unsigned long bytes, int write, int aligned) {
  running->touch(reinterpret_cast<uintptr_t>(address), bytes, write != 0, aligned != 0);
}
static void barrier_hook() { running->barrier(); }
static uint32_t exchange_hook(uint32_t mask, const void *value, uint32_t bytes, void *values) {
  return running->exchange(mask, value, bytes, values);
}
static void trap_hook() {
  report("a thread of a kernel called __trap");
  running->fail(CUDA_ERROR_LAUNCH_FAILED);
}

static const Runtime hooks{touch_hook, barrier_hook, exchange_hook, trap_hook};

Crew::Crew(const Library &library) : library_(library), threads_(MOST), warps_(MOST / WARP) {
  fibers_.reserve(MOST + 1);
  *library.entry->runtime = &hooks;
}

CUresult Crew::run_block(const KernelEntry &kernel, const ThreadPlace &first, void **arguments, void *context) {
  const uint32_t *size = first.block_size;
  kernel_ = &kernel;
  arguments_ = arguments;
  context_ = context;
  count_ = size[0] * size[1] * size[2];
  started_ = 0;
  failure_ = 0;
  for (Reach &reach : recent_) reach = Reach();
  for (uint32_t i = 0; i < count_; i++) {
    Thread &thread = threads_[i];
    thread.place = first;
    thread.place.thread[0] = i % size[0];
    thread.place.thread[1] = i / size[0] % size[1];
    thread.place.thread[2] = i / (size[0] * size[1]);
    thread.lane = Lane::Waiting;
  }
  running = this;
  CUresult code = schedule();
  running = nullptr;
  if (code != 0) {  // threads are left in the middle: nothing can go on from there
    fibers_.clear();
    idle_.clear();
  }
  return code;
}

void Crew::enter() {
  entered_fiber();
  running->serve();
}

// The life of a fiber. It may be resumed by another system thread for another block, so it keeps to `this`.
void Crew::serve() {
  for (;;) {
    while (started_ < count_) {
      uint32_t mine = started_++;
      current_ = mine;
      threads_[mine].fiber = fiber_;
      threads_[mine].lane = Lane::Ready;
      *library_.entry->place = &threads_[mine].place;
      kernel_->call(arguments_);
      threads_[mine].lane = Lane::Ended;
    }
    idle_.push_back(fiber_);
    switch_fiber(fibers_[fiber_], home_);
  }
}

void Crew::resume(uint32_t fiber) {
  fiber_ = fiber;
  switch_fiber(home_, fibers_[fiber]);
}

void Crew::give_way(Lane lane) {
  threads_[current_].lane = lane;
  switch_fiber(fibers_[fiber_], home_);
}

// Until each thread waits or has ended.
void Crew::run_ready() {
  for (uint32_t i = 0; i < started_ && failure_ == 0; i++) {
    if (threads_[i].lane != Lane::Ready) continue;
    current_ = i;
    *library_.entry->place = &threads_[i].place;
    resume(threads_[i].fiber);
  }
  while (started_ < count_ && failure_ == 0) {
    uint32_t fiber;
    if (idle_.empty()) {
      fiber = uint32_t(fibers_.size());
      fibers_.emplace_back();
      stacks_.prepare(fibers_.back(), fiber, enter);
    } else {
      fiber = idle_.back();
      idle_.pop_back();
    }
    resume(fiber);
  }
}

CUresult Crew::schedule() {
  for (;;) {
    run_ready();
    if (failure_ != 0) return failure_;
    uint32_t ended = 0, barrier = 0;
    for (uint32_t i = 0; i < count_; i++) {
      ended += threads_[i].lane == Lane::Ended;
      barrier += threads_[i].lane == Lane::AtBarrier;
    }
    if (ended == count_) return CUDA_SUCCESS;
    bool freed = release_warps();
    if (failure_ != 0) return failure_;
    if (freed) continue;
    if (ended + barrier < count_) {
      report("kernel %s: of %u threads of a block %u wait at a barrier, %u have ended, and the others wait in an "
             "exchange of their warp for threads that never come",
             kernel_->name, count_, barrier, ended);
      return CUDA_ERROR_LAUNCH_FAILED;
    }
    for (uint32_t i = 0; i < count_; i++)
      if (threads_[i].lane == Lane::AtBarrier) threads_[i].lane = Lane::Ready;
  }
}

void Crew::barrier() { give_way(Lane::AtBarrier); }

uint32_t Crew::exchange(uint32_t mask, const void *value, uint32_t bytes, void *values) {
  uint32_t mine = current_, lane = mine % WARP;
  if ((mask >> lane & 1) == 0) {
    report("kernel %s: a thread in lane %u takes part in an exchange of lanes %#x", kernel_->name, lane, mask);
    fail(CUDA_ERROR_LAUNCH_FAILED);
  }
  memcpy(threads_[mine].given, value, std::min(bytes, SLOT));
  threads_[mine].mask = mask;
  give_way(Lane::AtExchange);
  memcpy(values, warps_[mine / WARP].data(), WARP * SLOT);
  return threads_[mine].came;
}

bool Crew::release_warps() {
  bool freed = false;
  for (uint32_t first = 0; first < count_; first += WARP) {
    uint32_t end = std::min(first + WARP, count_);
    for (uint32_t i = first; i < end; i++)
      if (threads_[i].lane == Lane::AtExchange) freed |= release_group(first, end, threads_[i].mask);
  }
  return freed;
}

// Lets go of the lanes of one mask when all of them that have not ended are there.
bool Crew::release_group(uint32_t first, uint32_t end, uint32_t mask) {
  uint32_t came = 0;
  for (uint32_t i = first; i < end; i++) {
    const Thread &thread = threads_[i];
    if ((mask >> (i - first) & 1) == 0 || thread.lane == Lane::Ended) continue;
    if (thread.lane != Lane::AtExchange || thread.mask != mask) return false;
    came |= 1u << (i - first);
  }
  auto &values = warps_[first / WARP];
  for (uint32_t lane = 0; lane < WARP; lane++) {
    if ((mask >> lane & 1) == 0) continue;
    unsigned char *slot = values.data() + lane * SLOT;
    if ((came >> lane & 1) != 0) memcpy(slot, threads_[first + lane].given, SLOT);
    else memset(slot, 0xc9, SLOT);
  }
  for (uint32_t i = first; i < end; i++) {
    if ((came >> (i - first) & 1) == 0) continue;
    threads_[i].came = came;
    threads_[i].lane = Lane::Ready;
  }
  return true;
}

void Crew::fail(CUresult code) {
  failure_ = code;
  give_way(Lane::Ended);
}

void Crew::touch(uintptr_t address, uint64_t bytes, bool write, bool aligned) {
  if (aligned && address % bytes != 0) {
    report("kernel %s: an access of %llu bytes at %#zx, which is not aligned", kernel_->name,
           static_cast<unsigned long long>(bytes), size_t(address));
    fail(CUDA_ERROR_MISALIGNED_ADDRESS);
  }
  for (const Reach &reach : recent_)
    if (address >= reach.from && address < reach.to && bytes <= reach.to - address && (reach.writable || !write)) return;
  if (stacks_.holds(fiber_, address)) return;
  Reach found;
  bool inside = address >= library_.from && address < library_.to;
  if (inside) found = {library_.from, library_.to, true};
  else inside = memory().reach(address, context_, &found);
  if (!inside || bytes > found.to - address || (write && !found.writable)) {
    report("kernel %s: %s of %llu bytes at %#zx, %s", kernel_->name, write ? "a write" : "a read",
           static_cast<unsigned long long>(bytes), size_t(address),
           !inside                      ? address >= ALIAS ? "a device pointer of host memory, which kernels of the mock cannot use"
                                                           : "which lies in no memory of the device"
           : bytes > found.to - address ? "which crosses the end of its memory"
                                        : "which is registered as read-only");
    fail(CUDA_ERROR_ILLEGAL_ADDRESS);
  }
  recent_[recent_next_++ % 4] = found;
}

// Blocks run forward or backward, and begin anywhere: nobody may rely on their order.
CUresult run_grid(Library &library, const KernelEntry &kernel, const Grid &grid, void **arguments, void *context) {
  std::lock_guard<std::mutex> alone(library.running);
  if (library.crew == nullptr) library.crew = std::make_unique<Crew>(library);
  memory().open_for_kernels();
  uint64_t row = grid.blocks[0], plane = row * grid.blocks[1], all = plane * grid.blocks[2];
  CUresult code = CUDA_SUCCESS;
  for (uint64_t i = 0; i < all && code == 0; i++) {
    uint64_t index = (grid.order + ((grid.order & 1) != 0 ? i : all - 1 - i)) % all;
    ThreadPlace first{};
    for (int axis = 0; axis < 3; axis++) {
      first.block_size[axis] = grid.threads[axis];
      first.grid[axis] = grid.blocks[axis];
    }
    first.block[0] = uint32_t(index % row);
    first.block[1] = uint32_t(index % plane / row);
    first.block[2] = uint32_t(index / plane);
    // Shared memory holds whatever the block before it left.
    for (char *at = library.entry->shared; at < library.entry->shared_end; at++) *at = char(0xe7);
    std::shared_lock<std::shared_mutex> hold(memory().lock);
    code = library.crew->run_block(kernel, first, arguments, context);
  }
  memory().close_for_kernels();
  return code;
}

}  // namespace mock
