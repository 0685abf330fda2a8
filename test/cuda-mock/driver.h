// The part of CUDA's driver interface that the mock speaks: types, numbers, names. Numbers are those of cuda.h, nvrtc.h,
// cufile.h and cublas_api.h.
#pragma once

#include <cstddef>
#include <cstdint>

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = void *;
using CUstream = void *;
using CUevent = void *;
using CUmodule = void *;
using CUfunction = void *;
using CUgraph = void *;
using CUgraphExec = void *;

// name, number, cuGetErrorString's text
#define MOCK_RESULTS(R)                                                                        \
  R(CUDA_SUCCESS, 0, "no error")                                                               \
  R(CUDA_ERROR_INVALID_VALUE, 1, "invalid argument")                                           \
  R(CUDA_ERROR_OUT_OF_MEMORY, 2, "out of memory")                                              \
  R(CUDA_ERROR_NOT_INITIALIZED, 3, "initialization error")                                     \
  R(CUDA_ERROR_DEINITIALIZED, 4, "driver shutting down")                                       \
  R(CUDA_ERROR_STUB_LIBRARY, 34, "CUDA driver is a stub library")                              \
  R(CUDA_ERROR_NO_DEVICE, 100, "no CUDA-capable device is detected")                           \
  R(CUDA_ERROR_INVALID_DEVICE, 101, "invalid device ordinal")                                  \
  R(CUDA_ERROR_INVALID_IMAGE, 200, "device kernel image is invalid")                           \
  R(CUDA_ERROR_INVALID_CONTEXT, 201, "invalid device context")                                 \
  R(CUDA_ERROR_NO_BINARY_FOR_GPU, 209, "no kernel image is available for execution on the device") \
  R(CUDA_ERROR_ECC_UNCORRECTABLE, 214, "uncorrectable ECC error encountered")                  \
  R(CUDA_ERROR_INVALID_PTX, 218, "a PTX JIT compilation failed")                               \
  R(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, 222, "the provided PTX was compiled with an unsupported toolchain.") \
  R(CUDA_ERROR_OPERATING_SYSTEM, 304, "OS call failed or operation not supported on this OS")  \
  R(CUDA_ERROR_INVALID_HANDLE, 400, "invalid resource handle")                                 \
  R(CUDA_ERROR_ILLEGAL_STATE, 401, "the operation cannot be performed in the present state")    \
  R(CUDA_ERROR_NOT_FOUND, 500, "named symbol not found")                                       \
  R(CUDA_ERROR_NOT_READY, 600, "device not ready")                                             \
  R(CUDA_ERROR_ILLEGAL_ADDRESS, 700, "an illegal memory access was encountered")               \
  R(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701, "too many resources requested for launch")        \
  R(CUDA_ERROR_LAUNCH_TIMEOUT, 702, "the launch timed out and was terminated")                 \
  R(CUDA_ERROR_CONTEXT_IS_DESTROYED, 709, "context is destroyed")                              \
  R(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, 712, "part or all of the requested memory range is already mapped") \
  R(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, 713, "pointer does not correspond to a registered memory region") \
  R(CUDA_ERROR_HARDWARE_STACK_ERROR, 714, "hardware stack error")                              \
  R(CUDA_ERROR_MISALIGNED_ADDRESS, 716, "misaligned address")                                  \
  R(CUDA_ERROR_LAUNCH_FAILED, 719, "unspecified launch failure")                               \
  R(CUDA_ERROR_NOT_PERMITTED, 800, "operation not permitted")                                  \
  R(CUDA_ERROR_NOT_SUPPORTED, 801, "operation not supported")                                  \
  R(CUDA_ERROR_SYSTEM_NOT_READY, 802, "system not yet initialized")                            \
  R(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, 803, "system has unsupported display driver / cuda driver combination") \
  R(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, 900, "operation not permitted when stream is capturing") \
  R(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, 901, "operation failed due to a previous error during capture") \
  R(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, 906, "operation would make the legacy stream depend on a capturing blocking stream") \
  R(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, 908, "attempt to terminate a thread-local capture sequence from another thread") \
  R(CUDA_ERROR_UNKNOWN, 999, "unknown error")

enum : CUresult {
#define MOCK_RESULT_NUMBER(name, number, text) name = number,
  MOCK_RESULTS(MOCK_RESULT_NUMBER)
#undef MOCK_RESULT_NUMBER
};

// Every function whose calls are counted and can be made to fail.
#define MOCK_FUNCTIONS(F)                                                                       \
  F(cuInit) F(cuDriverGetVersion) F(cuGetErrorName) F(cuGetErrorString)                         \
  F(cuDeviceGetCount) F(cuDeviceGet) F(cuDeviceGetName) F(cuDeviceTotalMem_v2)                  \
  F(cuDeviceGetAttribute) F(cuDeviceGetPCIBusId)                                                \
  F(cuCtxCreate_v2) F(cuCtxDestroy_v2) F(cuCtxSetCurrent) F(cuCtxSynchronize)                   \
  F(cuMemGetInfo_v2) F(cuMemAlloc_v2) F(cuMemFree_v2)                                           \
  F(cuMemHostRegister_v2) F(cuMemHostUnregister) F(cuMemHostGetDevicePointer_v2)                \
  F(cuMemcpyAsync) F(cuMemcpyHtoDAsync_v2) F(cuMemcpyDtoHAsync_v2) F(cuMemcpyDtoDAsync_v2)      \
  F(cuMemsetD8Async)                                                                            \
  F(cuStreamCreate) F(cuStreamDestroy_v2) F(cuStreamWaitEvent) F(cuStreamSynchronize) F(cuStreamQuery) \
  F(cuEventCreate) F(cuEventDestroy_v2) F(cuEventRecord) F(cuEventQuery) F(cuEventSynchronize)  \
  F(cuEventElapsedTime) F(cuEventElapsedTime_v2)                                                \
  F(cuModuleLoadData) F(cuModuleUnload) F(cuModuleGetFunction) F(cuFuncSetAttribute)            \
  F(cuFuncGetAttribute) F(cuLaunchKernel)                                                       \
  F(cuStreamBeginCapture_v2) F(cuStreamEndCapture) F(cuGraphDestroy) F(cuGraphInstantiateWithFlags) \
  F(cuGraphLaunch) F(cuGraphExecDestroy)                                                        \
  F(nvrtcVersion) F(nvrtcCreateProgram) F(nvrtcDestroyProgram) F(nvrtcCompileProgram)           \
  F(nvrtcGetProgramLogSize) F(nvrtcGetProgramLog) F(nvrtcGetPTXSize) F(nvrtcGetPTX)             \
  F(nvrtcGetCUBINSize) F(nvrtcGetCUBIN) F(nvrtcGetNumSupportedArchs) F(nvrtcGetSupportedArchs)  \
  F(nvrtcGetErrorString)                                                                        \
  F(cuFileDriverOpen) F(cuFileDriverClose_v2) F(cuFileHandleRegister) F(cuFileHandleDeregister) \
  F(cuFileBufRegister) F(cuFileBufDeregister) F(cuFileRead) F(cuFileWrite) \
  F(cuFileDriverGetProperties)                                                                  \
  F(cublasGetProperty) F(cublasCreate_v2) F(cublasDestroy_v2) F(cublasSetStream_v2)             \
  F(cublasSetWorkspace_v2) F(cublasGemmEx)

enum Fn : uint32_t {
#define MOCK_FN_NUMBER(name) Fn_##name,
  MOCK_FUNCTIONS(MOCK_FN_NUMBER)
#undef MOCK_FN_NUMBER
  Fn_count
};

// CUdevice_attribute
enum {
  ATTRIBUTE_MAX_THREADS_PER_BLOCK = 1,
  ATTRIBUTE_MAX_SHARED_PER_BLOCK = 8,
  ATTRIBUTE_WARP_SIZE = 10,
  ATTRIBUTE_MULTIPROCESSORS = 16,
  ATTRIBUTE_CAN_MAP_HOST_MEMORY = 19,
  ATTRIBUTE_ASYNC_ENGINES = 40,
  ATTRIBUTE_UNIFIED_ADDRESSING = 41,
  ATTRIBUTE_CAPABILITY_MAJOR = 75,
  ATTRIBUTE_CAPABILITY_MINOR = 76,
  ATTRIBUTE_PAGEABLE_ACCESS = 88,
  ATTRIBUTE_CAN_USE_HOST_POINTER = 91,
  ATTRIBUTE_MAX_SHARED_OPTIN = 97,
  ATTRIBUTE_HOST_REGISTER = 99,
  ATTRIBUTE_READ_ONLY_REGISTER = 113,
};

enum { STREAM_NON_BLOCKING = 1 };
enum { EVENT_BLOCKING_SYNC = 1, EVENT_DISABLE_TIMING = 2 };
enum { REGISTER_PORTABLE = 1, REGISTER_DEVICEMAP = 2, REGISTER_IOMEMORY = 4, REGISTER_READ_ONLY = 8 };

#define MOCK_EXPORT extern "C" __attribute__((visibility("default")))
