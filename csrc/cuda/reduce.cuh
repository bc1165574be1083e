// Sums whose order is fixed: every block leaves one partial sum, then one block adds these up. The result is the same
// from run to run, which atomics on floating-point numbers would not give.
#pragma once

#include "launch.cuh"

namespace labeldrop::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

constexpr int64_t kSumBytes = 32 * sizeof(double);  // of shared memory, which a sum over the block takes

// The sum of every thread's value, in thread 0. All threads of the block call it, once per kernel; whole warps. It
// writes over `shared`, [kSumBytes], which nobody reads any more.
__device__ __forceinline__ double block_sum(double value, unsigned char* shared) {
  double* sums = reinterpret_cast<double*>(shared);
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
  if (threadIdx.x == 0) {
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += sums[warp];
  }
  return sum;
}

// Writes the block's partial sum to its own place.
__device__ __forceinline__ void store_partial(double* partials, double value, unsigned char* shared) {
  const double sum = block_sum(value, shared);
  if (threadIdx.x == 0) partials[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

struct SumOfPartials {
  const double* partials;  // [count]
  int count;
  const double* divisor;  // [1] or null: 1
  bool one_if_zero;       // a sum of 0 becomes 1
  void* result;           // [1] double or float
  bool result_is_double;
};

// result = sum of the partials / divisor
void finish_sum(const char* name, const SumOfPartials& sum, cudaStream_t stream);

}  // namespace labeldrop::cuda
