// Predictive variance of one class of one pixel: channel 0 is the logit z, channel 1 is s = log sigma^2 of its normal
// noise. With T samples of it,
//     x_t = z + e^(s/2) eps_t,  l_t = l(x_t), l = binary cross-entropy or focal loss
//     average of the loss:         L = 1/T sum_t l_t,                   w_t = 1/T
//     average of the probability:  L = -log(1/T sum_t exp(-l_t)),       w_t = exp(-l_t) / sum exp(-l_t)
//     dL/dz = sum_t w_t l'(x_t),  dL/ds = e^(s/2) / 2 sum_t w_t l'(x_t) eps_t
// eps_t is a function of key, element and t, so it is computed anew wherever it is needed and stored nowhere.
//
// All is seen from the logit of what the label says: a class that is not there at logit x is one that is there at -x.
#pragma once

#include "logistic.h"
#include "normal.h"
#include "philox.h"
#include "term.h"

namespace labeldrop {

// What the samples are summed up in: `loss` is their average, slope and spread are sum_t w_t l'(x_t) (times eps_t).
template <class V>
struct Averaged {
  V loss, slope, spread;
};

// Average of the binary cross-entropy. With u = exp(-|x|), l(x) = max(-x, 0) + log(1 + u) and l'(x) = -(1 - p).
template <class V>
class CrossEntropyAverage {
 public:
  LABELDROP_INLINE explicit CrossEntropyAverage(double) {}

  template <int n>
  LABELDROP_INLINE void add(const V (&x)[n], const V (&eps)[n]) {
    const V zero{}, one = zero + 1;
    for (int i = 0; i < n; ++i) {
      const V u = exp_nonpositive(x[i] > zero ? -x[i] : x[i]);
      const V numerator = x[i] > zero ? u : one;
      const V wrong = numerator * reciprocal(one + u);
      linear_ += x[i] < zero ? -x[i] : zero;
      product_ += u + u * product_;
      wrong_ += wrong;
      wrong_eps_ += wrong * eps[i];
    }
  }

  // Before the product, at most 2^64 by now, leaves the range of floats.
  LABELDROP_INLINE void every_64_samples() {
    linear_ += log1p_nonnegative(product_);
    product_ = V{};
  }

  LABELDROP_INLINE Averaged<V> average(Scalar<V> inverse_samples) {
    every_64_samples();
    return {linear_ * inverse_samples, -wrong_ * inverse_samples, -wrong_eps_ * inverse_samples};
  }

 private:
  // The logarithms' sum is the logarithm of the product, of which 1 is kept off so that a small sum has all its digits.
  V linear_{}, product_{}, wrong_{}, wrong_eps_{};
};

// Average of the focal loss.
template <Focus focus, class V>
class FocalAverage {
 public:
  LABELDROP_INLINE explicit FocalAverage(double gamma) : gamma_(static_cast<Scalar<V>>(gamma)) {}

  template <int n>
  LABELDROP_INLINE void add(const V (&x)[n], const V (&eps)[n]) {
    for (int i = 0; i < n; ++i) {
      const auto [loss, slope] = focal_loss<focus>(logistic(x[i]), gamma_);
      loss_ += loss;
      slope_ += slope;
      spread_ += slope * eps[i];
    }
  }

  LABELDROP_INLINE void every_64_samples() {}

  LABELDROP_INLINE Averaged<V> average(Scalar<V> inverse_samples) {
    return {loss_ * inverse_samples, slope_ * inverse_samples, spread_ * inverse_samples};
  }

 private:
  Scalar<V> gamma_;
  V loss_{}, slope_{}, spread_{};
};

template <class V>
using SquareFocalAverage = FocalAverage<Focus::square, V>;
template <class V>
using AnyFocalAverage = FocalAverage<Focus::any, V>;

// Average of the probability, exp(-l) = p for binary cross-entropy. With h = max(-x, 0), p = e^-h / (1 + u) can be too
// small for a number; e^h0 p is summed, h0 the least h so far.
template <class V>
class ProbabilityAverage {
 public:
  LABELDROP_INLINE explicit ProbabilityAverage(double) {}

  template <int n>
  LABELDROP_INLINE void add(const V (&x)[n], const V (&eps)[n]) {
    const V zero{}, one = zero + 1;
    V least = least_;
    for (int i = 0; i < n; ++i) {
      const V h = x[i] < zero ? -x[i] : zero;
      least = h < least ? h : least;
    }
    const V rescale = exp_nonpositive(least - least_);
    sum_ *= rescale;
    slope_ *= rescale;
    spread_ *= rescale;
    least_ = least;
    for (int i = 0; i < n; ++i) {
      const V h = x[i] < zero ? -x[i] : zero;
      const V u = exp_nonpositive(x[i] > zero ? -x[i] : x[i]);
      const V inverse = reciprocal(one + u);
      const V wrong = x[i] > zero ? u * inverse : inverse;
      const V weight = exp_nonpositive(least - h) * inverse;
      sum_ += weight;
      slope_ += weight * wrong;
      spread_ += weight * wrong * eps[i];
      wrong_ += wrong;
    }
  }

  LABELDROP_INLINE void every_64_samples() {}

  LABELDROP_INLINE Averaged<V> average(Scalar<V> inverse_samples) {
    constexpr Scalar<V> kHalf = static_cast<Scalar<V>>(0.5);
    const V zero{}, one = zero + 1;
    // A mean probability near 1 comes from its complement m: -log(1 - m) = log(1 + m / (1 - m)). h0 is then 0.
    const V m = wrong_ * inverse_samples;
    const V near = m < kHalf ? m : zero;
    const V small = log1p_nonnegative(near / (one - near));
    // nothing is left of the sum where every sample was infinitely wrong
    const V large = sum_ == zero ? zero + infinity<Scalar<V>>() : least_ - log_positive(sum_ * inverse_samples);
    const V inverse = -one / sum_;
    return {m < kHalf ? small : large, slope_ * inverse, spread_ * inverse};
  }

 private:
  V least_ = V{} + static_cast<Scalar<V>>(3.4028234663852886e38);
  V sum_{}, slope_{}, spread_{}, wrong_{};
};

// Average: one of the classes above.
template <template <class> class Average>
struct PredictiveVariance {
  static constexpr int kChannels = 2;

  // parameters: gamma; T
  LABELDROP_INLINE PredictiveVariance(const double* parameters, uint64_t key)
      : gamma(parameters[0]), samples(static_cast<int>(parameters[1])), key(philox_key(key)) {}

  LABELDROP_INLINE void set_key(uint64_t new_key) { key = philox_key(new_key); }

  // Infinite channels and NaN give NaN.
  template <class V, class Mask>
  LABELDROP_INLINE Term<V, kChannels> operator()(const V (&channel)[kChannels], Mask positive, uint64_t element) const {
    using Real = Scalar<V>;
    constexpr Real kHalf = static_cast<Real>(0.5);
    const V z = channel[0], s = channel[1], nan_unless_finite = (z - z) + (s - s);
    const V sigma = exp_any(kHalf * s);
    const V at = positive ? z : -z, step = positive ? sigma : -sigma;

    Average<V> sum(gamma);
    const uint32_t groups = static_cast<uint32_t>(samples) / 4, rest = static_cast<uint32_t>(samples) % 4;
    // The next words are begun before the present ones are used, so that the processor has two chains to work on.
    PhiloxWords<Unsigned<V>> next = philox_elements<V>(element, 0, key);
    for (uint32_t group = 0; group < groups; ++group) {
      const PhiloxWords<Unsigned<V>> words = next;
      if (4 * (group + 1) < static_cast<uint32_t>(samples)) next = philox_elements<V>(element, group + 1, key);
      const Pair<V> a = normal_pair<V>(words.c0, words.c1), b = normal_pair<V>(words.c2, words.c3);
      add_samples<4>(sum, at, step, {a.first, a.second, b.first, b.second});
      if (group % 16 == 15) sum.every_64_samples();
    }
    if (rest > 0) {
      const Pair<V> a = normal_pair<V>(next.c0, next.c1);
      add_samples<1>(sum, at, step, {a.first});
      if (rest > 1) add_samples<1>(sum, at, step, {a.second});
      if (rest > 2) add_samples<1>(sum, at, step, {normal_pair<V>(next.c2, next.c3).first});
    }
    const auto [loss, slope, spread] = sum.average(static_cast<Real>(1) / static_cast<Real>(samples));
    return {loss + nan_unless_finite,
            {(positive ? slope : -slope) + nan_unless_finite, kHalf * step * spread + nan_unless_finite}};
  }

  double gamma;
  int samples;
  PhiloxKey key;

 private:
  template <int n, class V>
  LABELDROP_INLINE static void add_samples(Average<V>& sum, V at, V step, const V (&eps)[n]) {
    V x[n];
    for (int i = 0; i < n; ++i) x[i] = at + step * eps[i];
    sum.add(x, eps);
  }
};

// run(formula), with the formula that the parameters ask for: gamma; samples; 1 if probabilities are averaged, gamma
// being 0 then. For the host: it chooses the kernel.
template <class Run>
auto with_predictive_variance(const double* parameters, uint64_t key, Run run) {
  if (parameters[2] != 0) return run(PredictiveVariance<ProbabilityAverage>(parameters, key));
  if (parameters[0] == 0) return run(PredictiveVariance<CrossEntropyAverage>(parameters, key));
  if (parameters[0] == 2) return run(PredictiveVariance<SquareFocalAverage>(parameters, key));
  return run(PredictiveVariance<AnyFocalAverage>(parameters, key));
}

}  // namespace labeldrop
