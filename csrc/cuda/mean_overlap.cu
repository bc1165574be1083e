// The mean of soft Dice terms from the sums of dice_sums, in doubles: one block, since they are a few numbers.
#include "../math/mean_overlap.h"
#include "reduce.cuh"

namespace labeldrop::cuda {
namespace {

constexpr int kSums = 4;

// Class k of samples first to end.
__device__ __forceinline__ OverlapSums sums_of(const MeanOverlapArguments& a, int64_t first, int64_t end, int64_t k) {
  OverlapSums sums{};
  for (int64_t n = first; n < end; ++n) {
    const int64_t i = n * a.classes + k;
    if (!a.included[i]) continue;
    const uint8_t* positive = a.positive + n * a.labels * a.classes + k;
    double truth = 0;
    for (int64_t l = 0; l < a.labels; ++l) {
      truth += positive[l * a.classes] ? a.label_weight[n * a.labels + l] : 0;
    }
    sums = {sums.intersection + a.intersection[i], sums.prediction + a.prediction[i], sums.truth + truth, true};
  }
  return sums;
}

template <class Real>
__global__ void __launch_bounds__(kThreads) mean_overlap_kernel(const MeanOverlapArguments a) {
  LABELDROP_DYNAMIC_SHARED(shared);
  double* scale_of_all = reinterpret_cast<double*>(shared + kSums * kSumBytes);
  const int64_t step = samples_of_term(a), terms = a.samples == 0 ? 0 : a.samples / step * a.classes;
  double weights = 0, pixels = 0, cross_entropy = 0, value = 0;
  for (int64_t i = threadIdx.x; i < terms; i += kThreads) {
    const int64_t first = i / a.classes * step, k = i % a.classes;
    bool included = false;
    for (int64_t n = first; n < first + step; ++n) included |= a.included[n * a.classes + k] != 0;
    if (included) weights += weight_of_class(a, k);
  }
  if (a.cross_entropy != nullptr) {
    for (int64_t i = threadIdx.x; i < a.samples * a.labels; i += kThreads) pixels += a.label_weight[i];
    for (int64_t n = threadIdx.x; n < a.samples; n += kThreads) cross_entropy += a.cross_entropy[n];
  }
  weights = block_sum(weights, shared);
  pixels = block_sum(pixels, shared + kSumBytes);
  cross_entropy = block_sum(cross_entropy, shared + 2 * kSumBytes);
  if (threadIdx.x == 0) *scale_of_all = a.factor / (a.mean ? nonzero(weights) : 1);
  __syncthreads();
  Real* by_intersection = static_cast<Real*>(a.slopes);
  Real* by_prediction = by_intersection + a.samples * a.classes;
  for (int64_t i = threadIdx.x; i < terms; i += kThreads) {
    const int64_t first = i / a.classes * step, k = i % a.classes;
    const OverlapSums sums = sums_of(a, first, first + step, k);
    const OverlapTerm term = sums.included ? overlap_term(a, k, sums, *scale_of_all) : OverlapTerm{};
    value += term.value;
    for (int64_t n = first; n < first + step; ++n) {
      const int64_t to = n * a.classes + k;
      by_intersection[to] = static_cast<Real>(a.included[to] ? term.by_intersection : 0);
      by_prediction[to] = static_cast<Real>(a.included[to] ? term.by_prediction : 0);
    }
  }
  value = block_sum(value, shared + 3 * kSumBytes);
  if (threadIdx.x != 0) return;
  const double slope = a.cross_entropy != nullptr ? a.cross_entropy_factor / nonzero(pixels) : 0;
  *a.slope_of_cross_entropy = slope;
  *static_cast<Real*>(a.value) = static_cast<Real>(value + cross_entropy * slope);
}

}  // namespace

void mean_overlap(const MeanOverlapArguments& a, Stream stream) {
  const Shared shared{kSums * kSumBytes + static_cast<int64_t>(sizeof(double))};
  const auto kernel = a.is_double ? mean_overlap_kernel<double> : mean_overlap_kernel<float>;
  launch("mean_overlap", kernel, 1, kThreads, shared, static_cast<cudaStream_t>(stream), a);
}

}  // namespace labeldrop::cuda
