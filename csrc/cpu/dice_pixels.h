// What the two passes of dice_sums share on the CPU: labels to bit masks, and the probabilities of a vector of pixels.
// Included by files that are compiled once per instruction set.
#pragma once

#include "../arguments.h"
#include "../math/dice_sums.h"
#include "pixel_blocks.h"

namespace labeldrop {
namespace {

enum class DiceMode { softmax, softmax_and_cross_entropy, sigmoid };

constexpr int tables_of(DiceMode mode) { return mode == DiceMode::softmax_and_cross_entropy ? 4 : 3; }

// What one thread works in. Rows are `pitch` elements, one per pixel of the block.
template <class Real>
class DiceScratch {
 public:
  DiceScratch(const DiceSumsArguments& a, int64_t block)
      : pitch(block + kPadding),
        words((a.channels + 31) / 32),
        values_((a.channels + 1) * pitch),
        bits_((a.with_cross_entropy ? 4 : 3) * words * pitch),
        labels_(2 * pitch),
        merged_(a.channels),
        values(values_.get()),
        weight(values + a.channels * pitch),
        bits(bits_.get()),
        row(labels_.get()),
        counted(labels_.get() + pitch),
        merged(merged_.get()) {
    for (int64_t i = 0; values != nullptr && i < pitch; ++i) weight[i] = 1;
  }

  bool allocated() const { return values && bits && row && merged; }

  const int64_t pitch, words;

 private:
  Buffer<Real> values_;
  Buffer<int32_t> bits_, labels_, merged_;

 public:
  Real* const values;   // [K, pitch]: logits on their way in, gradient on its way out; between them exponentials
  Real* const weight;   // [pitch]: of the pixel; 1 without weights, 0 with some where the pixel does not count
  int32_t* const bits;  // [T, W, pitch]; kActive holds the active classes that are no candidates, if there are these
  int32_t *const row, *const counted;  // [pitch]: the pixel's label; 1 where the pixel counts
  int32_t* const merged;               // [merged_count]: the sample's merged classes
  int merged_count = 0;
};

// The bits of a block's pixels; a pixel that does not count has none. So have the pixels past the block's end that its
// last vector touches.
template <class Real>
void look_up_tables(const DiceSumsArguments& a, const DiceScratch<Real>& s, const Block& block) {
  const int tables = a.with_cross_entropy ? 4 : 3;
  const int end = block.count + Lanes<Real>::count - 1;
  const int32_t stride = static_cast<int32_t>(tables * s.words);
  for (int i = block.count; i < end; ++i) s.row[i] = s.counted[i] = 0;
  for (int t = 0; t < tables; ++t) {
    for (int64_t w = 0; w < s.words; ++w) {
      const uint32_t* __restrict table = a.tables + block.sample * a.labels * stride + t * s.words + w;
      int32_t* __restrict bits = s.bits + (t * s.words + w) * s.pitch;
      const int32_t* __restrict row = s.row;
      const int32_t* __restrict counted = s.counted;
#pragma omp simd
      for (int i = 0; i < end; ++i) bits[i] = static_cast<int32_t>(table[row[i] * stride]) & -counted[i];
    }
  }
  if (!a.with_cross_entropy) return;
  for (int64_t w = 0; w < s.words; ++w) {
    int32_t* __restrict active = s.bits + (kActive * s.words + w) * s.pitch;
    const int32_t* __restrict candidates = s.bits + (kCandidates * s.words + w) * s.pitch;
#pragma omp simd
    for (int i = 0; i < end; ++i) active[i] &= ~candidates[i];
  }
}

// The pixels' weights. One of weight 0 does not count.
template <class Real>
void load_dice_weights(const DiceSumsArguments& a, const DiceScratch<Real>& s, const Block& block) {
  if (a.pixel_weight == nullptr) return;  // they stay 1
  const Real* __restrict from = static_cast<const Real*>(a.pixel_weight) + block.pixel;
  Real* __restrict weight = s.weight;
  int32_t* __restrict counted = s.counted;
#pragma omp simd
  for (int i = 0; i < block.count; ++i) {
    counted[i] &= from[i] != Real(0);
    weight[i] = counted[i] ? from[i] : Real(0);
  }
  for (int i = block.count; i < block.count + Lanes<Real>::count - 1; ++i) weight[i] = 0;
}

// Labels to bit masks, and the sample's merged classes to a list. Returns the first invalid pixel or -1.
template <class Real>
int64_t load_dice_masks(const DiceSumsArguments& a, DiceScratch<Real>& s, const Block& block) {
  bool valid = true;
  const int64_t invalid = with_integers(a.target, a.target_type, [&](auto* target) -> int64_t {
    target += block.pixel;
    load_labels(s.row, s.counted, target, block.count, a.labels, a.ignore_index, valid);
    return valid ? -1 : first_invalid(target, block.count, a.labels, a.ignore_index);
  });
  load_dice_weights(a, s, block);
  look_up_tables(a, s, block);
  s.merged_count = 0;
  for (int64_t k = 0; k < a.channels; ++k) {
    const uint32_t word = a.merged[block.sample * s.words + k / 32];
    if (word >> (k % 32) & 1u) s.merged[s.merged_count++] = static_cast<int32_t>(k);
  }
  return invalid;
}

// A class's bit in its word. From memory, so that filling a vector with it costs no arithmetic.
alignas(64) constexpr int32_t kClassBit[32] = {
    1 << 0,  1 << 1,  1 << 2,  1 << 3,  1 << 4,  1 << 5,  1 << 6,  1 << 7,  1 << 8,  1 << 9,    1 << 10,
    1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20,   1 << 21,
    1 << 22, 1 << 23, 1 << 24, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30, INT32_MIN,
};

// The bits of one class for a vector of pixels, as what vector selection takes.
template <class Real, DiceMode kMode>
struct ClassBits {
  using Bits = typename Lanes<Real>::Bits;

  LABELDROP_INLINE auto operator[](DiceTable table) const { return (words[table] & bit) != 0; }
  LABELDROP_INLINE auto is_active() const {
    if constexpr (kMode == DiceMode::softmax_and_cross_entropy) {
      return ((words[kActive] | words[kCandidates]) & bit) != 0;
    } else {
      return (*this)[kActive];
    }
  }

  const Bits (&words)[tables_of(kMode)];
  Bits bit;
};

// One step of a vector of pixels over the classes from `begin` to `end`: step(k, bits).
template <DiceMode kMode, class Real, class Step>
LABELDROP_INLINE void for_classes(const DiceScratch<Real>& s, int64_t begin, int64_t end, int pixel, Step step) {
  using Bits = typename Lanes<Real>::Bits;
  for (int64_t w = begin / 32; 32 * w < end; ++w) {
    Bits words[tables_of(kMode)];
    for (int t = 0; t < tables_of(kMode); ++t) {
      words[t] = load_lanes<Bits>(s.bits + (t * s.words + w) * s.pitch + pixel);
    }
    const int64_t last = end < 32 * (w + 1) ? end : 32 * (w + 1);
    for (int64_t k = begin < 32 * w ? 32 * w : begin; k < last; ++k) {
      step(k, ClassBits<Real, kMode>{words, Bits{} + kClassBit[k - 32 * w]});
    }
  }
}

// A vector of pixels, whose exponentials e_k are in scratch.
template <class V>
struct DicePixels {
  V share, candidate_share;  // p_k = share * e_k, candidate_share * e_k for a candidate if there are these
  V loss;                    // cross-entropy; its gradient is slope * e_k, candidate_slope * e_k for a candidate
  V slope, candidate_slope;
};

template <DiceMode kMode, class Real, class V, class Bits>
LABELDROP_INLINE V probability(const DiceScratch<Real>& s, const DicePixels<V>& pixels, int64_t k, int i, Bits bits) {
  const V e = load_lanes<V>(s.values + k * s.pitch + i);
  if constexpr (kMode == DiceMode::softmax_and_cross_entropy) {
    return e * (bits[kCandidates] ? pixels.candidate_share : pixels.share);
  } else if constexpr (kMode == DiceMode::softmax) {
    return e * pixels.share;
  } else {
    return e;
  }
}

// Probability of class 0 and those merged into it. It looks up bits only where they make a difference.
template <DiceMode kMode, class Real, class V>
LABELDROP_INLINE V background(const DiceScratch<Real>& s, const DicePixels<V>& pixels, int i) {
  using Bits = typename Lanes<Real>::Bits;
  V candidates{}, others{};
  const auto add = [&](int64_t k) __attribute__((always_inline)) {
    const V e = load_lanes<V>(s.values + k * s.pitch + i), zero{};
    if constexpr (kMode == DiceMode::softmax_and_cross_entropy) {
      const Bits word = load_lanes<Bits>(s.bits + (kCandidates * s.words + (k >> 5)) * s.pitch + i);
      const auto is_candidate = (word & kClassBit[k & 31]) != 0;
      candidates += is_candidate ? e : zero;
      others += is_candidate ? zero : e;
    } else {
      others += e;
    }
  };
  add(0);
  for (int m = 0; m < s.merged_count; ++m) add(s.merged[m]);
  if constexpr (kMode == DiceMode::sigmoid) return others;
  return pixels.candidate_share * candidates + pixels.share * others;
}

template <class Real>
LABELDROP_INLINE DicePixels<typename Lanes<Real>::V> softmax_pixels(const DiceScratch<Real>& s, Rows<const Real> logits,
                                                                    int64_t classes, int i) {
  using V = typename Lanes<Real>::V;
  using Bits = typename Lanes<Real>::Bits;
  constexpr DiceMode kMode = DiceMode::softmax;
  const V zero{}, lowest = zero - infinity<Real>();
  V max = lowest;
  for_classes<kMode>(s, 0, classes, i, [&](int64_t k, auto bits) __attribute__((always_inline)) {
    const V z = load_lanes<V>(logits.start + k * logits.pitch + i);
    const V active = bits[kActive] ? z : lowest;
    max = active > max ? active : max;
  });
  max = finite_from_below(max);
  V sum = zero;
  for_classes<kMode>(s, 0, classes, i, [&](int64_t k, auto bits) __attribute__((always_inline)) {
    const V e = exp_nonpositive(load_lanes<V>(logits.start + k * logits.pitch + i) - max);
    const V active = bits[kActive] ? e : zero;
    store_lanes(s.values + k * s.pitch + i, active);
    sum += active;
  });
  Bits any{};
  for (int64_t w = 0; w < s.words; ++w) any |= load_lanes<Bits>(s.bits + (kActive * s.words + w) * s.pitch + i);
  const V share = softmax_share(sum, any != 0);
  return {share, share, zero, zero, zero};
}

// As set_cross_entropy: exponentials relative to the largest logit of each part, candidates and others.
template <class Real>
LABELDROP_INLINE DicePixels<typename Lanes<Real>::V> compound_pixels(const DiceScratch<Real>& s,
                                                                     Rows<const Real> logits, int64_t classes, int i) {
  using V = typename Lanes<Real>::V;
  using Bits = typename Lanes<Real>::Bits;
  constexpr DiceMode kMode = DiceMode::softmax_and_cross_entropy;
  const V zero{}, lowest = zero - infinity<Real>();
  V max_candidate = lowest, max_other = lowest;
  for_classes<kMode>(s, 0, classes, i, [&](int64_t k, auto bits) __attribute__((always_inline)) {
    const V z = finite_from_below(load_lanes<V>(logits.start + k * logits.pitch + i));
    const V candidate = bits[kCandidates] ? z : lowest;
    const V other = bits[kActive] ? z : lowest;
    max_candidate = candidate > max_candidate ? candidate : max_candidate;
    max_other = other > max_other ? other : max_other;
  });
  V sum_candidate = zero, sum_other = zero;
  for_classes<kMode>(s, 0, classes, i, [&](int64_t k, auto bits) __attribute__((always_inline)) {
    const V z = finite_from_below(load_lanes<V>(logits.start + k * logits.pitch + i));
    const V e = exp_nonpositive(z - (bits[kCandidates] ? max_candidate : max_other));
    const V candidate = bits[kCandidates] ? e : zero;
    const V other = bits[kActive] ? e : zero;
    store_lanes(s.values + k * s.pitch + i, candidate + other);  // one of them, or 0
    sum_candidate += candidate;
    sum_other += other;
  });
  const auto pixel = set_cross_entropy_pixel(max_candidate, sum_candidate, max_other, sum_other);
  const auto counted = load_lanes<Bits>(s.counted + i) != 0;
  // without candidates and others these are NaN, and it does not count
  return {counted ? pixel.other_scale : zero, counted ? pixel.candidate_share : zero, counted ? pixel.loss : zero,
          pixel.other_scale, pixel.candidate_scale};
}

// Leaves in scratch what `probability` makes the pixels' probabilities of.
template <DiceMode kMode, class Real>
LABELDROP_INLINE DicePixels<typename Lanes<Real>::V> dice_pixels(const DiceScratch<Real>& s, Rows<const Real> logits,
                                                                 int64_t classes, int i) {
  using V = typename Lanes<Real>::V;
  if constexpr (kMode == DiceMode::softmax) {
    return softmax_pixels(s, logits, classes, i);
  } else if constexpr (kMode == DiceMode::softmax_and_cross_entropy) {
    return compound_pixels(s, logits, classes, i);
  } else {
    const V zero{};
    for_classes<kMode>(s, 0, classes, i, [&](int64_t k, auto bits) __attribute__((always_inline)) {
      const V p = sigmoid(load_lanes<V>(logits.start + k * logits.pitch + i));
      store_lanes(s.values + k * s.pitch + i, bits[kActive] ? p : zero);
    });
    return {zero, zero, zero, zero, zero};
  }
}

// Calls f(mode, real, storage): the mode as an integral_constant, the logits' types as in with_floats.
template <class Function>
int64_t with_dice_types(const DiceSumsArguments& a, Function f) {
  return with_floats(a.logits_type, [&](auto real, auto storage) {
    if (a.sigmoid) return f(std::integral_constant<DiceMode, DiceMode::sigmoid>(), real, storage);
    if (a.with_cross_entropy) {
      return f(std::integral_constant<DiceMode, DiceMode::softmax_and_cross_entropy>(), real, storage);
    }
    return f(std::integral_constant<DiceMode, DiceMode::softmax>(), real, storage);
  });
}

}  // namespace
}  // namespace labeldrop
