// Grid sizes, vector access and launch errors, once for all kernels.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace labeldrop::cuda {

constexpr int kThreads = 256;
constexpr int kVectorBytes = 16;  // the widest access of one thread

// N values that are read and written by one instruction.
template <class Value, int N>
struct alignas(sizeof(Value) * N) Vector {
  Value values[N];
};

inline bool vector_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % kVectorBytes == 0; }

// One row of blocks per sample (grid y); kernels stride over x and y, so that any size fits the grid's limits.
inline dim3 grid_for(int64_t items_per_sample, int64_t samples) {
  const int64_t blocks = (items_per_sample + kThreads - 1) / kThreads;
  return dim3(static_cast<unsigned>(std::clamp<int64_t>(blocks, 1, 1 << 20)),
              static_cast<unsigned>(std::clamp<int64_t>(samples, 1, 65535)));
}

// Reports a launch that was refused. It does not wait for the kernel.
inline void check_launch(const char* name) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(name) + ": CUDA launch failed: " + cudaGetErrorString(error));
  }
}

}  // namespace labeldrop::cuda
