// Runs blocks of threads. A fiber runs one thread after another; when its thread waits for others of the block, it keeps
// that thread, and another fiber goes on with those that have not begun.
#pragma once

#include <array>

#include "fibers.h"
#include "modules.h"

namespace mock {

class Crew {
 public:
  explicit Crew(const Library &library);

  // Runs all threads of one block, in the calling system thread.
  CUresult run_block(const KernelEntry &kernel, const ThreadPlace &first, void **arguments, void *context);

  // Of the thread that runs.
  void touch(uintptr_t address, uint64_t bytes, bool write, bool aligned);
  void barrier();
  uint32_t exchange(uint32_t mask, const void *value, uint32_t bytes, void *values);
  // Ends the thread, the block and the kernel; does not return.
  void fail(CUresult code);

 private:
  static constexpr uint32_t WARP = 32, SLOT = 16, MOST = 1024;
  enum class Lane { Waiting, Ready, AtBarrier, AtExchange, Ended };
  struct Thread {
    ThreadPlace place;
    Lane lane = Lane::Waiting;
    uint32_t fiber = 0;
    uint32_t mask = 0, came = 0;
    unsigned char given[SLOT];
  };

  static void enter();
  void serve();
  void give_way(Lane lane);
  void resume(uint32_t fiber);
  void run_ready();
  CUresult schedule();
  bool release_warps();
  bool release_group(uint32_t first, uint32_t end, uint32_t mask);
  bool release_barrier();

  const Library &library_;
  Stacks stacks_;
  Fiber home_;
  std::vector<Fiber> fibers_;     // number i on stack i
  std::vector<uint32_t> idle_;    // fibers that run no thread
  std::vector<Thread> threads_;
  std::vector<std::array<unsigned char, WARP * SLOT>> warps_;
  uint32_t count_ = 0, started_ = 0, current_ = 0, fiber_ = 0;
  const KernelEntry *kernel_ = nullptr;
  void **arguments_ = nullptr;
  void *context_ = nullptr;
  CUresult failure_ = 0;
  Reach recent_[4];
  uint32_t recent_next_ = 0;
};

}  // namespace mock
