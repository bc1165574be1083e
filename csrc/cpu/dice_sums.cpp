// The sums of soft Dice losses on the CPU; compiled once per instruction set (LABELDROP_ISA).
//
// Each sample's blocks are split into parts, whose number does not depend on the threads. A part's sums are floats
// within a block and doubles over its blocks; the parts are added up in their order. So the sums depend neither on the
// number of threads nor on their timing.
#include "dice_mixed.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

constexpr int64_t kParts = 256;  // of the whole batch: enough to share out, and 1 MiB of sums at 256 classes

// How the blocks of a sample are split.
struct Parts {
  Parts(const DiceSumsArguments& a, int64_t block)
      : blocks((a.pixels + block - 1) / block), count(count_for(a.samples, blocks)) {}

  // first block of a part of a sample; that of part `count` is the end
  int64_t begin(int64_t part) const { return blocks * part / count; }

  const int64_t blocks, count;  // of a sample

 private:
  static int64_t count_for(int64_t samples, int64_t blocks) {
    const int64_t share = samples < kParts ? kParts / (samples > 0 ? samples : 1) : 1;
    return share < blocks ? share : blocks;
  }
};

// The sums of one part, [2 K + 1 + L]: number 2 k is class k's intersection, 2 k + 1 its prediction, then come the
// cross-entropy and the labels' weights.
int64_t sums_of_part(const DiceSumsArguments& a) { return 2 * a.channels + 1 + a.labels; }

template <class Real>
class PartSums {
 public:
  static constexpr int kLanes = Lanes<Real>::count;
  using V = typename Lanes<Real>::V;

  explicit PartSums(const DiceSumsArguments& a)
      : rows_(2 * a.channels + 1),
        labels_(a.labels),
        weighted_(a.pixel_weight != nullptr),
        block_(rows_ * kLanes),
        part_(rows_ * kLanes),
        weights_(a.labels + 1) {}

  bool allocated() const { return block_.get() && part_.get() && weights_.get(); }

  LABELDROP_INLINE void add(int64_t row, V values) const {
    Real* sum = block_.get() + row * kLanes;
    store_lanes(sum, load_lanes<V>(sum) + values);
  }
  LABELDROP_INLINE void add_intersection(int64_t k, V values) const { add(2 * k, values); }
  LABELDROP_INLINE void add_prediction(int64_t k, V values) const { add(2 * k + 1, values); }
  LABELDROP_INLINE void add_cross_entropy(V loss) const { add(rows_ - 1, loss); }

  // The weights of a piece's pixels.
  LABELDROP_INLINE void add_labels(const DiceTile<Real>& t, const Piece& piece, int count) const {
    double* const weights = weights_.get();
    const int after = piece.begin + piece.vectors * kLanes, end = after < count ? after : count;
    if (weighted_) {
      for (int i = piece.begin; i < end; ++i) weights[t.row[i]] += static_cast<double>(t.weight[i]);
    } else if (piece.reads == Reads::one_row) {
      weights[piece.row] += end - piece.begin;
    } else if (piece.reads == Reads::any_rows) {
      for (int i = piece.begin; i < end; i += kLanes) add_vector_of_labels(t, i, end - i);
    }
  }

  // The pixels of an edge, where they are not weighted.
  template <class Outcome>
  LABELDROP_INLINE void add_edge(const Edge& edge, Outcome is_of_row, int count) const {
    const int pixels = count - edge.begin;
    const unsigned valid = (1u << (pixels < kLanes ? pixels : kLanes)) - 1;
    if (!weighted_) weights_.get()[edge.row] += __builtin_popcount(lane_bits(is_of_row) & valid);
  }

  // a block has ended
  void flush() const {
    Real* __restrict block = block_.get();
    double* __restrict part = part_.get();
#pragma omp simd
    for (int64_t i = 0; i < rows_ * kLanes; ++i) {
      part[i] += static_cast<double>(block[i]);
      block[i] = 0;
    }
  }

  // the part has ended
  void finish(double* sums) const {
    for (int64_t row = 0; row < rows_; ++row) {
      double sum = 0;
      for (int lane = 0; lane < kLanes; ++lane) {
        sum += part_.get()[row * kLanes + lane];
        part_.get()[row * kLanes + lane] = 0;
      }
      sums[row] = sum;
    }
    memcpy(sums + rows_, weights_.get(), labels_ * sizeof(double));
    memset(weights_.get(), 0, labels_ * sizeof(double));
  }

 private:
  LABELDROP_INLINE void add_vector_of_labels(const DiceTile<Real>& t, int i, int pixels) const {
    using Bits = typename Lanes<Real>::Bits;
    const Bits rows = load_lanes<Bits>(t.row + i);
    for (unsigned left = (1u << (pixels < kLanes ? pixels : kLanes)) - 1; left != 0;) {
      const int32_t row = t.row[i + __builtin_ctz(left)];
      const unsigned of_row = left & lane_bits(rows == row);
      weights_.get()[row] += __builtin_popcount(of_row);
      left ^= of_row;
    }
  }

  const int64_t rows_, labels_;
  const bool weighted_;
  Buffer<Real> block_;
  Buffer<double> part_;
  Buffer<double> weights_;  // of the pixels that have a label; number L: of those that do not count
};

// Adds the pixels of one block to the sums.
template <DiceMode kMode, class Real>
struct AddTile {
  using V = typename Lanes<Real>::V;
  static constexpr int kLanes = Lanes<Real>::count;

  const DiceSumsForwardArguments& a;
  const PartSums<Real>& sums;

  void operator()(DiceTile<Real>& t, DiceRows& rows, const Block& block, const Fetch& fetch) const {
    make_pieces<kMode, false>(a, t, rows, fetch, block.count,
                              [](const DiceRow&, bool) -> const Real* { return nullptr; });
    const Piece* const end = t.pieces + t.piece_count;
    for (const Piece* piece = t.pieces; piece < end; ++piece) {
      sums.add_labels(t, *piece, block.count);
      if (piece->reads == Reads::any_rows) {
        for (int j = 0; j < piece->vectors; ++j) add_mixed(t, rows, piece->begin + j * kLanes);
      }
    }
    make_shares(t, block.count);
    for (const Piece* piece = t.pieces; piece < end;) piece = add_predictions(t, rows, piece, end);
    for (const Piece* piece = t.pieces; piece < end; ++piece) {
      if (piece->reads == Reads::one_row) add_intersections(t, rows.row(piece->row), *piece);
    }
    add_edges(t, rows, block.count);
    sums.flush();
  }

  // What exponentials are multiplied by: the weight, and what makes probabilities of them.
  LABELDROP_INLINE void make_shares(const DiceTile<Real>& t, int count) const {
    if constexpr (kMode == DiceMode::sigmoid) return;
    V loss{};
    for (int i = 0; i < count; i += kLanes) {
      const V weight = load_lanes<V>(t.weight + i), sum = load_lanes<V>(t.share + i);
      if constexpr (kMode == DiceMode::softmax) {
        store_lanes(t.share + i, weight * reciprocal(sum));
      } else {
        const auto pixel = set_cross_entropy_scales(load_lanes<V>(t.candidate + i), sum);
        store_lanes(t.share + i, weight * pixel.other_scale);
        loss += weight * pixel.loss;
      }
    }
    if constexpr (kMode == DiceMode::softmax_and_cross_entropy) sums.add_cross_entropy(loss);
  }

  LABELDROP_INLINE static const Real* factors(const DiceTile<Real>& t) {
    return kMode == DiceMode::sigmoid ? t.weight : t.share;
  }

  // Sums of probabilities, class after class, over the pieces from this one on for which the same classes are active
  // and counted. Returns the first one after these.
  LABELDROP_INLINE const Piece* add_predictions(const DiceTile<Real>& t, DiceRows& rows, const Piece* first,
                                                const Piece* end) const {
    if (first->reads == Reads::any_rows || first->reads == Reads::nothing) return first + 1;
    const auto list_of = [&](const Piece& piece) {
      const int32_t group = rows.group(piece.row);
      return group >= 0 ? group : piece.row;
    };
    const int32_t list = list_of(*first);
    const Piece* last = first;
    const auto goes_on = [&](const Piece& piece) {
      return (piece.reads == Reads::one_row || piece.reads == Reads::one_group) && list_of(piece) == list;
    };
    while (last + 1 < end && goes_on(last[1])) ++last;
    const DiceRow& row = rows.row(list);
    const int after = last->begin + last->vectors * kLanes;
    for (int k = 0; k < row.active; ++k) {
      if (row.sums[k] < 0) continue;
      sums.add_prediction(row.sums[k], sum_of_products(t.values + row.offsets[k], factors(t), first->begin, after));
    }
    return last + 1;
  }

  LABELDROP_INLINE void add_intersections(const DiceTile<Real>& t, const DiceRow& row, const Piece& piece) const {
    for (int p = 0; p < row.positives; ++p) {
      const Real* const value = t.values + row.positive_offsets[p];
      V sum{};
      for (int i = piece.begin; i < piece.begin + piece.vectors * kLanes; i += kLanes) {
        sum += load_lanes<V>(value + i) * load_lanes<V>(factors(t) + i);
      }
      sums.add_intersection(row.positive_sums[p], sum);
    }
  }

  LABELDROP_INLINE void add_edges(const DiceTile<Real>& t, DiceRows& rows, int count) const {
    const Edge* edge = t.edges;
    for_edges(t, rows, 0, [&](const DiceRow& row, int i, auto is_of_row) __attribute__((always_inline)) {
      sums.add_edge(*edge++, is_of_row, count);
      for (int p = 0; p < row.positives; ++p) {
        const V product = load_lanes<V>(t.values + row.positive_offsets[p] + i) * load_lanes<V>(factors(t) + i), zero{};
        sums.add_intersection(row.positive_sums[p], is_of_row ? product : zero);
      }
    });
  }

  // In four chains that do not wait for each other.
  LABELDROP_INLINE static V sum_of_products(const Real* values, const Real* factors, int begin, int end) {
    constexpr int kChains = 4;
    V sum[kChains] = {};
    int i = begin;
    for (; i + kChains * kLanes <= end; i += kChains * kLanes) {
      for (int chain = 0; chain < kChains; ++chain) {
        sum[chain] += load_lanes<V>(values + i + chain * kLanes) * load_lanes<V>(factors + i + chain * kLanes);
      }
    }
    for (; i < end; i += kLanes) sum[0] += load_lanes<V>(values + i) * load_lanes<V>(factors + i);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }

  // A vector whose pixels read rows of their own.
  void add_mixed(const DiceTile<Real>& t, const DiceRows& rows, int i) const {
    const PredictionPower<Real> power(a.squared);
    const MixedPixels<kMode, Real> pixels(a, t, rows, i);
    const V weight = load_lanes<V>(t.weight + i), zero{};
    const auto add = [&](int64_t k, V q, auto bits) __attribute__((always_inline)) {
      const V weighted = weight * q;
      sums.add_intersection(k, bits[kPositive] ? weighted : zero);
      sums.add_prediction(k, bits[kCounted] ? power.term(q, weighted) : zero);
    };
    const V q_0 = pixels.background();
    pixels.for_class(0, [&](int64_t k, auto bits) __attribute__((always_inline)) { add(k, q_0, bits); });
    pixels.for_classes(
        1, [&](int64_t k, auto bits) __attribute__((always_inline)) { add(k, pixels.probability(k, bits), bits); });
    if constexpr (kMode == DiceMode::softmax_and_cross_entropy) sums.add_cross_entropy(weight * pixels.loss);
  }
};

// The sums of all parts, one after the other: [samples * parts, 2 K + 1 + L].
void add_parts(const DiceSumsForwardArguments& a, const Parts& parts, const double* sums) {
  memset(a.intersection, 0, a.samples * a.channels * sizeof(double));
  memset(a.prediction, 0, a.samples * a.channels * sizeof(double));
  memset(a.cross_entropy, 0, a.samples * sizeof(double));
  memset(a.label_weight, 0, a.samples * a.labels * sizeof(double));
  for (int64_t part = 0; part < a.samples * parts.count; ++part) {
    const double* of_part = sums + part * sums_of_part(a);
    const int64_t sample = part / parts.count;
    for (int64_t k = 0; k < a.channels; ++k) {
      a.intersection[sample * a.channels + k] += of_part[2 * k];
      a.prediction[sample * a.channels + k] += of_part[2 * k + 1];
    }
    a.cross_entropy[sample] += of_part[2 * a.channels];
    for (int64_t l = 0; l < a.labels; ++l) {
      a.label_weight[sample * a.labels + l] += of_part[2 * a.channels + 1 + l];
    }
  }
}

template <DiceMode kMode, class Real>
int64_t run(const DiceSumsForwardArguments& a, int threads) {
  const int64_t size = pixel_block(a.channels);
  const Parts parts(a, size);
  const Buffer<double> all(a.samples * parts.count * sums_of_part(a));
  if (all.get() == nullptr) return kOutOfMemory;
  const int64_t invalid = share_out(a.samples * parts.count, threads, [&](int64_t begin, int64_t end) -> int64_t {
    DiceWorker<Real> worker(a, nullptr);
    const PartSums<Real> sums(a);
    if (!worker.allocated() || !sums.allocated()) return kOutOfMemory;
    const AddTile<kMode, Real> add{a, sums};
    int64_t lowest = kNothing;
    for (int64_t p = begin; p < end; ++p) {
      const int64_t blocks_before = p / parts.count * parts.blocks, part = p % parts.count;
      for (int64_t b = parts.begin(part); b < parts.begin(part + 1); ++b) worker(blocks_before + b, lowest, add);
      sums.finish(all.get() + p * sums_of_part(a));
    }
    return lowest;
  });
  if (invalid != kOutOfMemory) add_parts(a, parts, all.get());
  return invalid;
}

}  // namespace

int64_t dice_sums(const DiceSumsForwardArguments& a, int threads) {
  return with_dice_types(a, [&](auto mode, auto real) { return run<mode(), decltype(real)>(a, threads); });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
