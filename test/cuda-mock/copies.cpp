// Copies and fills. What they name is checked when they are called, and again when they run: memory that was freed or
// unregistered between loses the context, as on a device.
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "context.h"
#include "graphs.h"
#include "memory.h"

namespace mock {

using Lock = std::shared_lock<std::shared_mutex>;

struct Side {
  uintptr_t address;
  Place place;
};

struct Copy {
  Side target, source;
  uint64_t bytes;
  void *context;  // whose call it was
};

// By the kernel, which gives an error where a plain copy would fault, as past the end of a file that was cut.
static bool read_host(char *to, const char *from, uint64_t bytes) {
  iovec local{to, bytes}, remote{const_cast<char *>(from), bytes};
  ssize_t moved = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
  if (moved < 0 && errno != EFAULT) {  // a system that forbids the call
    memcpy(to, from, bytes);
    return true;
  }
  return moved == ssize_t(bytes);
}

static bool write_host(char *to, const char *from, uint64_t bytes) {
  iovec local{const_cast<char *>(from), bytes}, remote{to, bytes};
  ssize_t moved = process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
  if (moved < 0 && errno != EFAULT) {
    memcpy(to, from, bytes);
    return true;
  }
  return moved == ssize_t(bytes);
}

static bool transfer(const Place &target, const Place &source, uint64_t bytes) {
  if (target.kind == Place::Device && source.kind == Place::Device) {
    memmove(target.bytes, source.bytes, bytes);
    return true;
  }
  if (target.kind == Place::Device) return read_host(target.bytes, source.bytes, bytes);
  if (source.kind == Place::Device) return write_host(target.bytes, source.bytes, bytes);
  std::vector<char> between(bytes);
  return read_host(between.data(), source.bytes, bytes) && write_host(target.bytes, between.data(), bytes);
}

// What a side is now; false where it is no longer what it was at the call.
static bool still_there(const Side &side, uint64_t at, uint64_t bytes, void *context, Place *now) {
  CUresult code = memory().find(side.address + at, bytes, context, now);
  return code == 0 && now->kind == side.place.kind && now->id == side.place.id;
}

static CUresult run_copy(const Copy &copy, const Stream &stream) {
  uint64_t piece = config().piece_bytes;
  for (uint64_t at = 0; at < copy.bytes; at += piece) {
    uint64_t bytes = std::min(piece, copy.bytes - at);
    {
      Lock hold(memory().lock);
      Place target, source;
      if (!still_there(copy.target, at, bytes, copy.context, &target) ||
          !still_there(copy.source, at, bytes, copy.context, &source)) {
        report("a copy of %llu bytes from %#zx to %#zx ran when one of them was freed or unregistered",
               static_cast<unsigned long long>(copy.bytes), size_t(copy.source.address), size_t(copy.target.address));
        return CUDA_ERROR_ILLEGAL_ADDRESS;
      }
      if (!transfer(target, source, bytes)) {
        report("a copy of %llu bytes from %#zx to %#zx: host memory that is mapped no longer",
               static_cast<unsigned long long>(copy.bytes), size_t(copy.source.address), size_t(copy.target.address));
        if (copy.source.place.kind == Place::Pageable || copy.target.place.kind == Place::Pageable)
          return CUDA_ERROR_INVALID_VALUE;
        // A device goes on with the pages that it holds, whatever is in them.
        if (target.kind == Place::Device) memset(target.bytes, 0xdb, bytes);
      }
    }
    if (at + bytes < copy.bytes) stream.dawdle(at);
  }
  return CUDA_SUCCESS;
}

// With host memory that is not registered the call returns when the bytes have moved.
static CUresult submit_copy(Copy copy, const std::shared_ptr<Stream> &stream, CUresult later) {
  bool waits = copy.target.place.kind == Place::Pageable || copy.source.place.kind == Place::Pageable;
  auto outcome = std::make_shared<std::atomic<CUresult>>(CUDA_SUCCESS);
  Operation operation;
  operation.run = [copy, later, waits, outcome, stream] {
    CUresult code = later != 0 ? later : run_copy(copy, *stream);
    if (code != CUDA_ERROR_INVALID_VALUE || !waits) return code;
    *outcome = code;
    return int(CUDA_SUCCESS);
  };
  Fence fence = submit(stream, std::move(operation));
  if (!waits) return CUDA_SUCCESS;
  fence.wait();
  return stream->context->lost != 0 ? stream->context->lost.load() : outcome->load();
}

enum class Memories { Any, Host, Device };

// A pointer for the device may be one of registered memory too.
static bool fits(const Place &place, Memories wanted) {
  if (wanted == Memories::Any) return true;
  if (wanted == Memories::Host) return place.kind != Place::Device;
  return place.kind == Place::Device || (place.kind == Place::Pinned && place.mapped);
}

static CUresult copy_call(Fn function, uintptr_t target, Memories to, uintptr_t source, Memories from, size_t bytes,
                          CUstream in) {
  Scope scope(function, Needs::Context);
  if (scope.fails()) return scope.code;
  auto stream = find_stream(scope.context, in);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (bytes == 0) return CUDA_SUCCESS;
  Copy copy{{target, {}}, {source, {}}, bytes, scope.context->handle};
  {
    Lock hold(memory().lock);
    CUresult code = memory().find(target, bytes, copy.context, &copy.target.place);
    if (code == 0) code = memory().find(source, bytes, copy.context, &copy.source.place);
    bool good = code == 0 && fits(copy.target.place, to) && fits(copy.source.place, from);
    if (!good || !copy.target.place.writable) {
      hold.unlock();
      report("%s of %zu bytes from %#zx to %#zx: %s", function_name(function), bytes, size_t(source), size_t(target),
             code != 0 ? "a range crosses the end of an allocation or registration, or lies in none"
             : !good   ? "memory of the wrong kind"
                       : "the target is registered as read-only");
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  bool pageable = copy.target.place.kind == Place::Pageable || copy.source.place.kind == Place::Pageable;
  if (CUresult code = refused_by_capture(function, stream, !pageable)) return code;
  return submit_copy(copy, stream, scope.later);
}

}  // namespace mock

using namespace mock;

MOCK_EXPORT CUresult cuMemcpyAsync(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream) {
  return copy_call(Fn_cuMemcpyAsync, target, Memories::Any, source, Memories::Any, bytes, stream);
}

MOCK_EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void *source, size_t bytes, CUstream stream) {
  return copy_call(Fn_cuMemcpyHtoDAsync_v2, target, Memories::Device, reinterpret_cast<uintptr_t>(source),
                   Memories::Host, bytes, stream);
}

MOCK_EXPORT CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t bytes, CUstream stream) {
  return copy_call(Fn_cuMemcpyDtoHAsync_v2, reinterpret_cast<uintptr_t>(target), Memories::Host, source,
                   Memories::Device, bytes, stream);
}

MOCK_EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream) {
  return copy_call(Fn_cuMemcpyDtoDAsync_v2, target, Memories::Device, source, Memories::Device, bytes, stream);
}

MOCK_EXPORT CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t bytes, CUstream in) {
  Scope scope(Fn_cuMemsetD8Async, Needs::Context);
  if (scope.fails()) return scope.code;
  auto stream = find_stream(scope.context, in);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (bytes == 0) return CUDA_SUCCESS;
  Side side{uintptr_t(target), {}};
  void *context = scope.context->handle;
  {
    Lock hold(memory().lock);
    CUresult code = memory().find(side.address, bytes, context, &side.place);
    if (code != 0 || !fits(side.place, Memories::Device) || !side.place.writable) return CUDA_ERROR_INVALID_VALUE;
  }
  if (CUresult code = refused_by_capture(Fn_cuMemsetD8Async, stream, true)) return code;
  CUresult later = scope.later;
  Operation operation;
  operation.run = [side, value, bytes, context, later]() -> CUresult {
    if (later != 0) return later;
    Lock hold(memory().lock);
    Place now;
    if (!still_there(side, 0, bytes, context, &now)) {
      hold.unlock();
      report("a fill of %zu bytes at %#zx ran when that was freed", bytes, size_t(side.address));
      return CUDA_ERROR_ILLEGAL_ADDRESS;
    }
    memset(now.bytes, value, bytes);
    return CUDA_SUCCESS;
  };
  submit(stream, std::move(operation));
  return CUDA_SUCCESS;
}
