/// The shading language's arithmetic for g++: math in single precision, integers, and atomics.
let shimMath = #"""
namespace metal {
#define HEADRACE_MATH1(NAME) \
  inline float NAME(float x) { return __builtin_##NAME##f(x); } \
  inline half NAME(half x) { return half(__builtin_##NAME##f(float(x))); } \
  inline bfloat NAME(bfloat x) { return bfloat(__builtin_##NAME##f(float(x))); } \
  template <class T, unsigned N> vec<T, N> NAME(vec<T, N> v) { for (T &e : v.e) e = NAME(e); return v; }
#define HEADRACE_MATH2(NAME) \
  inline float NAME(float x, float y) { return __builtin_##NAME##f(x, y); } \
  inline half NAME(half x, half y) { return half(__builtin_##NAME##f(float(x), float(y))); } \
  inline bfloat NAME(bfloat x, bfloat y) { return bfloat(__builtin_##NAME##f(float(x), float(y))); } \
  template <class T, unsigned N> vec<T, N> NAME(vec<T, N> a, vec<T, N> b) \
    { for (unsigned i = 0; i < N; i++) a[i] = NAME(a[i], b[i]); return a; }
HEADRACE_MATH1(exp) HEADRACE_MATH1(exp2) HEADRACE_MATH1(log) HEADRACE_MATH1(log2) HEADRACE_MATH1(log10)
HEADRACE_MATH1(sin) HEADRACE_MATH1(cos) HEADRACE_MATH1(tan) HEADRACE_MATH1(asin) HEADRACE_MATH1(acos)
HEADRACE_MATH1(atan) HEADRACE_MATH1(sinh) HEADRACE_MATH1(cosh) HEADRACE_MATH1(tanh) HEADRACE_MATH1(sqrt)
HEADRACE_MATH1(floor) HEADRACE_MATH1(ceil) HEADRACE_MATH1(trunc) HEADRACE_MATH1(round) HEADRACE_MATH1(rint)
HEADRACE_MATH1(fabs)
HEADRACE_MATH2(pow) HEADRACE_MATH2(fmod) HEADRACE_MATH2(atan2) HEADRACE_MATH2(copysign) HEADRACE_MATH2(fmin)
HEADRACE_MATH2(fmax)
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline half fma(half a, half b, half c) { return half(__builtin_fma(double(a), double(b), double(c))); }
inline float rsqrt(float x) { return 1 / __builtin_sqrtf(x); }
inline half rsqrt(half x) { return half(1 / __builtin_sqrtf(float(x))); }
inline float powr(float x, float y) { return __builtin_powf(x, y); }
inline float exp10(float x) { return __builtin_powf(10, x); }
inline float ldexp(float x, int e) { return __builtin_ldexpf(x, e); }
inline float fract(float x) { float f = x - __builtin_floorf(x); return f < 1 ? f : 0.99999994f; }
inline float mix(float a, float b, float t) { return a + (b - a) * t; }
inline float saturate(float x) { return x < 0 || x != x ? 0 : x > 1 ? 1 : x; }
inline float sign(float x) { return x > 0 ? 1 : x < 0 ? -1 : x; }
inline float step(float edge, float x) { return x < edge ? 0 : 1; }
template <class T> enable_if_t<is_floating_point<T>::value, bool> isnan(T x) { return __builtin_isnan(float(x)); }
template <class T> enable_if_t<is_floating_point<T>::value, bool> isinf(T x) { return __builtin_isinf(float(x)); }
template <class T> enable_if_t<is_floating_point<T>::value, bool> isfinite(T x) { return __builtin_isfinite(float(x)); }

template <class T> enable_if_t<is_floating_point<T>::value, T> min(T a, T b) { return fmin(a, b); }
template <class T> enable_if_t<is_floating_point<T>::value, T> max(T a, T b) { return fmax(a, b); }
template <class T> enable_if_t<is_integral<T>::value, T> min(T a, T b) { return b < a ? b : a; }
template <class T> enable_if_t<is_integral<T>::value, T> max(T a, T b) { return a < b ? b : a; }
template <class T> enable_if_t<is_scalar<T>::value, T> clamp(T x, same<T> low, same<T> high) { return min(max(x, low), high); }
template <class T> enable_if_t<is_floating_point<T>::value, T> abs(T x) { return fabs(x); }
template <class T> enable_if_t<is_integral<T>::value, T> abs(T x) { return x < 0 ? T(-x) : x; }
template <class T> enable_if_t<is_scalar<T>::value, T> select(T a, T b, bool c) { return c ? b : a; }
template <class T, unsigned N> vec<T, N> min(vec<T, N> a, vec<T, N> b) { for (unsigned i = 0; i < N; i++) a[i] = min(a[i], b[i]); return a; }
template <class T, unsigned N> vec<T, N> max(vec<T, N> a, vec<T, N> b) { for (unsigned i = 0; i < N; i++) a[i] = max(a[i], b[i]); return a; }
template <class T, unsigned N> vec<T, N> clamp(vec<T, N> x, vec<T, N> low, vec<T, N> high) { return min(max(x, low), high); }
template <class T, unsigned N> vec<T, N> abs(vec<T, N> a) { for (T &e : a.e) e = abs(e); return a; }
template <class T, unsigned N> vec<T, N> select(vec<T, N> a, vec<T, N> b, vec<bool, N> c) { for (unsigned i = 0; i < N; i++) a[i] = c[i] ? b[i] : a[i]; return a; }
template <class T, unsigned N> T dot(vec<T, N> a, vec<T, N> b) { T sum = 0; for (unsigned i = 0; i < N; i++) sum += a[i] * b[i]; return sum; }
template <class T, unsigned N> T length_squared(vec<T, N> a) { return dot(a, a); }
template <class T, unsigned N> T length(vec<T, N> a) { return sqrt(dot(a, a)); }
template <class T, unsigned N> vec<T, N> normalize(vec<T, N> a) { return a / length(a); }

#define HEADRACE_INTEGER template <class T> enable_if_t<is_integral<T>::value, T>
HEADRACE_INTEGER popcount(T x) { return T(__builtin_popcountl(ulong(x) & (~0ul >> (64 - 8 * sizeof(T))))); }
HEADRACE_INTEGER clz(T x) {
  ulong bits = ulong(x) & (~0ul >> (64 - 8 * sizeof(T)));
  return bits == 0 ? T(8 * sizeof(T)) : T(__builtin_clzl(bits) - int(64 - 8 * sizeof(T)));
}
HEADRACE_INTEGER ctz(T x) { return x == 0 ? T(8 * sizeof(T)) : T(__builtin_ctzl(ulong(x))); }
HEADRACE_INTEGER rotate(T x, same<T> by) {
  constexpr uint bits = 8 * sizeof(T);
  ulong v = ulong(x) & (~0ul >> (64 - bits)); uint n = uint(by) % bits;
  return n == 0 ? x : T(v << n | v >> (bits - n));
}
HEADRACE_INTEGER mulhi(T a, same<T> b) {
  typedef conditional_t<(T(-1) < T(0)), __int128, unsigned __int128> wide;
  return T(wide(a) * wide(b) >> (8 * sizeof(T)));
}

namespace precise {
using metal::exp; using metal::exp2; using metal::log; using metal::log2; using metal::sin; using metal::cos;
using metal::tan; using metal::tanh; using metal::sqrt; using metal::rsqrt; using metal::pow; using metal::fma;
using metal::fmod; using metal::floor; using metal::ceil; using metal::round; using metal::rint; using metal::fabs;
}
namespace fast = precise;

enum memory_order { memory_order_relaxed };
template <class T> struct atomic { T v; };
#define HEADRACE_ATOMIC(NAME, BUILTIN) \
  template <class T> T atomic_fetch_##NAME##_explicit(volatile atomic<T> *a, same<T> v, memory_order) \
    { return BUILTIN(&a->v, v, __ATOMIC_RELAXED); }
HEADRACE_ATOMIC(add, __atomic_fetch_add) HEADRACE_ATOMIC(sub, __atomic_fetch_sub) HEADRACE_ATOMIC(and, __atomic_fetch_and)
HEADRACE_ATOMIC(or, __atomic_fetch_or) HEADRACE_ATOMIC(xor, __atomic_fetch_xor)
template <class T> T atomic_load_explicit(const volatile atomic<T> *a, memory_order) { T v; __atomic_load(&a->v, &v, __ATOMIC_RELAXED); return v; }
template <class T> void atomic_store_explicit(volatile atomic<T> *a, same<T> v, memory_order) { __atomic_store(&a->v, &v, __ATOMIC_RELAXED); }
template <class T> T atomic_exchange_explicit(volatile atomic<T> *a, same<T> v, memory_order) { T old; __atomic_exchange(&a->v, &v, &old, __ATOMIC_RELAXED); return old; }
template <class T> bool atomic_compare_exchange_weak_explicit(volatile atomic<T> *a, T *expected, same<T> v, memory_order, memory_order) {
  return __atomic_compare_exchange(&a->v, expected, &v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}
template <class T, class F> T headrace_update(volatile atomic<T> *a, F next) {
  T old = atomic_load_explicit(a, memory_order_relaxed);
  while (!atomic_compare_exchange_weak_explicit(a, &old, next(old), memory_order_relaxed, memory_order_relaxed)) {}
  return old;
}
template <class T> T atomic_fetch_min_explicit(volatile atomic<T> *a, same<T> v, memory_order) { return headrace_update(a, [v](T old) { return v < old ? v : old; }); }
template <class T> T atomic_fetch_max_explicit(volatile atomic<T> *a, same<T> v, memory_order) { return headrace_update(a, [v](T old) { return old < v ? v : old; }); }
inline float atomic_fetch_add_explicit(volatile atomic<float> *a, float v, memory_order) { return headrace_update(a, [v](float old) { return old + v; }); }
inline float atomic_fetch_sub_explicit(volatile atomic<float> *a, float v, memory_order) { return headrace_update(a, [v](float old) { return old - v; }); }
typedef atomic<int> atomic_int; typedef atomic<uint> atomic_uint; typedef atomic<bool> atomic_bool;
typedef atomic<ulong> atomic_ulong; typedef atomic<float> atomic_float;
}
"""#
