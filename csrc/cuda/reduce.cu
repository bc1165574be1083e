#include "reduce.cuh"

namespace labeldrop::cuda {
namespace {

__global__ void sum_of_nothing_kernel(GridSum s) { store_result(s, 0); }

}  // namespace

void store_sum_of_nothing(const char* name, const GridSum& sum, cudaStream_t stream) {
  launch(name, sum_of_nothing_kernel, 1, 1, {}, stream, sum);
}

}  // namespace labeldrop::cuda
