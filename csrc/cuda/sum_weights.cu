// The divisor of a mean: the sum of the weights of the pixels that are not ignored.
#include "pixels.cuh"
#include "reduce.cuh"

namespace labeldrop::cuda {
namespace {

template <class Real, int N>
__global__ void __launch_bounds__(kThreads) sum_weights_kernel(WeightArguments a, GridSum total) {
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
  store_partial(total, sum, shared);
}

template <class Real, int N>
void launch_vectors(const WeightArguments& a, const GridSum& total, cudaStream_t stream) {
  const dim3 grid = grid_of_partials((a.pixels / N + kThreads - 1) / kThreads, a.samples);
  launch("sum_weights", sum_weights_kernel<Real, N>, grid, kThreads, Shared{kSumBytes}, stream, a, total);
}

template <class Real>
void launch_widest(const WeightArguments& a, const GridSum& total, cudaStream_t stream) {
  constexpr int kWide = 8;
  const bool aligned = vector_aligned(a.target) && vector_aligned(a.pixel_weight) && a.pixels % kWide == 0;
  aligned ? launch_vectors<Real, kWide>(a, total, stream) : launch_vectors<Real, 1>(a, total, stream);
}

}  // namespace

void sum_weights(const WeightArguments& a, double* scratch, double* sum, Stream handle) {
  const auto stream = static_cast<cudaStream_t>(handle);
  const GridSum total{scratch, reinterpret_cast<uint32_t*>(scratch + kPartials), nullptr, true, sum, true};
  if (a.samples == 0 || a.pixels == 0) return store_sum_of_nothing("sum_weights", total, stream);
  a.weights_are_double ? launch_widest<double>(a, total, stream) : launch_widest<float>(a, total, stream);
}

}  // namespace labeldrop::cuda
