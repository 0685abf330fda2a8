/// The shading language's types for g++, first part of the text that each kernel is compiled behind: scalars, vectors
/// and conversions. `half` and `bfloat` round after each operation (the compiler is told so).
let shimTypes = #"""
#pragma GCC system_header
typedef unsigned char uchar; typedef unsigned short ushort; typedef unsigned int uint; typedef unsigned long ulong;
typedef signed char int8_t; typedef unsigned char uint8_t; typedef short int16_t; typedef unsigned short uint16_t;
typedef int int32_t; typedef unsigned int uint32_t; typedef long int64_t; typedef unsigned long uint64_t;
typedef unsigned long size_t; typedef long ptrdiff_t; typedef unsigned long uintptr_t; typedef long intptr_t;
typedef _Float16 half; typedef __bf16 bfloat;
constexpr half operator""h(long double v) { return half(v); }
constexpr half operator""H(long double v) { return half(v); }
constexpr bfloat operator""bf(long double v) { return bfloat(float(v)); }
constexpr bfloat operator""BF(long double v) { return bfloat(float(v)); }

namespace metal {
using ::int8_t; using ::uint8_t; using ::int16_t; using ::uint16_t; using ::int32_t; using ::uint32_t; using ::int64_t;
using ::uint64_t; using ::size_t; using ::ptrdiff_t;

template <class T> struct type_identity { typedef T type; };
template <class T> using same = typename type_identity<T>::type;
template <bool B, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { typedef T type; };
template <bool B, class T = void> using enable_if_t = typename enable_if<B, T>::type;
template <bool B, class T, class F> struct conditional { typedef T type; };
template <class T, class F> struct conditional<false, T, F> { typedef F type; };
template <bool B, class T, class F> using conditional_t = typename conditional<B, T, F>::type;
struct false_type { static constexpr bool value = false; };
struct true_type { static constexpr bool value = true; };
template <class A, class B> struct is_same : false_type {};
template <class A> struct is_same<A, A> : true_type {};
template <class T> struct is_floating_point : false_type {};
template <> struct is_floating_point<float> : true_type {};
template <> struct is_floating_point<half> : true_type {};
template <> struct is_floating_point<bfloat> : true_type {};
template <class T> struct is_integral : false_type {};
template <> struct is_integral<bool> : true_type {};
template <> struct is_integral<char> : true_type {};
template <> struct is_integral<signed char> : true_type {};
template <> struct is_integral<uchar> : true_type {};
template <> struct is_integral<short> : true_type {};
template <> struct is_integral<ushort> : true_type {};
template <> struct is_integral<int> : true_type {};
template <> struct is_integral<uint> : true_type {};
template <> struct is_integral<long> : true_type {};
template <> struct is_integral<ulong> : true_type {};
template <class T> struct is_scalar {
  static constexpr bool value = is_integral<T>::value || is_floating_point<T>::value;
};

template <class T, unsigned N> struct vec;
template <class T> struct alignas(2 * sizeof(T)) vec<T, 2> {
  union { T e[2]; struct { T x, y; }; struct { T r, g; }; };
  vec() = default;
  vec(T all) : e{all, all} {}
  vec(T a, T b) : e{a, b} {}
  template <class U, class = enable_if_t<!is_same<T, U>::value>> explicit vec(vec<U, 2> v) : e{T(v.x), T(v.y)} {}
  T &operator[](uint i) { return e[i]; }
  const T &operator[](uint i) const { return e[i]; }
};
template <class T> struct alignas(4 * sizeof(T)) vec<T, 3> {
  union { T e[3]; struct { T x, y, z; }; struct { T r, g, b; }; vec<T, 2> xy; };
  vec() = default;
  vec(T all) : e{all, all, all} {}
  vec(T a, T b, T c) : e{a, b, c} {}
  vec(vec<T, 2> a, T c) : e{a.x, a.y, c} {}
  template <class U, class = enable_if_t<!is_same<T, U>::value>>
  explicit vec(vec<U, 3> v) : e{T(v.x), T(v.y), T(v.z)} {}
  T &operator[](uint i) { return e[i]; }
  const T &operator[](uint i) const { return e[i]; }
};
template <class T> struct alignas(4 * sizeof(T)) vec<T, 4> {
  union {
    T e[4]; struct { T x, y, z, w; }; struct { T r, g, b, a; }; vec<T, 3> xyz;
    struct { vec<T, 2> xy, zw; }; struct { vec<T, 2> lo, hi; };
  };
  vec() = default;
  vec(T all) : e{all, all, all, all} {}
  vec(T p, T q, T s, T t) : e{p, q, s, t} {}
  vec(vec<T, 3> p, T t) : e{p.x, p.y, p.z, t} {}
  vec(vec<T, 2> p, vec<T, 2> s) : e{p.x, p.y, s.x, s.y} {}
  vec(vec<T, 2> p, T s, T t) : e{p.x, p.y, s, t} {}
  template <class U, class = enable_if_t<!is_same<T, U>::value>>
  explicit vec(vec<U, 4> v) : e{T(v.x), T(v.y), T(v.z), T(v.w)} {}
  T &operator[](uint i) { return e[i]; }
  const T &operator[](uint i) const { return e[i]; }
};
/* Without the padding and the alignment. */
template <class T, unsigned N> struct packed_vec {
  T e[N];
  packed_vec() = default;
  packed_vec(vec<T, N> v) { for (unsigned i = 0; i < N; i++) e[i] = v[i]; }
  operator vec<T, N>() const { vec<T, N> v; for (unsigned i = 0; i < N; i++) v[i] = e[i]; return v; }
  T &operator[](uint i) { return e[i]; }
  const T &operator[](uint i) const { return e[i]; }
};

#define HEADRACE_BINARY(OP, R) \
  template <class T, unsigned N> vec<R, N> operator OP(vec<T, N> a, vec<T, N> b) \
    { vec<R, N> v; for (unsigned i = 0; i < N; i++) v[i] = a[i] OP b[i]; return v; } \
  template <class T, unsigned N> vec<R, N> operator OP(vec<T, N> a, same<T> b) { return a OP vec<T, N>(b); } \
  template <class T, unsigned N> vec<R, N> operator OP(same<T> a, vec<T, N> b) { return vec<T, N>(a) OP b; }
#define HEADRACE_ASSIGN(OP) \
  template <class T, unsigned N> vec<T, N> &operator OP##=(vec<T, N> &a, vec<T, N> b) { return a = a OP b; } \
  template <class T, unsigned N> vec<T, N> &operator OP##=(vec<T, N> &a, same<T> b) { return a = a OP b; }
#define HEADRACE_ARITHMETIC(OP) HEADRACE_BINARY(OP, T) HEADRACE_ASSIGN(OP)
HEADRACE_ARITHMETIC(+) HEADRACE_ARITHMETIC(-) HEADRACE_ARITHMETIC(*) HEADRACE_ARITHMETIC(/) HEADRACE_ARITHMETIC(%)
HEADRACE_ARITHMETIC(&) HEADRACE_ARITHMETIC(|) HEADRACE_ARITHMETIC(^) HEADRACE_ARITHMETIC(<<) HEADRACE_ARITHMETIC(>>)
HEADRACE_BINARY(==, bool) HEADRACE_BINARY(!=, bool) HEADRACE_BINARY(<, bool) HEADRACE_BINARY(>, bool)
HEADRACE_BINARY(<=, bool) HEADRACE_BINARY(>=, bool) HEADRACE_BINARY(&&, bool) HEADRACE_BINARY(||, bool)
template <class T, unsigned N> vec<T, N> operator-(vec<T, N> a) { for (T &e : a.e) e = -e; return a; }
template <class T, unsigned N> vec<T, N> operator~(vec<T, N> a) { for (T &e : a.e) e = ~e; return a; }
template <unsigned N> vec<bool, N> operator!(vec<bool, N> a) { for (bool &e : a.e) e = !e; return a; }
template <unsigned N> bool any(vec<bool, N> a) { for (bool e : a.e) if (e) return true; return false; }
template <unsigned N> bool all(vec<bool, N> a) { for (bool e : a.e) if (!e) return false; return true; }

template <class To, class From> To as_type(From from) {
  static_assert(sizeof(To) == sizeof(From), "as_type: the sizes differ");
  To to; __builtin_memcpy(&to, &from, sizeof to); return to;
}
}
using metal::as_type;

#define HEADRACE_VECTORS(T) \
  typedef metal::vec<T, 2> T##2; typedef metal::vec<T, 3> T##3; typedef metal::vec<T, 4> T##4; \
  typedef metal::packed_vec<T, 2> packed_##T##2; typedef metal::packed_vec<T, 3> packed_##T##3; \
  typedef metal::packed_vec<T, 4> packed_##T##4;
HEADRACE_VECTORS(bool) HEADRACE_VECTORS(char) HEADRACE_VECTORS(uchar) HEADRACE_VECTORS(short) HEADRACE_VECTORS(ushort)
HEADRACE_VECTORS(int) HEADRACE_VECTORS(uint) HEADRACE_VECTORS(long) HEADRACE_VECTORS(ulong) HEADRACE_VECTORS(half)
HEADRACE_VECTORS(bfloat) HEADRACE_VECTORS(float)
"""#
