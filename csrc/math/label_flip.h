// Label-flip loss of one class of one pixel: channel 0 is the logit z, channel 1 the logit f of the label being wrong.
//
// p = sigmoid(z), q = sigmoid(f) / 2 in (0, 1/2), x = 1 where the class is a candidate, d = 1 where (p > 1/2) != x:
//     L = l(p, t) + l(q, d),  t = (1 - x) q + x (1 - q),
//     l(p, t) = -t (1 - p)^gamma log p - (1 - t) p^gamma log(1 - p)
// d is a constant; t carries a gradient into f unless it is detached.
#pragma once

#include "logistic.h"
#include "term.h"

namespace labeldrop {

template <class V>
struct FlipLoss {
  V q, not_q;       // the probability of a flip, and 1 - q
  V slope_q;        // dq/df
  V loss, slope_f;  // l(q, d) and its derivative by f
};

// With w = exp(-|f|), sigmoid(f) = part / whole and 1 - sigmoid(f) = rest / whole, where whole = part + rest = 1 + w:
//     q = part / (2 whole),  1 - q = (whole + rest) / (2 whole),  v = q / (1 - q) = part / (whole + rest)
//     log q = min(f, 0) - log(1 + w) - log 2,  log(1 - q) = -log(1 + v),  dq/df = q rest / whole
//     d = 1: l = -(1 - q)^gamma log q,   dl/df = rest / whole (1 - q)^gamma (gamma v log q - 1)
//     d = 0: l = -q^gamma log(1 - q),    dl/df = rest / whole q^gamma (v - gamma log(1 - q))
// Sums of positive numbers only, so nothing cancels.
template <Focus focus, class V, class Mask>
LABELDROP_INLINE FlipLoss<V> flip_loss(V f, V w, Mask disagrees, Scalar<V> gamma) {
  using Real = Scalar<V>;
  constexpr Real kLog2 = static_cast<Real>(0.693147180559945309), kHalf = static_cast<Real>(0.5);
  const V zero{}, one = zero + 1;
  const V part = choose_by_sign(f, w, one), rest = choose_by_sign(f, one, w);
  const V whole = one + w, more = whole + rest;
  // log(1 + u) = 2 artanh(s), s = u / (2 + u), for the one u of w and v = part / more that is asked for. One division
  // serves it and the two inverses.
  const V above = disagrees ? w : part, under = disagrees ? one + whole : more + more + part;
  const V quotient = reciprocal(whole * more * under);
  const V inverse_whole = more * under * quotient, inverse_more = whole * under * quotient;
  const V log1p = log_ratio(above * (whole * more) * quotient);
  const V log_flip = (f > zero ? zero : f) - kLog2;  // log q + log(1 + w)
  const V log_said = (disagrees ? log_flip : zero) - log1p;

  const V q = kHalf * part * inverse_whole, not_q = kHalf * more * inverse_whole;
  const V v = part * inverse_more, steepness = rest * inverse_whole;
  V log_other = zero;  // the logarithm of disagrees ? 1 - q : q
  if constexpr (focus == Focus::any) {
    log_other = (disagrees ? zero : log_flip) - log1p_and_inverse(disagrees ? v : w).log1p;
  }
  const V power = focus_power<focus>(disagrees ? not_q : q, log_other, gamma);
  const V scaled = focus_times<focus>(log_said, gamma);
  return {q, not_q, q * steepness, -power * log_said, steepness * power * (disagrees ? v * scaled - one : v - scaled)};
}

template <Focus focus>
struct LabelFlip {
  static constexpr int kChannels = 2;
  static constexpr int kSideBySide = 1;  // on the CPU

  template <class V>
  using Sum = WeightedSum<V>;

  // parameters: gamma; 1 if no gradient goes through the target t
  LABELDROP_INLINE explicit LabelFlip(const double* parameters)
      : gamma(parameters[0]), through_target(parameters[1] != 0 ? 0 : 1) {}

  // Channels so far on the label's side, and on that of no flip, that nothing is left of loss and gradients.
  template <class V>
  LABELDROP_INLINE static V nothing(int c) {
    return V{} + (c == 0 ? 100000 : -100000);
  }

  // Infinite channels and NaN give NaN. No noise in it, so the element does not matter.
  template <class V, class Mask>
  LABELDROP_INLINE Term<V, kChannels> operator()(const V (&channel)[kChannels], Mask positive, uint64_t) const {
    const V u[kChannels] = {exp_nonpositive(minus_magnitude(channel[0])), exp_nonpositive(minus_magnitude(channel[1]))};
    return term(channel, u, positive);
  }

  // The same, with u = exp(-|channel|).
  template <class V, class Mask>
  LABELDROP_INLINE Term<V, kChannels> term(const V (&channel)[kChannels], const V (&u)[kChannels],
                                           Mask positive) const {
    using Real = Scalar<V>;
    const Real g = static_cast<Real>(gamma);
    const V z = channel[0], f = channel[1], nan_unless_finite = (z - z) + (f - f);
    const FlipLoss<V> flip = flip_loss<focus>(f, u[1], (z > V{}) != positive, g);

    // Seen from the logit of what the label says, t is 1 - q for either label.
    const Logistic<V> at = logistic(positive ? z : -z, u[0]);
    const Logistic<V> opposite{at.not_p, at.p, at.log_not_p, at.log_p};
    const auto [right, right_slope] = focal_loss<focus>(at, g);
    const auto [wrong, wrong_slope] = focal_loss<focus>(opposite, g);
    const V slope = flip.not_q * right_slope - flip.q * wrong_slope;
    const V through_q = static_cast<Real>(through_target) * flip.slope_q * (wrong - right);
    return {flip.not_q * right + flip.q * wrong + flip.loss + nan_unless_finite,
            {(positive ? slope : -slope) + nan_unless_finite, through_q + flip.slope_f + nan_unless_finite}};
  }

  double gamma, through_target;
};

}  // namespace labeldrop
