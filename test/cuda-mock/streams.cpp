#include "streams.h"

#include <unistd.h>

#include "context.h"
#include "graphs.h"
#include "random.h"

namespace mock {

void Fence::wait() const {
  if (stream == nullptr) return;
  std::unique_lock<std::mutex> hold(stream->lock_);
  stream->changed_.wait(hold, [this] { return stream->done_ >= number; });
}

bool Fence::passed() const {
  if (stream == nullptr) return true;
  std::lock_guard<std::mutex> hold(stream->lock_);
  return stream->done_ >= number;
}

static std::atomic<uint64_t> streams_made{0};

Stream::Stream(std::shared_ptr<Context> of, unsigned with_flags)
    : context(std::move(of)), flags(with_flags), ordinal_(++streams_made) {}

// The thread starts with the first operation, and keeps the stream alive by itself.
Fence Stream::push(Operation operation) {
  std::lock_guard<std::mutex> hold(lock_);
  if (pushed_ == 0) std::thread([self = shared_from_this()] { self->serve(); }).detach();
  waiting_.push_back(std::move(operation));
  pushed_++;
  changed_.notify_all();
  return {shared_from_this(), pushed_};
}

Fence Stream::last() {
  std::lock_guard<std::mutex> hold(lock_);
  return {shared_from_this(), pushed_};
}

void Stream::end(bool wait) {
  std::unique_lock<std::mutex> hold(lock_);
  ending_ = true;
  changed_.notify_all();
  if (wait && pushed_ > 0) changed_.wait(hold, [this] { return ended_; });
}

void Stream::serve() {
  for (;;) {
    Operation next;
    uint64_t number;
    {
      std::unique_lock<std::mutex> hold(lock_);
      changed_.wait(hold, [this] { return ending_ || !waiting_.empty(); });
      if (waiting_.empty()) break;
      next = std::move(waiting_.front());
      waiting_.pop_front();
      number = done_ + 1;
    }
    for (const Fence &fence : next.after) fence.wait();
    dawdle(number << 20);
    if (next.always || context->lost == 0) {
      CUresult code = next.run();
      if (code != 0) context->lose(code);
    }
    next = Operation();  // what it holds is gone before anyone hears of its end
    std::lock_guard<std::mutex> hold(lock_);
    done_++;
    changed_.notify_all();
  }
  std::lock_guard<std::mutex> hold(lock_);
  ended_ = true;
  changed_.notify_all();
}

// Each stream is quick for some operations, then slow for some, so that one stream runs far ahead of another.
void Stream::dawdle(uint64_t salt) const {
  Config now = config();
  if (now.max_delay_us == 0) return;
  uint64_t phase = mix(now.seed ^ mix(ordinal_) ^ (salt >> 22));
  if (phase % 4 == 0) return;
  uint64_t delay = mix(phase ^ salt) % now.max_delay_us;
  usleep(useconds_t(phase % 4 == 1 ? delay / 16 : delay));
}

std::shared_ptr<Stream> find_stream(const std::shared_ptr<Context> &context, void *handle) {
  if (handle != nullptr) return state().streams.find(handle);
  std::lock_guard<std::mutex> hold(context->legacy_lock);
  if (context->legacy == nullptr) context->legacy = std::make_shared<Stream>(context, 0);
  return context->legacy;
}

std::vector<std::shared_ptr<Stream>> streams_of(const Context &context) {
  std::vector<std::shared_ptr<Stream>> mine;
  for (const auto &stream : state().streams.all())
    if (stream->context.get() == &context) mine.push_back(stream);
  if (context.legacy != nullptr) mine.push_back(context.legacy);
  return mine;
}

Fence submit(const std::shared_ptr<Stream> &stream, Operation operation) {
  if (capture(stream, operation)) return {};
  if ((stream->flags & STREAM_NON_BLOCKING) != 0) return stream->push(std::move(operation));
  Context &context = *stream->context;
  std::lock_guard<std::mutex> hold(context.legacy_lock);
  if (stream != context.legacy) {
    if (context.legacy_fence.stream != nullptr) operation.after.push_back(context.legacy_fence);
    return stream->push(std::move(operation));
  }
  for (const auto &other : streams_of(context))
    if (other != stream && (other->flags & STREAM_NON_BLOCKING) == 0) operation.after.push_back(other->last());
  return context.legacy_fence = stream->push(std::move(operation));
}

}  // namespace mock

using namespace mock;

MOCK_EXPORT CUresult cuStreamCreate(CUstream *made, unsigned flags) {
  Scope scope(Fn_cuStreamCreate, Needs::Context);
  if (scope.fails()) return scope.code;
  if (made == nullptr || (flags & ~unsigned(STREAM_NON_BLOCKING)) != 0) return CUDA_ERROR_INVALID_VALUE;
  *made = state().streams.add(std::make_shared<Stream>(scope.context, flags));
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuStreamDestroy_v2(CUstream handle) {
  Scope scope(Fn_cuStreamDestroy_v2, Needs::Context);
  if (scope.fails()) return scope.code;
  auto stream = state().streams.remove(handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  spoil_capture(*stream);
  stream->end(false);
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuStreamSynchronize(CUstream handle) {
  Scope scope(Fn_cuStreamSynchronize, Needs::Context);
  if (scope.fails()) return scope.code;
  auto stream = find_stream(scope.context, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult code = refused_by_capture(Fn_cuStreamSynchronize, stream, false)) return code;
  stream->last().wait();
  return stream->context->lost;
}

MOCK_EXPORT CUresult cuStreamQuery(CUstream handle) {
  Scope scope(Fn_cuStreamQuery, Needs::Context);
  if (scope.fails()) return scope.code;
  auto stream = find_stream(scope.context, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult code = refused_by_capture(Fn_cuStreamQuery, stream, false)) return code;
  if (stream->context->lost != 0) return stream->context->lost;
  return stream->last().passed() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
