#include "reduce.cuh"

namespace labeldrop::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) finish_sum_kernel(SumOfPartials s) {
  LABELDROP_DYNAMIC_SHARED(shared);
  double own = 0;
  for (int i = threadIdx.x; i < s.count; i += kThreads) own += s.partials[i];
  double sum = block_sum(own, shared);
  if (threadIdx.x != 0) return;
  if (s.divisor != nullptr) sum /= *s.divisor;
  if (s.one_if_zero && sum == 0) sum = 1;
  if (s.result_is_double) {
    *static_cast<double*>(s.result) = sum;
  } else {
    *static_cast<float*>(s.result) = static_cast<float>(sum);
  }
}

}  // namespace

void finish_sum(const char* name, const SumOfPartials& sum, cudaStream_t stream) {
  launch(name, finish_sum_kernel, 1, kThreads, Shared{kSumBytes}, stream, sum);
}

}  // namespace labeldrop::cuda
