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
  static constexpr int kSideBySide = 1;  // on the CPU

  template <class V>
  using Sum = WeightedSum<V>;

  // parameters: gamma; alpha, or -1 for a factor of 1 in both cases
  LABELDROP_INLINE explicit SigmoidFocal(const double* parameters)
      : gamma(parameters[0]),
        positive_factor(parameters[1] < 0 ? 1 : parameters[1]),
        negative_factor(parameters[1] < 0 ? 1 : 1 - parameters[1]) {}

  // A logit so far on the label's side that nothing is left of loss and gradient.
  template <class V>
  LABELDROP_INLINE static V nothing(int) {
    return V{} + 100000;
  }

  // Infinite logits and NaN give NaN. No noise in it, so the element does not matter.
  template <class V, class Mask>
  LABELDROP_INLINE Term<V, kChannels> operator()(const V (&channel)[kChannels], Mask positive, uint64_t) const {
    const V u[kChannels] = {exp_nonpositive(minus_magnitude(channel[0]))};
    return term(channel, u, positive);
  }

  // The same, with u = exp(-|channel|).
  template <class V, class Mask>
  LABELDROP_INLINE Term<V, kChannels> term(const V (&channel)[kChannels], const V (&u)[kChannels],
                                           Mask positive) const {
    using Real = Scalar<V>;
    const V z = channel[0], nan_unless_finite = z - z;
    const V toward = positive ? z : -z;  // the logit of what the label says
    const auto [loss, slope] = focal_loss<focus>(logistic(toward, u[0]), static_cast<Real>(gamma));
    const V plus = V{} + static_cast<Real>(positive_factor), minus = V{} + static_cast<Real>(negative_factor);
    return {(positive ? plus : minus) * loss + nan_unless_finite,
            {(positive ? plus : -minus) * slope + nan_unless_finite}};
  }

  double gamma, positive_factor, negative_factor;
};

// The commonest of them, binary cross-entropy without factors, where the logarithms of a pixel's classes are added up
// as the logarithm of a product:
//     L = sum_k max(-t_k, 0) + log(prod_k (1 + exp(-|t_k|))),  t = z where the class is a candidate, else -z
struct BinaryCrossEntropy {
  static constexpr int kChannels = 1;
  static constexpr int kSideBySide = 2;  // on the CPU

  template <class V>
  struct Term {
    V linear, u;  // of the loss max(-t, 0) + log(1 + u)
    V gradient[kChannels];

    template <class Mask>
    LABELDROP_INLINE void keep(Mask active) {
      const V zero{};
      linear = active ? linear : zero;
      u = active ? u : zero;
      gradient[0] = active ? gradient[0] : zero;
    }
  };

  template <class V>
  LABELDROP_INLINE static V nothing(int) {
    return V{} + 100000;
  }

  // For one number: seen from the logit of what the label says.
  template <class V>
  LABELDROP_INLINE Term<V> operator()(const V (&channel)[kChannels], bool positive, uint64_t) const {
    const V toward[kChannels] = {positive ? channel[0] : -channel[0]};
    // NaN unless it is finite, by an instruction that a GPU's compiler has for both, and a CPU's takes for 0
    const V u = toward[0] * V{0} + exp_nonpositive(minus_magnitude(toward[0]));
    Term<V> result = term_of(toward[0], u, true);
    result.gradient[0] = positive ? result.gradient[0] : -result.gradient[0];
    return result;
  }

  // Infinite logits and NaN give NaN.
  template <class V, class Mask>
  LABELDROP_INLINE Term<V> term(const V (&channel)[kChannels], const V (&exponential)[kChannels], Mask positive) const {
    return term_of(channel[0], exponential[0] + (channel[0] - channel[0]), positive);
  }

  template <class V, class Mask>
  LABELDROP_INLINE static Term<V> term_of(V z, V u, Mask positive) {
    const V zero{}, one = zero + 1;
    const V wrong = quotient(positive ? choose_by_sign(z, one, u) : choose_by_sign(z, u, one), one + u);
    return {positive ? -smaller(z, zero) : larger(z, zero), u, {positive ? -wrong : wrong}};
  }

  // Of a pixel's classes; flush comes before the product, at most 2^64 by then, leaves the range of floats.
  template <class V>
  class Sum {
   public:
    static constexpr bool kWeighted = false;
    static constexpr int kMostTerms = 64;

    LABELDROP_INLINE void add(const Term<V>& term) {
      linear_ += term.linear;
      product_ = (V{} + 1 + term.u) * product_ + term.u;
    }
    LABELDROP_INLINE void merge(const Sum& other) {
      linear_ += other.linear_;
      product_ = (V{} + 1 + other.product_) * product_ + other.product_;
    }
    LABELDROP_INLINE void flush() {
      linear_ += log1p_nonnegative(product_);
      product_ = V{};
    }
    LABELDROP_INLINE V loss() const { return linear_ + log1p_nonnegative(product_); }

   private:
    V linear_{}, product_{};  // 1 is kept off the product, so that a small loss has all its digits
  };
};

// With weights of classes: the loss of each class by itself, and the same gradient.
struct WeightedBinaryCrossEntropy : BinaryCrossEntropy {
  template <class V>
  class Sum {
   public:
    static constexpr bool kWeighted = true;
    static constexpr int kMostTerms = INT32_MAX;

    LABELDROP_INLINE void add(const Term<V>& term, V weight) {
      loss_ += weight * (term.linear + log1p_nonnegative(term.u));
    }
    LABELDROP_INLINE void flush() {}
    LABELDROP_INLINE void merge(const Sum& other) { loss_ += other.loss_; }
    LABELDROP_INLINE V loss() const { return loss_; }

   private:
    V loss_{};
  };
};

}  // namespace labeldrop
