// What a formula says about one class of a pixel.
#pragma once

#include "portable.h"

namespace labeldrop {

// V is one number, or a vector of them for as many pixels.
template <class V, int Channels>
struct Term {
  V loss;
  V gradient[Channels];  // by each of the class's channels

  // 0 where it is not active. Chosen, not multiplied by 0: what is inactive may be NaN.
  template <class Mask>
  LABELDROP_INLINE void keep(Mask active) {
    const V zero{};
    loss = active ? loss : zero;
    for (V& g : gradient) g = active ? g : zero;
  }
};

// Adds up a pixel's losses, and merges those of several. A formula may have a sum of its own, which has to be flushed
// after kMostTerms.
template <class V>
class WeightedSum {
 public:
  static constexpr bool kWeighted = true;
  static constexpr int kMostTerms = INT32_MAX;

  template <class Term>
  LABELDROP_INLINE void add(const Term& term, V weight) {
    loss_ += weight * term.loss;
  }
  LABELDROP_INLINE void flush() {}
  LABELDROP_INLINE void merge(const WeightedSum& other) { loss_ += other.loss_; }
  LABELDROP_INLINE V loss() const { return loss_; }

 private:
  V loss_{};
};

}  // namespace labeldrop
