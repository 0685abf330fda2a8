#include "context.h"

#include "blas.h"
#include "graphs.h"

#include "memory.h"
#include "modules.h"

namespace mock {

static thread_local void *current = nullptr;

std::shared_ptr<Context> current_context() { return current == nullptr ? nullptr : state().contexts.find(current); }

void Context::lose(CUresult code) {
  CUresult none = 0;
  lost.compare_exchange_strong(none, code);
  none = 0;
  state().lost.compare_exchange_strong(none, code);
}

// All that a context owns goes with it. What its owner should have freed is counted, unless the context was lost, for
// then nothing could be freed.
void clear_context(const std::shared_ptr<Context> &context) {
  State &all = state();
  auto mine = [&](const auto &object) { return object.context.get() == context.get(); };
  auto streams = all.streams.remove_if(mine);
  for (const auto &stream : streams) {
    spoil_capture(*stream);
    stream->end(true);
  }
  {
    std::lock_guard<std::mutex> hold(context->legacy_lock);
    if (context->legacy != nullptr) context->legacy->end(true);
    context->legacy_fence = Fence();
    context->legacy = nullptr;
  }
  size_t events = all.events.remove_if(mine).size();
  all.functions.remove_if(mine);
  size_t modules = all.modules.remove_if(mine).size();
  size_t graphs = all.graphs.remove_if(mine).size() + all.graph_execs.remove_if(mine).size();
  size_t handles = all.blas_handles.remove_if(mine).size();
  size_t ranges = memory().clear(context->handle);
  size_t left = streams.size() + events + modules + graphs + handles + ranges;
  if (context->lost != 0 || left == 0) return;
  all.abandoned += left;
  report("a context was destroyed with %zu streams, %zu events, %zu modules, %zu graphs, %zu cuBLAS handles, %zu allocations and registrations",
         streams.size(), events, modules, graphs, handles, ranges);
}

}  // namespace mock

using namespace mock;

MOCK_EXPORT CUresult cuCtxCreate_v2(CUcontext *made, unsigned flags, CUdevice device) {
  Scope scope(Fn_cuCtxCreate_v2, Needs::Initialised);
  if (scope.fails()) return scope.code;
  Config now = config();
  if (made == nullptr || (flags & ~0xffu) != 0) return CUDA_ERROR_INVALID_VALUE;
  if (device < 0 || device >= now.devices) return CUDA_ERROR_INVALID_DEVICE;
  if (state().lost != 0 && !now.context_after_loss) return state().lost;
  auto context = std::make_shared<Context>();
  context->device = device;
  context->handle = state().contexts.add(context);
  current = context->handle;
  *made = context->handle;
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuCtxDestroy_v2(CUcontext handle) {
  Scope scope(Fn_cuCtxDestroy_v2, Needs::Initialised);
  if (scope.fails()) return scope.code;
  auto context = state().contexts.remove(handle);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  clear_context(context);
  if (current == handle) current = nullptr;
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuCtxSetCurrent(CUcontext handle) {
  Scope scope(Fn_cuCtxSetCurrent, Needs::Initialised);
  if (scope.fails()) return scope.code;
  if (handle != nullptr && state().contexts.find(handle) == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  current = handle;
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuCtxSynchronize() {
  Scope scope(Fn_cuCtxSynchronize, Needs::Context);
  if (scope.fails()) return scope.code;
  for (const auto &stream : streams_of(*scope.context)) stream->last().wait();
  return scope.context->lost;
}
