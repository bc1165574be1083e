// The loop of losses that score each class of a pixel by itself: a formula (csrc/math/sigmoid_focal.h and others) over
// the active classes. Included by files that are compiled once per instruction set.
#pragma once

#include "../math/term.h"
#include "pixel_tiles.h"

namespace labeldrop {
namespace {

// Formula: kChannels; term(z, exp(-|z|), positive) of the class's channels, with a gradient [kChannels]; Sum<V> of
// these; kSideBySide, how many vectors of pixels are worked on side by side. Channel c of class k is c * K + k.
template <class Formula, class Real>
class TileTerms {
 public:
  using V = typename Lanes<Real>::V;
  static constexpr int kLanes = Lanes<Real>::count, kChannels = Formula::kChannels;

  LABELDROP_INLINE TileTerms(const CpuPixelLossArguments& a, const Formula& formula, const Tile<Real>& t,
                             const RowTables& tables)
      : a_(a), formula_(formula), t_(t), tables_(tables), class_weight_(static_cast<const Real*>(a.class_weight)) {}

  LABELDROP_INLINE void operator()(const Fetch& fetch, int count) {
    for (int begin = 0; begin < count; begin += kChunk) {
      const int end = count - begin < kChunk ? count : begin + kChunk;
      exponentials(fetch, begin, end);
      for (int i = begin; i < end; i += n * kLanes) vectors(i);
    }
  }

 private:
  static constexpr int kChunk = 64;  // pixels
  static constexpr int n = kUnitVectors<Real> > 1 ? Formula::kSideBySide : 1;

  // exp(-|z|) of every channel: in a pass of their own, since a formula's chain of instructions is long enough
  LABELDROP_INLINE void exponentials(const Fetch& fetch, int begin, int end) const {
    for (int64_t c = 0; c < a_.channels; ++c) {
      fetch(c, begin, kChunk);
      const Real* from = t_.values + c * t_.pitch + begin;
      Real* to = t_.extra + c * kChunk;
      for (int i = 0; i < end - begin; i += kLanes) {
        store_lanes(to + i, exp_nonpositive(minus_magnitude(load_lanes<V>(from + i))));
      }
    }
  }

  // Each pixel's classes are chosen by masks, whether its neighbours read the same row of the tables or not: that costs
  // less than the branches that would tell them apart.
  LABELDROP_INLINE void vectors(int i) const {
    const V zero{};
    typename Formula::template Sum<V> sums[n];
    V factor[n];
    for (int j = 0; j < n; ++j) factor[j] = load_lanes<V>(t_.factor + i + j * kLanes);
    for_each_class_of<n>(t_, tables_, a_.classes, i,
                         [&](int64_t k, int j, Real* value, auto positive, auto negative)
                             __attribute__((always_inline)) {
                               const auto active = positive | negative;
                               if (n == 1 && no_bits(active)) {
                                 for (int c = 0; c < kChannels; ++c) store_lanes(channel(value, c), zero);
                                 return;
                               }
                               auto term = term_of(value, positive, k, i + j * kLanes);
                               term.keep(active);
                               add(value, term, k, factor[j], sums[j]);
                               if (k % sums[j].kMostTerms == 0) sums[j].flush();
                             });
    for (int j = 0; j < n; ++j) store_lanes(t_.loss + i + j * kLanes, sums[j].loss());
  }

  template <class Term, class Sum>
  LABELDROP_INLINE void add(Real* value, const Term& term, int64_t k, V factor, Sum& sum) const {
    if constexpr (Sum::kWeighted) {
      const V weight = weight_of(k);
      sum.add(term, weight);
      factor *= weight;
    } else {
      sum.add(term);
    }
    for (int c = 0; c < kChannels; ++c) store_lanes(channel(value, c), factor * term.gradient[c]);
  }

  template <class Positive>
  LABELDROP_INLINE auto term_of(const Real* value, Positive positive, int64_t k, int i) const {
    V channels[kChannels];
    for (int c = 0; c < kChannels; ++c) channels[c] = load_lanes<V>(channel(value, c));
    V u[kChannels];
    for (int c = 0; c < kChannels; ++c) u[c] = load_lanes<V>(t_.extra + (k + c * a_.classes) * kChunk + i % kChunk);
    return formula_.term(channels, u, positive);
  }

  LABELDROP_INLINE V weight_of(int64_t k) const { return V{} + (class_weight_ ? class_weight_[k] : Real(1)); }

  template <class Pointer>
  LABELDROP_INLINE Pointer channel(Pointer value, int c) const {
    return value + c * a_.classes * t_.pitch;
  }

  const CpuPixelLossArguments& a_;
  const Formula& formula_;
  const Tile<Real>& t_;
  const RowTables& tables_;
  const Real* const class_weight_;
};

template <class Formula>
int64_t run_pixelwise(const CpuPixelLossArguments& a, const Formula& formula) {
  return run_tiles(a,
                   [&a, &formula](const auto& tile, const RowTables& tables, const Block& block, const Fetch& fetch) {
                     using Real = std::remove_pointer_t<decltype(tile.values)>;
                     TileTerms<Formula, std::remove_const_t<Real>> terms(a, formula, tile, tables);
                     terms(fetch, block.count);
                   });
}

}  // namespace
}  // namespace labeldrop
