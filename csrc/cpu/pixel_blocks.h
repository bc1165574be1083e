// What the losses that are sums over pixels share on the CPU: blocks of pixels that stay in cache, labels to bit masks,
// weights, layouts and element types, threads. Included by files that are compiled once per instruction set.
//
// Vectors run over pixels, so any number of classes will do. Contiguous floats are read and written where they are;
// other element types and channels-last go through scratch. The sum over pixels is kept per block and added up in a
// fixed order by the caller, so the loss depends neither on the number of threads nor on their timing.
#pragma once

#include <cstring>
#include <type_traits>

#include "block_io.h"
#include "buffer.h"
#include "lanes.h"
#include "operators.h"
#include "threads.h"
#include "tiles.h"

namespace labeldrop {
namespace {

constexpr int kPadding = 64;  // elements past a block's end that whole vectors may touch
// Channels read and written side by side in memory. More than this many address streams at once outrun the TLB and the
// prefetchers, and copying channel by channel through scratch is faster (measured: K = 32 takes 1.3 times as long).
constexpr int64_t kMostStreams = 16;

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

// What one thread works in. Rows are `pitch` elements, one per pixel of the block.
template <class Real>
class Scratch {
 public:
  // Rows start at cache lines: the pitch is a multiple of 16 elements.
  Scratch(int64_t channels, int64_t classes, int64_t block)
      : pitch(block + kPadding),
        words((classes + 31) / 32),
        reals_((channels + 3) * pitch),
        integers_((2 * words + 2) * pitch),
        values(reals_.get()),
        loss(values + channels * pitch),
        weight(loss + pitch),
        factor(weight + pitch),
        candidates(integers_.get()),
        others(candidates + words * pitch),
        row(others + words * pitch),
        counted(row + pitch) {}

  bool allocated() const { return values && candidates; }

  const int64_t pitch, words;

 private:
  Buffer<Real> reals_;
  Buffer<int32_t> integers_;

 public:
  Real* const values;  // [C, pitch]: logits on their way in, gradient on its way out; between them what one likes
  Real *const loss, *const weight, *const factor;  // factor: of the pixel's gradient
  int32_t *const candidates, *const others;        // [W, pitch] bits: candidates; active and no candidate
  int32_t *const row, *const counted;              // the pixel's row of the tables; 1 where the pixel counts
};

// Weight and gradient factor of the block's pixels. One of weight 0 does not count.
template <class Real>
void load_weights(const CpuPixelLossArguments& a, const Scratch<Real>& s, const Block& block) {
  const int n = block.count;
  Real* __restrict weight = s.weight;
  Real* __restrict factor = s.factor;
  const Real scale = static_cast<Real>(a.scale);
  for (int i = 0; i < n; ++i) weight[i] = 1;
  if (a.pixel_weight != nullptr) {
    memcpy(weight, static_cast<const Real*>(a.pixel_weight) + block.pixel, n * sizeof(Real));
  }
  if (a.label_weight != nullptr) {
    const Real* label_weight = static_cast<const Real*>(a.label_weight) + block.sample * a.labels;
    for (int i = 0; i < n; ++i) weight[i] *= label_weight[s.row[i]];
  }
  if (a.pixel_weight != nullptr || a.label_weight != nullptr) {
    for (int i = 0; i < n; ++i) s.counted[i] &= weight[i] != Real(0);
  }
  for (int i = 0; i < n; ++i) factor[i] = scale * weight[i];
  if (a.upstream != nullptr) {
    const Real* upstream = static_cast<const Real*>(a.upstream) + block.pixel;
    for (int i = 0; i < n; ++i) factor[i] *= upstream[i];
  }
}

// Labels to bit masks; a pixel that does not count has no active class. Returns the first invalid pixel or -1.
template <class Real>
int64_t load_masks(const CpuPixelLossArguments& a, const Scratch<Real>& s, const Block& block) {
  bool valid = true;
  const int64_t invalid = with_integers(a.target, a.target_type, [&](auto* target) -> int64_t {
    target += block.pixel;
    load_labels(s.row, s.counted, target, block.count, a.labels, a.ignore_index, valid);
    return valid ? -1 : first_invalid(target, block.count, a.labels, a.ignore_index);
  });
  load_weights(a, s, block);
  for (int64_t w = 0; w < s.words; ++w) {
    const int32_t row_words = static_cast<int32_t>(kPixelTables * s.words);
    const uint32_t* __restrict tables = a.tables + block.sample * a.labels * row_words + w;
    const uint32_t* __restrict candidates = tables + kPixelCandidates * s.words;
    const uint32_t* __restrict active = tables + kPixelActive * s.words;
    int32_t* __restrict candidate_bits = s.candidates + w * s.pitch;
    int32_t* __restrict other_bits = s.others + w * s.pitch;
    const int32_t* __restrict row = s.row;
    const int32_t* __restrict counted = s.counted;
#pragma omp simd
    for (int i = 0; i < block.count; ++i) {
      const uint32_t bits = active[row[i] * row_words] & static_cast<uint32_t>(-counted[i]);
      const uint32_t candidate = candidates[row[i] * row_words];
      candidate_bits[i] = static_cast<int32_t>(bits & candidate);
      other_bits[i] = static_cast<int32_t>(bits & ~candidate);
    }
  }
  return invalid;
}

// Where a block's channels lie: channel c of pixel i is at start[c * pitch + i].
template <class Real>
struct Rows {
  Real* start;
  int64_t pitch;
};

// One step of a vector of pixels over all classes: step(k, is_candidate, is_other).
template <class Real, class Step>
LABELDROP_INLINE void for_each_class(const Scratch<Real>& s, int64_t classes, int pixel, Step step) {
  using Bits = typename Lanes<Real>::Bits;
  for (int64_t w = 0; w < s.words; ++w) {
    const Bits candidates = load_lanes<Bits>(s.candidates + w * s.pitch + pixel);
    const Bits others = load_lanes<Bits>(s.others + w * s.pitch + pixel);
    const int64_t end = classes < 32 * (w + 1) ? classes : 32 * (w + 1);
    for (int64_t k = 32 * w; k < end; ++k) {
      // the class's bit as the sign: what vector selection looks at
      const int shift = static_cast<int>(31 - k % 32);
      step(k, (candidates << shift) < 0, (others << shift) < 0);
    }
  }
}

// Weights the losses of n pixels, makes those of pixels that do not count 0, and returns their sum.
template <class Real>
double finish_losses(const Scratch<Real>& s, int n) {
  constexpr int kSums = 8;  // independent sums, so that adding up vectorises
  double sums[kSums] = {};
  for (int i = 0; i < n; ++i) s.loss[i] = s.counted[i] ? s.loss[i] * s.weight[i] : Real(0);
  for (int i = n; i % kSums != 0; ++i) s.loss[i] = 0;
  for (int i = 0; i < n; i += kSums) {
    for (int j = 0; j < kSums; ++j) sums[j] += static_cast<double>(s.loss[i + j]);
  }
  double sum = 0;
  for (double part : sums) sum += part;
  return sum;
}

// Fetches the next block's logits while this one is computed, so that memory and arithmetic overlap.
class Prefetch {
 public:
  template <class Arguments>
  Prefetch(const Arguments& a, const Block& next, int64_t element_bytes)
      : logits_(static_cast<const char*>(a.logits) + next.element * element_bytes),
        channels_(a.channels),
        channel_bytes_(a.pixels * element_bytes),
        element_bytes_(element_bytes),
        channels_last_(a.channels_last) {}

  // the part that a vector of `lanes` pixels from `pixel` takes
  LABELDROP_INLINE void operator()(int pixel, int lanes) const {
    if (channels_last_) {
      const char* from = logits_ + pixel * channels_ * element_bytes_;
      const int64_t bytes = lanes * channels_ * element_bytes_;
      for (int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(from + offset);
    } else {
      const char* from = logits_ + pixel * element_bytes_;
      for (int64_t c = 0; c < channels_; ++c, from += channel_bytes_) __builtin_prefetch(from);
    }
  }

 private:
  const char* logits_;
  const int64_t channels_, channel_bytes_, element_bytes_;
  const bool channels_last_;
};

// Not inlined: one copy then serves all element types and layouts, where seven would take minutes to compile.
template <class Real, class Work, class Compute>
__attribute__((noinline)) void compute_rows(const Compute& compute, const Work& s, const Block& block,
                                            Rows<const Real> logits, Rows<Real> gradient, const Prefetch& prefetch) {
  compute(s, block, logits, gradient, prefetch);
}

// Calls compute(scratch, block, logits, gradient, prefetch), which leaves each pixel's loss in scratch.loss and, where
// gradient.start is no null pointer, its gradient there.
template <class Real, class Storage, class Arguments, class Work, class Compute>
void compute_in_place_or_scratch(const Arguments& a, void* all_gradients, const Work& s, const Block& block,
                                 const Prefetch& prefetch, const Compute& compute) {
  const Storage* logits = static_cast<const Storage*>(a.logits) + block.element;
  Storage* gradient = all_gradients ? static_cast<Storage*>(all_gradients) + block.element : nullptr;
  if constexpr (std::is_same_v<Real, Storage>) {
    if (!a.channels_last && a.channels <= kMostStreams && block.count % Lanes<Real>::count == 0) {
      return compute_rows<Real>(compute, s, block, {logits, a.pixels}, {gradient, a.pixels}, prefetch);
    }
  }
  const int64_t channel_stride = a.channels_last ? 1 : a.pixels, pixel_stride = a.channels_last ? a.channels : 1;
  load_tile(s.values, s.pitch, logits, a.channels, channel_stride, pixel_stride, block.count);
  Real* values = gradient ? s.values : nullptr;
  compute_rows<Real>(compute, s, block, {s.values, s.pitch}, {values, s.pitch}, prefetch);
  if (gradient == nullptr) return;
  store_tile(s.values, s.pitch, gradient, a.channels, channel_stride, pixel_stride, block.count, false);
}

// Runs `compute` over all blocks, for one combination of types. Returns the first invalid pixel or one of the codes.
template <class Real, class Storage, class Compute>
int64_t run_blocks_as(const CpuPixelLossArguments& a, const Compute& compute) {
  const int64_t size = pixel_block(a.channels);
  const int64_t blocks = pixel_blocks(a.samples, a.channels, a.pixels);
  return share_out(blocks, a.threads, [&](int64_t begin, int64_t end) -> int64_t {
    Scratch<Real> scratch(a.channels, a.classes, size);
    if (!scratch.allocated()) return kOutOfMemory;
    int64_t lowest = kNothing;
    for (int64_t b = begin; b < end; ++b) {
      const Block block(a, b, size);
      const Prefetch prefetch(a, Block(a, b + 1 < end ? b + 1 : b, size), sizeof(Storage));
      const int64_t invalid = load_masks(a, scratch, block);
      if (invalid >= 0 && block.pixel + invalid < lowest) lowest = block.pixel + invalid;
      compute_in_place_or_scratch<Real, Storage>(a, a.gradient, scratch, block, prefetch, compute);
      a.block_loss[b] = finish_losses(scratch, block.count);
      if (a.loss != nullptr) {
        memcpy(static_cast<Real*>(a.loss) + block.pixel, scratch.loss, block.count * sizeof(Real));
      }
    }
    return lowest;
  });
}

template <class Compute>
int64_t run_blocks(const CpuPixelLossArguments& a, const Compute& compute) {
  return with_floats(a.logits_type, [&](auto real, auto storage) {
    return run_blocks_as<decltype(real), decltype(storage)>(a, compute);
  });
}

}  // namespace
}  // namespace labeldrop
