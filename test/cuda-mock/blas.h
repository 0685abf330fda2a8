// What cuBLAS keeps for a handle.
#pragma once

#include "streams.h"

namespace mock {

struct BlasHandle {
  std::shared_ptr<Context> context;
  std::shared_ptr<Stream> stream;  // the legacy one at first
  uintptr_t workspace = 0;         // 0: its own
  size_t workspace_bytes = 0;
};

}  // namespace mock
