// exp and log for the pixel formulas, of one float or a vector of them. On the CPU they are free of branches and calls,
// so that they work on whole vectors; double, which serves gradient checks, uses the C library.
#pragma once

#include <cmath>

#include "portable.h"

namespace labeldrop {

LABELDROP_INLINE double exp_nonpositive(double x) { return exp(x); }

// exp(x) for x <= 0, to 2 ulp; 0 below -87.3, where the result would no longer be a normal number. NaN stays NaN.
template <class V>
LABELDROP_INLINE V exp_nonpositive(V x) {
#ifdef __CUDA_ARCH__
  return expf(x);
#else
  using Integer = typename IntegerOf<V>::type;
  constexpr float kLowest = -87.3f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low mantissa bits
  const V clamped = kLowest > x ? kLowest : x;
  const V shifted = clamped * 1.44269504088896341f + kRound;
  const V n = shifted - kRound;
  // r = x - n ln 2 in [-ln2/2, ln2/2]; what rounding ln 2 adds, |x| 3e-9, is below what rounding x has cost already
  const V r = clamped - n * 0.693147180559945309f;
  // e^r = 1 + r + r^2 q(r), q a minimax polynomial (relative error 3e-9), summed as a tree: a chain would leave the
  // processor waiting for each product in turn
  const V r2 = r * r;
  const V low = r * 0.166665206f + 0.499999934f;
  const V high = r * 0.00836871689f + 0.041668388f + r2 * 0.00138145985f;
  const V p = (r + 1.0f) + r2 * (low + r2 * high);
  const Integer exponent = (bit_cast<Integer>(shifted) << 23) + 0x3f800000;
  const V result = p * bit_cast<V>(exponent);
  return x < kLowest ? 0.0f : result;
#endif
}

LABELDROP_INLINE double log_positive(double x) { return log(x); }

// log(x) for normal x > 0, to 2 ulp (absolute 1e-7 near 1). NaN and infinity give NaN.
template <class V>
LABELDROP_INLINE V log_positive(V x) {
#ifdef __CUDA_ARCH__
  return logf(x);
#else
  using Integer = typename IntegerOf<V>::type;
  // x = m 2^e with m in [sqrt(1/2), sqrt 2)
  const Integer bits = bit_cast<Integer>(x);
  const Integer e = (bits - 0x3f3504f3) >> 23;
  const V m = bit_cast<V>(bits - e * (1 << 23));
  // log m = 2 artanh(s) = 2 s + s^3 q(s^2), s = (m - 1) / (m + 1), |s| < 0.172; q minimax, relative error 1e-9
  const V s = (m - 1.0f) / (m + 1.0f);
  const V s2 = s * s;
  const V q = (s2 * 0.298721534f + 0.39977527f) * s2 + 0.666667765f;
  const V log_m = 2.0f * s + s * s2 * q;
  // x - x is 0, or NaN where the bits above were those of no number
  return to_reals<V>(e) * 0.693147180559945309f + log_m + (x - x);
#endif
}

LABELDROP_INLINE double reciprocal(double x) { return 1 / x; }

// 1 / x for positive x below 2^126, to 2 ulp.
template <class V>
LABELDROP_INLINE V reciprocal(V x) {
#ifdef __CUDA_ARCH__
  return __fdividef(1.0f, x);  // the device's own reciprocal; an exact division has a branch and a call
#else
  return 1.0f / x;
#endif
}

LABELDROP_INLINE double log_ratio(double s) { return log1p(2 * s / (1 - s)); }

// log((1 + s) / (1 - s)) = 2 artanh(s) for 0 <= s <= 1/3, to 2 ulp however small s is.
template <class V>
LABELDROP_INLINE V log_ratio(V s) {
  // a series without any difference in it; q minimax, relative error 5e-9
  const V s2 = s * s;
  const V q = (s2 * 0.140122295f + 0.139995705f) * (s2 * s2) + (s2 * 0.200108495f + 0.333332066f);
  return 2.0f * s * (1.0f + s2 * q);
}

// log(1 + u) and 1 / (1 + u) for 0 <= u <= 1, to 2 ulp however small u is.
template <class V>
struct Log1pAndInverse {
  V log1p, inverse;
};

LABELDROP_INLINE Log1pAndInverse<double> log1p_and_inverse(double u) { return {log1p(u), 1 / (1 + u)}; }

template <class V>
LABELDROP_INLINE Log1pAndInverse<V> log1p_and_inverse(V u) {
  // log(1 + u) = 2 artanh(s), s = u / (2 + u) <= 1/3. One division serves s and the inverse.
  const V one_plus = 1.0f + u, two_plus = 2.0f + u;
  const V quotient = reciprocal(one_plus * two_plus);
  return {log_ratio(u * one_plus * quotient), two_plus * quotient};
}

// exp(x) for any x, to 4 ulp; infinity above 87.3 in float.
template <class V>
LABELDROP_INLINE V exp_any(V x) {
  const V zero{}, small = exp_nonpositive(x > zero ? -x : x);
  return x > zero ? (zero + 1) / small : small;
}

// log(1 + x) for any x >= 0, to 4 ulp however small x is: the logarithm of the rounded sum, and what the rounding lost.
template <class V>
LABELDROP_INLINE V log1p_nonnegative(V x) {
  const V one = V{} + 1, sum = one + x;
  return log_positive(sum) + (x - (sum - one)) / sum;
}

}  // namespace labeldrop
