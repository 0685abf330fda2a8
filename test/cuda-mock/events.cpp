#include <ctime>

#include "context.h"
#include "graphs.h"
#include "streams.h"

using namespace mock;

static int64_t now_nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t(now.tv_sec) * 1000000000 + now.tv_nsec;
}

MOCK_EXPORT CUresult cuEventCreate(CUevent *made, unsigned flags) {
  Scope scope(Fn_cuEventCreate, Needs::Context);
  if (scope.fails()) return scope.code;
  if (made == nullptr || (flags & ~unsigned(EVENT_BLOCKING_SYNC | EVENT_DISABLE_TIMING)) != 0)
    return CUDA_ERROR_INVALID_VALUE;
  auto event = std::make_shared<Event>();
  event->context = scope.context;
  event->flags = flags;
  *made = state().events.add(event);
  return CUDA_SUCCESS;
}

// What waits for it goes on waiting for its last record.
MOCK_EXPORT CUresult cuEventDestroy_v2(CUevent handle) {
  Scope scope(Fn_cuEventDestroy_v2, Needs::Context);
  if (scope.fails()) return scope.code;
  return state().events.remove(handle) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuEventRecord(CUevent handle, CUstream in) {
  Scope scope(Fn_cuEventRecord, Needs::Context);
  if (scope.fails()) return scope.code;
  auto event = state().events.find(handle);
  auto stream = find_stream(scope.context, in);
  if (event == nullptr || stream == nullptr || event->context != stream->context) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult code = refused_by_capture(Fn_cuEventRecord, stream, false)) return code;
  auto when = std::make_shared<std::atomic<int64_t>>(0);
  CUresult later = scope.later;
  Operation operation;
  operation.always = true;
  operation.run = [when, later] {
    *when = now_nanoseconds();
    return later;
  };
  std::lock_guard<std::mutex> hold(event->lock);
  event->recorded = true;
  event->nanoseconds = when;
  event->fence = submit(stream, std::move(operation));
  return CUDA_SUCCESS;
}

// A wait for an event that was never recorded is none; one for a recorded event is for the record as of now.
MOCK_EXPORT CUresult cuStreamWaitEvent(CUstream in, CUevent handle, unsigned flags) {
  Scope scope(Fn_cuStreamWaitEvent, Needs::Context);
  if (scope.fails()) return scope.code;
  if (flags > 1) return CUDA_ERROR_INVALID_VALUE;
  auto event = state().events.find(handle);
  auto stream = find_stream(scope.context, in);
  if (event == nullptr || stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult code = refused_by_capture(Fn_cuStreamWaitEvent, stream, false)) return code;
  CUresult later = scope.later;
  Operation operation;
  operation.run = [later] { return later; };
  {
    std::lock_guard<std::mutex> hold(event->lock);
    if (!event->recorded) return CUDA_SUCCESS;
    operation.after.push_back(event->fence);
  }
  submit(stream, std::move(operation));
  return CUDA_SUCCESS;
}

static Fence fence_of(Event &event) {
  std::lock_guard<std::mutex> hold(event.lock);
  return event.fence;
}

MOCK_EXPORT CUresult cuEventQuery(CUevent handle) {
  Scope scope(Fn_cuEventQuery, Needs::Context);
  if (scope.fails()) return scope.code;
  auto event = state().events.find(handle);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (event->context->lost != 0) return event->context->lost;
  return fence_of(*event).passed() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

MOCK_EXPORT CUresult cuEventSynchronize(CUevent handle) {
  Scope scope(Fn_cuEventSynchronize, Needs::Context);
  if (scope.fails()) return scope.code;
  auto event = state().events.find(handle);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  fence_of(*event).wait();
  return event->context->lost;
}

static CUresult elapsed(Fn function, float *milliseconds, CUevent from, CUevent to) {
  Scope scope(function, Needs::Context);
  if (scope.fails()) return scope.code;
  if (milliseconds == nullptr) return CUDA_ERROR_INVALID_VALUE;
  int64_t times[2];
  CUevent handles[2] = {from, to};
  std::shared_ptr<Context> contexts[2];
  for (int i = 0; i < 2; i++) {
    auto event = state().events.find(handles[i]);
    if (event == nullptr || (event->flags & EVENT_DISABLE_TIMING) != 0) return CUDA_ERROR_INVALID_HANDLE;
    std::lock_guard<std::mutex> hold(event->lock);
    if (!event->recorded) return CUDA_ERROR_INVALID_HANDLE;
    if (!event->fence.passed()) return CUDA_ERROR_NOT_READY;
    times[i] = *event->nanoseconds;
    contexts[i] = event->context;
  }
  if (contexts[0] != contexts[1]) return CUDA_ERROR_INVALID_HANDLE;
  *milliseconds = float(double(times[1] - times[0]) / 1e6);
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuEventElapsedTime(float *milliseconds, CUevent from, CUevent to) {
  return elapsed(Fn_cuEventElapsedTime, milliseconds, from, to);
}

MOCK_EXPORT CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent from, CUevent to) {
  return elapsed(Fn_cuEventElapsedTime_v2, milliseconds, from, to);
}
