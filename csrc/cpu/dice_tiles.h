// What the two passes of dice_sums share on the CPU: tiles of pixels, what their vectors read of the tables,
// exponentials, threads. Included by files that are compiled once per instruction set.
//
// Vectors whose pixels read one row of the tables, or rows of one group, need no masks: pass after pass goes over the
// classes of a list. The others are dealt with by dice_mixed.h, a vector at a time; so are predictions that are sums of
// squares, and logits that are so far apart, or not finite, that they need care.
#pragma once

#include "../math/dice_sums.h"
#include "dice_rows.h"
#include "pixel_tiles.h"

namespace labeldrop {
namespace {

enum class Reads : int32_t { one_row, one_group, any_rows, nothing };

// One vector from pixel `begin` on, or two that are worked on side by side.
struct Piece {
  int begin, vectors;
  Reads reads;
  int32_t row;  // or a group's first one
};

// Where rows of one group meet: the pixels of a vector that read one of them. The passes over what is each pixel's own
// go from edge to edge, rather than in a loop for each vector whose end no processor foresees.
struct Edge {
  int begin;
  int32_t row;
};

// A block of pixels as one thread works on it. Whole vectors may be read and written: there is room for them.
template <class Real>
class DiceTile {
 public:
  static constexpr int kLanes = Lanes<Real>::count;

  DiceTile(const DiceSumsArguments& a, int64_t block)
      : pitch(block),
        reals_((a.channels + 6) * pitch),
        rows_(pitch),
        pieces_(pitch / kLanes),
        edges_(kMostEdges * pitch / kLanes),
        values(reals_.get()),
        weight(values + a.channels * pitch),
        candidate(weight + pitch),
        share(candidate + pitch),
        slope(share + pitch),
        candidate_slope(slope + pitch),
        reference(candidate_slope + pitch),
        row(rows_.get()),
        pieces(pieces_.get()),
        edges(edges_.get()) {}

  bool allocated() const { return values && row && pieces && edges; }

  bool add(const Piece& piece) {
    pieces[piece_count++] = piece;
    return true;
  }

  // A piece without sums of exponentials of its own: passes over them go through all pixels, and add 0 for these.
  bool add_without_sums(const Piece& piece) {
    using V = typename Lanes<Real>::V;
    for (int i = piece.begin; i < piece.begin + piece.vectors * kLanes; i += kLanes) {
      store_lanes(candidate + i, V{} + 1);
      store_lanes(share + i, V{});
      store_lanes(slope + i, V{});
    }
    return add(piece);
  }

  // The edges of a vector. False, and there are none, if it has more than they are worth it for.
  LABELDROP_INLINE bool add_edges(int begin) {
    const auto numbers = load_lanes<typename Lanes<Real>::Bits>(row + begin);
    unsigned left = (1u << kLanes) - 1;
    int count = 0;
    for (; count < kMostEdges && left != 0; ++count) {
      const int32_t number = row[begin + __builtin_ctz(left)];
      edges[edge_count + count] = {begin, number};
      left &= ~lane_bits(numbers == number);
    }
    if (left == 0) edge_count += count;
    return left == 0;
  }

  const int64_t pitch;

 private:
  static constexpr int kMostEdges = 8;

  Buffer<Real> reals_;
  Buffer<int32_t> rows_;
  Buffer<Piece> pieces_;
  Buffer<Edge> edges_;

 public:
  Real* const values;  // [K, pitch]: logits on their way in, gradient on its way out; between them exponentials
  Real* const weight;  // [pitch]: of the pixel; 0 past the block's end
  // [pitch]: sums of the candidates' exponentials and of the others', then what makes probabilities of all of them;
  // sums of exponentials times gradients, then what a gradient has besides its class's own part
  Real *const candidate, *const share, *const slope, *const candidate_slope;
  Real* const reference;  // [pitch]: the only candidate's logit, in a group
  int32_t* const row;     // [pitch]: the pixel's row of the tables; L where it does not count
  Piece* const pieces;    // [piece_count]
  Edge* const edges;      // [edge_count]
  int piece_count = 0, edge_count = 0;
  int ones = 0;  // without weights of pixels: so many are 1 already
};

// Labels and weights of the block's pixels. One of weight 0 does not count. Returns the first invalid pixel or -1.
template <class Real>
int64_t load_dice_pixels(const DiceSumsArguments& a, DiceTile<Real>& t, const Block& block) {
  constexpr int kLanes = Lanes<Real>::count;
  const int n = block.count;
  int32_t* __restrict row = t.row;
  Real* __restrict weight = t.weight;
  const int64_t invalid = with_integers(a.target, a.target_type, [&](auto* target) -> int64_t {
    target += block.pixel;
    const bool valid = load_rows(row, target, n, a.labels, a.ignore_index);
    return valid ? -1 : first_invalid(target, n, a.labels, a.ignore_index);
  });
  if (a.pixel_weight != nullptr) {
    const Real* __restrict from = static_cast<const Real*>(a.pixel_weight) + block.pixel;
    const int32_t none = static_cast<int32_t>(a.labels);
    for (int i = 0; i < n; ++i) {
      row[i] = from[i] != Real(0) ? row[i] : none;
      weight[i] = row[i] != none ? from[i] : Real(0);
    }
  } else {
    for (int i = t.ones; i < n; ++i) weight[i] = 1;
    t.ones = n;
  }
  for (int i = n; i % kLanes != 0; ++i) {
    row[i] = row[n - 1];
    weight[i] = 0;
    for (int64_t c = 0; c < a.channels; ++c) t.values[c * t.pitch + i] = 0;
  }
  return invalid;
}

// ---- exponentials ----

// step(values, place in the list) for the classes of a list
template <class Real, class Step>
LABELDROP_INLINE void for_classes(const DiceTile<Real>& t, const DiceRow& row, int begin, int end, int i, Step step) {
  Real* const values = t.values + i;
  for (int k = begin; k < end; ++k) step(values + row.offsets[k], k);
}

template <int n, class Real, class V>
LABELDROP_INLINE void maxima(const DiceTile<Real>& t, const DiceRow& row, int begin, int end, int i, V (&max)[n]) {
  constexpr int kLanes = Lanes<Real>::count;
  for_classes(t, row, begin, end, i, [&](const Real* value, int) __attribute__((always_inline)) {
    for (int j = 0; j < n; ++j) max[j] = larger(load_lanes<V>(value + j * kLanes), max[j]);
  });
}

// Leaves exponentials relative to `reference`; adds up them, and with kGradient them times the classes' gradients.
template <bool kGradient, int n, class Real, class V>
LABELDROP_INLINE void exponentials(const DiceTile<Real>& t, const DiceRow& row, int begin, int end, int i,
                                   const V (&reference)[n], const Real* gradients, V (&sum)[n], V (&slope)[n]) {
  constexpr int kLanes = Lanes<Real>::count;
  for_classes(t, row, begin, end, i, [&](Real* value, int k) __attribute__((always_inline)) {
    for (int j = 0; j < n; ++j) {
      const V e = exp_nonpositive(load_lanes<V>(value + j * kLanes) - reference[j]);
      store_lanes(value + j * kLanes, e);
      sum[j] += e;
      if constexpr (kGradient) slope[j] += e * gradients[k];
    }
  });
}

// Of n vectors from pixel i on. False, and the logits are as they were, where these need more care. In a group each
// pixel's only candidate is the reference; it has been taken out.
template <DiceMode kMode, bool kGradient, bool kGroup, int n, class Real>
__attribute__((noinline)) bool list_exponentials(const DiceTile<Real>& t, const DiceRow& row, int i,
                                                 const Real* gradients) {
  using V = typename Lanes<Real>::V;
  constexpr int kLanes = Lanes<Real>::count;
  constexpr bool kTwoParts = kMode == DiceMode::softmax_and_cross_entropy;
  if constexpr (kMode == DiceMode::sigmoid) {
    for_classes(t, row, 0, row.active, i, [&](Real* value, int) __attribute__((always_inline)) {
      for (int j = 0; j < n; ++j) store_lanes(value + j * kLanes, sigmoid(load_lanes<V>(value + j * kLanes)));
    });
    return true;
  }
  const int candidates = kGroup ? 0 : row.candidates;
  V max[n], reference[n], sum[n] = {}, candidate[n] = {}, slope[n] = {};
  for (V& m : max) m = V{} - infinity<Real>();
  maxima(t, row, candidates, row.active, i, max);
  if constexpr (kTwoParts) {
    V not_near{};
    for (int j = 0; j < n; ++j) reference[j] = V{} - infinity<Real>();
    if constexpr (kGroup) {
      for (int j = 0; j < n; ++j) reference[j] = load_lanes<V>(t.reference + i + j * kLanes);
    } else {
      maxima(t, row, 0, candidates, i, reference);
    }
    for (int j = 0; j < n; ++j) {
      // not infinite, and the others' exponentials and their sum are far from being so
      const V nearest = larger(max[j], reference[j]);
      const auto is_near = (nearest - reference[j] <= Real(kGap)) & (reference[j] - reference[j] == Real(0));
      not_near += is_near ? V{} : V{} + 1;
    }
    if (!all_at_most(not_near, Real(0))) return false;
    if (kGroup || candidates == 1) {  // it is e^0
      for (int j = 0; j < n; ++j) {
        candidate[j] += 1;
        if constexpr (kGroup) continue;
        store_lanes(t.values + row.offsets[0] + i + j * kLanes, V{} + 1);
        if constexpr (kGradient) slope[j] += gradients[0];
      }
    } else {
      exponentials<kGradient>(t, row, 0, candidates, i, reference, gradients, candidate, slope);
    }
    exponentials<kGradient>(t, row, candidates, row.active, i, reference, gradients, sum, slope);
  } else {
    exponentials<kGradient>(t, row, candidates, row.active, i, max, gradients, sum, slope);
  }
  for (int j = 0; j < n; ++j) {
    if constexpr (kTwoParts) store_lanes(t.candidate + i + j * kLanes, candidate[j]);
    store_lanes(t.share + i + j * kLanes, sum[j]);
    if constexpr (kGradient) store_lanes(t.slope + i + j * kLanes, slope[j]);
  }
  return true;
}

// step(row, i, is_of_row) for the edges from number `begin` on, `is_of_row` being what vector selection takes.
template <class Real, class Step>
LABELDROP_INLINE void for_edges(const DiceTile<Real>& t, DiceRows& rows, int begin, Step step) {
  for (const Edge *edge = t.edges + begin, *end = t.edges + t.edge_count; edge < end; ++edge) {
    step(rows.row(edge->row), edge->begin, load_lanes<typename Lanes<Real>::Bits>(t.row + edge->begin) == edge->row);
  }
}

// Of two vectors whose pixels read rows of one group, and whose edges are the last ones.
template <DiceMode kMode, bool kGradient, class Real, class Gradients>
LABELDROP_INLINE bool group_exponentials(const DiceTile<Real>& t, DiceRows& rows, int32_t first, int i, int edges,
                                         Gradients&& gradients) {
  using V = typename Lanes<Real>::V;
  constexpr bool kTwoParts = kMode == DiceMode::softmax_and_cross_entropy;
  const V no_candidate = V{} - infinity<Real>(), one = V{} + 1;
  if constexpr (kTwoParts) {
    for_edges(t, rows, edges, [&](const DiceRow& row, int j, auto is_of_row) __attribute__((always_inline)) {
      Real* const value = t.values + row.offsets[0] + j;
      const V z = load_lanes<V>(value);
      store_lanes(t.reference + j, is_of_row ? z : load_lanes<V>(t.reference + j));
      store_lanes(value, is_of_row ? no_candidate : z);
    });
  }
  const DiceRow& group = rows.row(first);
  const bool done = list_exponentials<kMode, kGradient, kTwoParts, 2>(t, group, i, gradients(group, false));
  if constexpr (kTwoParts) {
    for_edges(t, rows, edges, [&](const DiceRow& row, int j, auto is_of_row) __attribute__((always_inline)) {
      Real* const value = t.values + row.offsets[0] + j;
      const V candidate = done ? one : load_lanes<V>(t.reference + j);
      store_lanes(value, is_of_row ? candidate : load_lanes<V>(value));
    });
  }
  return done;
}

// Takes the tile's vectors for what they read, and leaves their exponentials. gradients(row, ...) are
// those of the classes of its list, with what
// they have where positive or without.
template <DiceMode kMode, bool kGradient, class Real, class Gradients>
LABELDROP_INLINE void make_pieces(const DiceSumsArguments& a, DiceTile<Real>& t, DiceRows& rows, const Fetch& fetch,
                                  int count, Gradients&& gradients) {
  using Bits = typename Lanes<Real>::Bits;
  constexpr int kLanes = Lanes<Real>::count;
  t.piece_count = t.edge_count = 0;
  const auto take = [&](auto vectors, int i) __attribute__((always_inline)) {
    constexpr int n = decltype(vectors)::value;
    const int32_t number = t.row[i], group = number == a.labels ? -1 : rows.group(number);
    Bits of_other_rows{}, of_other_groups{};
    for (int j = 0; j < n; ++j) {
      const Bits numbers = load_lanes<Bits>(t.row + i + j * kLanes);
      of_other_rows |= numbers ^ number;
      of_other_groups |= rows.groups(numbers) ^ group;
    }
    if (no_bits(of_other_rows)) {
      if (number == a.labels) return t.add_without_sums({i, n, Reads::nothing, number});
      const DiceRow& row = rows.row(number);
      if (!list_exponentials<kMode, kGradient, false, n>(t, row, i, gradients(row, true))) return false;
      return t.add({i, n, Reads::one_row, number});
    }
    if (n == 1 || group < 0 || !no_bits(of_other_groups)) return false;
    const int edges = t.edge_count;
    if (!t.add_edges(i) || !t.add_edges(i + kLanes) ||
        !group_exponentials<kMode, kGradient>(t, rows, group, i, edges, gradients)) {
      t.edge_count = edges;
      return false;
    }
    return t.add({i, n, Reads::one_group, group});
  };
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  t.piece_count = 0;
  for (int i = 0; i < count; i += 2 * kLanes) {
    fetch(i, 2 * kLanes);
    if (a.squared || i + kLanes >= count || !take(Two(), i)) {
      for (int j = i; j < i + 2 * kLanes && j < count; j += kLanes) {
        if (a.squared || !take(One(), j)) t.add_without_sums({j, 1, Reads::any_rows, 0});
      }
    }
  }
}

// ---- all tiles ----

// One thread's work: loads tile after tile, computes, and stores the gradient where there is a place for it.
template <class Real>
class DiceWorker {
 public:
  DiceWorker(const DiceSumsArguments& a, void* gradient)
      : size_(pixel_block(a.channels)),
        blocks_(pixel_blocks(a.samples, a.channels, a.pixels)),
        a_(a),
        gradient_(static_cast<char*>(gradient)),
        bytes_(bytes_of(a.logits_type)),
        channel_stride_(a.channels_last ? 1 : a.pixels),
        pixel_stride_(a.channels_last ? a.channels : 1),
        streaming_(gradient != nullptr && can_stream(gradient, (a.channels_last ? a.channels : a.pixels) * bytes_,
                                                     a.samples * a.pixels * (2 * a.channels * bytes_ + 1))),
        tile_(a, size_),
        rows_(a, tile_.pitch) {}
  ~DiceWorker() {
    if (streaming_) end_stream();
  }

  bool allocated() const { return tile_.allocated() && rows_.allocated(); }

  // Of a block by its number; `lowest` becomes its first invalid pixel if that is less.
  template <class Compute>
  void operator()(int64_t index, int64_t& lowest, const Compute& compute) {
    const Block block(a_, index, size_);
    rows_.start(block.sample);
    const int64_t invalid = load_dice_pixels(a_, tile_, block);
    if (invalid >= 0 && block.pixel + invalid < lowest) lowest = block.pixel + invalid;
    LABELDROP_ISA::read_tile(tile_.values, tile_.pitch, static_cast<const char*>(a_.logits) + block.element * bytes_,
                             a_.logits_type, a_.channels, channel_stride_, pixel_stride_, block.count);
    const Block next(a_, index + 1 < blocks_ ? index + 1 : index, size_);
    compute(tile_, rows_, block, Fetch(a_, next, bytes_));
    if (gradient_ == nullptr) return;
    LABELDROP_ISA::write_tile(tile_.values, tile_.pitch, gradient_ + block.element * bytes_, a_.logits_type,
                              a_.channels, channel_stride_, pixel_stride_, block.count, streaming_);
  }

 private:
  const int64_t size_, blocks_;
  const DiceSumsArguments& a_;
  char* const gradient_;
  const int64_t bytes_, channel_stride_, pixel_stride_;
  const bool streaming_;
  DiceTile<Real> tile_;
  DiceRows rows_;
};

// Calls f(mode, real): the mode as an integral_constant, the logits' type as in with_reals.
template <class Function>
int64_t with_dice_types(const DiceSumsArguments& a, Function f) {
  return with_reals(a.logits_type, [&](auto real) {
    if (a.sigmoid) return f(std::integral_constant<DiceMode, DiceMode::sigmoid>(), real);
    if (a.with_cross_entropy) {
      return f(std::integral_constant<DiceMode, DiceMode::softmax_and_cross_entropy>(), real);
    }
    return f(std::integral_constant<DiceMode, DiceMode::softmax>(), real);
  });
}

}  // namespace
}  // namespace labeldrop
