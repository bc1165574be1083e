// Focal loss of one class of one pixel; binary cross-entropy where gamma is 0. With p = sigmoid(z)
//     L = -alpha (1 - p)^gamma log p              where the class is a candidate
//     L = -(1 - alpha) p^gamma log(1 - p)         where it is excluded
#pragma once

#include "logistic.h"
#include "term.h"

namespace labeldrop {

template <Focus focus>
struct SigmoidFocal {
  static constexpr int kChannels = 1;

  // parameters: gamma; alpha, or -1 for a factor of 1 in both cases
  LABELDROP_INLINE explicit SigmoidFocal(const double* parameters)
      : gamma(parameters[0]),
        positive_factor(parameters[1] < 0 ? 1 : parameters[1]),
        negative_factor(parameters[1] < 0 ? 1 : 1 - parameters[1]) {}

  // Infinite logits and NaN give NaN. No noise in it, so the element does not matter.
  template <class V, class Mask>
  LABELDROP_INLINE Term<V, kChannels> operator()(const V (&channel)[kChannels], Mask positive, uint64_t) const {
    using Real = Scalar<V>;
    const V z = channel[0], nan_unless_finite = z - z;
    const V toward = positive ? z : -z;  // the logit of what the label says
    const auto [loss, slope] = focal_loss<focus>(logistic(toward), static_cast<Real>(gamma));
    const V plus = V{} + static_cast<Real>(positive_factor), minus = V{} + static_cast<Real>(negative_factor);
    return {(positive ? plus : minus) * loss + nan_unless_finite,
            {(positive ? plus : -minus) * slope + nan_unless_finite}};
  }

  double gamma, positive_factor, negative_factor;
};

}  // namespace labeldrop
