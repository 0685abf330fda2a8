// The driver itself and its devices.
#include "device.h"

#include <cstdio>
#include <cstring>

#include "context.h"
#include "memory.h"

namespace mock {

struct Attribute {
  int number, value;
};

// Of one H100 with a PCIe link.
static constexpr Attribute ATTRIBUTES[] = {
    {ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
    {2, 1024}, {3, 1024}, {4, 64},           // of a block in each direction
    {5, 2147483647}, {6, 65535}, {7, 65535}, // of a grid
    {ATTRIBUTE_MAX_SHARED_PER_BLOCK, 49152},
    {9, 65536},                              // constant memory
    {ATTRIBUTE_WARP_SIZE, 32},
    {12, 65536},                             // registers of a block
    {13, 1755000},                           // kHz
    {15, 1},                                 // copies beside kernels
    {ATTRIBUTE_MULTIPROCESSORS, 114},
    {17, 0},                                 // kernels have no time limit
    {18, 0},                                 // integrated
    {ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1},
    {20, 0},                                 // compute mode
    {31, 1},                                 // kernels beside kernels
    {33, 0}, {34, 0}, {50, 0},               // PCI bus, device, domain
    {ATTRIBUTE_ASYNC_ENGINES, 3},
    {ATTRIBUTE_UNIFIED_ADDRESSING, 1},
    {36, 1593000},                           // memory clock in kHz
    {37, 5120},                              // bits of the memory bus
    {38, 52428800},                          // L2 cache
    {39, 2048},                              // threads of a multiprocessor
    {ATTRIBUTE_CAPABILITY_MAJOR, 9},
    {ATTRIBUTE_CAPABILITY_MINOR, 0},
    {81, 233472}, {82, 65536},               // shared memory, registers of a multiprocessor
    {83, 1},                                 // managed memory
    {ATTRIBUTE_PAGEABLE_ACCESS, 0},
    {89, 1},                                 // concurrent managed access
    {ATTRIBUTE_CAN_USE_HOST_POINTER, 1},
    {95, 1},                                 // cooperative launch
    {ATTRIBUTE_MAX_SHARED_OPTIN, 232448},
    {ATTRIBUTE_HOST_REGISTER, 1},
    {100, 0},                                // pageable access by the host's page tables
    {106, 32},                               // blocks of a multiprocessor
    {ATTRIBUTE_READ_ONLY_REGISTER, 1},
    {115, 1},                                // memory pools
    {116, 1},                                // GPUDirect RDMA
};
constexpr int LAST_ATTRIBUTE = 148;

int attribute(int device, int number) {
  if (number < 1 || number > LAST_ATTRIBUTE) return -1;
  Config now = config();
  auto configured = now.attributes.find(number);
  if (configured != now.attributes.end()) return configured->second;
  if (number == 33) return device + 1;
  for (const Attribute &one : ATTRIBUTES)
    if (one.number == number) return one.value;
  return 0;
}

static bool no_such_device(CUdevice device) { return device < 0 || device >= config().devices; }

}  // namespace mock

using namespace mock;

MOCK_EXPORT CUresult cuInit(unsigned flags) {
  Scope scope(Fn_cuInit, Needs::Nothing);
  if (scope.fails()) return scope.code;
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (config().devices == 0) return CUDA_ERROR_NO_DEVICE;
  state().initialised = true;
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuDriverGetVersion(int *version) {
  Scope scope(Fn_cuDriverGetVersion, Needs::Nothing);
  if (scope.fails()) return scope.code;
  if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *version = config().driver_version;
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuGetErrorName(CUresult code, const char **name) {
  Scope scope(Fn_cuGetErrorName, Needs::Nothing);
  if (scope.fails()) return scope.code;
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  switch (code) {
#define MOCK_RESULT_NAME(result, number, text) \
  case number:                                 \
    *name = #result;                           \
    return CUDA_SUCCESS;
    MOCK_RESULTS(MOCK_RESULT_NAME)
  }
  *name = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}

MOCK_EXPORT CUresult cuGetErrorString(CUresult code, const char **words) {
  Scope scope(Fn_cuGetErrorString, Needs::Nothing);
  if (scope.fails()) return scope.code;
  if (words == nullptr) return CUDA_ERROR_INVALID_VALUE;
  switch (code) {
#define MOCK_RESULT_TEXT(result, number, text) \
  case number:                                 \
    *words = text;                             \
    return CUDA_SUCCESS;
    MOCK_RESULTS(MOCK_RESULT_TEXT)
  }
  *words = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}

MOCK_EXPORT CUresult cuDeviceGetCount(int *count) {
  Scope scope(Fn_cuDeviceGetCount, Needs::Initialised);
  if (scope.fails()) return scope.code;
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *count = config().devices;
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  Scope scope(Fn_cuDeviceGet, Needs::Initialised);
  if (scope.fails()) return scope.code;
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (no_such_device(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuDeviceGetName(char *name, int capacity, CUdevice device) {
  Scope scope(Fn_cuDeviceGetName, Needs::Initialised);
  if (scope.fails()) return scope.code;
  if (name == nullptr || capacity < 1) return CUDA_ERROR_INVALID_VALUE;
  if (no_such_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  snprintf(name, size_t(capacity), "Mock GPU %d", device);
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
  Scope scope(Fn_cuDeviceTotalMem_v2, Needs::Initialised);
  if (scope.fails()) return scope.code;
  if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (no_such_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = config().total_bytes;
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuDeviceGetAttribute(int *value, int number, CUdevice device) {
  Scope scope(Fn_cuDeviceGetAttribute, Needs::Initialised);
  if (scope.fails()) return scope.code;
  if (no_such_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  int found = attribute(device, number);
  if (value == nullptr || found < 0) return CUDA_ERROR_INVALID_VALUE;
  *value = found;
  return CUDA_SUCCESS;
}

MOCK_EXPORT CUresult cuDeviceGetPCIBusId(char *id, int capacity, CUdevice device) {
  Scope scope(Fn_cuDeviceGetPCIBusId, Needs::Initialised);
  if (scope.fails()) return scope.code;
  if (id == nullptr || capacity < 13) return CUDA_ERROR_INVALID_VALUE;
  if (no_such_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  snprintf(id, size_t(capacity), "%04x:%02x:%02x.0", 0u, unsigned(device + 1) & 0xff, 0u);
  return CUDA_SUCCESS;
}
