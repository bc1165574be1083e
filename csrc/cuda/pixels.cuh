// What the target and the weights say of a pixel: its row in the tables of its sample, and what it counts.
#pragma once

#include "../math/elementary.h"
#include "elements.cuh"
#include "register_pixels.cuh"

namespace labeldrop::cuda {

// In place of a row: the pixel counts for nothing; its value is neither a label nor ignore_index.
constexpr int32_t kSkipped = -1, kInvalid = -2;

__device__ __forceinline__ bool has_bit(uint32_t word, int k) { return (word & (1u << k)) != 0; }

template <class Value>
__device__ __forceinline__ int32_t row_of(Value value, int64_t labels, int64_t ignore_index) {
  if constexpr (sizeof(Value) < sizeof(int64_t)) {
    const int32_t label = static_cast<int32_t>(value), ignored = static_cast<int32_t>(ignore_index);
    const bool is_label = static_cast<uint32_t>(label) < static_cast<uint32_t>(labels);
    // an ignore_index that the type cannot hold equals nothing
    return label == ignored && ignored == ignore_index ? kSkipped : is_label ? label : kInvalid;
  } else {
    const bool is_label = static_cast<uint64_t>(value) < static_cast<uint64_t>(labels);
    return value == ignore_index ? kSkipped : is_label ? static_cast<int32_t>(value) : kInvalid;
  }
}

// values[i] of each pixel; whether all exist and are equal.
template <class Value, class Pixels>
__device__ __forceinline__ bool load_labels(const Value* target, const Pixels& pixels, Value (&values)[Pixels::N]) {
  constexpr int N = Pixels::N;
  bool same = true;
  if constexpr (Pixels::kNeighbours && sizeof(Value) == 1 && N % 4 == 0) {
    const auto words = *reinterpret_cast<const Vector<uint32_t, N / 4>*>(target + pixels.first);
    const uint32_t first = (words.values[0] & 0xffu) * 0x01010101u;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      same &= words.values[i / 4] == first;
      values[i] = static_cast<Value>(words.values[i / 4] >> 8 * (i % 4));
    }
  } else {
    load_of_pixels(target, pixels, values);
#pragma unroll
    for (int i = 1; i < N; ++i) same &= pixels.exists(i) && values[i] == values[0];
    same &= pixels.exists(0);
  }
  return same;
}

template <class Value, class Pixels>
__device__ __forceinline__ bool load_rows_of(const void* target, int64_t labels, int64_t ignore_index,
                                             const Pixels& pixels, int32_t (&rows)[Pixels::N]) {
  Value values[Pixels::N];
  const bool same = load_labels(static_cast<const Value*>(target), pixels, values);
  rows[0] = pixels.exists(0) ? row_of(values[0], labels, ignore_index) : kSkipped;
#pragma unroll
  for (int i = 1; i < Pixels::N; ++i) rows[i] = rows[0];
  if (!same) {
#pragma unroll
    for (int i = 1; i < Pixels::N; ++i) {
      rows[i] = pixels.exists(i) ? row_of(values[i], labels, ignore_index) : kSkipped;
    }
  }
  return same;
}

// Rows of a thread's pixels, kSkipped for those that do not exist. True where all are the same because the labels are.
// For neighbours the target is aligned.
template <class Pixels, class Arguments>
__device__ __forceinline__ bool load_rows_of_pixels(const Arguments& a, const Pixels& pixels,
                                                    int32_t (&rows)[Pixels::N]) {
  switch (a.target_type) {
    case Integer::u8: return load_rows_of<uint8_t>(a.target, a.labels, a.ignore_index, pixels, rows);
    case Integer::i16: return load_rows_of<int16_t>(a.target, a.labels, a.ignore_index, pixels, rows);
    case Integer::i32: return load_rows_of<int32_t>(a.target, a.labels, a.ignore_index, pixels, rows);
    case Integer::i64: break;
  }
  return load_rows_of<int64_t>(a.target, a.labels, a.ignore_index, pixels, rows);
}

// Whether all rows are those of labels.
template <int N>
__device__ __forceinline__ bool all_labels(const int32_t (&rows)[N]) {
  int32_t signs = rows[0];
#pragma unroll
  for (int i = 1; i < N; ++i) signs |= rows[i];
  return signs >= 0;
}

// Weights of pixels with these rows: 0 where skipped, NaN where invalid. A pixel of weight 0 is skipped.
template <class Real, class Pixels, class Arguments>
__device__ __forceinline__ void load_weights_of_pixels(const Arguments& a, const Pixels& pixels,
                                                       int32_t (&rows)[Pixels::N], Real (&weights)[Pixels::N]) {
  constexpr int N = Pixels::N;
#pragma unroll
  for (int i = 0; i < N; ++i) weights[i] = 1;
  if (a.pixel_weight != nullptr) load_of_pixels(static_cast<const Real*>(a.pixel_weight), pixels, weights);
  if (a.label_weight != nullptr) {
    const Real* label_weight = static_cast<const Real*>(a.label_weight) + pixels.sample * a.labels;
#pragma unroll
    for (int i = 0; i < N; ++i) weights[i] *= label_weight[rows[i] < 0 ? 0 : rows[i]];
  }
  if (!all_labels(rows)) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (rows[i] == kInvalid) weights[i] = infinity<Real>() - infinity<Real>();
      if (rows[i] == kSkipped) weights[i] = 0;
    }
  }
  if (a.pixel_weight != nullptr || a.label_weight != nullptr) {
#pragma unroll
    for (int i = 0; i < N; ++i) rows[i] = weights[i] == 0 ? kSkipped : rows[i];
  }
}

// The same of N neighbouring pixels; `pixel` counts through all samples.
template <int N, class Arguments>
__device__ __forceinline__ void load_rows(const Arguments& a, int64_t pixel, int32_t (&rows)[N]) {
  load_rows_of_pixels(a, ThreadPixels<N, 1>{0, pixel, N}, rows);
}
template <class Real, int N, class Arguments>
__device__ __forceinline__ void load_weights(const Arguments& a, int64_t sample, int64_t pixel, int32_t (&rows)[N],
                                             Real (&weights)[N]) {
  load_weights_of_pixels(a, ThreadPixels<N, 1>{sample, pixel, N}, rows, weights);
}

// The factor that all pixels' gradients have in common: the one upstream value if there is just one, over the divisor.
template <class Real>
__device__ __forceinline__ Real common_factor(const CudaPixelLossArguments& a) {
  const bool one = a.upstream != nullptr && !a.upstream_per_pixel;
  const Real upstream = one ? *static_cast<const Real*>(a.upstream) : Real(1);
  return a.divisor != nullptr ? upstream * reciprocal(static_cast<Real>(*a.divisor)) : upstream;
}

// The factors of the gradients of a thread's pixels, weights included.
template <class Real, class Pixels>
__device__ __forceinline__ void load_factors_of_pixels(const CudaPixelLossArguments& a, const Pixels& pixels,
                                                       Real common, const Real (&weights)[Pixels::N],
                                                       Real (&factors)[Pixels::N]) {
#pragma unroll
  for (int i = 0; i < Pixels::N; ++i) factors[i] = 1;
  if (a.upstream_per_pixel) load_of_pixels(static_cast<const Real*>(a.upstream), pixels, factors);
#pragma unroll
  for (int i = 0; i < Pixels::N; ++i) factors[i] *= common * weights[i];
}
template <class Real, int N>
__device__ __forceinline__ void load_factors(const CudaPixelLossArguments& a, int64_t pixel, Real common,
                                             const Real (&weights)[N], Real (&factors)[N]) {
  load_factors_of_pixels(a, ThreadPixels<N, 1>{0, pixel, N}, common, weights, factors);
}

// What all gradients of dice_sums have in common.
template <class Real>
__device__ __forceinline__ Real factor_of(const DiceSumsBackwardArguments& a) {
  return a.factor != nullptr ? *static_cast<const Real*>(a.factor) : Real(1);
}

// Whether the gradient that is there already is the one asked for. The same for all threads.
template <class Real>
__device__ __forceinline__ bool gradient_stays(const CudaPixelLossArguments& a) {
  return a.unless_one && *static_cast<const Real*>(a.upstream) == Real(1);
}

// Pixels of a tile: fewer at a sample's end.
__device__ __forceinline__ int tile_pixels(int whole, int64_t left) {
  return left < whole ? static_cast<int>(left) : whole;
}

// Whether every array of one value a pixel is aligned to vectors.
inline bool per_pixel_aligned(const CudaPixelLossArguments& a) {
  return vector_aligned(a.target) && vector_aligned(a.pixel_weight) && vector_aligned(a.loss) &&
         (!a.upstream_per_pixel || vector_aligned(a.upstream));
}

// Whether these let N pixels be read at once, wherever a sample begins.
inline bool pixels_aligned(const CudaPixelLossArguments& a, int64_t n) {
  return a.pixels % n == 0 && per_pixel_aligned(a);
}

}  // namespace labeldrop::cuda
