// What soft Dice losses need of one pixel.
//
// p_k is the softmax over the pixel's active classes, or the sigmoid of an active class; 0 where not active. The
// probability of merged classes goes to class 0: q_0 = p_0 + sum of p_m over merged m, and q_k = p_k for the others.
// A pixel of weight w adds w q_k to the intersection of the classes that it is positive for, and w q_k or w q_k^2 to
// the prediction of those that it is counted for. With upstream gradients a_k of the intersection and b_k of the
// prediction
//     g_k = dL/dq_k / w = [positive] a_k + [counted] b_k (1 or 2 q_k),  g_m = g_0 for merged m
//     softmax: dL/dz_k = w p_k (g_k - mean),  mean = sum of p_j g_j over all j = sum of q_j g_j over those not merged
//     sigmoid: dL/dz_k = w p_k (1 - p_k) g_k
//
// V is one number, or a vector of them for as many pixels.
#pragma once

#include "set_cross_entropy.h"

namespace labeldrop {

// What a prediction adds up: w q, or w q^2. Two numbers in place of a choice inside the loop over classes.
template <class Real>
struct PredictionPower {
  explicit LABELDROP_INLINE PredictionPower(bool squared)
      : linear(squared ? Real(0) : Real(1)), square(squared ? Real(1) : Real(0)) {}

  template <class V>
  LABELDROP_INLINE V term(V q, V weighted) const {
    return weighted * (linear + square * q);
  }
  template <class V>
  LABELDROP_INLINE V slope(V q) const {
    return linear + (square + square) * q;
  }

  Real linear, square;
};

// g_k, with the class's upstream gradients.
template <class V, class Mask>
LABELDROP_INLINE V dice_class_gradient(V q, Mask is_positive, Mask is_counted, Scalar<V> of_intersection,
                                       Scalar<V> of_prediction, const PredictionPower<Scalar<V>>& power) {
  const V zero{}, intersection = zero + of_intersection;
  // chosen, not multiplied by 0: an upstream gradient may be infinite
  const V counted = is_counted ? of_prediction * power.slope(q) : zero;
  return (is_positive ? intersection : zero) + counted;
}

// Softmax: p_k = softmax_share * exp(z_k - max), given the sum of these exponentials over the active classes and their
// largest logit, raised to the lowest finite number. Without active classes 0; if all their logits are -inf infinite,
// which makes 0 * share NaN, like torch's softmax.
template <class V, class Mask>
LABELDROP_INLINE V softmax_share(V sum, Mask any_active) {
  const V zero{};
  return any_active ? reciprocal(sum) : zero;
}

template <class V>
LABELDROP_INLINE V sigmoid(V z) {
  constexpr Scalar<V> kZero = 0, kOne = 1;
  const V u = exp_nonpositive(z > kZero ? -z : z);
  const V inverse = reciprocal(kOne + u);
  return z > kZero ? inverse : u * inverse;
}

}  // namespace labeldrop
