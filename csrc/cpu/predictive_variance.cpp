// Predictive variance on the CPU; compiled once per instruction set (LABELDROP_ISA). One class of some pixels at a
// time, in passes: random words, normal numbers, samples. A single pass would be a chain of instructions longer than a
// processor can look ahead.
#include "../math/predictive_variance.h"

#include "philox_lanes.h"
#include "pixel_tiles.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

constexpr int kChunk = 64;  // pixels

// Normal numbers of one class of some pixels, four of each pixel at a time. One copy serves all formulas.
template <class Real>
class ChunkNormals {
 public:
  using V = typename Lanes<Real>::V;
  static constexpr int kVectors = kChunk / Lanes<Real>::count;

  // Leaves eps[0 .. numbers - 1]. The radius is a pass of its own, a chain that others need not wait for.
  __attribute__((noinline)) void make(const PhiloxRun<V, kVectors>& run, uint32_t group, int numbers, int vectors) {
    run(group, vectors, words_);
    for (int t = 0; t < numbers; t += 2) {
      for (int v = 0; v < vectors; ++v) eps[t][v] = normal_radius<V>(words_[t][v]);
      for (int v = 0; v < vectors; ++v) {
        const Pair<V> pair = at_angle(eps[t][v], words_[t + 1][v]);
        eps[t][v] = pair.first, eps[t + 1][v] = pair.second;
      }
    }
  }

  V eps[4][kVectors];

 private:
  Unsigned<V> words_[4][kVectors];
};

template <class Formula, class Real>
class NoisyTerms {
 public:
  using V = typename Lanes<Real>::V;
  using Bits = typename Lanes<Real>::Bits;
  static constexpr int kLanes = Lanes<Real>::count;

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
  static constexpr int kVectors = ChunkNormals<Real>::kVectors;

  using Mask = decltype(Bits() < 0);

  // What class k is to the pixels. False where it is active for none.
  LABELDROP_INLINE bool look_up_class(int64_t k, int begin, int end) {
    Bits any{};
    for (int v = 0, i = begin; i < end; ++v, i += kLanes) {
      const Bits rows = load_lanes<Bits>(t_.row + i);
      positive_[v] = tables_.is_candidate(k, rows);
      active_[v] = positive_[v] | tables_.is_other(k, rows);
      any |= active_[v];
    }
    return !no_bits(any);
  }

  LABELDROP_INLINE void one_class(int64_t k, int begin, int end) {
    Real* const z = t_.values + k * t_.pitch;
    Real* const s = t_.values + (k + a_.classes) * t_.pitch;
    if (!look_up_class(k, begin, end)) {
      for (int i = begin; i < end; i += kLanes) {
        store_lanes(z + i, V{});
        store_lanes(s + i, V{});
      }
      return;
    }
    for (int v = 0, i = begin; i < end; ++v, i += kLanes) {
      const V channel[2] = {load_lanes<V>(z + i), load_lanes<V>(s + i)};
      noise_[v] = formula_.start(channel, positive_[v]);
    }
    const int64_t element = (block_.sample * a_.classes + k) * a_.pixels + block_.first + begin;
    const PhiloxRun<V, kVectors> run(static_cast<uint64_t>(element), formula_.key);
    const int vectors = (end - begin + kLanes - 1) / kLanes;
    for (uint32_t group = 0; group < formula_.groups(); ++group) {
      normals_.make(run, group, formula_.samples_of(group), vectors);
      add_group(group, vectors);
    }
    const Real weight = a_.class_weight ? static_cast<const Real*>(a_.class_weight)[k] : Real(1);
    for (int v = 0, i = begin; i < end; ++v, i += kLanes) {
      auto term = formula_.finish(noise_[v], positive_[v]);
      term.keep(active_[v]);
      const V factor = weight * load_lanes<V>(t_.factor + i);
      store_lanes(t_.loss + i, load_lanes<V>(t_.loss + i) + weight * term.loss);
      store_lanes(z + i, factor * term.gradient[0]);
      store_lanes(s + i, factor * term.gradient[1]);
    }
  }

  LABELDROP_INLINE void add_group(uint32_t group, int vectors) {
    const auto& eps = normals_.eps;
    const int numbers = formula_.samples_of(group);
    for (int t = 0; t < numbers; ++t) {
      for (int v = 0; v < vectors; ++v) u_[t][v] = formula_.exponential(noise_[v], eps[t][v]);
    }
    int t = 0;
    for (; t + 1 < numbers; t += 2) {
      for (int v = 0; v < vectors; ++v) {
        formula_.template add<2, V>(noise_[v], {eps[t][v], eps[t + 1][v]}, {u_[t][v], u_[t + 1][v]});
      }
    }
    for (int v = 0; v < vectors && t < numbers; ++v) {
      formula_.template add<1, V>(noise_[v], {eps[t][v]}, {u_[t][v]});
    }
    for (int v = 0; v < vectors; ++v) formula_.end_group(noise_[v], group);
  }

  const CpuPixelLossArguments& a_;
  const Formula& formula_;
  const Tile<Real>& t_;
  const RowTables& tables_;
  const Block& block_;
  ChunkNormals<Real> normals_;
  typename Formula::template Noise<V> noise_[kVectors];
  V u_[4][kVectors];
  Mask positive_[kVectors], active_[kVectors];
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
