// The divisor of a mean: the sum of the weights of the pixels that are not ignored.
#include "pixels.cuh"
#include "reduce.cuh"

namespace labeldrop::cuda {
namespace {

template <class Real, int N>
__global__ void __launch_bounds__(kThreads) sum_weights_kernel(WeightArguments a, double* partials) {
  LABELDROP_DYNAMIC_SHARED(shared);
  const bool weighted = a.label_weight != nullptr || a.pixel_weight != nullptr;
  double sum = 0;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < a.pixels / N;
         i += static_cast<int64_t>(gridDim.x) * kThreads) {
      const int64_t pixel = sample * a.pixels + i * N;
      int32_t rows[N];
      load_rows(a, pixel, rows);
      if (weighted) {
        Real weights[N];
#pragma unroll
        for (int j = 0; j < N; ++j) rows[j] = rows[j] == kInvalid ? 0 : rows[j];
        load_weights(a, sample, pixel, rows, weights);
#pragma unroll
        for (int j = 0; j < N; ++j) sum += static_cast<double>(weights[j]);
      } else {
        int counted = 0;
#pragma unroll
        for (int j = 0; j < N; ++j) counted += rows[j] != kSkipped;
        sum += counted;
      }
    }
  }
  store_partial(partials, sum, shared);
}

template <class Real, int N>
int launch_partials(const WeightArguments& a, double* partials, cudaStream_t stream) {
  const dim3 grid = grid_of_partials((a.pixels / N + kThreads - 1) / kThreads, a.samples);
  launch("sum_weights", sum_weights_kernel<Real, N>, grid, kThreads, Shared{kSumBytes}, stream, a, partials);
  return static_cast<int>(grid.x * grid.y);
}

template <class Real>
int launch_widest(const WeightArguments& a, double* partials, cudaStream_t stream) {
  constexpr int kWide = 8;
  const bool aligned = vector_aligned(a.target) && vector_aligned(a.pixel_weight) && a.pixels % kWide == 0;
  return aligned ? launch_partials<Real, kWide>(a, partials, stream) : launch_partials<Real, 1>(a, partials, stream);
}

}  // namespace

void sum_weights(const WeightArguments& a, double* partials, double* sum, Stream handle) {
  const auto stream = static_cast<cudaStream_t>(handle);
  int count = 0;
  if (a.samples != 0 && a.pixels != 0) {
    count =
        a.weights_are_double ? launch_widest<double>(a, partials, stream) : launch_widest<float>(a, partials, stream);
  }
  finish_sum("sum_weights", {partials, count, nullptr, true, sum, true}, stream);
}

}  // namespace labeldrop::cuda
