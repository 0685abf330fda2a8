/// The shading language's threads for g++: barriers, simdgroups, and how the runner hands a thread its place and its
/// arguments. The structs are those of standin_kernels.h.
let shimThreads = #"""
struct headrace_launch { void *buffers[31]; void *group_memory[31]; uint grid[3], group[3], groups[3]; };
struct headrace_thread { uint in_grid[3], in_group[3], group_at[3], group_size[3], index, group_threads; };
struct headrace_cooperate {
  void (*barrier)(); uint (*exchange)(const void *, uint, void *, uint); uint (*lane)();
};
extern "C" { __attribute__((visibility("default"))) const headrace_cooperate *headrace_cooperation; }

template <class T> struct headrace_argument;
template <> struct headrace_argument<void *> {
  static constexpr uint bytes = 0, alignment = 1;
  static void *at(void *p) { return p; }
};
template <class T> struct headrace_argument<T *> {
  static constexpr uint bytes = 0, alignment = alignof(T);
  static T *at(void *p) { return static_cast<T *>(p); }
};
template <class T> struct headrace_argument<T *const> : headrace_argument<T *> {};
template <class T> struct headrace_argument<T *__restrict> : headrace_argument<T *> {};
template <class T> struct headrace_argument<T &> {
  static constexpr uint bytes = sizeof(T), alignment = alignof(T);
  static T &at(void *p) { return *static_cast<T *>(p); }
};
template <class T> struct headrace_place {
  static T of(const uint *p) { return T(p[0]); }
  static T of(uint p) { return T(p); }
};
template <class T> struct headrace_place<metal::vec<T, 2>> { static metal::vec<T, 2> of(const uint *p) { return {T(p[0]), T(p[1])}; } };
template <class T> struct headrace_place<metal::vec<T, 3>> { static metal::vec<T, 3> of(const uint *p) { return {T(p[0]), T(p[1]), T(p[2])}; } };
template <class F> inline void headrace_for_group(const headrace_thread *first, F run) {
  headrace_thread t = *first;
  for (uint z = 0; z < t.group_size[2]; z++)
    for (uint y = 0; y < t.group_size[1]; y++)
      for (uint x = 0; x < t.group_size[0]; x++, t.index++) {
        t.in_group[0] = x; t.in_group[1] = y; t.in_group[2] = z;
        t.in_grid[0] = first->in_grid[0] + x; t.in_grid[1] = first->in_grid[1] + y; t.in_grid[2] = first->in_grid[2] + z;
        run(&t);
      }
}

namespace metal {
enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }
inline void threadgroup_barrier(mem_flags) { __asm__ volatile("" ::: "memory"); headrace_cooperation->barrier(); __asm__ volatile("" ::: "memory"); }

/* What the lanes of a simdgroup gave. One that is not active has no value. */
template <class T> struct headrace_lanes {
  struct alignas(16) slot { T value; };
  slot slots[32];
  uint mask, self;
  __attribute__((noinline)) explicit headrace_lanes(T mine, uint site) {
    static_assert(sizeof(T) <= 16, "a simdgroup exchanges at most 16 bytes");
    mask = headrace_cooperation->exchange(&mine, sizeof mine, slots, site);
    self = headrace_cooperation->lane();
  }
  bool active(uint lane) const { return lane < 32 && (mask >> lane & 1); }
  T of(uint lane) const { return active(lane) ? slots[lane].value : slots[self].value; }
  template <class F> T reduce(T none, F join) const {
    T all[32];
    for (uint i = 0; i < 32; i++) all[i] = active(i) ? slots[i].value : none;
    for (uint half = 16; half > 0; half /= 2) for (uint i = 0; i < half; i++) all[i] = join(all[i], all[i + half]);
    return all[0];
  }
};
struct simd_vote {
  typedef ulong vote_t;
  vote_t votes;
  explicit simd_vote(vote_t v) : votes(v) {}
  explicit operator vote_t() const { return votes; }
  bool all() const { return votes == 0xffffffff; }
  bool any() const { return votes != 0; }
};
/* Each call in the text has a number, which grows with its place: lanes at different calls do not meet. */
template <uint HERE> struct headrace_simd {
static void simdgroup_barrier(mem_flags) { headrace_lanes<uint>(0, HERE); }
template <class T> static T simd_sum(T v) { return headrace_lanes<T>(v, HERE).reduce(T(0), [](T a, T b) { return T(a + b); }); }
template <class T> static T simd_product(T v) { return headrace_lanes<T>(v, HERE).reduce(T(1), [](T a, T b) { return T(a * b); }); }
template <class T> static T simd_max(T v) { return headrace_lanes<T>(v, HERE).reduce(v, [](T a, T b) { return max(a, b); }); }
template <class T> static T simd_min(T v) { return headrace_lanes<T>(v, HERE).reduce(v, [](T a, T b) { return min(a, b); }); }
template <class T> static T simd_and(T v) { return headrace_lanes<T>(v, HERE).reduce(v, [](T a, T b) { return T(a & b); }); }
template <class T> static T simd_or(T v) { return headrace_lanes<T>(v, HERE).reduce(v, [](T a, T b) { return T(a | b); }); }
template <class T> static T simd_xor(T v) { return headrace_lanes<T>(v, HERE).reduce(T(0), [](T a, T b) { return T(a ^ b); }); }
template <class T> static T simd_shuffle(T v, ushort lane) { return headrace_lanes<T>(v, HERE).of(lane); }
template <class T> static T simd_broadcast(T v, ushort lane) { return headrace_lanes<T>(v, HERE).of(lane); }
template <class T> static T simd_broadcast_first(T v) { headrace_lanes<T> l(v, HERE); return l.of(uint(__builtin_ctz(l.mask))); }
template <class T> static T simd_shuffle_xor(T v, ushort mask) { headrace_lanes<T> l(v, HERE); return l.of(l.self ^ mask); }
template <class T> static T simd_shuffle_up(T v, ushort by) { headrace_lanes<T> l(v, HERE); return l.of(l.self - by); }
template <class T> static T simd_shuffle_down(T v, ushort by) { headrace_lanes<T> l(v, HERE); return l.of(l.self + by); }
template <class T> static T simd_prefix_exclusive_sum(T v) {
  headrace_lanes<T> l(v, HERE); T sum = 0;
  for (uint i = 0; i < l.self; i++) if (l.active(i)) sum = T(sum + l.slots[i].value);
  return sum;
}
template <class T> static T simd_prefix_inclusive_sum(T v) {
  headrace_lanes<T> l(v, HERE); T sum = 0;
  for (uint i = 0; i <= l.self; i++) if (l.active(i)) sum = T(sum + l.slots[i].value);
  return sum;
}
static bool simd_all(bool v) { return headrace_lanes<uint>(v, HERE).reduce(1, [](uint a, uint b) { return a & b; }); }
static bool simd_any(bool v) { return headrace_lanes<uint>(v, HERE).reduce(0, [](uint a, uint b) { return a | b; }); }
static bool simd_is_first() { headrace_lanes<uint> l(0, HERE); return l.self == uint(__builtin_ctz(l.mask)); }
static simd_vote simd_ballot(bool v) {
  headrace_lanes<uint> l(v, HERE); ulong votes = 0;
  for (uint i = 0; i < 32; i++) if (l.active(i) && l.slots[i].value) votes |= 1ul << i;
  return simd_vote(votes);
}
static simd_vote simd_active_threads_mask() { return simd_vote(headrace_lanes<uint>(0, HERE).mask); }
};
}
"""#
