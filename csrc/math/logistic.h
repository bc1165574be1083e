// The logistic function, its logarithms, and the focal loss of one logit: what the sigmoid family's formulas share.
#pragma once

#include <type_traits>

#include "elementary.h"

namespace labeldrop {

template <class V>
struct Logistic {
  V p, not_p;          // sigmoid(z), 1 - sigmoid(z)
  V log_p, log_not_p;  // their logarithms
};

// With u = exp(-|z|), the two probabilities are 1 / (1 + u) and u / (1 + u), and their logarithms -log(1 + u) and
// -|z| - log(1 + u): no difference of nearly equal numbers, so that the smaller probability keeps its digits too.
template <class V>
LABELDROP_INLINE Logistic<V> logistic(V z, V u) {
  const V below = minus_magnitude(z);
  const auto [log1p, inverse] = log1p_and_inverse(u);
  const V small = u * inverse;
  const V log_large = -log1p, log_small = below - log1p;
  return {choose_by_sign(z, small, inverse), choose_by_sign(z, inverse, small), choose_by_sign(z, log_small, log_large),
          choose_by_sign(z, log_large, log_small)};
}

template <class V>
LABELDROP_INLINE Logistic<V> logistic(V z) {
  return logistic(z, exp_nonpositive(minus_magnitude(z)));
}

// The focusing exponent gamma: 0 and 2, the usual ones, are compiled without a power.
enum class Focus { none, square, any };

// run(constant), where decltype(constant)::value is gamma's Focus. For the host: it chooses the kernel.
template <class Run>
auto with_focus(double gamma, Run run) {
  if (gamma == 0) return run(std::integral_constant<Focus, Focus::none>{});
  if (gamma == 2) return run(std::integral_constant<Focus, Focus::square>{});
  return run(std::integral_constant<Focus, Focus::any>{});
}

// x^gamma for 0 <= x <= 1.
template <Focus focus, class V>
LABELDROP_INLINE V focus_power(V x, V log_x, Scalar<V> gamma) {
  if constexpr (focus == Focus::none) return V{} + 1;
  if constexpr (focus == Focus::square) return x * x;
  return exp_nonpositive(gamma * log_x);
}

// gamma * x, exactly 0 where gamma is.
template <Focus focus, class V>
LABELDROP_INLINE V focus_times(V x, Scalar<V> gamma) {
  if constexpr (focus == Focus::none) return V{};
  if constexpr (focus == Focus::square) return x + x;
  return gamma * x;
}

template <class V>
struct FocalLoss {
  V loss, slope;  // and its derivative by the logit
};

// The loss of a class that is there, at logit z; one that is not there is one that is there at logit -z.
//     l = -(1 - p)^gamma log p,  dl/dz = (1 - p)^gamma (gamma p log p - (1 - p))
template <Focus focus, class V>
LABELDROP_INLINE FocalLoss<V> focal_loss(const Logistic<V>& at, Scalar<V> gamma) {
  const V power = focus_power<focus>(at.not_p, at.log_not_p, gamma);
  return {-power * at.log_p, power * (focus_times<focus>(at.p * at.log_p, gamma) - at.not_p)};
}

}  // namespace labeldrop
