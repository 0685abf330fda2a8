/*
 * One kernel text for Metal, CUDA (NVRTC) and C++. A kernel text uses what the three share, and these names:
 *
 *   HR_KERNEL(name, arguments) { body }   arguments in order of their index, buffers first, constants last:
 *     HR_IN(index, type, name)            a buffer that is read
 *     HR_OUT(index, type, name)           a buffer that is written, or read and written
 *     HR_CONSTANTS(index, type, name)     a plain struct by value; its size is that of the dispatch's constants
 *   In its body:
 *     hr_thread, hr_threads               this thread, and how many were asked for. There may be more threads than that:
 *                                         use nothing beyond hr_threads, but come to every HR_BARRIER and hr_simd_...
 *     hr_group, hr_local, hr_group_threads  this threadgroup, the thread in it, its threads: HR_GROUP_SIZE, the last may
 *                                         have fewer
 *     HR_SHARED(type, name, length);      an array that the threadgroup shares, at the top of the body
 *     HR_BARRIER();                       all threads of the threadgroup have come here, and see each other's writes
 *     HR_SIMD_BARRIER();                  all threads of the simdgroup have come here, and see each other's HR_SHARED
 *     hr_simd_sum(value)                  the sum over the simdgroup's threads, added in the same order everywhere
 *     hr_simd_max(value)                  the largest of the simdgroup's values
 *     HR_SHUFFLE(value, lane)             the value of another thread of the simdgroup
 *     hr_multiply_tiles(sums, a, b, lane) sums += a b by the whole simdgroup, which has matrix units for it on CUDA from 8.0 on;
 *                                         see there for what a thread holds, and the order of additions is the unit's own
 *   HR_ATOMIC_ADD(pointer, value);        adds to a uint32_t of a buffer, which other threads may add to at the same time
 *   HR_ATOMIC_OR(pointer, value);         sets bits of such a uint32_t
 *   HR_GROUP_ATOMIC_ADD(pointer, value);  adds to a uint32_t of an HR_SHARED array in the same way
 *   HR_SQRT(value)                        the square root of a float, rounded to the nearest
 *   HR_FUNCTION_CONSTANT(index, type, name);   outside of functions: a value that the pipeline is made with; type is bool,
 *                                         int32_t, uint32_t or float
 *   HR_FN                                 before a function that kernels call
 *   HR_DEVICE, HR_CONSTANT, HR_GROUP, HR_THREAD   before what a pointer of such a function points to
 *   HR_FMA(a, b, c)                       a * b + c, rounded once
 *   hr_exp(value)                         e to that power, to 2 units in the last place, the same everywhere; results below
 *                                         the smallest normal float are 0
 *   HR_ADDRESS(pointer)                   where an HR_DEVICE pointer points to, as uint64_t
 *   HR_POINTER(type, address)             the HR_DEVICE pointer to what lies there; from Metal 3 on
 *   hr_load<T>(pointer), hr_store<T>(pointer, value)   a T at a pointer to bytes, which must be a multiple of T's size;
 *                                         T is an unsigned integer or hr_uint4, the 16 bytes x, y, z, w of uint32_t each
 *   hr_float4                             x, y, z, w of float each, at multiples of 16 bytes
 *   HR_UNROLL                             before a loop whose number of rounds is known: as many copies of its body
 *   HR_HALF_BITS(bits)                    the float that equals the 2 bytes of a half; NaNs stay some NaN
 *   hr_upper_halves(low, high)            the upper halves of two floats, bfloats both, as the halves of a uint32_t
 *   hr_half, hr_bfloat                    stored as 2 bytes; hr_float(v) gives a float, hr_to_half(f), hr_to_bfloat(f) the
 *                                         nearest, ties to even
 *   int8_t to uint64_t; sizes in structs as these, and no bool, size_t or vector
 *
 * Arithmetic is that of IEEE 754 in single precision, without contraction: the device compiles without fast math.
 */
#define HR_GROUP_SIZE 256
#define HR_SIMD_WIDTH 32

#if defined(__METAL_VERSION__)

#include <metal_stdlib>
using namespace metal;
#pragma STDC FP_CONTRACT OFF
#if __METAL_VERSION__ >= 320
#pragma METAL fp contract(off)
#endif

#define HR_FN static inline
#define HR_DEVICE device
#define HR_CONSTANT constant
#define HR_GROUP threadgroup
#define HR_THREAD thread
#define HR_IN(index, type, name) const device type *name [[buffer(index)]]
#define HR_OUT(index, type, name) device type *name [[buffer(index)]]
#define HR_CONSTANTS(index, type, name) constant type &name [[buffer(index)]]
#define HR_KERNEL(name, ...)                                                                            \
  [[kernel, max_total_threads_per_threadgroup(HR_GROUP_SIZE)]] void name(                               \
      __VA_ARGS__, uint hr_thread [[thread_position_in_grid]], uint hr_threads [[threads_per_grid]],    \
      uint hr_local [[thread_position_in_threadgroup]], uint hr_group [[threadgroup_position_in_grid]], \
      uint hr_group_threads [[threads_per_threadgroup]])
#define HR_FUNCTION_CONSTANT(index, type, name) constant type name [[function_constant(index)]]
#define HR_SHARED(type, name, length) threadgroup type name[length]
#define HR_BARRIER() threadgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup)
#define HR_SIMD_BARRIER() simdgroup_barrier(mem_flags::mem_threadgroup)
#define HR_ATOMIC_ADD(pointer, value) \
  ((void)atomic_fetch_add_explicit((device atomic_uint *)(pointer), uint(value), memory_order_relaxed))
#define HR_ATOMIC_OR(pointer, value) \
  ((void)atomic_fetch_or_explicit((device atomic_uint *)(pointer), uint(value), memory_order_relaxed))
#define HR_GROUP_ATOMIC_ADD(pointer, value) \
  ((void)atomic_fetch_add_explicit((threadgroup atomic_uint *)(pointer), uint(value), memory_order_relaxed))
#define HR_SQRT(value) precise::sqrt(value)
#define HR_ADDRESS(pointer) reinterpret_cast<uint64_t>(pointer)
#define HR_POINTER(type, address) reinterpret_cast<device type *>(uint64_t(address))
#define HR_SHUFFLE(value, lane) simd_shuffle(value, ushort(lane))
#define HR_SHUFFLE_DOWN(value, by) simd_shuffle_down(value, ushort(by))
#define HR_BROADCAST(value) simd_broadcast(value, ushort(0))
#define HR_FMA(a, b, c) fma(float(a), float(b), float(c))
#define HR_BITS_OF(value) as_type<uint32_t>(value)
#define HR_FLOAT_OF(bits) as_type<float>(bits)
#define HR_UNROLL _Pragma("clang loop unroll(full)")
#define HR_HALF_BITS(bits) float(as_type<half>(ushort(bits)))
typedef uint4 hr_uint4;
typedef float4 hr_float4;

#elif defined(__CUDACC__) || defined(__CUDACC_RTC__)

#if defined(__CUDACC_RTC__)
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif

#define HR_FN static __device__ inline
#define HR_DEVICE
#define HR_CONSTANT const
#define HR_GROUP
#define HR_THREAD
#define HR_IN(index, type, name) const type *name
#define HR_OUT(index, type, name) type *name
#define HR_CONSTANTS(index, type, name) const type name
/* The device passes the number of threads that were asked for as one more argument, the last. */
#define HR_KERNEL(name, ...) \
  extern "C" __global__ void __launch_bounds__(HR_GROUP_SIZE) name(__VA_ARGS__, const uint32_t hr_threads)
#define hr_thread (blockIdx.x * blockDim.x + threadIdx.x)
#define hr_local (threadIdx.x)
#define hr_group (blockIdx.x)
#define hr_group_threads (blockDim.x)
/* The device defines HR_FUNCTION_CONSTANT_0 and so on. */
#define HR_FUNCTION_CONSTANT(index, type, name) constexpr type name = type(HR_FUNCTION_CONSTANT_##index)
#define HR_SHARED(type, name, length) __shared__ type name[length]
#define HR_BARRIER() __syncthreads()
#define HR_SIMD_BARRIER() __syncwarp()
#define HR_ATOMIC_ADD(pointer, value) ((void)atomicAdd(pointer, value))
#define HR_ATOMIC_OR(pointer, value) ((void)atomicOr(pointer, value))
#define HR_GROUP_ATOMIC_ADD(pointer, value) ((void)atomicAdd(pointer, value))
#define HR_SQRT(value) sqrtf(value)
#define HR_ADDRESS(pointer) reinterpret_cast<uint64_t>(pointer)
#define HR_POINTER(type, address) reinterpret_cast<type *>(address)
#define HR_SHUFFLE(value, lane) __shfl_sync(0xffffffffu, value, lane)
#define HR_SHUFFLE_DOWN(value, by) __shfl_down_sync(0xffffffffu, value, by)
#define HR_BROADCAST(value) __shfl_sync(0xffffffffu, value, 0)
#define HR_FMA(a, b, c) fmaf(a, b, c)
#define HR_BITS_OF(value) __float_as_uint(value)
#define HR_FLOAT_OF(bits) __uint_as_float(bits)
/* Whether the compiler knows the GPU's own instructions; what stands in for it says 0. */
#if !defined(HR_PTX)
#define HR_PTX 1
#endif
#if HR_PTX
#define HR_UNROLL _Pragma("unroll")
#else
#define HR_UNROLL
#endif
#if HR_PTX && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define HR_MATRIX_UNITS 1
#endif
#define HR_HALF_BITS(bits) hr_half_float(bits)
/* As one load or store of 16 bytes. */
struct alignas(16) hr_uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) hr_float4 {
  float x, y, z, w;
};

#else

/* Plain C++: each kernel is a function that runs one thread. Kernels whose threads wait for one another compile, but
 * run for threadgroups of one thread alone. */
#include <stdint.h>
#include <string.h>

#define HR_FN static inline
#define HR_DEVICE
#define HR_CONSTANT const
#define HR_GROUP
#define HR_THREAD
#define HR_IN(index, type, name) const type *name
#define HR_OUT(index, type, name) type *name
#define HR_CONSTANTS(index, type, name) const type &name
#define HR_KERNEL(name, ...)                                                                         \
  static void name(__VA_ARGS__, const uint32_t hr_thread, const uint32_t hr_threads, const uint32_t hr_local, \
                   const uint32_t hr_group, const uint32_t hr_group_threads)
#define HR_FUNCTION_CONSTANT(index, type, name) constexpr type name = type(HR_FUNCTION_CONSTANT_##index)
#define HR_SHARED(type, name, length) type name[length]
#define HR_BARRIER() ((void)0)
#define HR_SIMD_BARRIER() ((void)0)
#define HR_ATOMIC_ADD(pointer, value) ((void)__atomic_fetch_add(pointer, value, __ATOMIC_RELAXED))
#define HR_ATOMIC_OR(pointer, value) ((void)__atomic_fetch_or(pointer, value, __ATOMIC_RELAXED))
#define HR_GROUP_ATOMIC_ADD(pointer, value) ((void)__atomic_fetch_add(pointer, value, __ATOMIC_RELAXED))
#define HR_SQRT(value) __builtin_sqrtf(value)
#define HR_ADDRESS(pointer) reinterpret_cast<uint64_t>(pointer)
#define HR_POINTER(type, address) reinterpret_cast<type *>(address)
#define HR_SHUFFLE(value, lane) ((void)(lane), value)
#define HR_SHUFFLE_DOWN(value, by) (value)
#define HR_BROADCAST(value) (value)
static inline uint32_t hr_bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}
static inline float hr_float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
#define HR_FMA(a, b, c) __builtin_fmaf(a, b, c)
#define HR_BITS_OF(value) hr_bits_of(value)
#define HR_FLOAT_OF(bits) hr_float_of(bits)
#define HR_UNROLL
#define HR_HALF_BITS(bits) hr_half_float(bits)
struct alignas(16) hr_uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) hr_float4 {
  float x, y, z, w;
};

#endif

#if defined(__METAL_VERSION__) || defined(__CUDACC__) || defined(__CUDACC_RTC__)
template <typename T> HR_FN T hr_load(const HR_DEVICE uint8_t *at) {
  return *reinterpret_cast<const HR_DEVICE T *>(at);
}
template <typename T> HR_FN void hr_store(HR_DEVICE uint8_t *at, T value) {
  *reinterpret_cast<HR_DEVICE T *>(at) = value;
}
#else
/* C++ compilers rely on memory having one type. */
template <typename T> HR_FN T hr_load(const uint8_t *at) {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}
template <typename T> HR_FN void hr_store(uint8_t *at, T value) { memcpy(at, &value, sizeof value); }
#endif

struct hr_half {
  uint16_t bits;
};
struct hr_bfloat {
  uint16_t bits;
};

HR_FN float hr_float(float value) { return value; }

HR_FN float hr_float(hr_bfloat value) { return HR_FLOAT_OF(uint32_t(value.bits) << 16); }

/* By integers, so that subnormal numbers and NaNs are the same everywhere. */
HR_FN float hr_float(hr_half value) {
  uint32_t sign = uint32_t(value.bits & 0x8000u) << 16;
  uint32_t exponent = (value.bits >> 10) & 31u;
  uint32_t fraction = value.bits & 0x3ffu;
  if (exponent == 31u) return HR_FLOAT_OF(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0u) return HR_FLOAT_OF(sign | (exponent + 112u) << 23 | fraction << 13);
  /* fraction * 2^-24, exactly. */
  float magnitude = float(fraction) * 5.9604644775390625e-8f;
  return HR_FLOAT_OF(sign | HR_BITS_OF(magnitude));
}

#if !defined(__METAL_VERSION__)
/* The same exactly, without a branch: times 2^112, but for infinities and NaNs. */
HR_FN float hr_half_float(uint32_t bits) {
  uint32_t magnitude = (bits & 0x7fffu) << 13;
  uint32_t scaled = HR_BITS_OF(HR_FLOAT_OF(magnitude) * 5.192296858534827628530496e33f);
  return HR_FLOAT_OF((bits & 0x8000u) << 16 | ((bits & 0x7c00u) == 0x7c00u ? magnitude | 0x7f800000u : scaled));
}
#endif

HR_FN hr_bfloat hr_to_bfloat(float value) {
  uint32_t bits = HR_BITS_OF(value);
  hr_bfloat result;
  if ((bits & 0x7fffffffu) > 0x7f800000u) result.bits = uint16_t(bits >> 16 | 0x40u);
  else result.bits = uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
  return result;
}

#if defined(HR_MATRIX_UNITS)
HR_FN uint32_t hr_upper_halves(float low, float high) {
  return __byte_perm(HR_BITS_OF(low), HR_BITS_OF(high), 0x7632);
}
#else
HR_FN uint32_t hr_upper_halves(float low, float high) {
  return HR_BITS_OF(low) >> 16 | (HR_BITS_OF(high) & 0xffff0000u);
}
#endif

/* Products of bfloats, added to floats: `sums` is 16 rows of 8, `a` 16 rows of 16, `b` 16 rows of 8. With g = lane / 4 and
 * q = lane % 4 a thread holds
 *   of `a` the pairs from column 2q on in rows g and g + 8, then those from 2q + 8 on in the same rows;
 *   of `b` the pairs from row 2q on and from 2q + 8 on, in column g;
 *   of `sums` columns 2q and 2q + 1 in row g, then in row g + 8. */
#if defined(HR_MATRIX_UNITS)
HR_FN void hr_multiply_tiles(float *sums, const uint32_t *a, const uint32_t *b, uint32_t) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
HR_FN void hr_multiply_tiles(HR_THREAD float *sums, HR_THREAD const uint32_t *a, HR_THREAD const uint32_t *b,
                             uint32_t lane) {
  for (uint32_t k = 0; k < 8u; k++) {
    uint32_t from = k % 4u, pair = k / 4u;
    uint32_t rows[2], columns[2];
    for (uint32_t i = 0; i < 2u; i++) {
      rows[i] = HR_SHUFFLE(a[2u * pair + i], lane / 4u * 4u + from);
      columns[i] = HR_SHUFFLE(b[pair], (2u * (lane % 4u) + i) * 4u + from);
    }
    for (uint32_t i = 0; i < 4u; i++) {
      uint32_t x = rows[i / 2u], y = columns[i % 2u];
      sums[i] = HR_FMA(HR_FLOAT_OF(x << 16), HR_FLOAT_OF(y << 16), sums[i]);
      sums[i] = HR_FMA(HR_FLOAT_OF(x & 0xffff0000u), HR_FLOAT_OF(y & 0xffff0000u), sums[i]);
    }
  }
}
#endif

HR_FN hr_half hr_to_half(float value) {
  uint32_t bits = HR_BITS_OF(value);
  uint32_t sign = bits >> 16 & 0x8000u;
  uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t result;
  if (magnitude > 0x7f800000u) result = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  else if (magnitude >= 0x477ff000u) result = 0x7c00u; /* 65520 and above */
  else if (magnitude >= 0x38800000u) result = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  else if (magnitude < 0x33000000u) result = 0u; /* below half of the smallest */
  else {
    uint32_t shift = 126u - (magnitude >> 23);
    uint32_t fraction = (magnitude & 0x7fffffu) | 0x800000u;
    result = fraction >> shift;
    uint32_t rest = fraction & ((1u << shift) - 1u);
    uint32_t middle = 1u << (shift - 1u);
    if (rest > middle || (rest == middle && (result & 1u) != 0u)) result += 1u;
  }
  hr_half made;
  made.bits = uint16_t(sign | result);
  return made;
}

/* 2^n * e^r with |r| <= log(2) / 2: the rest of a division by log(2) in two parts, and Taylor's series to r^7 / 7!. */
HR_FN float hr_exp(float value) {
  if (value != value) return value;
  if (value > 88.72283172607421875f) return HR_FLOAT_OF(0x7f800000u);
  if (value < -87.3365447998046875f) return 0.0f;
  /* The sum has no fraction bits left: the nearest integer. */
  float n = HR_FMA(value, 1.44269502162933349609375f, 12582912.0f) - 12582912.0f;
  float r = HR_FMA(n, -0.693145751953125f, value);
  r = HR_FMA(n, -1.42860676533018704503775e-6f, r);
  float sum = HR_FMA(r, 1.98412701e-4f, 1.38888892e-3f);
  sum = HR_FMA(sum, r, 8.33333377e-3f);
  sum = HR_FMA(sum, r, 4.16666679e-2f);
  sum = HR_FMA(sum, r, 1.66666672e-1f);
  sum = HR_FMA(sum, r, 0.5f);
  sum = HR_FMA(sum * r, r, r) + 1.0f;
  /* In two steps: 2^128 is no float. */
  int32_t part = int32_t(n) / 2, rest = int32_t(n) - part;
  return sum * HR_FLOAT_OF(uint32_t(part + 127) << 23) * HR_FLOAT_OF(uint32_t(rest + 127) << 23);
}

/* `active` threads of the simdgroup take part, the first ones. A tree, the same on every device. */
template <typename T> HR_FN T hr_simd_sum_of(T value, uint32_t lane, uint32_t active) {
  for (uint32_t by = HR_SIMD_WIDTH / 2; by > 0; by /= 2) {
    T other = HR_SHUFFLE_DOWN(value, by);
    if (lane + by < active) value += other;
  }
  return HR_BROADCAST(value);
}
template <typename T> HR_FN T hr_simd_max_of(T value, uint32_t lane, uint32_t active) {
  for (uint32_t by = HR_SIMD_WIDTH / 2; by > 0; by /= 2) {
    T other = HR_SHUFFLE_DOWN(value, by);
    if (lane + by < active && other > value) value = other;
  }
  return HR_BROADCAST(value);
}
#define hr_simd_sum(value)                           \
  hr_simd_sum_of(value, hr_local % HR_SIMD_WIDTH,     \
                 hr_group_threads - hr_local / HR_SIMD_WIDTH * HR_SIMD_WIDTH)
#define hr_simd_max(value)                           \
  hr_simd_max_of(value, hr_local % HR_SIMD_WIDTH,     \
                 hr_group_threads - hr_local / HR_SIMD_WIDTH * HR_SIMD_WIDTH)

#line 1 "kernel"
