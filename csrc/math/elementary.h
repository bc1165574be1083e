// exp and log for the pixel formulas, of one float or a vector of them. On the CPU they are free of branches and calls,
// so that they work on whole vectors; double, which serves gradient checks, uses the C library. A GPU has its own
// exponential and logarithm of 2 and its own reciprocal: an instruction each, whose errors CUDA's PTX guide has.
#pragma once

#include <cmath>

#include "portable.h"

namespace labeldrop {

// Subnormal numbers count as 0, before and after; what is not on a GPU serves the emulated one.
LABELDROP_INLINE float device_exp2(float x) {  // to 2^-22 of it
#ifdef __CUDA_ARCH__
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return x < -126 ? 0 : std::exp2(x);
#endif
}
LABELDROP_INLINE float device_log2(float x) {  // to 2^-22 of it, or absolutely between 1/2 and 2
#ifdef __CUDA_ARCH__
  float result;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return std::log2(x);
#endif
}
LABELDROP_INLINE float device_reciprocal(float x) {  // to 1 ulp
#ifdef __CUDA_ARCH__
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return 1.0f / x;
#endif
}

LABELDROP_INLINE double exp_nonpositive(double x) { return exp(x); }

// exp(x) for x <= 80, to 3 ulp; 0 below -87.7, where the result would no longer be a normal number. NaN stays NaN.
// On a GPU the rounded product x log2 e adds |x| 2^-24 to that: as much as an x that was rounded itself has cost.
template <class V>
LABELDROP_INLINE V exp_nonpositive(V x) {
#ifdef LABELDROP_ON_GPU
  return device_exp2(x * 1.44269504088896341f);
#else
  using Integer = typename IntegerOf<V>::type;
  constexpr float kLowest = -87.9f;
  // 1.5 * 2^23: adding it leaves the nearest integer in the low mantissa bits; and 127, the bias of exponents
  constexpr float kRound = 12582912.0f + 127.0f;
  const V clamped = larger(V{} + kLowest, x);
  const V shifted = clamped * 1.44269504088896341f + kRound;
  const V n = shifted - kRound;
  // r = x - n ln 2 in [-ln2/2, ln2/2]; what rounding ln 2 adds, |x| 3e-9, is below what rounding x has cost already
#if defined(__x86_64__) && !defined(__FMA__)
  // no fused multiply-add: the product must not be rounded, so ln 2 is two numbers, the first with few bits
  const V r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
#else
  const V r = clamped - n * 0.693147180559945309f;
#endif
  // minimax polynomial with value 1 at 0: relative error 9e-8
  const V p =
      ((((r * 0.00829030326f + 0.041897991f) * r + 0.166676367f) * r + 0.499991491f) * r + 0.999999707f) * r + 1.0f;
  // 2^n by its exponent. At the lowest x, n is -127, whose exponent is 0 and so is the number: no other choice is
  // needed.
  return p * bit_cast<V>(bit_cast<Integer>(shifted) << 23);
#endif
}

LABELDROP_INLINE double log_positive(double x) { return log(x); }

// log(x) for normal x > 0, to 2 ulp (absolute 1e-7 near 1), on a GPU twice that. NaN and infinity give NaN.
template <class V>
LABELDROP_INLINE V log_positive(V x) {
#ifdef LABELDROP_ON_GPU
  return device_log2(x) * 0.693147180559945309f + x * 0.0f;
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
#ifdef LABELDROP_ON_GPU
  return device_reciprocal(x);  // an exact division has a branch and a call
#else
  return 1.0f / x;
#endif
}

// a / b for positive b below 2^126, to 2 ulp.
template <class V>
LABELDROP_INLINE V quotient(V a, V b) {
#ifdef LABELDROP_ON_GPU
  return a * reciprocal(b);
#else
  return a / b;
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

LABELDROP_INLINE double exp_any(double x) { return exp(x); }

// exp(x) for any x, to 3 ulp; infinity above 88.4 in float.
template <class V>
LABELDROP_INLINE V exp_any(V x) {
  return exp_nonpositive(smaller(V{} + 89.0f, x));  // its 2^n is infinite there, and no more than that
}

LABELDROP_INLINE double log1p_nonnegative(double x) { return log1p(x); }

// log(1 + x) for 0 <= x < 2^126, to 3 ulp however small x is. NaN and infinity give NaN.
template <class V>
LABELDROP_INLINE V log1p_nonnegative(V x) {
#ifdef LABELDROP_ON_GPU
  // From 1/2 on the logarithm of the rounded sum is off by 5e-7 of it at most. Below there is no sum in which the
  // digits of a small x would be lost: x times a minimax polynomial, relative error 3e-8, and what its steps round.
  const float large = device_log2(1.0f + x) * 0.693147180559945309f;
  float q = 0.03867357596755028f;
  q = q * x - 0.11369698494672775f;
  q = q * x + 0.18450471758842468f;
  q = q * x - 0.2475198358297348f;
  q = q * x + 0.3331380784511566f;
  q = q * x - 0.4999941289424896f;
  return (x < 0.5f ? x + x * (x * q) : large) + x * 0.0f;
#else
  using Integer = typename IntegerOf<V>::type;
  // 1 + x = m 2^e with m in [sqrt(1/2), sqrt 2). Where e is 0, m - 1 is x, with all its digits.
  const Integer bits = bit_cast<Integer>(1.0f + x), none{};
  const Integer e = (bits - 0x3f3504f3) >> 23;
  const V t = e == none ? x : bit_cast<V>(bits - (e << 23)) - 1.0f;
  // log(1 + t) = t - t^2/2 + t^3 q(t), q minimax: relative error 3e-8 of the logarithm; in pairs, which do not wait for
  // each other
  const V t2 = t * t;
  const V low = (t * -0.1657758468f + 0.199630638f) * t2 + (t * -0.2500133704f + 0.3333391074f);
  const V high = t2 * 0.08700435915f + (t * -0.1426748697f + 0.1491476788f);
  const V q = high * (t2 * t2) + low;
  return to_reals<V>(e) * 0.693147180559945309f + (t + t2 * (t * q - 0.5f)) + (x - x);
#endif
}

}  // namespace labeldrop
