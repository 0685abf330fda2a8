// Stream capture and graphs, with their rules as cuda.h has them: what spoils a capture, who may end it, and that the
// launches of one executable graph run one after the other. The functions of events are not captured here.
#include "graphs.h"

#include <algorithm>

#include "context.h"

namespace mock {

struct Captures {
  std::mutex lock;
  std::vector<std::shared_ptr<Capture>> active;
};

static Captures &captures() {
  static Captures &the_one = *new Captures;
  return the_one;
}

static std::shared_ptr<Capture> capture_of(Stream &stream) {
  std::lock_guard<std::mutex> hold(captures().lock);
  return stream.capture;
}

static CUresult spoiled(Fn function, Capture &by, CUresult code, const char *why) {
  by.invalid = true;
  report("%s while a stream captures: %s", function_name(function), why);
  return code;
}

CUresult refused_by_captures(Fn function, const Context &context) {
  static const Fn unsafe[] = {Fn_cuMemAlloc_v2,   Fn_cuMemFree_v2,   Fn_cuMemHostRegister_v2, Fn_cuMemHostUnregister,
                              Fn_cuModuleLoadData, Fn_cuModuleUnload, Fn_cuEventQuery,         Fn_cuEventSynchronize};
  bool never = function == Fn_cuCtxSynchronize;
  if (!never && std::find(std::begin(unsafe), std::end(unsafe), function) == std::end(unsafe)) return CUDA_SUCCESS;
  std::vector<std::shared_ptr<Capture>> active;
  {
    std::lock_guard<std::mutex> hold(captures().lock);
    active = captures().active;
  }
  for (const auto &one : active) {
    if (one->context.get() != &context) continue;
    bool mine = one->thread == std::this_thread::get_id();
    if (never || one->mode == CAPTURE_GLOBAL || (one->mode == CAPTURE_THREAD_LOCAL && mine))
      return spoiled(function, *one, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "its mode forbids the call");
  }
  return CUDA_SUCCESS;
}

static bool is_legacy(const Stream &stream) {
  std::lock_guard<std::mutex> hold(stream.context->legacy_lock);
  return stream.context->legacy.get() == &stream;
}

CUresult refused_by_capture(Fn function, const std::shared_ptr<Stream> &stream, bool capturable) {
  if (is_legacy(*stream)) {
    std::lock_guard<std::mutex> hold(captures().lock);
    for (const auto &one : captures().active) {
      if (one->context != stream->context || !one->blocking) continue;
      return spoiled(function, *one, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "it is in order with the legacy stream");
    }
  }
  auto capture = capture_of(*stream);
  if (capture == nullptr) return CUDA_SUCCESS;
  if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (capturable) return CUDA_SUCCESS;
  return spoiled(function, *capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "this one cannot be captured");
}

bool capture(const std::shared_ptr<Stream> &stream, Operation &operation) {
  std::lock_guard<std::mutex> hold(captures().lock);
  if (stream->capture == nullptr) return false;
  stream->capture->nodes.push_back(std::move(operation.run));
  return true;
}

static std::shared_ptr<Capture> end_capture(Stream &stream) {
  std::lock_guard<std::mutex> hold(captures().lock);
  auto ended = std::move(stream.capture);
  auto &active = captures().active;
  active.erase(std::remove(active.begin(), active.end(), ended), active.end());
  return ended;
}

void spoil_capture(Stream &stream) {
  if (end_capture(stream) != nullptr) report("a stream was destroyed while it captured");
}

static bool runs_on(const Context &context, const std::shared_ptr<Stream> &stream) {
  return stream != nullptr && stream->context.get() == &context;
}

}  // namespace mock

using namespace mock;

MOCK_EXPORT CUresult cuStreamBeginCapture_v2(CUstream handle, int mode) {
  Scope scope(Fn_cuStreamBeginCapture_v2, Needs::Context);
  if (scope.fails()) return scope.code;
  auto stream = find_stream(scope.context, handle);
  if (!runs_on(*scope.context, stream)) return CUDA_ERROR_INVALID_HANDLE;
  if (mode < CAPTURE_GLOBAL || mode > CAPTURE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
  if (handle == nullptr) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  auto begun = std::make_shared<Capture>();
  begun->context = scope.context;
  begun->blocking = (stream->flags & STREAM_NON_BLOCKING) == 0;
  begun->mode = mode;
  begun->thread = std::this_thread::get_id();
  std::lock_guard<std::mutex> hold(captures().lock);
  if (stream->capture != nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  stream->capture = begun;
  captures().active.push_back(begun);
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuStreamEndCapture(CUstream handle, CUgraph *made) {
  Scope scope(Fn_cuStreamEndCapture, Needs::Context);
  if (scope.fails()) return scope.code;
  auto stream = find_stream(scope.context, handle);
  if (!runs_on(*scope.context, stream)) return CUDA_ERROR_INVALID_HANDLE;
  if (made == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *made = nullptr;
  auto capture = capture_of(*stream);
  if (capture == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->mode != CAPTURE_RELAXED && capture->thread != std::this_thread::get_id())
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  end_capture(*stream);
  if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  auto graph = std::make_shared<Graph>();
  graph->context = capture->context;
  graph->nodes = std::move(capture->nodes);
  *made = state().graphs.add(graph);
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuGraphDestroy(CUgraph handle) {
  Scope scope(Fn_cuGraphDestroy, Needs::Context);
  if (scope.fails()) return scope.code;
  return state().graphs.remove(handle) == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

// What an executable graph holds stays when the graph that it was made from goes.
MOCK_EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *made, CUgraph handle, unsigned long long flags) {
  constexpr unsigned long long AUTO_FREE = 1, NODE_PRIORITY = 8;
  Scope scope(Fn_cuGraphInstantiateWithFlags, Needs::Context);
  if (scope.fails()) return scope.code;
  auto graph = state().graphs.find(handle);
  if (made == nullptr || graph == nullptr || (flags & ~(AUTO_FREE | NODE_PRIORITY)) != 0)
    return CUDA_ERROR_INVALID_VALUE;
  auto exec = std::make_shared<GraphExec>();
  exec->context = graph->context;
  exec->nodes = graph->nodes;
  *made = state().graph_execs.add(exec);
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuGraphLaunch(CUgraphExec handle, CUstream in) {
  Scope scope(Fn_cuGraphLaunch, Needs::Context);
  if (scope.fails()) return scope.code;
  auto exec = state().graph_execs.find(handle);
  auto stream = find_stream(scope.context, in);
  if (exec == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!runs_on(*exec->context, stream)) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult code = refused_by_capture(Fn_cuGraphLaunch, stream, false)) return code;
  CUresult later = scope.later;
  Operation operation;
  operation.run = [exec, later] {
    CUresult code = later;
    for (size_t i = 0; i < exec->nodes.size() && code == 0; i++) code = exec->nodes[i]();
    return code;
  };
  std::lock_guard<std::mutex> hold(exec->lock);
  if (exec->last.stream != nullptr) operation.after.push_back(exec->last);
  exec->last = submit(stream, std::move(operation));
  return CUDA_SUCCESS;
}

// One that runs goes when it has ended.
MOCK_EXPORT CUresult cuGraphExecDestroy(CUgraphExec handle) {
  Scope scope(Fn_cuGraphExecDestroy, Needs::Context);
  if (scope.fails()) return scope.code;
  return state().graph_execs.remove(handle) == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
