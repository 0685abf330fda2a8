// Captures: what is put into a capturing stream is kept instead of run, to become a graph.
#pragma once

#include <thread>

#include "streams.h"

namespace mock {

enum { CAPTURE_GLOBAL = 0, CAPTURE_THREAD_LOCAL = 1, CAPTURE_RELAXED = 2 };

using Node = std::function<CUresult()>;

struct Capture {
  std::shared_ptr<Context> context;
  bool blocking = false;  // whether its stream is in order with the one that has no handle
  int mode = CAPTURE_GLOBAL;
  std::thread::id thread;
  std::atomic<bool> invalid{false};
  std::vector<Node> nodes;
};

struct Graph {
  std::shared_ptr<Context> context;
  std::vector<Node> nodes;
};

struct GraphExec {
  std::shared_ptr<Context> context;
  std::vector<Node> nodes;

  std::mutex lock;
  Fence last;  // a graph runs once at a time
};

// Why a call may not be made while something captures, and spoils that; 0 where it may.
CUresult refused_by_captures(Fn function, const Context &context);
// The same for a call that puts something into a stream. `capturable`: a graph can hold it.
CUresult refused_by_capture(Fn function, const std::shared_ptr<Stream> &stream, bool capturable);
// Whether the stream captures: then it keeps the operation.
bool capture(const std::shared_ptr<Stream> &stream, Operation &operation);
// The stream goes while it captures.
void spoil_capture(Stream &stream);

}  // namespace mock
