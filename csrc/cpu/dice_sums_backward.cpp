// The gradient of dice_sums on the CPU; compiled once per instruction set (LABELDROP_ISA): probabilities as in the
// forward pass, each class's upstream gradient, and the logits' gradient from these.
#include "dice_mixed.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

// g_k of the classes of a row, in the order of its list, where predictions are sums of q: they do not depend on q then.
// With the intersections' part, or without it.
template <class Real>
class RowGradients {
 public:
  explicit RowGradients(const DiceSumsBackwardArguments& a)
      : a_(a), gradients_(2 * DiceRows::kRows * a.channels), of_pixels_(DiceRows::kRows * kOfPixels) {}

  bool allocated() const { return gradients_.get() && of_pixels_.get(); }

  LABELDROP_INLINE const Real* operator()(const DiceRow& row, bool with_intersections) {
    return kept(row) + with_intersections * a_.channels;
  }

  // Of a row in a group: what the first class of the list has from its prediction, then what positive ones have from
  // their intersections.
  LABELDROP_INLINE const Real* of_pixels(const DiceRow& row) {
    kept(row);
    return of_pixels_.get() + DiceRows::place(row.id) * kOfPixels;
  }

 private:
  static constexpr int kOfPixels = 1 + DiceRows::kMostPositives;

  LABELDROP_INLINE Real* kept(const DiceRow& row) {
    const int place = DiceRows::place(row.id);
    if (kept_[place] != row.id + 1) make(row, place);
    return gradients_.get() + 2 * place * a_.channels;
  }

  __attribute__((noinline)) void make(const DiceRow& row, int place) {
    const Real* intersection = static_cast<const Real*>(a_.upstream_intersection) + row.sample * a_.channels;
    const Real* prediction = static_cast<const Real*>(a_.upstream_prediction) + row.sample * a_.channels;
    Real* without = gradients_.get() + 2 * place * a_.channels;
    Real* with = without + a_.channels;
    Real* of_pixels = of_pixels_.get() + place * kOfPixels;
    for (int k = 0; k < row.active; ++k) with[k] = without[k] = row.sums[k] < 0 ? Real(0) : prediction[row.sums[k]];
    of_pixels[0] = row.active > 0 ? without[0] : Real(0);
    for (int p = 0; p < row.positives; ++p) {
      with[row.positive[p]] += intersection[row.positive_sums[p]];
      if (p < DiceRows::kMostPositives) of_pixels[1 + p] = intersection[row.positive_sums[p]];
    }
    kept_[place] = row.id + 1;
  }

  const DiceSumsBackwardArguments& a_;
  Buffer<Real> gradients_;              // [kRows, 2, K]
  Buffer<Real> of_pixels_;              // [kRows, 1 + kMostPositives]
  int64_t kept_[DiceRows::kRows] = {};  // the row's id + 1, or 0
};

// Gradients of one block of pixels.
template <DiceMode kMode, class Real>
struct WriteGradient {
  using V = typename Lanes<Real>::V;
  static constexpr int kLanes = Lanes<Real>::count;
  static constexpr bool kTwoParts = kMode == DiceMode::softmax_and_cross_entropy;

  const DiceSumsBackwardArguments& a;
  RowGradients<Real>& row_gradients;
  Real* positives;       // [kMostPositives, block]: in a group, exponentials of what is positive
  Real* class_gradient;  // [K, lanes]: g_k of a vector of pixels

  void operator()(DiceTile<Real>& t, DiceRows& rows, const Block& block, const Fetch& fetch) const {
    make_pieces<kMode, true>(a, t, rows, fetch, block.count, row_gradients);
    const Piece* const end = t.pieces + t.piece_count;
    take_edges(t, rows);
    make_slopes(t, block.count);
    for (const Piece* piece = t.pieces; piece < end; ++piece) write(t, rows, *piece, block.sample);
    write_edges(t, rows);
  }

  // What the pixels of a group have each of its own is added to the sums of exponentials times gradients.
  LABELDROP_INLINE void take_edges(const DiceTile<Real>& t, DiceRows& rows) const {
    for_edges(t, rows, 0, [&](const DiceRow& row, int i, auto is_of_row) __attribute__((always_inline)) {
      const Real* const gradients = row_gradients.of_pixels(row);
      V slope = V{} + (kTwoParts ? gradients[0] : Real(0)), zero{};  // times e^0
      for (int p = 0; p < row.positives; ++p) {
        const V e = load_lanes<V>(t.values + row.positive_offsets[p] + i);
        Real* const kept = positives + p * t.pitch + i;
        store_lanes(kept, is_of_row ? e : load_lanes<V>(kept));
        slope += e * gradients[1 + p];
      }
      store_lanes(t.slope + i, load_lanes<V>(t.slope + i) + (is_of_row ? slope : zero));
    });
  }

  // From the sums to what gradients are made with: e_k (g_k share + slope).
  LABELDROP_INLINE void make_slopes(const DiceTile<Real>& t, int count) const {
    if constexpr (kMode == DiceMode::sigmoid) return;
    const Real upstream = static_cast<Real>(*a.upstream_cross_entropy);
    for (int i = 0; i < count; i += kLanes) {
      const V weight = load_lanes<V>(t.weight + i), sum = load_lanes<V>(t.share + i);
      const V slope = load_lanes<V>(t.slope + i);
      if constexpr (kMode == DiceMode::softmax) {
        const V inverse = reciprocal(sum), share = weight * inverse;
        store_lanes(t.share + i, share);
        store_lanes(t.slope + i, -share * (inverse * slope));
      } else {
        const auto pixel = set_cross_entropy_scales(load_lanes<V>(t.candidate + i), sum);
        const V share = weight * pixel.other_scale, mean = pixel.other_scale * slope;
        store_lanes(t.share + i, share);
        store_lanes(t.slope + i, share * (upstream - mean));
        store_lanes(t.candidate_slope + i, -weight * (upstream * pixel.candidate_scale) - share * mean);
      }
    }
  }

  LABELDROP_INLINE void write(const DiceTile<Real>& t, DiceRows& rows, const Piece& piece, int64_t sample) const {
    const int i = piece.begin;
    switch (piece.reads) {
      case Reads::one_row: {
        const DiceRow& row = rows.row(piece.row);
        const Real* gradients = row_gradients(row, true);
        return piece.vectors == 2 ? write_list<2>(t, row, row.candidates, gradients, i)
                                  : write_list<1>(t, row, row.candidates, gradients, i);
      }
      case Reads::one_group: {
        const DiceRow& group = rows.row(piece.row);
        const Real* gradients = row_gradients(group, false);
        return write_list<2>(t, group, 0, gradients, i);
      }
      case Reads::any_rows: {
        for (int j = 0; j < piece.vectors; ++j) write_mixed(t, rows, sample, i + j * kLanes);
        return;
      }
      case Reads::nothing: {
        for (int64_t k = 0; k < a.channels; ++k) {
          for (int j = 0; j < piece.vectors; ++j) store_lanes(t.values + k * t.pitch + i + j * kLanes, V{});
        }
      }
    }
  }

  template <int n>
  LABELDROP_INLINE void write_list(const DiceTile<Real>& t, const DiceRow& row, int candidates, const Real* gradients,
                                   int i) const {
    V share[n], slope[n];
    const auto write = [&](Real* value, int k) __attribute__((always_inline)) {
      const V g = V{} + gradients[k];
      for (int j = 0; j < n; ++j) {
        const V e = load_lanes<V>(value + j * kLanes);
        store_lanes(value + j * kLanes,
                    kMode == DiceMode::sigmoid ? share[j] * g * (e - e * e) : e * (g * share[j] + slope[j]));
      }
    };
    for (int j = 0; j < n; ++j) {
      share[j] = load_lanes<V>((kMode == DiceMode::sigmoid ? t.weight : t.share) + i + j * kLanes);
      if constexpr (kTwoParts) slope[j] = load_lanes<V>(t.candidate_slope + i + j * kLanes);
    }
    if constexpr (kTwoParts) for_classes(t, row, 0, candidates, i, write);
    for (int j = 0; j < n; ++j) slope[j] = load_lanes<V>(t.slope + i + j * kLanes);
    for_classes(t, row, kTwoParts ? candidates : 0, row.active, i, write);
    for_classes(t, row, row.active, static_cast<int>(a.channels), i,
                [&](Real* value, int) __attribute__((always_inline)) {
                  for (int j = 0; j < n; ++j) store_lanes(value + j * kLanes, V{});
                });
  }

  // What the pixels of a group have each of its own.
  LABELDROP_INLINE void write_edges(const DiceTile<Real>& t, DiceRows& rows) const {
    for_edges(t, rows, 0, [&](const DiceRow& row, int i, auto is_of_row) __attribute__((always_inline)) {
      const V factor = load_lanes<V>((kMode == DiceMode::sigmoid ? t.weight : t.share) + i), zero{};
      const Real* const gradients = row_gradients.of_pixels(row);
      if constexpr (kTwoParts) {
        Real* const value = t.values + row.offsets[0] + i;
        const V gradient = gradients[0] * factor + load_lanes<V>(t.candidate_slope + i);
        store_lanes(value, is_of_row ? gradient : load_lanes<V>(value));
      }
      for (int p = 0; p < row.positives; ++p) {
        Real* const value = t.values + row.positive_offsets[p] + i;
        const V e = load_lanes<V>(positives + p * t.pitch + i), slope = kMode == DiceMode::sigmoid ? e - e * e : e;
        const V gradient = factor * slope * gradients[1 + p];
        store_lanes(value, load_lanes<V>(value) + (is_of_row ? gradient : zero));
      }
    });
  }

  // A vector whose pixels read rows of their own.
  void write_mixed(const DiceTile<Real>& t, const DiceRows& rows, int64_t sample, int i) const {
    MixedPixels<kMode, Real> pixels(a, t, rows, i);
    const V mean = class_gradients(pixels, rows, sample);
    const V weight = load_lanes<V>(t.weight + i), zero{};
    const V factor = weight * static_cast<Real>(*a.upstream_cross_entropy);
    const V slope = factor * pixels.slope, candidate_slope = factor * pixels.candidate_slope;
    pixels.share *= weight;
    pixels.candidate_share *= weight;
    pixels.for_classes(0, [&](int64_t k, auto bits) __attribute__((always_inline)) {
      const V p = pixels.probability(k, bits);  // softmax: times the weight
      const V g = load_lanes<V>(class_gradient + k * kLanes);
      V product = kMode == DiceMode::sigmoid ? weight * (p * (Real(1) - p) * g) : p * (g - mean);
      if constexpr (kMode == DiceMode::softmax_and_cross_entropy) {
        product += pixels.exponential(k) * (bits[kCandidates] ? candidate_slope : slope);
      }
      // chosen, not multiplied by 0: mean may be NaN
      store_lanes(t.values + k * t.pitch + i, bits.is_active() ? product : zero);
    });
  }

  // Leaves g_k of every class; returns the sum of p_k g_k.
  LABELDROP_INLINE V class_gradients(const MixedPixels<kMode, Real>& pixels, const DiceRows& rows,
                                     int64_t sample) const {
    const PredictionPower<Real> power(a.squared);
    const Real* intersection = static_cast<const Real*>(a.upstream_intersection) + sample * a.channels;
    const Real* prediction = static_cast<const Real*>(a.upstream_prediction) + sample * a.channels;
    V mean{};
    const auto add = [&](int64_t k, V q, auto bits) __attribute__((always_inline)) {
      const V g = dice_class_gradient(q, bits[kPositive], bits[kCounted], intersection[k], prediction[k], power);
      store_lanes(class_gradient + k * kLanes, g);
      mean += q * g;
    };
    const V q_0 = pixels.background();
    pixels.for_class(0, [&](int64_t k, auto bits) __attribute__((always_inline)) { add(k, q_0, bits); });
    pixels.for_classes(
        1, [&](int64_t k, auto bits) __attribute__((always_inline)) { add(k, pixels.probability(k, bits), bits); });
    // q_0 g_0 above has their part of the mean
    const V g_0 = load_lanes<V>(class_gradient);
    for (int m = 0; m < rows.merged_count; ++m) store_lanes(class_gradient + rows.merged[m] * kLanes, g_0);
    return mean;
  }
};

template <DiceMode kMode, class Real>
int64_t run(const DiceSumsBackwardArguments& a, int threads) {
  const int64_t blocks = pixel_blocks(a.samples, a.channels, a.pixels);
  return share_out(blocks, threads, [&](int64_t begin, int64_t end) -> int64_t {
    DiceWorker<Real> worker(a, a.gradient);
    RowGradients<Real> row_gradients(a);
    const Buffer<Real> positives(pixel_block(a.channels) * DiceRows::kMostPositives);
    const Buffer<Real> class_gradient(a.channels * Lanes<Real>::count);
    if (!worker.allocated() || !row_gradients.allocated() || !positives.get() || !class_gradient.get()) {
      return kOutOfMemory;
    }
    const WriteGradient<kMode, Real> write{a, row_gradients, positives.get(), class_gradient.get()};
    int64_t lowest = kNothing;
    for (int64_t b = begin; b < end; ++b) worker(b, lowest, write);
    return lowest;
  });
}

}  // namespace

int64_t dice_sums_backward(const DiceSumsBackwardArguments& a, int threads) {
  return with_dice_types(a, [&](auto mode, auto real) { return run<mode(), decltype(real)>(a, threads); });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
