// Contexts: what is current in a thread, and what a context's end clears away.
#pragma once

#include "state.h"
#include "streams.h"

namespace mock {

struct Context {
  int device = 0;
  void *handle = nullptr;
  // The error that all its calls give from now on; 0 while it is in order.
  std::atomic<CUresult> lost{0};

  // An error that cannot be undone, met by something that ran.
  void lose(CUresult code);

  // Order between the stream that has no handle and those made without STREAM_NON_BLOCKING.
  std::mutex legacy_lock;
  std::shared_ptr<Stream> legacy;
  Fence legacy_fence;
};

// The calling thread's, null where there is none or it was destroyed.
std::shared_ptr<Context> current_context();
// Ends what a context owns, when it is in no table any longer.
void clear_context(const std::shared_ptr<Context> &context);

}  // namespace mock
