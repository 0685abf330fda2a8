// The mock under many threads, for sanitizers: scripts/cuda-mock-sanitize compiles and runs this. Ends with 0 where all
// is as it should be.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "driver.h"

extern "C" {
CUresult cuInit(unsigned);
CUresult cuCtxCreate_v2(CUcontext *, unsigned, CUdevice);
CUresult cuCtxDestroy_v2(CUcontext);
CUresult cuCtxSetCurrent(CUcontext);
CUresult cuCtxSynchronize();
CUresult cuMemAlloc_v2(CUdeviceptr *, size_t);
CUresult cuMemFree_v2(CUdeviceptr);
CUresult cuMemHostRegister_v2(void *, size_t, unsigned);
CUresult cuMemHostUnregister(void *);
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr, const void *, size_t, CUstream);
CUresult cuMemcpyDtoHAsync_v2(void *, CUdeviceptr, size_t, CUstream);
CUresult cuStreamCreate(CUstream *, unsigned);
CUresult cuStreamDestroy_v2(CUstream);
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned);
CUresult cuEventCreate(CUevent *, unsigned);
CUresult cuEventDestroy_v2(CUevent);
CUresult cuEventRecord(CUevent, CUstream);
CUresult cuEventSynchronize(CUevent);
CUresult cuModuleLoadData(CUmodule *, const void *);
CUresult cuModuleUnload(CUmodule);
CUresult cuModuleGetFunction(CUfunction *, CUmodule, const char *);
CUresult cuLaunchKernel(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                        void **, void **);
int nvrtcCreateProgram(void **, const char *, const char *, int, const char *const *, const char *const *);
int nvrtcCompileProgram(void *, int, const char *const *);
int nvrtcGetPTXSize(void *, size_t *);
int nvrtcGetPTX(void *, char *);
int nvrtcDestroyProgram(void **);
int mock_configure(const char *);
int mock_set_faults(const char *);
void mock_live(uint64_t *);
void mock_reset();
}

#define WANT(call, code)                                                                       \
  do {                                                                                         \
    int got_code = (call);                                                                     \
    if (got_code != (code)) {                                                                  \
      fprintf(stderr, "line %d: %s gave %d, and should give %d\n", __LINE__, #call, got_code, code); \
      exit(1);                                                                                 \
    }                                                                                          \
  } while (0)
#define GOOD(call) WANT(call, 0)

constexpr size_t BYTES = 64 << 10;
constexpr unsigned NUMBERS = BYTES / 4;

static const char *const TEXT = R"(
extern "C" __global__ void __launch_bounds__(256) add(unsigned *at, unsigned count, unsigned value) {
  __shared__ unsigned sums[8];
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x, own = i < count ? value : 0;
  for (unsigned by = 16; by > 0; by /= 2) own += __shfl_xor_sync(0xffffffffu, own, by);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = own;
  __syncthreads();
  if (i < count) at[i] += sums[threadIdx.x / 32] / 32;
}
extern "C" __global__ void wild(unsigned *at) { at[threadIdx.x * 1000000000ull] = 1; }
)";

static std::vector<char> compile() {
  void *program;
  GOOD(nvrtcCreateProgram(&program, TEXT, "selftest", 0, nullptr, nullptr));
  GOOD(nvrtcCompileProgram(program, 0, nullptr));
  size_t size;
  GOOD(nvrtcGetPTXSize(program, &size));
  std::vector<char> ptx(size);
  GOOD(nvrtcGetPTX(program, ptx.data()));
  GOOD(nvrtcDestroyProgram(&program));
  return ptx;
}

// Up, through a kernel, and down, on three streams that events alone order.
static void work(CUcontext context, const std::vector<char> &ptx, unsigned seed) {
  GOOD(cuCtxSetCurrent(context));
  auto *host = static_cast<unsigned *>(
      mmap(nullptr, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  GOOD(cuMemHostRegister_v2(host, 2 * BYTES, 3));
  CUdeviceptr device;
  GOOD(cuMemAlloc_v2(&device, BYTES));
  CUstream up, run, down;
  for (CUstream *one : {&up, &run, &down}) GOOD(cuStreamCreate(one, 1));
  CUevent copied, ran, back;
  for (CUevent *one : {&copied, &ran, &back}) GOOD(cuEventCreate(one, 3));
  CUmodule module;
  CUfunction add;
  GOOD(cuModuleLoadData(&module, ptx.data()));
  GOOD(cuModuleGetFunction(&add, module, "add"));
  unsigned count = NUMBERS;
  for (unsigned round = 0; round < 6; round++) {
    for (unsigned i = 0; i < NUMBERS; i++) host[i] = i * seed + round;
    GOOD(cuMemcpyHtoDAsync_v2(device, host, BYTES, up));
    GOOD(cuEventRecord(copied, up));
    GOOD(cuStreamWaitEvent(run, copied, 0));
    void *arguments[] = {&device, &count, &seed};
    GOOD(cuLaunchKernel(add, NUMBERS / 256, 1, 1, 256, 1, 1, 0, run, arguments, nullptr));
    GOOD(cuEventRecord(ran, run));
    GOOD(cuStreamWaitEvent(down, ran, 0));
    GOOD(cuMemcpyDtoHAsync_v2(host + NUMBERS, device, BYTES, down));
    GOOD(cuEventRecord(back, down));
    GOOD(cuEventSynchronize(back));
    for (unsigned i = 0; i < NUMBERS; i++) WANT(host[NUMBERS + i] == i * seed + round + seed, true);
  }
  GOOD(cuModuleUnload(module));
  for (CUevent one : {copied, ran, back}) GOOD(cuEventDestroy_v2(one));
  for (CUstream one : {up, run, down}) GOOD(cuStreamDestroy_v2(one));
  GOOD(cuMemFree_v2(device));
  GOOD(cuMemHostUnregister(host));
  munmap(host, 2 * BYTES);
}

static void all_work_at_once(const std::vector<char> &ptx) {
  CUcontext contexts[2];
  for (int i = 0; i < 2; i++) GOOD(cuCtxCreate_v2(&contexts[i], 0, i));
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; i++) threads.emplace_back([&, i] { work(contexts[i % 2], ptx, i + 3); });
  for (auto &thread : threads) thread.join();
  for (CUcontext one : contexts) GOOD(cuCtxDestroy_v2(one));
  uint64_t counts[16];
  mock_live(counts);
  for (uint64_t count : counts) WANT(count == 0, true);
}

// A kernel that goes astray, with others still in line; then all over again.
static void losses(const std::vector<char> &ptx) {
  mock_configure("contextAfterLoss 1");
  for (int round = 0; round < 3; round++) {
    CUcontext context;
    GOOD(cuCtxCreate_v2(&context, 0, 0));
    CUdeviceptr device;
    GOOD(cuMemAlloc_v2(&device, BYTES));
    CUmodule module;
    CUfunction wild, add;
    GOOD(cuModuleLoadData(&module, ptx.data()));
    GOOD(cuModuleGetFunction(&wild, module, "wild"));
    GOOD(cuModuleGetFunction(&add, module, "add"));
    unsigned count = NUMBERS, value = 1;
    void *arguments[] = {&device, &count, &value};
    GOOD(cuLaunchKernel(add, 4, 1, 1, 256, 1, 1, 0, nullptr, arguments, nullptr));
    GOOD(cuLaunchKernel(wild, 4, 1, 1, 64, 1, 1, 0, nullptr, arguments, nullptr));
    // By now the loss may be known, or not.
    CUresult third = cuLaunchKernel(add, 4, 1, 1, 256, 1, 1, 0, nullptr, arguments, nullptr);
    if (third != CUDA_ERROR_ILLEGAL_ADDRESS) GOOD(third);
    WANT(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
    GOOD(cuCtxDestroy_v2(context));
  }
}

int main() {
  mock_reset();
  mock_configure("maxDelayUs 300 pieceBytes 5000 seed 11");
  GOOD(cuInit(0));
  const std::vector<char> ptx = compile();
  all_work_at_once(ptx);
  GOOD(mock_set_faults("cuEventRecord 5 1 0 0 500"));
  all_work_at_once(ptx);
  losses(ptx);
  mock_reset();
  puts("the mock of CUDA keeps its rules");
  return 0;
}
