// What the target and the weights say of a pixel: its row in the tables of its sample, and what it counts.
#pragma once

#include "../math/elementary.h"
#include "elements.cuh"

namespace labeldrop::cuda {

// In place of a row: the pixel counts for nothing; its value is neither a label nor ignore_index.
constexpr int32_t kSkipped = -1, kInvalid = -2;

template <class Value, int N>
__device__ __forceinline__ void load_rows_of(const Value* target, int64_t labels, int64_t ignore_index,
                                             int32_t (&rows)[N]) {
  Value values[N];
  load_values(target, values);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    // compared as 64-bit numbers, so that an ignore_index that the type cannot hold equals nothing
    const int64_t label = static_cast<int64_t>(values[i]);
    const bool is_label = static_cast<uint64_t>(label) < static_cast<uint64_t>(labels);
    rows[i] = label == ignore_index ? kSkipped : is_label ? static_cast<int32_t>(label) : kInvalid;
  }
}

// Rows of N neighbouring pixels; `pixel` counts through all samples. For N > 1 the target is aligned.
template <int N, class Arguments>
__device__ __forceinline__ void load_rows(const Arguments& a, int64_t pixel, int32_t (&rows)[N]) {
  switch (a.target_type) {
    case Integer::u8:
      return load_rows_of(static_cast<const uint8_t*>(a.target) + pixel, a.labels, a.ignore_index, rows);
    case Integer::i16:
      return load_rows_of(static_cast<const int16_t*>(a.target) + pixel, a.labels, a.ignore_index, rows);
    case Integer::i32:
      return load_rows_of(static_cast<const int32_t*>(a.target) + pixel, a.labels, a.ignore_index, rows);
    case Integer::i64:
      return load_rows_of(static_cast<const int64_t*>(a.target) + pixel, a.labels, a.ignore_index, rows);
  }
}

// Weights of N neighbouring pixels with these rows: 0 where skipped, NaN where invalid. A pixel of weight 0 is skipped.
template <class Real, int N, class Arguments>
__device__ __forceinline__ void load_weights(const Arguments& a, int64_t sample, int64_t pixel, int32_t (&rows)[N],
                                             Real (&weights)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) weights[i] = 1;
  if (a.pixel_weight != nullptr) load_values(static_cast<const Real*>(a.pixel_weight) + pixel, weights);
  if (a.label_weight != nullptr) {
    const Real* label_weight = static_cast<const Real*>(a.label_weight) + sample * a.labels;
#pragma unroll
    for (int i = 0; i < N; ++i) weights[i] *= label_weight[rows[i] < 0 ? 0 : rows[i]];
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (rows[i] == kInvalid) weights[i] = infinity<Real>() - infinity<Real>();
    if (rows[i] == kSkipped) weights[i] = 0;
    if (weights[i] == 0) rows[i] = kSkipped;
  }
}

// The factor that all pixels' gradients have in common: the one upstream value if there is just one, over the divisor.
template <class Real>
__device__ __forceinline__ Real common_factor(const CudaPixelLossArguments& a) {
  const bool one = a.upstream != nullptr && !a.upstream_per_pixel;
  const Real upstream = one ? *static_cast<const Real*>(a.upstream) : Real(1);
  return a.divisor != nullptr ? upstream * reciprocal(static_cast<Real>(*a.divisor)) : upstream;
}

// The factors of the gradients of N neighbouring pixels, weights included.
template <class Real, int N>
__device__ __forceinline__ void load_factors(const CudaPixelLossArguments& a, int64_t pixel, Real common,
                                             const Real (&weights)[N], Real (&factors)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) factors[i] = 1;
  if (a.upstream_per_pixel) load_values(static_cast<const Real*>(a.upstream) + pixel, factors);
#pragma unroll
  for (int i = 0; i < N; ++i) factors[i] *= common * weights[i];
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

// Whether every per-pixel array lets N pixels be read at once, wherever a sample begins.
inline bool pixels_aligned(const CudaPixelLossArguments& a, int64_t n) {
  return a.pixels % n == 0 && vector_aligned(a.target) && vector_aligned(a.pixel_weight) && vector_aligned(a.loss) &&
         (!a.upstream_per_pixel || vector_aligned(a.upstream));
}

}  // namespace labeldrop::cuda
