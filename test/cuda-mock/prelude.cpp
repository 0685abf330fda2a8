#include "nvrtc.h"

namespace mock {

// CUDA's words in C++: what NVRTC knows without a header. Accesses to memory reach the mock by the hooks that a compiler
// puts in front of them for its thread sanitizer, which is not linked. Structs are those of launch.h.
const char *const kernel_prelude = R"PRELUDE(
#define MOCK_QUIET __attribute__((noinline, unused, no_sanitize("thread")))
#define MOCK_HIDDEN __attribute__((visibility("hidden")))
typedef unsigned long size_t;
struct MockPlace { unsigned thread[3], block[3], block_size[3], grid[3]; };
struct MockRuntime {
  void (*touch)(const volatile void *, unsigned long, int, int);
  void (*barrier)();
  unsigned (*exchange)(unsigned, const void *, unsigned, void *);
  void (*trap)();
};
static const MockPlace *mock_place;
static const MockRuntime *mock_runtime;

extern "C" {
#define MOCK_TOUCH(name, bytes, write, aligned) \
  MOCK_QUIET MOCK_HIDDEN void __tsan_##name(void *at) { mock_runtime->touch(at, bytes, write, aligned); }
#define MOCK_TOUCHES(bytes)                                                                        \
  MOCK_TOUCH(read##bytes, bytes, 0, 1) MOCK_TOUCH(write##bytes, bytes, 1, 1)                       \
  MOCK_TOUCH(read_write##bytes, bytes, 1, 1)                                                       \
  MOCK_TOUCH(volatile_read##bytes, bytes, 0, 1) MOCK_TOUCH(volatile_write##bytes, bytes, 1, 1)     \
  MOCK_TOUCH(unaligned_read##bytes, bytes, 0, 0) MOCK_TOUCH(unaligned_write##bytes, bytes, 1, 0)   \
  MOCK_TOUCH(unaligned_read_write##bytes, bytes, 1, 0)                                             \
  MOCK_TOUCH(unaligned_volatile_read##bytes, bytes, 0, 0)                                          \
  MOCK_TOUCH(unaligned_volatile_write##bytes, bytes, 1, 0)
MOCK_TOUCHES(1) MOCK_TOUCHES(2) MOCK_TOUCHES(4) MOCK_TOUCHES(8) MOCK_TOUCHES(16)
MOCK_QUIET MOCK_HIDDEN void __tsan_read_range(void *at, size_t bytes) { mock_runtime->touch(at, bytes, 0, 0); }
MOCK_QUIET MOCK_HIDDEN void __tsan_write_range(void *at, size_t bytes) { mock_runtime->touch(at, bytes, 1, 0); }
MOCK_QUIET MOCK_HIDDEN void __tsan_init() {}
MOCK_QUIET MOCK_HIDDEN void __tsan_func_entry(void *) {}
MOCK_QUIET MOCK_HIDDEN void __tsan_func_exit() {}

MOCK_QUIET MOCK_HIDDEN void *mock_memcpy(void *to, const void *from, size_t bytes) {
  if (bytes == 0) return to;
  mock_runtime->touch(from, bytes, 0, 0);
  mock_runtime->touch(to, bytes, 1, 0);
  return __builtin_memcpy(to, from, bytes);
}
MOCK_QUIET MOCK_HIDDEN void *mock_memset(void *to, int value, size_t bytes) {
  if (bytes == 0) return to;
  mock_runtime->touch(to, bytes, 1, 0);
  return __builtin_memset(to, value, bytes);
}
MOCK_QUIET MOCK_HIDDEN void *__tsan_memcpy(void *to, const void *from, size_t bytes) { return mock_memcpy(to, from, bytes); }
MOCK_QUIET MOCK_HIDDEN void *__tsan_memset(void *to, int value, size_t bytes) { return mock_memset(to, value, bytes); }
}
#define memcpy mock_memcpy
#define memset mock_memset

#define __CUDACC_RTC__ 1
// There is no assembler for the GPU's instructions.
#define HR_PTX 0
#define __CUDA_ARCH__ MOCK_ARCH
#define __global__ MOCK_HIDDEN
#define __device__
#define __host__
#define __constant__ static
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static __attribute__((section("mock_shared")))
#define warpSize 32

struct uint3 { unsigned x, y, z; };
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
#define MOCK_VECTOR(type, name, bytes)                                                                        \
  struct alignas(bytes * 2) name##2 { type x, y; };                                                           \
  struct alignas(bytes * 4 > 16 ? 16 : bytes * 4) name##4 { type x, y, z, w; };                               \
  static inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                     \
  static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
MOCK_VECTOR(int, int, 4) MOCK_VECTOR(unsigned, uint, 4) MOCK_VECTOR(float, float, 4)
MOCK_VECTOR(unsigned short, ushort, 2) MOCK_VECTOR(unsigned char, uchar, 1)
MOCK_VECTOR(unsigned long long, ulonglong, 8) MOCK_VECTOR(long long, longlong, 8)

// A thread's place is the same for all of its life, so that its reads may be put together.
#define MOCK_WHERE(name, field)                                                                              \
  MOCK_QUIET __attribute__((const)) static uint3 mock_##name() {                                             \
    return {mock_place->field[0], mock_place->field[1], mock_place->field[2]};                               \
  }
MOCK_WHERE(thread, thread) MOCK_WHERE(block, block) MOCK_WHERE(block_size, block_size) MOCK_WHERE(grid, grid)
#define threadIdx (mock_thread())
#define blockIdx (mock_block())
#define blockDim (mock_block_size())
#define gridDim (mock_grid())

MOCK_QUIET static void __syncthreads() { mock_runtime->barrier(); }
MOCK_QUIET static void __trap() { mock_runtime->trap(); }
MOCK_QUIET static void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
MOCK_QUIET static void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
MOCK_QUIET static void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

MOCK_QUIET static unsigned mock_lane() {
  const MockPlace *at = mock_place;
  return (at->thread[0] + at->block_size[0] * (at->thread[1] + at->block_size[1] * at->thread[2])) % 32;
}
// One lane's value, its own where `from` is no lane. What comes from a lane that is not there is whatever it is.
template <typename T> MOCK_QUIET T mock_shuffle(unsigned mask, T value, int from) {
  static_assert(sizeof(T) <= 8, "shuffled are values of up to 8 bytes");
  unsigned char all[32 * 16];
  mock_runtime->exchange(mask, &value, sizeof value, all);
  if (from >= 0) __builtin_memcpy(&value, all + from * 16, sizeof value);
  return value;
}
template <typename T> static T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  int own = mock_lane();
  return mock_shuffle(mask, value, own / width * width + (lane & (width - 1)));
}
template <typename T> static T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  int own = mock_lane(), from = own + int(by);
  return mock_shuffle(mask, value, from / width == own / width ? from : -1);
}
template <typename T> static T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  int own = mock_lane(), from = own - int(by);
  return mock_shuffle(mask, value, from >= own / width * width ? from : -1);
}
template <typename T> static T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32) {
  int own = mock_lane(), from = own ^ with;
  return mock_shuffle(mask, value, from / width <= own / width ? from : -1);
}
MOCK_QUIET static unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned char all[32 * 16];
  unsigned came = mock_runtime->exchange(mask, &predicate, sizeof predicate, all), votes = 0;
  for (unsigned lane = 0; lane < 32; lane++) {
    int given;
    __builtin_memcpy(&given, all + lane * 16, sizeof given);
    if ((came >> lane & 1) != 0 && given != 0) votes |= 1u << lane;
  }
  return votes;
}
MOCK_QUIET static int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
MOCK_QUIET static int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate == 0) == 0; }
MOCK_QUIET static void __syncwarp(unsigned mask = 0xffffffffu) { __ballot_sync(mask, 0); }

template <typename T> MOCK_QUIET T *mock_atomic(T *at) {
  mock_runtime->touch(at, sizeof(T), 1, 1);
  return at;
}
#define MOCK_ATOMIC(name, operation)                                                          \
  template <typename T> MOCK_QUIET T name(T *at, decltype(T()) value) {                       \
    mock_atomic(at);                                                                          \
    T old, made;                                                                              \
    __atomic_load(at, &old, __ATOMIC_RELAXED);                                                \
    do made = operation;                                                                      \
    while (!__atomic_compare_exchange(at, &old, &made, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)); \
    return old;                                                                               \
  }
MOCK_ATOMIC(atomicAdd, T(old + value)) MOCK_ATOMIC(atomicSub, T(old - value)) MOCK_ATOMIC(atomicExch, value)
MOCK_ATOMIC(atomicMin, value < old ? value : old) MOCK_ATOMIC(atomicMax, value > old ? value : old)
MOCK_ATOMIC(atomicAnd, T(old & value)) MOCK_ATOMIC(atomicOr, T(old | value)) MOCK_ATOMIC(atomicXor, T(old ^ value))
template <typename T> MOCK_QUIET T atomicCAS(T *at, decltype(T()) expected, decltype(T()) value) {
  mock_atomic(at);
  __atomic_compare_exchange(at, &expected, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

template <typename To, typename From> static inline To mock_bits(From from) {
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
static inline unsigned __float_as_uint(float value) { return mock_bits<unsigned>(value); }
static inline int __float_as_int(float value) { return mock_bits<int>(value); }
static inline float __uint_as_float(unsigned bits) { return mock_bits<float>(bits); }
static inline float __int_as_float(int bits) { return mock_bits<float>(bits); }
static inline long long __double_as_longlong(double value) { return mock_bits<long long>(value); }
static inline double __longlong_as_double(long long bits) { return mock_bits<double>(bits); }
static inline int __popc(unsigned value) { return __builtin_popcount(value); }
static inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
static inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(unsigned(value)); }
static inline int __clzll(long long value) { return value == 0 ? 64 : __builtin_clzll((unsigned long long)value); }
static inline int __ffs(int value) { return __builtin_ffs(value); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
  return unsigned(((unsigned long long)high << 32 | low) >> (by & 31));
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
  return unsigned(((unsigned long long)high << 32 | low) << (by & 31) >> 32);
}
static inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  unsigned long long both = (unsigned long long)high << 32 | low;
  unsigned made = 0;
  for (unsigned i = 0; i < 4; i++) made |= unsigned(both >> ((selector >> i * 4 & 7) * 8) & 255) << i * 8;
  return made;
}
template <typename T> static inline T __ldg(const T *at) { return *at; }
template <typename T> static inline T min(T a, T b) { return b < a ? b : a; }
template <typename T> static inline T max(T a, T b) { return a < b ? b : a; }
#define MOCK_MATH1(name) static inline float name(float a) { return __builtin_##name(a); }
MOCK_MATH1(fabsf) MOCK_MATH1(sqrtf) MOCK_MATH1(floorf) MOCK_MATH1(ceilf) MOCK_MATH1(truncf) MOCK_MATH1(rintf)
MOCK_MATH1(expf) MOCK_MATH1(logf)
static inline float fminf(float a, float b) { return __builtin_fminf(a, b); }
static inline float fmaxf(float a, float b) { return __builtin_fmaxf(a, b); }
static inline float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
extern "C" int clock_gettime(int, void *);
MOCK_QUIET static long long clock64() {
  long now[2];
  clock_gettime(1, now);
  return now[0] * 1000000000ll + now[1];
}

template <unsigned... I> struct MockIndices {};
template <unsigned N, unsigned... I> struct MockCount : MockCount<N - 1, N - 1, I...> {};
template <unsigned... I> struct MockCount<0, I...> { typedef MockIndices<I...> All; };
template <typename... A> struct MockArguments {
  static constexpr unsigned count = sizeof...(A);
  static constexpr unsigned sizes[count + 1] = {sizeof(A)..., 0};
  template <unsigned... I> MOCK_QUIET static void spread(void (*kernel)(A...), void **arguments, MockIndices<I...>) {
    kernel(*static_cast<A *>(arguments[I])...);
  }
  static void call(void (*kernel)(A...), void **arguments) {
    spread(kernel, arguments, typename MockCount<count>::All());
  }
};
template <typename... A> MockArguments<A...> mock_arguments(void (*)(A...));
struct MockKernel {
  const char *name;
  void (*call)(void **);
  const unsigned *sizes;
  unsigned arguments, max_threads;
};
struct MockModule {
  const MockKernel *kernels;
  unsigned kernel_count;
  const MockPlace **place;
  const MockRuntime **runtime;
  char *shared, *shared_end;
};
)PRELUDE";

}  // namespace mock
