// Set cross-entropy of one pixel: L = logsumexp over active z - logsumexp over candidates z.
//
// The active classes are split into the candidates C and the others O. With D = logsumexp over O z - logsumexp over C z
//     L = log(1 + e^D) = softplus(D)
//     dL/dz_k = sigmoid(D) softmax_O(z)_k for k in O,  -sigmoid(D) softmax_C(z)_k for k in C
// so no two large numbers are ever subtracted: the value is right at any logit gap, the gradient sums to zero by
// construction, and each class costs one exponential, e_k = exp(z_k - max of its part).
//
// V is one number, or a vector of them for as many pixels.
#pragma once

#include "elementary.h"

namespace labeldrop {

template <class V>
struct SetCrossEntropyPixel {
  V loss;
  V candidate_scale;  // dL/dz_k = candidate_scale * e_k for k in C
  V other_scale;      //         = other_scale * e_k     for k in O, which is also the softmax over all of them
  V candidate_share;  // the softmax over all of them = candidate_share * e_k for k in C
};

// -inf as the lowest finite number. Subtracting a maximum of -inf would give NaN; this way a part whose logits are all
// -inf shares its vanishing probability equally. Logits go through this before anything else.
template <class Real>
LABELDROP_INLINE constexpr Real lowest_logit() {
  return static_cast<Real>(sizeof(Real) == sizeof(float) ? -3.4028234663852886e38 : -1.7976931348623157e308);
}
template <class V>
LABELDROP_INLINE V finite_from_below(V z) {
  constexpr Scalar<V> kLowest = lowest_logit<Scalar<V>>();
  return larger(V{} + kLowest, z);  // in this order a NaN stays
}

// max_* is the largest logit of a part (-inf for an empty one), sum_* the sum of its e_k (0 for an empty one).
template <class V>
LABELDROP_INLINE SetCrossEntropyPixel<V> set_cross_entropy_pixel(V max_candidate, V sum_candidate, V max_other,
                                                                 V sum_other) {
  constexpr Scalar<V> kInfinity = infinity<Scalar<V>>(), kLowest = lowest_logit<Scalar<V>>(), kZero = 0, kOne = 1;
  const V nan_if_nan = (sum_candidate - sum_candidate) + (sum_other - sum_other);  // 0, or NaN where a logit was
  // one division for both inverses; an empty part's is never used
  const V safe_candidate = sum_candidate == kZero ? kOne : sum_candidate;
  const V safe_other = sum_other == kZero ? kOne : sum_other;
  const V quotient = reciprocal(safe_candidate * safe_other);
  const V inverse_candidate = safe_other * quotient, inverse_other = safe_candidate * quotient;

  V d = (max_other - max_candidate) + log_positive(safe_other * inverse_candidate);
  d = max_candidate <= kLowest ? kInfinity + nan_if_nan : d;  // no candidate has a chance
  const V no_alternative = (max_candidate <= kLowest ? kInfinity : kZero) - kInfinity + nan_if_nan;
  d = max_other <= kLowest ? no_alternative : d;  // no other class has; NaN if nothing has
  const V u = exp_nonpositive(d > kZero ? -d : d);
  const auto [log1p, inverse] = log1p_and_inverse(u);
  const V sigmoid = d > kZero ? inverse : u * inverse;
  const V complement = d > kZero ? u * inverse : inverse;
  const V positive = d > kZero ? d : kZero;
  return {positive + log1p, -sigmoid * inverse_candidate, sigmoid * inverse_other, complement * inverse_candidate};
}

// The same from sums of exponentials with one reference r of the pixel, exp(z_k - r), whatever it is, as long as the
// sums are far from the least and the largest numbers. Where no logit will do for both parts, the candidates' is their
// largest one and the others' is kGap below their own largest: what is left of the gap then, `excess`, is added to the
// loss, and is large enough for the candidates to vanish beside the others. No logarithm of a small sum is taken.
constexpr float kGap = 60;

template <class V>
struct SetCrossEntropyScales {
  V odds;             // e^D
  V loss;             // log(1 + odds), without the excess
  V candidate_scale;  // -dL/dz_k = candidate_scale * e_k for k in C
  V other_scale;      //  dL/dz_k = other_scale * e_k     for k in O
};

template <class V>
LABELDROP_INLINE SetCrossEntropyScales<V> set_cross_entropy_scales(V sum_candidate, V sum_other) {
  const V total = sum_candidate + sum_other;
  const V inverse = reciprocal(sum_candidate * total);
  // a division of its own for the loss, which then waits for nothing else
  const V odds = quotient(sum_other, sum_candidate);
  return {odds, log1p_nonnegative(odds), sum_other * inverse, sum_candidate * inverse};
}

// log(1 + a) + log(1 + b) = log(1 + joint_odds(a, b)), for two pixels' odds, whose product is below 2^126.
template <class V>
LABELDROP_INLINE V joint_odds(V a, V b) {
  return a + (b + a * b);
}

}  // namespace labeldrop
