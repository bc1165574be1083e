// What the losses that are sums over pixels share on the CPU: tiles of pixels that stay in the first-level cache,
// labels to rows of the tables, weights, threads. Included by files that are compiled once per instruction set.
//
// Vectors run over pixels, so any number of classes will do. The sum over pixels is kept per block and added up in a
// fixed order by the caller, so the loss depends neither on the number of threads nor on their timing.
#pragma once

#include <cstring>
#include <type_traits>

#include "block_io.h"
#include "row_tables.h"
#include "threads.h"
#include "tiles.h"

namespace labeldrop {
namespace {

// A block's place in the tensors.
struct Block {
  template <class Arguments>
  Block(const Arguments& a, int64_t index, int64_t size) {
    const int64_t blocks_per_sample = (a.pixels + size - 1) / size;
    sample = index / blocks_per_sample;
    first = index % blocks_per_sample * size;
    count = static_cast<int>(a.pixels - first < size ? a.pixels - first : size);
    pixel = sample * a.pixels + first;
    element = sample * a.channels * a.pixels + first * (a.channels_last ? a.channels : 1);
  }

  int64_t sample, first;   // first pixel within the sample
  int count;               // pixels
  int64_t pixel, element;  // offsets in [N, S] and of channel 0 in [N, C, S]
};

// Vectors of a unit, which is 16 floats (a cache line) or one double: where all its pixels read one row, its vectors
// are worked on side by side.
template <class Real>
constexpr int kUnitVectors = Lanes<Real>::count > 1 ? 16 / Lanes<Real>::count : 1;
template <class Real>
constexpr int kUnit = kUnitVectors<Real> * Lanes<Real>::count;

// A block of pixels as one thread works on it. Whole units may be read and written: there is room for them.
template <class Real>
class Tile {
 public:
  Tile(const CpuPixelLossArguments& a, int64_t block)
      : pitch((block + 15) / 16 * 16),
        reals_((a.channels + 5) * pitch),
        extra_(a.channels * 64),
        rows_(pitch),
        values(reals_.get()),
        loss(values + a.channels * pitch),
        weight(loss + pitch),
        factor(weight + pitch),
        sum_candidate(factor + pitch),
        sum_other(sum_candidate + pitch),
        extra(extra_.get()),
        row(rows_.get()) {
    for (int64_t i = 0; allocated() && i < pitch; ++i) {
      weight[i] = 1;
      factor[i] = static_cast<Real>(a.scale);
    }
  }

  bool allocated() const { return values && extra && row; }

  const int64_t pitch;

 private:
  Buffer<Real> reals_, extra_;
  Buffer<int32_t> rows_;

 public:
  Real* const values;  // [C, pitch]: logits on their way in, gradient on its way out; between them what one likes
  Real *const loss, *const weight, *const factor;  // factor: of the pixel's gradient
  Real *const sum_candidate, *const sum_other;     // for the loss to use
  Real* const extra;                               // [C, 64]: likewise
  int32_t* const row;                              // the pixel's row of the tables; L where it does not count
  bool weighted = false;                           // whether a pixel that counts has another weight than 1
};

// The rows that n pixels read; there is room for whole vectors of them. False if one that counts is no label.
template <class Value>
bool load_rows(int32_t* rows, const Value* target, int n, int64_t labels, int64_t ignore_index) {
  constexpr int kCount = Lanes<float>::count;
  const auto as_words = [](int64_t value) { return IntegerLanes{} + static_cast<int32_t>(value); };
  const bool can_be_ignored = sizeof(Value) == 8 || static_cast<int32_t>(ignore_index) == ignore_index;
  const IntegerLanes none = as_words(labels), ignored = as_words(ignore_index);
  const IntegerLanes ignored_high = sizeof(Value) == 8 ? as_words(ignore_index >> 32) : as_words(!can_be_ignored);
  IntegerLanes valid = as_words(-1);
  const auto load = [&](int32_t* to, const Value* from) __attribute__((always_inline)) {
    const auto [label, high] = load_words(from);
    const IntegerLanes is_ignored = (label == ignored) & (high == ignored_high);
    const IntegerLanes is_label = ((UnsignedLanes)label < (UnsignedLanes)none) & (high == 0);
    valid &= is_ignored | is_label;
    store_lanes(to, (is_label & ~is_ignored) != 0 ? label : none);
  };
  const int whole = n / kCount * kCount;
  for (int i = 0; i < whole; i += kCount) load(rows + i, target + i);
  if (whole < n) {
    Value last[kCount];  // filled up with the last pixel
    for (int j = 0; j < kCount; ++j) last[j] = target[whole + j < n ? whole + j : n - 1];
    load(rows + whole, last);
  }
  return no_bits(~valid);
}

// Labels and weights of the block's pixels. One of weight 0 does not count. Returns the first invalid pixel or -1.
template <class Real>
int64_t load_pixels(const CpuPixelLossArguments& a, Tile<Real>& t, const Block& block) {
  const int n = block.count;
  int32_t* __restrict row = t.row;
  const int64_t invalid = with_integers(a.target, a.target_type, [&](auto* target) -> int64_t {
    target += block.pixel;
    const bool valid = load_rows(row, target, n, a.labels, a.ignore_index);
    return valid ? -1 : first_invalid(target, n, a.labels, a.ignore_index);
  });
  if (a.pixel_weight != nullptr || a.label_weight != nullptr) {
    Real* __restrict weight = t.weight;
    const int32_t none = static_cast<int32_t>(a.labels);
    const Real* pixel_weight = static_cast<const Real*>(a.pixel_weight);
    for (int i = 0; i < n; ++i) weight[i] = pixel_weight != nullptr ? pixel_weight[block.pixel + i] : Real(1);
    const Real* label_weight = static_cast<const Real*>(a.label_weight) + block.sample * a.labels;
    for (int i = 0; i < n && a.label_weight != nullptr; ++i)
      weight[i] *= row[i] != none ? label_weight[row[i]] : Real(0);
    int32_t weighted = 0;
    for (int i = 0; i < n; ++i) {
      row[i] = weight[i] != Real(0) ? row[i] : none;
      weight[i] = row[i] != none ? weight[i] : Real(0);
      weighted |= (row[i] != none) & (weight[i] != Real(1));
    }
    t.weighted = weighted != 0;
  }
  if (a.pixel_weight != nullptr || a.label_weight != nullptr || a.upstream != nullptr) {
    Real* __restrict factor = t.factor;
    const Real* upstream = static_cast<const Real*>(a.upstream);
    const Real scale = static_cast<Real>(a.scale);
    for (int i = 0; i < n; ++i) {
      factor[i] = scale * t.weight[i] * (upstream != nullptr ? upstream[block.pixel + i] : Real(1));
    }
  }
  for (int i = n; i % kUnit<Real> != 0; ++i) row[i] = row[i - 1];  // as if the last unit were a whole one
  return invalid;
}

// The logits of at most n pixels of a block, from its pixel i on, as rows of n numbers: what the tile had of them.
template <class Real>
void read_again(const CpuPixelLossArguments& a, const Block& block, int i, int n, Real* values) {
  const int64_t channel_stride = a.channels_last ? 1 : a.pixels, pixel_stride = a.channels_last ? a.channels : 1;
  const int64_t element = block.element + i * pixel_stride, bytes = bytes_of(a.logits_type);
  LABELDROP_ISA::read_tile(values, n, static_cast<const char*>(a.logits) + element * bytes, a.logits_type, a.channels,
                           channel_stride, pixel_stride, block.count - i < n ? block.count - i : n);
}

// ---- rows of the tables, read by a vector of pixels ----

// One step of each of n vectors of pixels over all classes, from the last to the first:
// step(k, vector, value, is_candidate, is_other). Loops over a constant number of classes are unrolled.
template <int n, class Real, class Classes, class Step>
LABELDROP_INLINE void for_each_class_of(const Tile<Real>& t, const RowTables& tables, Classes classes, int i,
                                        Step step) {
  using Bits = typename Lanes<Real>::Bits;
  for (int64_t w = (classes + 31) / 32 - 1; w >= 0; --w) {
    const int64_t last = (classes < 32 * (w + 1) ? classes : 32 * (w + 1)) - 1;
    BitWalk<Bits> candidates[n], others[n];
    for (int j = 0; j < n; ++j) {
      const Bits rows = load_lanes<Bits>(t.row + i + j * Lanes<Real>::count);
      candidates[j] = {tables.candidate_bits(w, rows), last};
      others[j] = {tables.other_bits(w, rows), last};
    }
    Real* value = t.values + last * t.pitch + i;
    for (int64_t k = last; k >= 32 * w; --k, value -= t.pitch) {
      for (int j = 0; j < n; ++j) {
        step(k, j, value + j * Lanes<Real>::count, candidates[j].is_set(), others[j].is_set());
        candidates[j].next();
        others[j].next();
      }
    }
  }
}

// The same of one vector: step(k, value, is_candidate, is_other).
template <class Real, class Step>
LABELDROP_INLINE void for_each_class(const Tile<Real>& t, const RowTables& tables, int64_t classes, int i, Step step) {
  for_each_class_of<1>(t, tables, classes, i,
                       [&](int64_t k, int, Real* value, auto is_candidate, auto is_other)
                           __attribute__((always_inline)) { step(k, value, is_candidate, is_other); });
}

// Calls f with the number of classes: of few, which are the commonest, as a constant.
template <class Function>
LABELDROP_INLINE void with_classes(int64_t classes, Function f) {
  switch (classes) {
    case 2: return f(std::integral_constant<int64_t, 2>());
    case 3: return f(std::integral_constant<int64_t, 3>());
    case 4: return f(std::integral_constant<int64_t, 4>());
    default: return f(classes);
  }
}

// Weights the losses of n pixels and returns their sum.
template <class Real>
double finish_losses(const Tile<Real>& t, int n) {
  constexpr int kSums = 16;  // independent sums, so that adding up vectorises
  Real* __restrict loss = t.loss;
  for (int i = 0; t.weighted && i < n; ++i) loss[i] *= t.weight[i];
  for (int i = n; i % kSums != 0; ++i) loss[i] = 0;
  double sums[kSums] = {};
  for (int i = 0; i < n; i += kSums) {
    for (int j = 0; j < kSums; ++j) sums[j] += static_cast<double>(loss[i + j]);
  }
  double sum = 0;
  for (double part : sums) sum += part;
  return sum;
}

// Fetches the next block's logits while this one is computed, so that memory and arithmetic overlap. To the
// second-level cache: the first one is full of this block.
class Fetch {
 public:
  template <class Arguments>
  Fetch(const Arguments& a, const Block& next, int64_t element_bytes)
      : from_(static_cast<const char*>(a.logits) + next.element * element_bytes),
        rows_(a.channels_last ? 1 : a.channels),
        row_bytes_(a.pixels * element_bytes),
        pixel_bytes_(a.channels_last ? a.channels * element_bytes : element_bytes),
        element_bytes_(element_bytes) {}

  // the cache lines that begin in n pixels from `pixel` on
  LABELDROP_INLINE void operator()(int pixel, int n) const {
    const int64_t end = (pixel + n) * pixel_bytes_;
    for (int64_t offset = up_to_line(pixel * pixel_bytes_); offset < end; offset += kLine) {
      const char* line = from_ + offset;
      for (int64_t row = 0; row < rows_; ++row, line += row_bytes_) __builtin_prefetch(line, 0, 2);
    }
  }

  // Those of channel c alone; in channels-last, as many bytes as that of all.
  LABELDROP_INLINE void operator()(int64_t c, int pixel, int n) const {
    const int64_t begin = pixel * pixel_bytes_ + (rows_ == 1 ? c * n * element_bytes_ : 0);
    const char* const row = from_ + (rows_ == 1 ? 0 : c * row_bytes_);
    for (int64_t offset = up_to_line(begin); offset < begin + n * element_bytes_; offset += kLine) {
      __builtin_prefetch(row + offset, 0, 2);
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  LABELDROP_INLINE static int64_t up_to_line(int64_t offset) { return (offset + kLine - 1) / kLine * kLine; }

  const char* const from_;
  const int64_t rows_, row_bytes_, pixel_bytes_, element_bytes_;
};

// A loss's work on a tile: what it is called with first is the loss itself.
template <class Real>
using ComputeTile = void (*)(const void* compute, const Tile<Real>& tile, const RowTables& tables, const Block& block,
                             const Fetch& fetch);

// Runs `run` over all blocks. Returns the first invalid pixel or one of the codes. One copy serves all losses and
// element types of a file.
template <class Real>
LABELDROP_ONE_COPY int64_t run_blocks(const CpuPixelLossArguments& a, ComputeTile<Real> run, const void* compute) {
  const int64_t size = pixel_block(a.channels);
  const int64_t blocks = pixel_blocks(a.samples, a.channels, a.pixels);
  const int64_t channel_stride = a.channels_last ? 1 : a.pixels, pixel_stride = a.channels_last ? a.channels : 1;
  const int64_t bytes = bytes_of(a.logits_type);
  const bool streaming = can_stream(a.gradient, (a.channels_last ? a.channels : a.pixels) * bytes,
                                    a.samples * a.pixels * (2 * a.channels * bytes + 1));
  return share_out(blocks, a.threads, [&](int64_t begin, int64_t end) -> int64_t {
    Tile<Real> tile(a, size);
    RowTables tables(a);
    if (!tile.allocated() || !tables.allocated()) return kOutOfMemory;
    int64_t lowest = kNothing;
    for (int64_t b = begin; b < end; ++b) {
      const Block block(a, b, size);
      tables.start(block.sample);
      const int64_t invalid = load_pixels(a, tile, block);
      if (invalid >= 0 && block.pixel + invalid < lowest) lowest = block.pixel + invalid;
      LABELDROP_ISA::read_tile(tile.values, tile.pitch, static_cast<const char*>(a.logits) + block.element * bytes,
                               a.logits_type, a.channels, channel_stride, pixel_stride, block.count);
      const Block next(a, b + 1 < end ? b + 1 : b, size);
      run(compute, tile, tables, block, Fetch(a, next, bytes));
      a.block_loss[b] = finish_losses(tile, block.count);
      if (a.loss != nullptr) {
        memcpy(static_cast<Real*>(a.loss) + block.pixel, tile.loss, block.count * sizeof(Real));
      }
      if (a.gradient != nullptr) {
        LABELDROP_ISA::write_tile(tile.values, tile.pitch, static_cast<char*>(a.gradient) + block.element * bytes,
                                  a.logits_type, a.channels, channel_stride, pixel_stride, block.count, streaming);
      }
    }
    if (streaming) end_stream();
    return lowest;
  });
}

// Runs compute(tile, tables, block, fetch) over all tiles.
template <class Compute>
int64_t run_tiles(const CpuPixelLossArguments& a, const Compute& compute) {
  return with_reals(a.logits_type, [&](auto real) {
    using Real = decltype(real);
    const ComputeTile<Real> run = [](const void* compute, const Tile<Real>& tile, const RowTables& tables,
                                     const Block& block, const Fetch& fetch) {
      (*static_cast<const Compute*>(compute))(tile, tables, block, fetch);
    };
    return run_blocks<Real>(a, run, &compute);
  });
}

}  // namespace
}  // namespace labeldrop
