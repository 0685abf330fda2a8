// Streams run their operations on a thread each, in order; a fence is a place in a stream's order that others wait for.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <thread>

#include "state.h"

namespace mock {

struct Capture;

struct Fence {
  std::shared_ptr<Stream> stream;  // null: passed already
  uint64_t number = 0;

  void wait() const;
  bool passed() const;
};

struct Operation {
  std::vector<Fence> after;
  std::function<CUresult()> run;  // gives the error that loses the context, or 0
  bool always = false;            // runs in a lost context too
};

struct Stream : std::enable_shared_from_this<Stream> {
  explicit Stream(std::shared_ptr<Context> of, unsigned with_flags);

  Fence push(Operation operation);
  // Of all that was pushed until now.
  Fence last();
  // Nothing more is pushed; the thread ends after what is there. `wait` returns when it has.
  void end(bool wait);
  // Of the operation that runs: sleeps for a piece of its delay, where delays are configured.
  void dawdle(uint64_t salt) const;

  const std::shared_ptr<Context> context;
  const unsigned flags;
  std::shared_ptr<Capture> capture;  // while it captures; locked with all captures

 private:
  friend struct Fence;
  void serve();

  std::mutex lock_;
  std::condition_variable changed_;
  std::deque<Operation> waiting_;
  uint64_t pushed_ = 0, done_ = 0;
  bool ending_ = false, ended_ = false;
  const uint64_t ordinal_;
};

// By its handle; null stands for the context's stream without one.
std::shared_ptr<Stream> find_stream(const std::shared_ptr<Context> &context, void *handle);
// Puts an operation into a stream, in order with the stream without handle.
Fence submit(const std::shared_ptr<Stream> &stream, Operation operation);
std::vector<std::shared_ptr<Stream>> streams_of(const Context &context);

struct Event {
  std::shared_ptr<Context> context;
  unsigned flags = 0;

  std::mutex lock;
  bool recorded = false;
  Fence fence;  // of the last record
  std::shared_ptr<std::atomic<int64_t>> nanoseconds;  // when that one ran; 0 until then
};

}  // namespace mock
