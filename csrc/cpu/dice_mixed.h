// A vector of pixels that read rows of their own: the probabilities of dice_sums by masks, one class after the other.
// It also is the way of logits that are not finite, and of predictions that are sums of squares. Included by files that
// are compiled once per instruction set.
#pragma once

#include "dice_tiles.h"

namespace labeldrop {
namespace {

// What a class is to the pixels of a vector, as what vector selection takes.
template <class Bits>
struct ClassBits {
  LABELDROP_INLINE auto operator[](DiceTable table) const { return (words[table] & bit) != 0; }
  LABELDROP_INLINE auto is_active() const { return ((words[kActive] | words[kCandidates]) & bit) != 0; }

  const Bits (&words)[4];
  int32_t bit;
};

// A vector of pixels: its exponentials e_k, and what probabilities and the cross-entropy's gradient are made with.
template <DiceMode kMode, class Real>
class MixedPixels {
 public:
  using V = typename Lanes<Real>::V;
  using Bits = typename Lanes<Real>::Bits;

  // Leaves exponentials in place of the logits; 0 for inactive classes.
  LABELDROP_INLINE MixedPixels(const DiceSumsArguments& a, const DiceTile<Real>& t, const DiceRows& rows, int i)
      : a_(a), t_(t), rows_(rows), i_(i), row_(load_lanes<Bits>(t.row + i)) {
    if constexpr (kMode == DiceMode::softmax) {
      softmax();
    } else if constexpr (kMode == DiceMode::softmax_and_cross_entropy) {
      softmax_and_cross_entropy();
    } else {
      for_classes(0, [&](int64_t k, auto bits) __attribute__((always_inline)) {
        const V p = sigmoid(exponential(k));
        store_lanes(value(k), bits.is_active() ? p : zero);
      });
    }
  }

  // One step over the classes from `begin` on: step(k, bits).
  template <class Step>
  LABELDROP_INLINE void for_classes(int64_t begin, Step step) const {
    for (int64_t w = begin / 32; w < rows_.words; ++w) {
      const int64_t end = a_.channels < 32 * (w + 1) ? a_.channels : 32 * (w + 1);
      for_classes_of_word(w, begin < 32 * w ? 32 * w : begin, end, step);
    }
  }
  // The same for one class.
  template <class Step>
  LABELDROP_INLINE void for_class(int64_t k, Step step) const {
    for_classes_of_word(k / 32, k, k + 1, step);
  }

  LABELDROP_INLINE V exponential(int64_t k) const { return load_lanes<V>(value(k)); }

  template <class ClassBits>
  LABELDROP_INLINE V probability(int64_t k, ClassBits bits) const {
    const V e = exponential(k);
    if constexpr (kMode == DiceMode::softmax_and_cross_entropy) {
      return e * (bits[kCandidates] ? candidate_share : share);
    } else if constexpr (kMode == DiceMode::softmax) {
      return e * share;
    } else {
      return e;
    }
  }

  // Probability of class 0 and those merged into it.
  LABELDROP_INLINE V background() const {
    V sum{};
    const auto add = [&](int64_t k, auto bits) __attribute__((always_inline)) { sum += probability(k, bits); };
    for_class(0, add);
    for (int m = 0; m < rows_.merged_count; ++m) for_class(rows_.merged[m], add);
    return sum;
  }

  V share, candidate_share;  // p_k = share * e_k, candidate_share * e_k for a candidate if there are these
  V loss;                    // cross-entropy; its gradient is slope * e_k, candidate_slope * e_k for a candidate
  V slope, candidate_slope;

 private:
  LABELDROP_INLINE Real* value(int64_t k) const { return t_.values + k * t_.pitch + i_; }

  template <class Step>
  LABELDROP_INLINE void for_classes_of_word(int64_t w, int64_t begin, int64_t end, Step step) const {
    Bits words[4];
    rows_.look_up_words(w, row_, words);
    int32_t bit = static_cast<int32_t>(1u << (begin % 32));
    for (int64_t k = begin; k < end; ++k) {
      step(k, ClassBits<Bits>{words, bit});
      bit = static_cast<int32_t>(static_cast<uint32_t>(bit) << 1);
    }
  }

  LABELDROP_INLINE void softmax() {
    V max = lowest;
    for_classes(0, [&](int64_t k, auto bits)
                       __attribute__((always_inline)) { max = larger(bits[kActive] ? exponential(k) : lowest, max); });
    V sum{};
    for_classes(0, [&](int64_t k, auto bits) __attribute__((always_inline)) {
      const V e = exp_nonpositive(exponential(k) - max);
      const V active = bits[kActive] ? e : zero;
      store_lanes(value(k), active);
      sum += active;
    });
    Bits any{};
    for (int64_t w = 0; w < rows_.words; ++w) {
      Bits words[4];
      rows_.look_up_words(w, row_, words);
      any |= words[kActive];
    }
    share = softmax_share(sum, any != 0);
  }

  // As set_cross_entropy: exponentials relative to the largest logit of each part, candidates and others.
  LABELDROP_INLINE void softmax_and_cross_entropy() {
    V max_candidate = lowest, max_other = lowest;
    for_classes(0, [&](int64_t k, auto bits) __attribute__((always_inline)) {
      const V z = finite_from_below(exponential(k));
      max_candidate = larger(bits[kCandidates] ? z : lowest, max_candidate);
      max_other = larger(bits[kActive] ? z : lowest, max_other);
    });
    V sum_candidate{}, sum_other{};
    for_classes(0, [&](int64_t k, auto bits) __attribute__((always_inline)) {
      const V z = finite_from_below(exponential(k));
      const V e = exp_nonpositive(z - (bits[kCandidates] ? max_candidate : max_other));
      const V candidate = bits[kCandidates] ? e : zero;
      const V other = bits[kActive] ? e : zero;
      store_lanes(value(k), candidate + other);  // one of them, or 0
      sum_candidate += candidate;
      sum_other += other;
    });
    const auto pixel = set_cross_entropy_pixel(max_candidate, sum_candidate, max_other, sum_other);
    const auto counted = row_ != static_cast<int32_t>(a_.labels);
    // without candidates and others these are NaN, and it does not count
    share = counted ? pixel.other_scale : zero;
    candidate_share = counted ? pixel.candidate_share : zero;
    loss = counted ? pixel.loss : zero;
    slope = pixel.other_scale;
    candidate_slope = pixel.candidate_scale;
  }

  static constexpr V zero = V{};
  static constexpr V lowest = V{} - infinity<Real>();
  const DiceSumsArguments& a_;
  const DiceTile<Real>& t_;
  const DiceRows& rows_;
  const int i_;
  const Bits row_;
};

}  // namespace
}  // namespace labeldrop
