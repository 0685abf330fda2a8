// The exported functions on memory.
#include "context.h"
#include "device.h"
#include "memory.h"

using namespace mock;

MOCK_EXPORT CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
  Scope scope(Fn_cuMemGetInfo_v2, Needs::Context);
  if (scope.fails()) return scope.code;
  if (free == nullptr || total == nullptr) return CUDA_ERROR_INVALID_VALUE;
  uint64_t left, all;
  memory().usage(scope.context->device, &left, &all);
  *free = left;
  *total = all;
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *made, size_t bytes) {
  Scope scope(Fn_cuMemAlloc_v2, Needs::Context);
  if (scope.fails()) return scope.code;
  if (made == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  return memory().allocate(scope.context->device, scope.context->handle, bytes, made);
}

// Does not wait for what uses the memory, unless configured: such an operation then fails, and with it the context.
MOCK_EXPORT CUresult cuMemFree_v2(CUdeviceptr address) {
  Scope scope(Fn_cuMemFree_v2, Needs::Context);
  if (scope.fails()) return scope.code;
  if (config().free_waits) {
    for (const auto &stream : streams_of(*scope.context)) stream->last().wait();
    if (scope.context->lost != 0) return scope.context->lost;
  }
  return memory().release(address, scope.context->handle);
}

MOCK_EXPORT CUresult cuMemHostRegister_v2(void *base, size_t bytes, unsigned flags) {
  Scope scope(Fn_cuMemHostRegister_v2, Needs::Context);
  if (scope.fails()) return scope.code;
  if (attribute(scope.context->device, ATTRIBUTE_HOST_REGISTER) == 0) return CUDA_ERROR_NOT_SUPPORTED;
  bool read_only = attribute(scope.context->device, ATTRIBUTE_READ_ONLY_REGISTER) != 0;
  return memory().enroll(reinterpret_cast<uintptr_t>(base), bytes, flags, scope.context->handle, read_only);
}

MOCK_EXPORT CUresult cuMemHostUnregister(void *base) {
  Scope scope(Fn_cuMemHostUnregister, Needs::Context);
  if (scope.fails()) return scope.code;
  return memory().withdraw(reinterpret_cast<uintptr_t>(base), scope.context->handle);
}

MOCK_EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *made, void *host, unsigned flags) {
  Scope scope(Fn_cuMemHostGetDevicePointer_v2, Needs::Context);
  if (scope.fails()) return scope.code;
  if (made == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  auto address = reinterpret_cast<uintptr_t>(host);
  std::shared_lock<std::shared_mutex> hold(memory().lock);
  Place place;
  CUresult code = memory().find(address, 1, scope.context->handle, &place);
  if (code != 0 || place.kind != Place::Pinned || !place.mapped) return CUDA_ERROR_INVALID_VALUE;
  bool same = attribute(scope.context->device, ATTRIBUTE_CAN_USE_HOST_POINTER) != 0;
  *made = same ? address : address + ALIAS;
  return CUDA_SUCCESS;
}
