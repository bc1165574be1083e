// Set cross-entropy of one pixel: L = logsumexp over active z - logsumexp over candidates z.
//
// The active classes are split into the candidates C and the others O. With D = logsumexp over O z - logsumexp over C z
//     L = log(1 + e^D) = softplus(D),    dL/dz_k = sigmoid(D) * ( softmax_O(z)_k for k in O, -softmax_C(z)_k for k in C )
// so no two large numbers are ever subtracted: the value is right at any logit gap, the gradient sums to zero by
// construction, and each class costs one exponential, e_k = exp(z_k - max of its part).
#pragma once

#include "elementary.h"

namespace labeldrop {

template <class Real>
struct SetCrossEntropyPixel {
  Real loss;
  Real candidate_scale;  // dL/dz_k = candidate_scale * e_k for k in C
  Real other_scale;      //         = other_scale * e_k     for k in O
};

// Below every finite logit's exponential: what -inf logits are raised to before the maximum is subtracted, so that a
// part whose logits are all -inf shares its (vanishing) probability equally instead of giving -inf - -inf = NaN.
template <class Real>
LABELDROP_INLINE Real finite_from_below(Real z) {
  constexpr Real kLowest = sizeof(Real) == sizeof(float) ? Real(-3.4028234663852886e38) : Real(-1.7976931348623157e308);
  return z < kLowest ? kLowest : z;
}

// e_k: z is the class's logit, max the largest of its part.
template <class Real>
LABELDROP_INLINE Real set_exponential(Real z, Real max) {
  return exp_nonpositive(finite_from_below(z) - finite_from_below(max));
}

// max_* is the largest logit of a part (-inf for an empty one), sum_* the sum of its e_k (0 for an empty one).
template <class Real>
LABELDROP_INLINE SetCrossEntropyPixel<Real> set_cross_entropy_pixel(Real max_candidate, Real sum_candidate,
                                                                    Real max_other, Real sum_other) {
  const Real ratio = sum_other / sum_candidate;
  // An empty O, or one of -inf logits only, leaves no alternative: D = -inf, whatever log(ratio) is. The differences
  // are 0, or NaN where a part holds a NaN.
  const Real d = max_other == -infinity<Real>() && max_candidate != -infinity<Real>()
                     ? -infinity<Real>() + (sum_candidate - sum_candidate) + (sum_other - sum_other)
                     : (max_other - max_candidate) + log_positive(ratio);
  const Real u = exp_nonpositive(d > 0 ? -d : d);
  const Real sigmoid = (d > 0 ? Real(1) : u) / (Real(1) + u);
  return {(d > 0 ? d : Real(0)) + log1p_unit(u), -sigmoid / sum_candidate, sigmoid / sum_other};
}

}  // namespace labeldrop
