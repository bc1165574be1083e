// Predictive variance on the CPU; compiled once per instruction set (LABELDROP_ISA). One class of some pixels at a
// time, in passes: random words, normal numbers, samples. A single pass would be a chain of instructions longer than a
// processor can look ahead.
#include "../math/predictive_variance.h"

#include "pixelwise.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

template <class Formula, class Real>
class NoisyTerms {
 public:
  using V = typename Lanes<Real>::V;
  using Bits = typename Lanes<Real>::Bits;
  static constexpr int kLanes = Lanes<Real>::count, kChunk = 64;  // pixels

  LABELDROP_INLINE NoisyTerms(const CpuPixelLossArguments& a, const Formula& formula, const Tile<Real>& t,
                              const RowTables& tables, const Block& block)
      : a_(a), formula_(formula), t_(t), tables_(tables), block_(block) {}

  LABELDROP_INLINE void operator()(const Fetch& fetch, int count) {
    for (int i = 0; i < count; i += kLanes) store_lanes(t_.loss + i, V{});
    for (int begin = 0; begin < count; begin += kChunk) {
      const int end = count - begin < kChunk ? count : begin + kChunk;
      for (int64_t k = 0; k < a_.classes; ++k) {
        fetch(k, begin, kChunk);
        fetch(k + a_.classes, begin, kChunk);
        one_class(k, begin, end);
      }
    }
  }

 private:
  static constexpr int kVectors = kChunk / kLanes, kSideBySide = kLanes == 1 ? 1 : 2;

  // anywhere
  LABELDROP_INLINE bool is_active(int64_t k, int begin, int end) const {
    for (int i = begin; i < end; i += kLanes) {
      const Bits rows = load_lanes<Bits>(t_.row + i);
      if (!no_bits(tables_.is_candidate(k, rows) | tables_.is_other(k, rows))) return true;
    }
    return false;
  }

  LABELDROP_INLINE void one_class(int64_t k, int begin, int end) {
    Real* const z = t_.values + k * t_.pitch;
    Real* const s = t_.values + (k + a_.classes) * t_.pitch;
    if (!is_active(k, begin, end)) {
      for (int i = begin; i < end; i += kLanes) {
        store_lanes(z + i, V{});
        store_lanes(s + i, V{});
      }
      return;
    }
    for (int v = 0, i = begin; i < end; ++v, i += kLanes) {
      const V channel[2] = {load_lanes<V>(z + i), load_lanes<V>(s + i)};
      noise_[v] = formula_.start(channel, tables_.is_candidate(k, load_lanes<Bits>(t_.row + i)));
    }
    const int64_t element = (block_.sample * a_.classes + k) * a_.pixels + block_.first;
    for (uint32_t group = 0; group < formula_.groups(); ++group) samples(group, element, begin, end);
    const Real weight = a_.class_weight ? static_cast<const Real*>(a_.class_weight)[k] : Real(1);
    for (int v = 0, i = begin; i < end; ++v, i += kLanes) {
      const Bits rows = load_lanes<Bits>(t_.row + i);
      const auto positive = tables_.is_candidate(k, rows), active = positive | tables_.is_other(k, rows);
      auto term = formula_.finish(noise_[v], positive);
      term.keep(active);
      const V factor = weight * load_lanes<V>(t_.factor + i);
      store_lanes(t_.loss + i, load_lanes<V>(t_.loss + i) + weight * term.loss);
      store_lanes(z + i, factor * term.gradient[0]);
      store_lanes(s + i, factor * term.gradient[1]);
    }
  }

  LABELDROP_INLINE void samples(uint32_t group, int64_t element, int begin, int end) {
    for (int v = 0, i = begin; i < end; v += kSideBySide, i += kSideBySide * kLanes) {
      random_words(static_cast<uint64_t>(element + i), group, v);
    }
    for (int v = 0, i = begin; i < end; ++v, i += kLanes) {
      const Pair<V> a = normal_pair<V>(words_[v].c0, words_[v].c1);
      eps_[v][0] = a.first, eps_[v][1] = a.second;
    }
    for (int v = 0, i = begin; i < end && formula_.has_second_pair(group); ++v, i += kLanes) {
      const Pair<V> b = normal_pair<V>(words_[v].c2, words_[v].c3);
      eps_[v][2] = b.first, eps_[v][3] = b.second;
    }
    for (int v = 0, i = begin; i < end; ++v, i += kLanes) formula_.add_group(noise_[v], group, eps_[v]);
  }

  LABELDROP_INLINE void random_words(uint64_t element, uint32_t group, int v) {
    if constexpr (kLanes == 1) {
      words_[v] = philox_elements<V>(element, group, formula_.key);
    } else {
      PhiloxWords<Unsigned<V>> words[kSideBySide];
      philox_vectors(element, group, formula_.key, words);
      for (int j = 0; j < kSideBySide; ++j) words_[v + j] = words[j];
    }
  }

  const CpuPixelLossArguments& a_;
  const Formula& formula_;
  const Tile<Real>& t_;
  const RowTables& tables_;
  const Block& block_;
  typename Formula::template Noise<V> noise_[kVectors];
  PhiloxWords<Unsigned<V>> words_[kVectors];
  V eps_[kVectors][4];
};

}  // namespace

int64_t predictive_variance(const CpuPixelLossArguments& a) {
  return with_predictive_variance(a.parameters, static_cast<uint64_t>(*a.key), [&a](const auto& formula) {
    return run_tiles(a, [&](const auto& tile, const RowTables& tables, const Block& block, const Fetch& fetch) {
      using Formula = std::remove_const_t<std::remove_reference_t<decltype(formula)>>;
      using Real = std::remove_pointer_t<std::remove_const_t<decltype(tile.values)>>;
      NoisyTerms<Formula, Real> terms(a, formula, tile, tables, block);
      terms(fetch, block.count);
    });
  });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
