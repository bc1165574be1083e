// What both passes of dice_sums share of more classes than a thread holds, and of doubles: a block takes a tile of
// pixels through shared memory, see lane_tiles.cuh. Any number of classes, layout and element type goes the same way.
#pragma once

#include "../arguments.h"
#include "../math/dice_sums.h"
#include "dice_registers.cuh"
#include "lane_tiles.cuh"

namespace labeldrop::cuda {

enum class DiceMode { softmax, softmax_and_cross_entropy, sigmoid };

// A pixel as this lane sees it.
template <class Real>
struct DiceLane {
  const uint32_t* tables;  // [T, W]: the pixel's row
  const uint32_t* merged;  // [W]
  int32_t row;             // or kSkipped, kInvalid
  int classes, words, lanes;
  Real* z;  // [K]: the pixel's row of the tile
  Real weight;

  __device__ __forceinline__ bool counts() const { return row != kSkipped; }
};

// The pixel of this thread; beyond the tile's end it counts for nothing.
template <class Real>
__device__ __forceinline__ DiceLane<Real> load_lane(const DiceSumsArguments& a, const LaneTiles& tiles, int64_t sample,
                                                    int64_t first, int count, Real* tile) {
  const int p = static_cast<int>(threadIdx.x) / tiles.lanes;
  int32_t rows[1] = {kSkipped};
  Real weight = 1;
  if (p < count) {
    load_rows(a, sample * a.pixels + first + p, rows);
    if (a.pixel_weight != nullptr) {
      weight = static_cast<const Real*>(a.pixel_weight)[sample * a.pixels + first + p];
      if (rows[0] != kInvalid && weight == 0) rows[0] = kSkipped;
      if (rows[0] == kSkipped) weight = 0;
    }
  }
  const int words = static_cast<int>((a.channels + 31) / 32), tables = a.with_cross_entropy ? 4 : 3;
  const int64_t offset = (sample * a.labels + (rows[0] < 0 ? 0 : rows[0])) * tables * words;
  return {a.tables + offset, a.merged + sample * words, rows[0], static_cast<int>(a.channels), words,
          tiles.lanes,       tile + p * tiles.pitch,    weight};
}

// One class of a pixel. Active are candidates and others; without cross-entropy all are others.
struct DiceClass {
  bool candidate, other, counted, positive, merged;
  __device__ __forceinline__ bool active() const { return candidate || other; }
};

// step(k, class) for this lane's share of the classes. Every class of an invalid pixel is all of it, so that the
// pixel's NaN goes everywhere.
template <DiceMode kMode, class Real, class Step>
__device__ __forceinline__ void for_share(const DiceLane<Real>& pixel, Step step) {
  const int lane = static_cast<int>(threadIdx.x) % pixel.lanes;
  const uint32_t all = pixel.row == kInvalid ? ~0u : 0u, none = pixel.counts() ? ~0u : 0u;
  const auto word = [&](DiceTable table, int w) {
    return (__ldg(pixel.tables + table * pixel.words + w) & none) | all;
  };
  for (int w = 0; w < pixel.words; ++w) {
    const uint32_t active = word(kActive, w), counted = word(kCounted, w), positive = word(kPositive, w);
    const uint32_t candidates = kMode == DiceMode::softmax_and_cross_entropy ? word(kCandidates, w) : 0;
    const uint32_t others = active & ~candidates, merged = __ldg(pixel.merged + w);
    const int end = pixel.classes - w * 32 < 32 ? pixel.classes - w * 32 : 32;
    for (int k = lane; k < end; k += pixel.lanes) {
      step(w * 32 + k, DiceClass{has_bit(candidates, k), has_bit(others, k), has_bit(counted, k), has_bit(positive, k),
                                 has_bit(merged, k)});
    }
  }
}

// What turns the numbers e_k that are left in the tile into probabilities, and more. NaN for an invalid pixel.
template <class Real>
struct DiceScales {
  Real share, candidate_share;  // p_k = share * e_k, candidate_share * e_k for a candidate
  Real loss;                    // cross-entropy; its gradient is slope * e_k, candidate_slope * e_k for a candidate
  Real slope, candidate_slope;

  __device__ __forceinline__ Real probability(Real e, const DiceClass& c) const {
    return e * (c.candidate ? candidate_share : share);
  }
};

template <class Real>
__device__ __forceinline__ DiceScales<Real> softmax_scales(const DiceLane<Real>& pixel) {
  Real max = -infinity<Real>(), sum = 0;
  Real any = 0;
  for_share<DiceMode::softmax>(pixel, [&](int k, const DiceClass& c) {
    if (!c.other) return;
    any = 1;
    max = pixel.z[k] > max ? pixel.z[k] : max;
  });
  any = joined_max(any, pixel.lanes);
  max = finite_from_below(joined_max(max, pixel.lanes));
  for_share<DiceMode::softmax>(pixel, [&](int k, const DiceClass& c) {
    const Real e = c.other ? exp_nonpositive(pixel.z[k] - max) : Real(0);
    pixel.z[k] = e;
    sum += e;
  });
  const Real share = softmax_share(joined_sum(sum, pixel.lanes), any > 0);
  return {share, share, 0, 0, 0};
}

// As set_cross_entropy: exponentials relative to the largest logit of each part, candidates and others.
template <class Real>
__device__ __forceinline__ DiceScales<Real> compound_scales(const DiceLane<Real>& pixel) {
  constexpr DiceMode kMode = DiceMode::softmax_and_cross_entropy;
  Real max_candidate = -infinity<Real>(), max_other = max_candidate, sum_candidate = 0, sum_other = 0;
  for_share<kMode>(pixel, [&](int k, const DiceClass& c) {
    const Real z = finite_from_below(pixel.z[k]);
    if (c.candidate) max_candidate = z > max_candidate ? z : max_candidate;
    if (c.other) max_other = z > max_other ? z : max_other;
  });
  max_candidate = joined_max(max_candidate, pixel.lanes);
  max_other = joined_max(max_other, pixel.lanes);
  for_share<kMode>(pixel, [&](int k, const DiceClass& c) {
    const Real z = finite_from_below(pixel.z[k]);
    const Real e = c.active() ? exp_nonpositive(z - (c.candidate ? max_candidate : max_other)) : Real(0);
    pixel.z[k] = e;
    if (c.candidate) sum_candidate += e;
    if (c.other) sum_other += e;
  });
  sum_candidate = joined_sum(sum_candidate, pixel.lanes);
  sum_other = joined_sum(sum_other, pixel.lanes);
  if (!pixel.counts()) return {0, 0, 0, 0, 0};
  const auto p = set_cross_entropy_pixel(max_candidate, sum_candidate, max_other, sum_other);
  return {p.other_scale, p.candidate_share, p.loss, p.other_scale, p.candidate_scale};
}

// Leaves e_k in the tile.
template <DiceMode kMode, class Real>
__device__ __forceinline__ DiceScales<Real> dice_scales(const DiceLane<Real>& pixel) {
  DiceScales<Real> scales{1, 1, 0, 0, 0};
  if constexpr (kMode == DiceMode::softmax) {
    scales = softmax_scales(pixel);
  } else if constexpr (kMode == DiceMode::softmax_and_cross_entropy) {
    scales = compound_scales(pixel);
  } else {
    for_share<kMode>(pixel, [&](int k, const DiceClass& c) { pixel.z[k] = c.other ? sigmoid(pixel.z[k]) : Real(0); });
  }
  if (pixel.row == kInvalid) {
    const Real nan = infinity<Real>() - infinity<Real>();
    scales = {nan, nan, kMode == DiceMode::softmax_and_cross_entropy ? nan : Real(0), nan, nan};
  }
  return scales;
}

// Probability of class 0 and those merged into it; for all lanes of the pixel.
template <DiceMode kMode, class Real>
__device__ __forceinline__ Real background(const DiceLane<Real>& pixel, const DiceScales<Real>& scales) {
  Real sum = 0;
  for_share<kMode>(pixel, [&](int k, const DiceClass& c) {
    if (k == 0 || c.merged) sum += scales.probability(pixel.z[k], c);
  });
  return joined_sum(sum, pixel.lanes);
}

// Calls f with the mode and the logits' type as values to take the types of.
template <DiceMode kMode>
struct ModeConstant {
  static constexpr DiceMode mode = kMode;
};
template <class Storage>
struct StorageType {
  using type = Storage;
};

template <class Mode, class Function>
void with_dice_storage(const DiceSumsArguments& a, Mode mode, Function f) {
  switch (a.logits_type) {
    case Float::f32: return f(mode, StorageType<float>());
    case Float::bf16: return f(mode, StorageType<BFloat16>());
    case Float::f16: return f(mode, StorageType<Float16>());
    case Float::f64: return f(mode, StorageType<double>());
  }
}

template <class Function>
void with_dice_types(const DiceSumsArguments& a, Function f) {
  if (a.sigmoid) return with_dice_storage(a, ModeConstant<DiceMode::sigmoid>(), f);
  if (a.with_cross_entropy) return with_dice_storage(a, ModeConstant<DiceMode::softmax_and_cross_entropy>(), f);
  return with_dice_storage(a, ModeConstant<DiceMode::softmax>(), f);
}

}  // namespace labeldrop::cuda
