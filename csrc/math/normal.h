// Standard normal numbers from random words, by the method of Box and Muller: with u and v uniform on (0, 1)
//     sqrt(-2 log u) cos(2 pi v),  sqrt(-2 log u) sin(2 pi v)
// are two independent ones. u = (word + 1/2) 2^-32, v = word 2^-32. The largest possible is 6.8.
//
// For float there is one code for CPU and CUDA, with no call and no branch in it; double uses the C library on the same
// bits. The two differ by about 1e-6 of the number or of its neighbour in the pair.
#pragma once

#include "portable.h"

namespace labeldrop {

template <class V>
struct Pair {
  V first, second;
};

// -2 log u.
LABELDROP_INLINE double minus_two_log_uniform(uint32_t word, double) { return -2 * log((word + 0.5) * 0x1p-32); }

template <class V>
LABELDROP_INLINE V minus_two_log_uniform(Unsigned<V> word, V) {
  using Integer = typename IntegerOf<V>::type;
  // 2^32 u = m 2^e with m in [sqrt(1/2), sqrt 2)
  const V x = to_reals<V>(word) + 0.5f;
  const Integer bits = bit_cast<Integer>(x);
  const Integer e = (bits - 0x3f3504f3) >> 23;
  const V m = bit_cast<V>(bits - e * (1 << 23));
  // t = m - 1. Near u = 1, x is rounded to a multiple of 256 and m - 1 would be mostly that error; the complement of
  // the word has the distance from 1 with all its bits, and is below 2^31 there.
  const V from_one = (to_reals<V>(bit_cast<Integer>(~word)) + 0.5f) * -0x1p-32f;
  const V t = e == 32 ? from_one : m - 1.0f;
  // -2 log(1 + t) = -2 t + t^2 + t^3 q(t), q minimax: relative error 3e-8 of the logarithm
  const V t2 = t * t;
  const V low = (t * 0.5000267412f - 0.6666782146f) + t2 * (t * 0.3315516808f - 0.3992612878f);
  const V high = t * 0.2853498292f - 0.2982952854f - t2 * 0.17401740906f;
  const V of_m = t2 - 2.0f * t + t * t2 * (low + t2 * t2 * high);
  constexpr float kMinusTwoLog2 = -1.38629436111989062f;
  return to_reals<V>(e) * kMinusTwoLog2 - 32.0f * kMinusTwoLog2 + of_m;
}

// cos and sin of 2 pi word 2^-32.
LABELDROP_INLINE Pair<double> cosine_and_sine(uint32_t word, double) {
  constexpr double kStep = 6.28318530717958647692 * 0x1p-32;
  return {cos(word * kStep), sin(word * kStep)};
}

template <class V>
LABELDROP_INLINE Pair<V> cosine_and_sine(Unsigned<V> word, V) {
  using Integer = typename IntegerOf<V>::type;
  // Quarter turn q and the rest r in [-1/8, 1/8) turn, exactly, from the integer: bits 30 and 31 of the sum are q.
  const Unsigned<V> turned = word + 0x20000000u;
  const Integer rest = bit_cast<Integer>((turned & 0x3fffffffu) - 0x20000000u);
  const V t = to_reals<V>(rest) * 0x1p-29f;  // in [-1, 1)
  const V y = t * t;
  // sin(pi/4 t) and cos(pi/4 t), minimax in t^2: absolute errors 1e-9 and 3e-8
  const V s = t * ((y * -0.08074536745f + 0.7853981526f) + y * y * (y * -3.587742531e-5f + 0.002489872284f));
  const V c = (y * -0.3084244887f + 1.0f) + y * y * (y * -0.0003191605426f + 0.01585039819f);
  // q = 0: (c, s), 1: (-s, c), 2: (-c, -s), 3: (s, -c). The signs are bits: q & 2 of the sine, (q + 1) & 2 of the
  // cosine
  const auto odd = bit_cast<Integer>(turned << 1) < 0;
  const V cosine = odd ? s : c, sine = odd ? c : s;
  return {bit_cast<V>(bit_cast<Unsigned<V>>(cosine) ^ ((turned + 0x40000000u) & 0x80000000u)),
          bit_cast<V>(bit_cast<Unsigned<V>>(sine) ^ (turned & 0x80000000u))};
}

// Two normals: radius from the first word, angle from the second.
template <class V>
LABELDROP_INLINE Pair<V> normal_pair(Unsigned<V> radius_word, Unsigned<V> angle_word) {
  const V radius = square_root(minus_two_log_uniform(radius_word, V{}));
  const Pair<V> direction = cosine_and_sine(angle_word, V{});
  return {radius * direction.first, radius * direction.second};
}

}  // namespace labeldrop
