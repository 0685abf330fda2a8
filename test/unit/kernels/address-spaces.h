/*
 * What kernel texts use of the Metal shading language, declared for clang: it checks types, templates and, as Apple's
 * compiler does, the address spaces of pointers. Nothing of it runs.
 */
#pragma once
#define device __attribute__((address_space(1)))
#define constant const __attribute__((address_space(2)))
#define threadgroup __attribute__((address_space(3)))
/* Where variables of a function lie. */
#define thread

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;
typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned char uchar;
typedef unsigned long ulong;
#define half _Float16
typedef uint uint4 __attribute__((ext_vector_type(4)));
typedef float float4 __attribute__((ext_vector_type(4)));

namespace metal {
struct atomic_uint {
  uint value;
};
enum memory_order { memory_order_relaxed };
enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
inline mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }
void threadgroup_barrier(mem_flags);
void simdgroup_barrier(mem_flags);
uint atomic_fetch_add_explicit(volatile device atomic_uint *, uint, memory_order);
uint atomic_fetch_add_explicit(volatile threadgroup atomic_uint *, uint, memory_order);
uint atomic_fetch_or_explicit(volatile device atomic_uint *, uint, memory_order);
uint atomic_fetch_or_explicit(volatile threadgroup atomic_uint *, uint, memory_order);
float fma(float, float, float);
namespace precise {
float sqrt(float);
}
/* Of up to 32 bits; nothing else is made into one of these. */
template <typename T> T simd_value(T) = delete;
template <> float simd_value(float);
template <> int simd_value(int);
template <> uint simd_value(uint);
template <typename T> auto simd_shuffle(T value, ushort) -> decltype(simd_value(value));
template <typename T> auto simd_shuffle_down(T value, ushort) -> decltype(simd_value(value));
template <typename T> auto simd_broadcast(T value, ushort) -> decltype(simd_value(value));
}
/* An operator of the language: of an integer or a float of the same size. */
template <typename To, typename From> To as_type(From from) {
  static_assert(sizeof(To) == sizeof(From), "as_type: the sizes differ");
  return __builtin_bit_cast(To, from);
}
