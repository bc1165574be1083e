// Dice sums of N pixels whose K <= 32 logits one thread holds in registers: what both passes share.
//
// Where sums are linear in the probabilities, a merged class's go to class 0 at the end: it is counted and positive
// where class 0 is, has the same upstream gradients, and its sums are added to those of class 0. So the steps over the
// classes know nothing of it; and where every row of a sample has every class active and counted, as with labels that
// do not overlap, they have no masks but for what is positive.
#pragma once

#include "../math/dice_sums.h"
#include "pixels.cuh"
#include "reduce.cuh"
#include "tile.cuh"

namespace labeldrop::cuda {

// Blocks of a multiprocessor, so many that nothing moves registers through memory. The forward pass has two sums for
// each class besides; pixels that are no neighbours take some addresses.
template <class Path>
constexpr int kDiceAddresses = Path::Pixels::kNeighbours ? 0 : 8;
template <class Path>
constexpr int kDiceForwardHeld = Path::MaxK * (Path::N + 2) + kDiceAddresses<Path>;
template <class Path>
constexpr int kDiceForwardBlocks = kDiceForwardHeld<Path> <= 48                                                   ? 4
                                   : kDiceForwardHeld<Path> >= 96 && Path::N * sizeof(typename Path::Storage) > 8 ? 2
                                   : kDiceForwardHeld<Path> <= 96                                                 ? 3
                                                                                                                  : 2;
template <class Path>
constexpr int kDiceBackwardHeld = Path::MaxK * Path::N + kDiceAddresses<Path>;
template <class Path>
constexpr int kDiceBackwardBlocks = kDiceBackwardHeld<Path> <= 16   ? 4
                                    : kDiceBackwardHeld<Path> <= 40 ? 3
                                                                    : 2;

// A row of the tables, with merged classes as class 0; in shared memory.
struct alignas(16) DiceRow {
  uint32_t active, counted, positive, candidates;
};

__device__ __forceinline__ uint32_t with_merged(uint32_t word, uint32_t merged) {
  return (word & 1u) != 0 ? word | merged : word;
}

__device__ __forceinline__ uint32_t all_classes(const DiceSumsArguments& a) {
  return ~0u >> (kMostInRegisters - a.channels);
}

// What a block has in shared memory of the sample that it is at.
struct DiceSample {
  DiceRow* rows;      // [L]
  uint32_t* special;  // [1]: rows with a class that is not active or not counted
  uint32_t* invalid;  // [1]: pixels that have no row

  __device__ __forceinline__ DiceSample(const DiceSumsArguments& a, unsigned char* shared)
      : rows(reinterpret_cast<DiceRow*>(shared)),
        special(reinterpret_cast<uint32_t*>(rows + a.labels)),
        invalid(special + 1) {}

  static __host__ __device__ int64_t bytes(const DiceSumsArguments& a) {
    return a.labels * static_cast<int64_t>(sizeof(DiceRow)) + 16;
  }

  // For all threads, with barriers before anything is read.
  __device__ __forceinline__ void load(const DiceSumsArguments& a, int64_t sample) const {
    if (threadIdx.x == 0) *special = *invalid = 0;
    __syncthreads();
    const uint32_t merged = __ldg(a.merged + sample), every = all_classes(a);
    const int tables = a.with_cross_entropy ? 4 : 3;
    const uint32_t* words = a.tables + sample * a.labels * tables;
    for (int l = static_cast<int>(threadIdx.x); l < a.labels; l += kBlock) {
      const uint32_t* row = words + static_cast<int64_t>(l) * tables;
      const uint32_t active = __ldg(row + kActive), counted = with_merged(__ldg(row + kCounted), merged);
      const uint32_t candidates = a.with_cross_entropy ? __ldg(row + kCandidates) : 0;
      rows[l] = {active, counted, with_merged(__ldg(row + kPositive), merged), candidates};
      if ((active & counted & every) != every) atomicAdd(special, 1u);
    }
    __syncthreads();
  }
};

// The row of a value, or kSkipped, kInvalid. Compared as 64-bit numbers, so that an ignore_index that the type cannot
// hold equals nothing.
__device__ __forceinline__ int32_t row_of(const DiceSumsArguments& a, int64_t value) {
  const bool is_label = static_cast<uint64_t>(value) < static_cast<uint64_t>(a.labels);
  return value == a.ignore_index ? kSkipped : is_label ? static_cast<int32_t>(value) : kInvalid;
}

// Rows of pixels, kSkipped of those that do not exist; true if they are all the same, and then the first alone is
// there.
template <class Value, class Pixels>
__device__ __forceinline__ bool load_dice_rows_of(const DiceSumsArguments& a, const void* target, const Pixels& pixels,
                                                  int32_t (&rows)[Pixels::N]) {
  constexpr int N = Pixels::N;
  Value values[N];
  load_of_pixels(static_cast<const Value*>(target), pixels, values);
  bool alike = pixels.exists(N - 1);
#pragma unroll
  for (int i = 1; i < N; ++i) alike &= values[i] == values[0];
  rows[0] = pixels.exists(0) ? row_of(a, values[0]) : kSkipped;
  if (!alike) {
#pragma unroll
    for (int i = 1; i < N; ++i) rows[i] = pixels.exists(i) ? row_of(a, values[i]) : kSkipped;
  }
  return alike;
}

// The same of neighbours' bytes, which are compared four at a time.
template <class Pixels>
__device__ __forceinline__ bool load_dice_rows_of_bytes(const DiceSumsArguments& a, const Pixels& pixels,
                                                        int32_t (&rows)[Pixels::N]) {
  constexpr int N = Pixels::N;
  uint32_t words[N / 4];
  load_values(reinterpret_cast<const uint32_t*>(static_cast<const uint8_t*>(a.target) + pixels.first), words);
  bool alike = words[0] == (words[0] & 0xffu) * 0x01010101u;
#pragma unroll
  for (int i = 1; i < N / 4; ++i) alike &= words[i] == words[0];
  rows[0] = row_of(a, words[0] & 0xffu);
  if (!alike) {
#pragma unroll
    for (int i = 1; i < N; ++i) rows[i] = row_of(a, words[i / 4] >> (8 * (i % 4)) & 0xffu);
  }
  return alike;
}

template <class Pixels>
__device__ __forceinline__ bool load_dice_rows(const DiceSumsArguments& a, const Pixels& pixels,
                                               int32_t (&rows)[Pixels::N]) {
  switch (a.target_type) {
    case Integer::u8:
      if constexpr (Pixels::kNeighbours && Pixels::N % 4 == 0) return load_dice_rows_of_bytes(a, pixels, rows);
      return load_dice_rows_of<uint8_t>(a, a.target, pixels, rows);
    case Integer::i16: return load_dice_rows_of<int16_t>(a, a.target, pixels, rows);
    case Integer::i32: return load_dice_rows_of<int32_t>(a, a.target, pixels, rows);
    case Integer::i64: return load_dice_rows_of<int64_t>(a, a.target, pixels, rows);
  }
  return false;
}

// What the target and the weights say of N pixels. With weights, rows are never taken to be alike: so weights of 1 add
// up in the same order as none.
template <int N>
struct DicePixels {
  int32_t rows[N];   // kSkipped, kInvalid; if alike, the first alone is there
  bool alike;        // they have the same row
  uint32_t missing;  // bit i: pixel i has no row

  __device__ __forceinline__ void all_rows(int32_t (&all)[N]) const {
#pragma unroll
    for (int i = 0; i < N; ++i) all[i] = alike ? rows[0] : rows[i];
  }
};

template <class Pixels>
__device__ __forceinline__ DicePixels<Pixels::N> load_dice_pixels(const DiceSumsArguments& a, const Pixels& pixels) {
  constexpr int N = Pixels::N;
  DicePixels<N> p;
  const bool alike = load_dice_rows(a, pixels, p.rows);
  p.missing = 0;
  p.alike = alike && p.rows[0] >= 0 && a.pixel_weight == nullptr;
  if (p.alike) return p;
  if (alike) {
#pragma unroll
    for (int i = 1; i < N; ++i) p.rows[i] = p.rows[0];
  }
  if (a.pixel_weight != nullptr) {
    float weights[N];
    load_of_pixels(static_cast<const float*>(a.pixel_weight), pixels, weights);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (p.rows[i] >= 0 && weights[i] == 0) p.rows[i] = kSkipped;
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) p.missing |= p.rows[i] < 0 ? 1u << i : 0;
  return p;
}

// Factors of pixels times their weights, which are read anew, since they are seldom there; 0 without a row.
template <class Pixels>
__device__ __forceinline__ void weigh(const DiceSumsArguments& a, const Pixels& pixels, const DicePixels<Pixels::N>& p,
                                      float (&factors)[Pixels::N]) {
  if (a.pixel_weight != nullptr) {
    float weights[Pixels::N];
    load_of_pixels(static_cast<const float*>(a.pixel_weight), pixels, weights);
#pragma unroll
    for (int i = 0; i < Pixels::N; ++i) factors[i] *= weights[i];
  }
  if (p.missing != 0) {
#pragma unroll
    for (int i = 0; i < Pixels::N; ++i) factors[i] = (p.missing >> i & 1u) != 0 ? 0 : factors[i];
  }
}

// Of pixels without a row: 0 in place of logits that may be NaN.
template <class Classes, int N>
__device__ __forceinline__ void without_logits_of_no_row(const DicePixels<N>& p, Classes classes,
                                                         float (&z)[Classes::MaxK][N]) {
  if (p.missing == 0) return;
  classes.each([&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) z[k][i] = p.rows[i] < 0 ? 0 : z[k][i];
  });
}

// A word of each pixel's row; 0 without a row.
template <int N>
__device__ __forceinline__ void load_row_words(const DiceSample& sample, const DicePixels<N>& p,
                                               uint32_t DiceRow::* word, uint32_t (&words)[N]) {
  if (p.alike) {
    words[0] = sample.rows[p.rows[0]].*word;
#pragma unroll
    for (int i = 1; i < N; ++i) words[i] = words[0];
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) words[i] = p.rows[i] < 0 ? 0 : sample.rows[p.rows[i]].*word;
  }
}

// Logits to e_k = exp(z_k - the largest z), of pixels whose classes are all active: p_k = share * e_k. Like torch's
// softmax, NaN if all logits are -inf.
template <class Classes, int N>
__device__ __forceinline__ void exponentials(Classes classes, float (&z)[Classes::MaxK][N], float (&share)[N]) {
  float max[N], sum[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    max[i] = -infinity<float>();
    sum[i] = 0;
  }
  classes.each([&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) max[i] = fmaxf(max[i], z[k][i]);
  });
  classes.each([&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      z[k][i] = exp_nonpositive(z[k][i] - max[i]);
      sum[i] += z[k][i];
    }
  });
#pragma unroll
  for (int i = 0; i < N; ++i) share[i] = reciprocal(sum[i]);
}

// The same with cross-entropy: exponentials relative to one logit serve both parts, candidates and others, unless the
// candidates' are so small that their sum loses digits.
template <int N>
struct DiceParts {
  float candidates[N], others[N];  // sums of e_k
  uint32_t faint;                  // bit i: those of pixel i are of no use
};

template <class Classes, int N>
__device__ __forceinline__ DiceParts<N> exponentials_of_parts(Classes classes, const uint32_t (&candidates)[N],
                                                              float (&z)[Classes::MaxK][N]) {
  DiceParts<N> s{};
  float max[N], max_candidate[N];
#pragma unroll
  for (int i = 0; i < N; ++i) max[i] = max_candidate[i] = -infinity<float>();
  classes.each([&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      max[i] = fmaxf(max[i], z[k][i]);
      if (has_bit(candidates[i], k)) max_candidate[i] = fmaxf(max_candidate[i], z[k][i]);
    }
  });
  classes.each([&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      z[k][i] = exp_nonpositive(z[k][i] - max[i]);
      if (has_bit(candidates[i], k)) {
        s.candidates[i] += z[k][i];
      } else {
        s.others[i] += z[k][i];
      }
    }
  });
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (!(max_candidate[i] - max[i] > -kGap)) s.faint |= 1u << i;  // or -inf, or NaN
  }
  return s;
}

// What turns the numbers e_k that are left in z into probabilities, and more.
struct DicePixelScales {
  float share, candidate_share;  // p_k = share * e_k, candidate_share * e_k for a candidate
  float loss;                    // cross-entropy; its gradient is slope * e_k, candidate_slope * e_k for a candidate
  float slope, candidate_slope;

  __device__ __forceinline__ float probability(float e, bool is_candidate) const {
    return e * (is_candidate ? candidate_share : share);
  }
};

__device__ __forceinline__ DicePixelScales softmax_scales(const DiceRow& row, int classes, float* z) {
  float max = -infinity<float>(), sum = 0;
#pragma unroll 1
  for (int k = 0; k < classes; ++k) {
    if (has_bit(row.active, k)) max = fmaxf(max, z[k]);
  }
  max = finite_from_below(max);
#pragma unroll 1
  for (int k = 0; k < classes; ++k) {
    z[k] = has_bit(row.active, k) ? exp_nonpositive(z[k] - max) : 0;
    sum += z[k];
  }
  const float share = softmax_share(sum, row.active != 0);
  return {share, share, 0, 0, 0};
}

// As set_cross_entropy: exponentials relative to the largest logit of each part, candidates and others.
__device__ __forceinline__ DicePixelScales compound_scales(const DiceRow& row, int classes, float* z) {
  float max_candidate = -infinity<float>(), max_other = max_candidate, sum_candidate = 0, sum_other = 0;
  const uint32_t others = row.active & ~row.candidates;
#pragma unroll 1
  for (int k = 0; k < classes; ++k) {
    z[k] = finite_from_below(z[k]);
    if (has_bit(row.candidates, k)) max_candidate = fmaxf(max_candidate, z[k]);
    if (has_bit(others, k)) max_other = fmaxf(max_other, z[k]);
  }
#pragma unroll 1
  for (int k = 0; k < classes; ++k) {
    const bool is_candidate = has_bit(row.candidates, k);
    const float e = exp_nonpositive(z[k] - (is_candidate ? max_candidate : max_other));
    z[k] = has_bit(row.active, k) ? e : 0;
    if (is_candidate) {
      sum_candidate += z[k];
    } else {
      sum_other += z[k];
    }
  }
  const auto p = set_cross_entropy_pixel(max_candidate, sum_candidate, max_other, sum_other);
  return {p.other_scale, p.candidate_share, p.loss, p.other_scale, p.candidate_scale};
}

// A pixel of any row and mode: z[K] becomes e_k.
__device__ __forceinline__ DicePixelScales scales_of(const DiceSumsArguments& a, const DiceRow& row, float* z) {
  const int classes = static_cast<int>(a.channels);
  if (a.with_cross_entropy) return compound_scales(row, classes, z);
  if (!a.sigmoid) return softmax_scales(row, classes, z);
#pragma unroll 1
  for (int k = 0; k < classes; ++k) z[k] = has_bit(row.active, k) ? sigmoid(z[k]) : 0;
  return {1, 1, 0, 0, 0};
}

// Whether `exponentials` will do for a sample, as far as its rows go.
__device__ __forceinline__ bool is_usual(const DiceSumsArguments& a, const DiceSample& sample) {
  return !a.sigmoid && !a.squared && *sample.special == 0;
}

// The logits of a pixel, which counts through all samples, read anew.
template <class Storage>
__device__ __forceinline__ void load_logits_again(const DiceSumsArguments& a, int64_t sample, int64_t pixel, float* z) {
  const Storage* logits = static_cast<const Storage*>(a.logits);
  logits += a.channels_last ? pixel * a.channels : sample * (a.channels - 1) * a.pixels + pixel;
  const int64_t step = a.channels_last ? 1 : a.pixels;
#pragma unroll 1
  for (int k = 0; k < a.channels; ++k) z[k] = Element<Storage>::load(logits[k * step]);
}

// ---------------------------------------------------------------------------------------------------------- dispatch

// f(Path()) for N pixels at a time, or for one where the arrays' alignment or the size ask for it.
template <class Storage, int MaxK, int kLeast, int N, class Function>
auto with_dice_pixels(const DiceSumsArguments& a, const void* stored, Function f) {
  constexpr int kOfTile = MaxK <= 4 ? 4 : MaxK <= 16 ? 2 : 1;  // rows take more registers on their way
  if (a.channels_last) return f(TilePath<Storage, MaxK, kLeast, kOfTile>());
  const bool aligned =
      vector_aligned(a.logits) && vector_aligned(stored) && vector_aligned(a.target) && vector_aligned(a.pixel_weight);
  if (aligned && a.pixels % N == 0) return f(ContiguousPath<Storage, MaxK, kLeast, N>());
  return f(ContiguousPath<Storage, kMostInRegisters, 0, 1>());
}

template <class Storage, class Function>
auto with_dice_classes(const DiceSumsArguments& a, const void* stored, Function f) {
  const bool rows = a.channels_last && vector_aligned(a.logits) && vector_aligned(stored);
  if (rows && a.channels == 2) return f(RowPath<Storage, 2, 4>());
  if (rows && a.channels == 4) return f(RowPath<Storage, 4, 4>());
  if (rows && a.channels == 8) return f(RowPath<Storage, 8, 2>());
  if (a.channels <= 4) return with_dice_pixels<Storage, 4, 1, 16 / sizeof(Storage)>(a, stored, f);
  if (a.channels <= 8) return with_dice_pixels<Storage, 8, 5, 4>(a, stored, f);
  if (a.channels <= 16) return with_dice_pixels<Storage, 16, 9, 4>(a, stored, f);
  return with_dice_pixels<Storage, kMostInRegisters, 17, 2>(a, stored, f);
}

// Whether a pixel's classes fit into a thread's registers, as floats.
inline bool fits_registers(const DiceSumsArguments& a) {
  return a.channels <= kMostInRegisters && a.logits_type != Float::f64;
}

// f(Path()), see register_pixels.cuh: fewer paths than where one pass makes a loss, and not double.
template <class Function>
auto with_dice_path(const DiceSumsArguments& a, const void* stored, Function f) {
  if (a.logits_type == Float::bf16) return with_dice_classes<BFloat16>(a, stored, f);
  if (a.logits_type == Float::f16) return with_dice_classes<Float16>(a, stored, f);
  return with_dice_classes<float>(a, stored, f);
}

void dice_sums_backward_many_classes(const DiceSumsBackwardArguments& arguments, cudaStream_t stream);

}  // namespace labeldrop::cuda
