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
  LABELDROP_INLINE explicit CrossEntropyAverage(double = 0) {}

  // n samples: x, exp(-|x|) and eps of each
  template <int n>
  LABELDROP_INLINE void add(const V (&x)[n], const V (&u)[n], const V (&eps)[n]) {
    const V zero{}, one = zero + 1;
    V linear{}, product{}, wrong{}, wrong_eps{};  // of these alone: what is added to the sums waits for those
    for (int i = 0; i < n; ++i) {
      const V of_one = quotient(choose_by_sign(x[i], one, u[i]), one + u[i]);
      linear += smaller(x[i], zero);
      product = i == 0 ? u[i] : product + u[i] + u[i] * product;
      wrong += of_one;
      wrong_eps += of_one * eps[i];
    }
    linear_ -= linear;
    product_ += product + product * product_;
    wrong_ += wrong;
    wrong_eps_ += wrong_eps;
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
  LABELDROP_INLINE explicit FocalAverage(double gamma = 0) : gamma_(static_cast<Scalar<V>>(gamma)) {}

  template <int n>
  LABELDROP_INLINE void add(const V (&x)[n], const V (&u)[n], const V (&eps)[n]) {
    for (int i = 0; i < n; ++i) {
      const auto [loss, slope] = focal_loss<focus>(logistic(x[i], u[i]), gamma_);
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
  LABELDROP_INLINE explicit ProbabilityAverage(double = 0) {}

  template <int n>
  LABELDROP_INLINE void add(const V (&x)[n], const V (&u)[n], const V (&eps)[n]) {
    const V zero{}, one = zero + 1;
    V least = least_;
    for (int i = 0; i < n; ++i) {
      least = smaller(-smaller(x[i], zero), least);
    }
    const V rescale = exp_nonpositive(least - least_);
    sum_ *= rescale;
    slope_ *= rescale;
    spread_ *= rescale;
    least_ = least;
    for (int i = 0; i < n; ++i) {
      const V h = -smaller(x[i], zero);
      const V inverse = reciprocal(one + u[i]);
      const V wrong = choose_by_sign(x[i], inverse, u[i] * inverse);
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

  template <class V>
  using Sum = WeightedSum<V>;

  // Where the samples of a class lie, seen from the logit of what the label says; NaN unless the channels are finite.
  template <class V>
  struct Noise {
    V at, step, nan_unless_finite;
    Average<V> average;
  };

  // parameters: gamma; T
  LABELDROP_INLINE PredictiveVariance(const double* parameters, uint64_t key)
      : gamma(parameters[0]), samples(static_cast<int>(parameters[1])), key(philox_key(key)) {}

  LABELDROP_INLINE void set_key(uint64_t new_key) { key = philox_key(new_key); }

  template <class V, class Mask>
  LABELDROP_INLINE Noise<V> start(const V (&channel)[kChannels], Mask positive) const {
    constexpr Scalar<V> kHalf = static_cast<Scalar<V>>(0.5);
    const V z = channel[0], s = channel[1], sigma = exp_any(kHalf * s);
    return {positive ? z : -z, positive ? sigma : -sigma, (z - z) + (s - s), Average<V>(gamma)};
  }

  // exp(-|x|) of a sample.
  template <class V>
  LABELDROP_INLINE V exponential(const Noise<V>& noise, V eps) const {
    return exp_nonpositive(minus_magnitude(noise.at + noise.step * eps));
  }

  // Some samples of one group, with their exponentials.
  template <int n, class V>
  LABELDROP_INLINE void add(Noise<V>& noise, const V (&eps)[n], const V (&u)[n]) const {
    V x[n];
    for (int i = 0; i < n; ++i) x[i] = noise.at + noise.step * eps[i];
    noise.average.add(x, u, eps);
  }

  // Comes after all samples of a group.
  template <class V>
  LABELDROP_INLINE void end_group(Noise<V>& noise, uint32_t group) const {
    if (group % 16 == 15) noise.average.every_64_samples();
  }

  // Sample number group * 4 + i is the normal number i of the group.
  LABELDROP_INLINE int samples_of(uint32_t group) const {
    const int left = samples - 4 * static_cast<int>(group);
    return left < 4 ? left : 4;
  }

  LABELDROP_INLINE uint32_t groups() const { return (static_cast<uint32_t>(samples) + 3) / 4; }

  template <class V, class Mask>
  LABELDROP_INLINE Term<V, kChannels> finish(Noise<V>& noise, Mask positive) const {
    using Real = Scalar<V>;
    const auto [loss, slope, spread] = noise.average.average(static_cast<Real>(1) / static_cast<Real>(samples));
    const V nan = noise.nan_unless_finite;
    return {loss + nan, {(positive ? slope : -slope) + nan, static_cast<Real>(0.5) * noise.step * spread + nan}};
  }

  // All of it for one number. Infinite channels and NaN give NaN.
  template <class V, class Mask>
  LABELDROP_INLINE Term<V, kChannels> operator()(const V (&channel)[kChannels], Mask positive, uint64_t element) const {
    Noise<V> noise = start(channel, positive);
    // The next words are begun before the present ones are used, so that the processor has two chains to work on.
    PhiloxWords<Unsigned<V>> next = philox_elements<V>(element, 0, key);
    for (uint32_t group = 0; group < groups(); ++group) {
      const PhiloxWords<Unsigned<V>> words = next;
      if (group + 1 < groups()) next = philox_elements<V>(element, group + 1, key);
      add_pair(noise, normal_pair<V>(words.c0, words.c1), samples_of(group));
      if (samples_of(group) > 2) add_pair(noise, normal_pair<V>(words.c2, words.c3), samples_of(group) - 2);
      end_group(noise, group);
    }
    return finish(noise, positive);
  }

  double gamma;
  int samples;
  PhiloxKey key;

 private:
  template <class V>
  LABELDROP_INLINE void add_pair(Noise<V>& noise, const Pair<V>& eps, int left) const {
    const V u[2] = {exponential(noise, eps.first), exponential(noise, eps.second)};
    if (left > 1) {
      add<2>(noise, {eps.first, eps.second}, u);
    } else {
      add<1>(noise, {eps.first}, {u[0]});
    }
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
