// Sums whose order is fixed: every block leaves one partial sum, and the last one to do so adds these up. The result is
// the same from run to run, which atomics on floating-point numbers would not give.
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

// Thread 0's sum of all parts to its place.
__device__ __forceinline__ void store_result(const GridSum& s, double sum) {
  if (s.divisor != nullptr) sum /= *s.divisor;
  if (s.one_if_zero && sum == 0) sum = 1;
  if (s.result_is_double) {
    *static_cast<double*>(s.result) = sum;
  } else {
    *static_cast<float*>(s.result) = static_cast<float>(sum);
  }
}

// Writes the block's partial sum to its own place, and the result if it is the last to do so. Called as block_sum is.
__device__ __forceinline__ void store_partial(const GridSum& s, double value, unsigned char* shared) {
  const double own = block_sum(value, shared);
  bool* is_last = reinterpret_cast<bool*>(shared);  // where the sums were, which thread 0 has read
  const unsigned blocks = gridDim.x * gridDim.y;
  if (threadIdx.x == 0) {
    s.parts[blockIdx.y * gridDim.x + blockIdx.x] = own;
    __threadfence();  // the part is there for everybody before the block is counted
    *is_last = atomicAdd(s.blocks, 1u) == blocks - 1;
  }
  __syncthreads();
  if (!*is_last) return;
  __threadfence();
  const volatile double* parts = s.parts;  // of other blocks: not from a cache of this one's
  double sum = 0;
  for (unsigned i = threadIdx.x; i < blocks; i += blockDim.x) sum += parts[i];
  __syncthreads();  // everybody has seen who is last
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) store_result(s, sum);
}

// The result where there is no grid, since there is nothing to add up.
void store_sum_of_nothing(const char* name, const GridSum& sum, cudaStream_t stream);

}  // namespace labeldrop::cuda
