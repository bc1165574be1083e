// exp and log for the pixel formulas. On the CPU the float versions are branch-free, so that a loop over pixels
// vectorises; double, which serves gradient checks, uses the C library.
#pragma once

#include <cmath>

#include "portable.h"

namespace labeldrop {

template <class Real>
LABELDROP_INLINE constexpr Real infinity() {
  return static_cast<Real>(__builtin_huge_val());
}

LABELDROP_INLINE double exp_nonpositive(double x) { return exp(x); }

// exp(x) for x <= 0, to 2 ulp; 0 below -87.3, where the result would no longer be a normal number. NaN stays NaN.
LABELDROP_INLINE float exp_nonpositive(float x) {
#ifdef __CUDA_ARCH__
  return expf(x);
#else
  constexpr float kLowest = -87.3f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low mantissa bits
  const float clamped = x < kLowest ? kLowest : x;
  const float shifted = clamped * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  // r = x - n ln 2 in [-ln2/2, ln2/2]; ln 2 in two parts, the first exact when multiplied by n
  const float r = (clamped - n * 0.693145751953125f) - n * 1.42860682030941723e-6f;
  // Taylor series of e^r; its remainder r^8/8! is below 6e-9
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t exponent = (bit_cast<int32_t>(shifted) << 23) + 0x3f800000;
  const float result = p * bit_cast<float>(exponent);
  return x < kLowest ? 0.0f : result;
#endif
}

LABELDROP_INLINE double log_positive(double x) { return log(x); }

// log(x) for normal x > 0, to 2 ulp (absolute 1e-7 near 1). NaN and infinity give NaN.
LABELDROP_INLINE float log_positive(float x) {
#ifdef __CUDA_ARCH__
  return logf(x);
#else
  // x = m 2^e with m in [sqrt(1/2), sqrt 2)
  const int32_t bits = bit_cast<int32_t>(x);
  const int32_t e = (bits - 0x3f3504f3) >> 23;
  const float m = bit_cast<float>(bits - static_cast<int32_t>(static_cast<uint32_t>(e) << 23));
  // log m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172; the next term, 2 s^11 / 11, is below 1e-9
  const float s = (m - 1.0f) / (m + 1.0f);
  const float s2 = s * s;
  float p = 2.0f / 9;
  p = p * s2 + 2.0f / 7;
  p = p * s2 + 2.0f / 5;
  p = p * s2 + 2.0f / 3;
  const float log_m = 2.0f * s + s * s2 * p;
  // x - x is 0, or NaN where the bits above were those of no number
  return static_cast<float>(e) * 0.693147180559945309f + log_m + (x - x);
#endif
}

// log(1 + u) for 0 <= u <= 1, with full relative precision for small u.
template <class Real>
LABELDROP_INLINE Real log1p_unit(Real u) {
  const Real w = Real(1) + u;
  const Real rounded = w - Real(1);  // what of u survived in w; the ratio below makes up for the rest
  return rounded == Real(0) ? u : log_positive(w) * (u / rounded);
}

LABELDROP_INLINE double log1p_unit(double u) { return log1p(u); }

}  // namespace labeldrop
