// The operations of torch that block functions consist of, on as many elements at once as a vector register holds of
// float32. Each gives the bits that torch gives on a CPU, and has torch's name. They use the vector types of g++ and
// clang++ and have no branches, because g++ 12 left some plain loops as they were and compiled one to different results.

#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512F__)
#define RAMMERGE_REGISTER_BYTES 64
#elif defined(__AVX__)
#define RAMMERGE_REGISTER_BYTES 32
#else
#define RAMMERGE_REGISTER_BYTES 16
#endif
#define RAMMERGE_INLINE inline __attribute__((always_inline))

constexpr int kLanes = RAMMERGE_REGISTER_BYTES / 4;

enum class bfloat16 : uint16_t {};
enum class float16 : uint16_t {};

// What a lane holds: all bits or none for a bool, and the bits of a float type that is only stored.
template <class T> struct Lane { using type = T; };
template <> struct Lane<bfloat16> { using type = uint16_t; };
template <> struct Lane<float16> { using type = uint16_t; };
template <> struct Lane<bool> { using type = int32_t; };

template <class T, int parts> struct Register {
  typedef typename Lane<T>::type type __attribute__((vector_size(kLanes / parts * sizeof(typename Lane<T>::type))));
};
template <class T> constexpr int kParts = sizeof(T) > 4 ? 2 : 1;
template <class T, int parts = kParts<T>> using Part = typename Register<T, parts>::type;

// One value for each of `kLanes` elements, in one register or two.
template <class T> struct Values { Part<T> part[kParts<T>]; };

// Integers of the size of a lane.
template <int> struct Integer;
template <> struct Integer<2> { using type = int16_t; };
template <> struct Integer<4> { using type = int32_t; };
template <> struct Integer<8> { using type = int64_t; };
template <class T> using Bits = typename Integer<sizeof(typename Lane<T>::type)>::type;

template <class T> constexpr bool kIsFloat = __is_same(T, float) || __is_same(T, double);

template <class T, class Make>
RAMMERGE_INLINE Values<T> each_part(Make make) {
  Values<T> made;
  for (int p = 0; p < kParts<T>; ++p) made.part[p] = make(p);
  return made;
}

#define RAMMERGE_PARTS(T, expression) \
  each_part<T>([&](int p) __attribute__((always_inline)) -> Part<T> { return expression; })

template <class T>
RAMMERGE_INLINE Values<T> constant(T x) {
  return RAMMERGE_PARTS(T, x - Part<T>{});  // a difference to zero, unlike a sum, is -0.0 for -0.0
}

// The next of `left` elements. Lanes beyond the last element are zeros.
template <class T>
RAMMERGE_INLINE Values<T> load(const T* from, int64_t left) {
  Values<T> values{};
  if (left >= kLanes) {
    __builtin_memcpy(&values, from, sizeof(values));
  } else {
    __builtin_memcpy(&values, from, static_cast<size_t>(left) * sizeof(T));
  }
  return values;
}

template <class T>
RAMMERGE_INLINE void store(T* to, Values<T> values, int64_t left) {
  if (left >= kLanes) {
    __builtin_memcpy(to, &values, sizeof(values));
  } else {
    __builtin_memcpy(to, &values, static_cast<size_t>(left) * sizeof(T));
  }
}

RAMMERGE_INLINE Values<int32_t> numbered() {
  Values<int32_t> lanes;
  for (int lane = 0; lane < kLanes; ++lane) lanes.part[0][lane] = lane;
  return lanes;
}

// Conversions.

template <class To, class From>
RAMMERGE_INLINE Values<To> view(Values<From> x) {
  return RAMMERGE_PARTS(To, (Part<To>)x.part[p]);
}

template <class To, class From>
RAMMERGE_INLINE Values<To> convert(Values<From> x) {
  if constexpr (kParts<To> == kParts<From>) {
    return RAMMERGE_PARTS(To, __builtin_convertvector(x.part[p], Part<To>));
  } else if constexpr (kParts<To> == 2) {
    Part<From, 2> halves[2];
    __builtin_memcpy(halves, &x, sizeof(halves));
    return RAMMERGE_PARTS(To, __builtin_convertvector(halves[p], Part<To>));
  } else {
    const Part<To, 2> halves[2] = {
        __builtin_convertvector(x.part[0], Part<To, 2>), __builtin_convertvector(x.part[1], Part<To, 2>)};
    Values<To> made;
    __builtin_memcpy(&made, halves, sizeof(made));
    return made;
  }
}

template <class T>
RAMMERGE_INLINE Values<T> where(Values<bool> condition, Values<T> a, Values<T> b) {
  const auto mask = convert<Bits<T>>(view<int32_t>(condition));
  return RAMMERGE_PARTS(T, mask.part[p] ? a.part[p] : b.part[p]);
}

RAMMERGE_INLINE Values<float> widen(Values<bfloat16> x) {
  return view<float>(Values<uint32_t>{{__builtin_convertvector(x.part[0], Part<uint32_t>) << 16}});
}

RAMMERGE_INLINE Values<float> widen(Values<float16> x) {
  const auto pattern = __builtin_convertvector(x.part[0], Part<uint32_t>);
  const auto magnitude = (pattern & 0x7fff) << 13, sign = (pattern & 0x8000) << 16;
  const auto finite = (Part<uint32_t>)((Part<float>)magnitude * 0x1p112f);
  return view<float>(Values<uint32_t>{{sign | (magnitude < 0x0f800000 ? finite : 0x7f800000 | magnitude)}});
}

// Both round to nearest, ties to even.
RAMMERGE_INLINE Values<bfloat16> to_bfloat16(Values<float> x) {
  const auto pattern = (Part<uint32_t>)x.part[0], nan = Part<uint32_t>{} + 0x7fc0;
  const auto rounded = (pattern + 0x7fff + (pattern >> 16 & 1)) >> 16;
  return {{__builtin_convertvector(x.part[0] != x.part[0] ? nan : rounded, Part<bfloat16>)}};
}

RAMMERGE_INLINE Values<float16> to_float16(Values<float> x) {
  const auto sign = (Part<uint32_t>)x.part[0] & 0x80000000, magnitude = (Part<uint32_t>)x.part[0] ^ sign;
  // Next to 0.5 the steps of float32 are those of the smallest float16.
  const auto small = (Part<uint32_t>)((Part<float>)magnitude + 0.5f) - 0x3f000000;
  const auto normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
  const auto infinity = Part<uint32_t>{} + 0x7c00, nan = Part<uint32_t>{} + 0x7e00;
  const auto special = magnitude > 0x7f800000 ? nan : infinity;
  const auto found = magnitude < 0x38800000 ? small : magnitude < 0x47800000 ? normal : special;
  return {{__builtin_convertvector(sign >> 16 | found, Part<float16>)}};
}

template <class To, class From>
RAMMERGE_INLINE Values<To> cast(Values<From> x) {
  if constexpr (__is_same(To, From)) {
    return x;
  } else if constexpr (__is_same(From, bfloat16) || __is_same(From, float16)) {
    return cast<To>(widen(x));
  } else if constexpr (__is_same(To, bfloat16)) {
    return to_bfloat16(cast<float>(x));
  } else if constexpr (__is_same(To, float16)) {
    return to_float16(cast<float>(x));
  } else if constexpr (__is_same(From, bool)) {
    return where<To>(x, constant<To>(1), constant<To>(0));
  } else {
    return convert<To>(x);
  }
}

// Arithmetic, bits and comparisons.

#define RAMMERGE_BINARY(name, operator)                               \
  template <class T>                                                  \
  RAMMERGE_INLINE Values<T> name(Values<T> a, Values<T> b) {          \
    return RAMMERGE_PARTS(T, a.part[p] operator b.part[p]);           \
  }

RAMMERGE_BINARY(add, +)
RAMMERGE_BINARY(sub, -)
RAMMERGE_BINARY(mul, *)
RAMMERGE_BINARY(div, /)
RAMMERGE_BINARY(bitwise_and, &)
RAMMERGE_BINARY(bitwise_or, |)
RAMMERGE_BINARY(bitwise_xor, ^)
RAMMERGE_BINARY(lshift, <<)
RAMMERGE_BINARY(rshift, >>)

#define RAMMERGE_COMPARISON(name, operator)                                            \
  template <class T>                                                                   \
  RAMMERGE_INLINE Values<bool> name(Values<T> a, Values<T> b) {                        \
    const auto found = RAMMERGE_PARTS(Bits<T>, a.part[p] operator b.part[p]);          \
    return view<bool>(convert<int32_t>(found));                                        \
  }

RAMMERGE_COMPARISON(eq, ==)
RAMMERGE_COMPARISON(ne, !=)
RAMMERGE_COMPARISON(lt, <)
RAMMERGE_COMPARISON(le, <=)
RAMMERGE_COMPARISON(gt, >)
RAMMERGE_COMPARISON(ge, >=)

template <class T>
RAMMERGE_INLINE Values<T> rsub(Values<T> a, Values<T> b) {
  return sub<T>(b, a);
}

template <class T>
RAMMERGE_INLINE Values<T> neg(Values<T> a) {
  return RAMMERGE_PARTS(T, -a.part[p]);
}

template <class T>
RAMMERGE_INLINE Values<T> abs(Values<T> a) {
  if constexpr (kIsFloat<T>) {
    constexpr Bits<T> magnitude = sizeof(T) == 4 ? INT32_MAX : INT64_MAX;
    return view<T>(bitwise_and<Bits<T>>(view<Bits<T>>(a), constant<Bits<T>>(magnitude)));
  } else {
    return where<T>(lt<T>(a, constant<T>(0)), neg<T>(a), a);
  }
}

template <class T>
RAMMERGE_INLINE Values<T> sign(Values<T> a) {
  const auto zero = constant<T>(0);
  return sub<T>(cast<T>(gt<T>(a, zero)), cast<T>(lt<T>(a, zero)));
}

template <class T>
RAMMERGE_INLINE Values<bool> isnan(Values<T> a) {
  return ne<T>(a, a);
}

template <class T>
RAMMERGE_INLINE Values<bool> isinf(Values<T> a) {
  return eq<T>(abs<T>(a), constant<T>(__builtin_inff()));
}

// If either is a NaN, so is the result. Clamping keeps a NaN too.
template <class T>
RAMMERGE_INLINE Values<T> maximum(Values<T> a, Values<T> b) {
  return where<T>(bitwise_or<bool>(gt<T>(a, b), isnan<T>(a)), a, b);
}

template <class T>
RAMMERGE_INLINE Values<T> minimum(Values<T> a, Values<T> b) {
  return where<T>(bitwise_or<bool>(lt<T>(a, b), isnan<T>(a)), a, b);
}

template <class T>
RAMMERGE_INLINE Values<T> clamp(Values<T> a, Values<T> low) {
  return where<T>(gt<T>(low, a), low, a);
}

template <class T>
RAMMERGE_INLINE Values<T> clamp(Values<T> a, Values<T> low, Values<T> high) {
  const auto raised = clamp<T>(a, low);
  return where<T>(lt<T>(high, raised), high, raised);
}

template <class T>
RAMMERGE_INLINE Values<T> relu(Values<T> a) {
  return clamp<T>(a, constant<T>(0));
}

// Functions of float32.

template <class T>
RAMMERGE_INLINE Values<T> floor(Values<T> a) {
  const auto whole = cast<T>(cast<int32_t>(a));
  const auto below = sub<T>(whole, cast<T>(gt<T>(whole, a)));
  const auto sign = bitwise_and<int32_t>(view<int32_t>(a), constant<int32_t>(INT32_MIN));
  const auto found = view<T>(bitwise_or<int32_t>(view<int32_t>(below), sign));  // of -0.0 it is -0.0
  return where<T>(lt<T>(abs<T>(a), constant<T>(0x1p23f)), found, a);  // larger ones, and NaN, are whole
}

// The second result of torch's frexp: |a| is this power of two times a number in [1/2, 1). For 0, infinities and NaN it
// is 0.
template <class T>
RAMMERGE_INLINE Values<int32_t> exponent(Values<T> a) {
  const auto magnitude = view<int32_t>(abs<T>(a));
  const auto is_small = lt<int32_t>(magnitude, constant<int32_t>(0x00800000));
  const auto scaled = view<int32_t>(mul<T>(view<T>(magnitude), constant<T>(0x1p64f)));
  const auto normal = where<int32_t>(is_small, scaled, magnitude);
  const auto bias = where<int32_t>(is_small, constant<int32_t>(126 + 64), constant<int32_t>(126));
  const auto found = sub<int32_t>(rshift<int32_t>(normal, constant<int32_t>(23)), bias);
  const auto is_special = bitwise_or<bool>(
      eq<int32_t>(magnitude, constant<int32_t>(0)), ge<int32_t>(magnitude, constant<int32_t>(0x7f800000)));
  return where<int32_t>(is_special, constant<int32_t>(0), found);
}

// a * 2**n, rounded once. Powers beyond float32's range take two more steps. Steps downwards leave a normal number for the
// last step to round, as in musl's scalbnf.
template <class T>
RAMMERGE_INLINE Values<T> ldexp(Values<T> a, Values<int32_t> n) {
  const auto one = constant<T>(1), up = constant<T>(0x1p127f), down = constant<T>(0x1p-102f);
  const auto zero = constant<int32_t>(0), most = constant<int32_t>(127), least = constant<int32_t>(-126);
  for (int step = 0; step < 2; ++step) {
    const auto above = gt<int32_t>(n, most), below = lt<int32_t>(n, least);
    a = mul<T>(a, where<T>(above, up, where<T>(below, down, one)));
    n = sub<int32_t>(n, where<int32_t>(above, most, where<int32_t>(below, constant<int32_t>(-102), zero)));
  }
  const auto biased = add<int32_t>(clamp<int32_t>(n, least, most), most);
  return mul<T>(a, view<T>(lshift<int32_t>(biased, constant<int32_t>(23))));
}

// The positions of elements and the sums over them.

RAMMERGE_INLINE Values<bool> first(int64_t count) {
  return lt<int32_t>(numbered(), constant<int32_t>(static_cast<int32_t>(count < kLanes ? count : kLanes)));
}

RAMMERGE_INLINE Values<int64_t> indices(int64_t from) {
  return add<int64_t>(cast<int64_t>(numbered()), constant<int64_t>(from));
}

RAMMERGE_INLINE void accumulate(Values<float>& sum, Values<float> x, Values<bool> valid) {
  sum = add<float>(sum, view<float>(bitwise_and<int32_t>(view<int32_t>(x), view<int32_t>(valid))));
}

// Sums of float64 in the order of rammerge/engine/sums.py, for registers of any size.

constexpr int kSumLanes = 16, kGroup = 64 * kSumLanes, kGrain = 16 * kGroup;
constexpr int kRegisters = kSumLanes / kLanes;

struct Lanes {
  Values<double> part[kRegisters];
};

RAMMERGE_INLINE void accumulate(Lanes& sum, Values<double> x, int64_t left, int64_t i) {
  auto& lanes = sum.part[(i / kLanes) % kRegisters];
  // A branch that is nearly always taken costs less than a float64 mask.
  if (left < kLanes) x = where<double>(first(left), x, constant<double>(0));
  lanes = add<double>(lanes, x);
}

RAMMERGE_INLINE void accumulate(Lanes& sum, const Lanes& group) {
  for (int at = 0; at < kRegisters; ++at) sum.part[at] = add<double>(sum.part[at], group.part[at]);
}

inline __attribute__((noinline)) double total(const Lanes& sum) {
  double lanes[kSumLanes];
  static_assert(sizeof(lanes) == sizeof(sum));
  __builtin_memcpy(lanes, &sum, sizeof(lanes));
  for (int half = kSumLanes / 2; half; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

RAMMERGE_INLINE int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

// Not inlined: there are many sums, and a call costs nothing beside the loop.
inline __attribute__((noinline)) double total(const Values<float>& sums) {
  double found = 0;
  for (int lane = 0; lane < kLanes; ++lane) found += static_cast<double>(sums.part[0][lane]);
  return found;
}
