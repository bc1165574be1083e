// Set cross-entropy on the CPU; compiled once per instruction set (LABELDROP_ISA). Three passes over a tile, each with
// independent work in flight: exponentials and their sums; loss and factors of each pixel; the gradient.
//
// Each pixel's classes are chosen by masks, whether its neighbours read the same row of the tables or not: that costs
// less than the branches that would tell them apart. One reference serves all classes of a pixel, the largest logit.
// Pixels whose candidates vanish beside it are rare, and are computed again with the formula's own references.
#include "../math/set_cross_entropy.h"

#include <type_traits>

#include "pixel_tiles.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

// The least sum of the candidates' exponentials, relative to the largest logit, for each class there is: what is
// computed from it is a normal number, also where all sums are as small because the largest logit is that of an
// inactive class, and so is the product of two pixels' odds, which are below 1 / kLeastSum.
constexpr float kLeastSum = 1.5e-19f;

// Classes: their number, or a constant.
template <class Real, class Classes>
class TileLoss {
 public:
  using V = typename Lanes<Real>::V;
  using Bits = typename Lanes<Real>::Bits;
  // Vectors side by side: they share what a step of a loop costs beside its work, which an unrolled one has none of.
  static constexpr int kLanes = Lanes<Real>::count, n = kUnitVectors<Real> > 1 && std::is_integral_v<Classes> ? 2 : 1;

  LABELDROP_INLINE TileLoss(const CpuPixelLossArguments& a, Classes classes, const Tile<Real>& t,
                            const RowTables& tables)
      : a_(a), classes_(classes), t_(t), tables_(tables) {}

  // Instead of logits: exponentials of the active classes, those of candidates negative; 0 for inactive classes. False
  // if there are pixels for `vanishing_candidates`.
  LABELDROP_INLINE bool exponentials(const Fetch& fetch, int count) const {
    const V zero{};
    Bits fine = Bits{} - 1;
    for (int i = 0; i < count; i += n * kLanes) {
      if (i % kUnit<Real> == 0) fetch(i, kUnit<Real>);
      V max[n], sum_candidate[n] = {}, sum_other[n] = {};
      for (V& m : max) m = zero - infinity<Real>();
      const Real* value = t_.values + i;
      for (int64_t k = 0; k < classes_; ++k, value += t_.pitch) {
        for (int j = 0; j < n; ++j) max[j] = larger(load_lanes<V>(value + j * kLanes), max[j]);
      }
      for_each_class_of<n>(t_, tables_, classes_, i,
                           [&](int64_t, int j, Real* value, auto is_candidate, auto is_other)
                               __attribute__((always_inline)) {
                                 const V e = exp_nonpositive(load_lanes<V>(value) - max[j]);
                                 const V candidate = is_candidate ? e : zero, other = is_other ? e : zero;
                                 sum_candidate[j] += candidate;
                                 sum_other[j] += other;
                                 store_lanes(value, other - candidate);
                               });
      for (int j = 0; j < n; ++j) {
        const int at = i + j * kLanes;
        const auto counted = load_lanes<Bits>(t_.row + at) != static_cast<int32_t>(a_.labels);
        sum_candidate[j] = counted ? sum_candidate[j] : zero + 1;
        fine &= suffice(sum_candidate[j]);
        store_lanes(t_.sum_candidate + at, sum_candidate[j]);
        store_lanes(t_.sum_other + at, sum_other[j]);
      }
    }
    return no_bits(~fine);
  }

  // The same for pixels whose candidates' sum is too small, or no number; and to `loss` what the references leave of
  // it.
  __attribute__((noinline)) void vanishing_candidates(const Block& block, int count) const {
    for (int i = 0; i < count; i += kLanes) {
      store_lanes(t_.loss + i, V{});
      if (no_bits(~suffice(load_lanes<V>(t_.sum_candidate + i)))) continue;
      read_again(a_, block, i, kLanes, t_.extra);
      own_references(i);
    }
  }

  // Loss, and what the exponentials of candidates and others are multiplied by in the gradient. False if that is no
  // number somewhere. Where nothing asks for each pixel's loss, one logarithm serves two vectors, and is the first's.
  LABELDROP_INLINE bool pixels(int count, bool has_excess) const {
    V not_finite{};
    const auto scale = [&](int i) __attribute__((always_inline)) {
      const auto pixel = set_cross_entropy_scales(load_lanes<V>(t_.sum_candidate + i), load_lanes<V>(t_.sum_other + i));
      const V factor = load_lanes<V>(t_.factor + i);
      const V candidate = factor * pixel.candidate_scale, other = factor * pixel.other_scale;
      not_finite += (candidate - candidate) + (other - other);
      store_lanes(t_.sum_candidate + i, candidate);
      store_lanes(t_.sum_other + i, other);
      return pixel;
    };
    const bool in_pairs = !has_excess && !a_.loss && !t_.weighted;
    int i = 0;
    for (; in_pairs && i + 2 * kLanes <= count; i += 2 * kLanes) {
      const V odds = joint_odds(scale(i).odds, scale(i + kLanes).odds);
      store_lanes(t_.loss + i, log1p_nonnegative(odds));
      store_lanes(t_.loss + i + kLanes, V{});
    }
    for (; i < count; i += kLanes) {
      const V loss = scale(i).loss;
      store_lanes(t_.loss + i, has_excess ? load_lanes<V>(t_.loss + i) + loss : loss);
    }
    return all_at_most(not_finite, Real(0));
  }

  LABELDROP_INLINE void gradients(int count) const {
    for (int i = 0; i < count; i += n * kLanes) {
      V candidate[n], other[n];
      for (int j = 0; j < n; ++j) {
        candidate[j] = load_lanes<V>(t_.sum_candidate + i + j * kLanes);
        other[j] = load_lanes<V>(t_.sum_other + i + j * kLanes);
      }
      Real* value = t_.values + i;
      for (int64_t k = 0; k < classes_; ++k, value += t_.pitch) {
        for (int j = 0; j < n; ++j) {
          const V e = load_lanes<V>(value + j * kLanes);
          store_lanes(value + j * kLanes, e * choose_by_sign(e, candidate[j], other[j]));
        }
      }
    }
  }

  // What is inactive stays 0 beside what is not finite, which 0 cannot be multiplied by.
  __attribute__((noinline)) void gradients_of_no_numbers(int count) const {
    const V zero{};
    for (int i = 0; i < count; i += kLanes) {
      const V candidate = load_lanes<V>(t_.sum_candidate + i), other = load_lanes<V>(t_.sum_other + i);
      for_each_class(t_, tables_, classes_, i,
                     [&](int64_t, Real* value, auto is_candidate, auto is_other) __attribute__((always_inline)) {
                       const V e = load_lanes<V>(value);
                       const V of_others = is_other ? e * other : zero;
                       store_lanes(value, is_candidate ? e * candidate : of_others);
                     });
    }
  }

 private:
  LABELDROP_INLINE Bits suffice(V sum_candidate) const {
    return sum_candidate >= Real(kLeastSum) * static_cast<Real>(classes_) ? Bits{} - 1 : Bits{};
  }

  // Of one vector, whose logits are in `extra`. Each of its pixels that need none is left as it is.
  void own_references(int i) const {
    const V zero{}, lowest = zero - infinity<Real>();
    const auto vanishing = suffice(load_lanes<V>(t_.sum_candidate + i)) == 0;
    V max_candidate = lowest, max_other = lowest;
    for_each_class(t_, tables_, classes_, i,
                   [&](int64_t k, const Real*, auto is_candidate, auto is_other) __attribute__((always_inline)) {
                     const V z = load_lanes<V>(t_.extra + k * kLanes);
                     const V candidate = is_candidate ? z : lowest, other = is_other ? z : lowest;
                     max_candidate = larger(candidate, max_candidate);
                     max_other = larger(other, max_other);
                   });
    const V excess = larger(max_other - Real(kGap), max_candidate) - max_candidate;
    // NaN where everything is -inf: nothing has a probability
    max_candidate = excess == excess ? finite_from_below(max_candidate) : excess;
    max_other = finite_from_below(max_other);
    // added to the others after their largest one is subtracted, which may be too large for it to make a difference
    const V gap = smaller(V{} + Real(kGap), max_other - max_candidate);
    V sum_candidate{}, sum_other{};
    for_each_class(t_, tables_, classes_, i,
                   [&](int64_t k, Real* value, auto is_candidate, auto is_other) __attribute__((always_inline)) {
                     const V z = finite_from_below(load_lanes<V>(t_.extra + k * kLanes));
                     const V exponent = is_candidate ? z - max_candidate : (z - max_other) + gap;
                     const V e = exp_nonpositive(exponent);
                     const V candidate = is_candidate ? e : zero, other = is_other ? e : zero;
                     sum_candidate += candidate;
                     sum_other += other;
                     const V signed_e = other - candidate;
                     store_lanes(value, vanishing ? signed_e : load_lanes<V>(value));
                   });
    store_lanes(t_.loss + i, vanishing ? excess : zero);
    store_lanes(t_.sum_candidate + i, vanishing ? sum_candidate : load_lanes<V>(t_.sum_candidate + i));
    store_lanes(t_.sum_other + i, vanishing ? sum_other : load_lanes<V>(t_.sum_other + i));
  }

  const CpuPixelLossArguments& a_;
  const Classes classes_;
  const Tile<Real>& t_;
  const RowTables& tables_;
};

}  // namespace

int64_t set_cross_entropy(const CpuPixelLossArguments& a) {
  return run_tiles(a, [&a](const auto& tile, const RowTables& tables, const Block& block, const Fetch& fetch) {
    with_classes(a.classes, [&](auto classes) __attribute__((always_inline)) {
      const TileLoss loss(a, classes, tile, tables);
      const bool fine = loss.exponentials(fetch, block.count);
      if (!fine) loss.vanishing_candidates(block, block.count);
      const bool numbers = loss.pixels(block.count, !fine);
      if (a.gradient == nullptr) return;
      if (numbers) {
        loss.gradients(block.count);
      } else {
        loss.gradients_of_no_numbers(block.count);
      }
    });
  });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
