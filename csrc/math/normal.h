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
  // Of the upper half of all words, u - 1 is what an integer with a sign says, with all its digits however near 0.
  const Integer with_sign = bit_cast<Integer>(word);
  const V near = to_reals<V>(with_sign) * 0x1p-32f + 0x1p-33f;
  const V u = with_sign < 0 ? near + 1.0f : near;
  // u = m 2^e with m in [sqrt(1/2), sqrt 2), t = m - 1; e <= 0, as u <= 1
  const Integer above = bit_cast<Integer>(u) - 0x3f3504f3, e = above >> 23;
  const V t = above < 0 ? bit_cast<V>(above - (e << 23) + 0x3f3504f3) - 1.0f : near;
  // -2 log(1 + t) = -2 t + t^2 + t^3 q(t), q minimax: relative error 3e-8 of the logarithm
  const V t2 = t * t;
  const V even = ((t2 * -0.17401740906f - 0.2982952854f) * t2 - 0.3992612878f) * t2 - 0.6666782146f;
  const V odd = (t2 * 0.2853498292f + 0.3315516808f) * t2 + 0.5000267412f;
  constexpr float kMinusTwoLog2 = -1.38629436111989062f;
  return t * (t2 * (t * odd + even) + (t - 2.0f)) + to_reals<V>(e) * kMinusTwoLog2;
}

// radius cos and radius sin of 2 pi word 2^-32.
LABELDROP_INLINE Pair<double> at_angle(double radius, uint32_t word) {
  constexpr double kStep = 6.28318530717958647692 * 0x1p-32;
  return {radius * cos(word * kStep), radius * sin(word * kStep)};
}

template <class V>
LABELDROP_INLINE Pair<V> at_angle(V radius, Unsigned<V> word) {
  using Integer = typename IntegerOf<V>::type;
  // Half turns and the rest t of [-1/4, 1/4) turn, exactly, from the integer: a shift drops the half turns.
  const V t = to_reals<V>(bit_cast<Integer>(word << 1)) * 0x1p-31f;  // in [-1, 1)
  const V y = t * t;
  // sin(pi/2 t) and cos(pi/2 t), minimax in t^2: relative error 3e-8, absolute error 1e-9
  const V s =
      t * ((((y * 0.0001572768524f - 0.004685553256f) * y + 0.07969722897f) * y - 0.6459652781f) * y + 1.570796371f);
  const V c =
      ((((y * -2.340200626e-5f + 0.0009167332901f) * y - 0.02086189948f) * y + 0.2536690831f) * y - 1.233700514f) * y +
      1.0f;
  // an odd number of half turns changes both signs
  const V turned = bit_cast<V>(bit_cast<Unsigned<V>>(radius) ^ ((word ^ (word << 1)) & 0x80000000u));
  return {turned * c, turned * s};
}

template <class V>
LABELDROP_INLINE V normal_radius(Unsigned<V> word) {
  return square_root(minus_two_log_uniform(word, V{}));
}

// Two normals: radius from the first word, angle from the second.
template <class V>
LABELDROP_INLINE Pair<V> normal_pair(Unsigned<V> radius_word, Unsigned<V> angle_word) {
  return at_angle(normal_radius<V>(radius_word), angle_word);
}

}  // namespace labeldrop
