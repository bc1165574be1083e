// Launches, grid sizes, vector access: once for all kernels.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "operators.h"

// The block's shared memory, whose size the launch gives. Kernels have none besides (`__shared__`): what a launch asks
// for is all that counts against the device's limits.
#ifndef LABELDROP_DYNAMIC_SHARED
#define LABELDROP_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

namespace labeldrop::cuda {

constexpr int kThreads = 256;
constexpr int kVectorBytes = 16;               // the widest access of one thread
constexpr int64_t kDefaultShared = 48 * 1024;  // more shared memory than this has to be asked for

// N values that are read and written by one instruction.
template <class Value, int N>
struct alignas(sizeof(Value) * N) Vector {
  Value values[N];
};

// True of null as well: what is not there is in nobody's way.
inline bool vector_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % kVectorBytes == 0; }

// One row of blocks per sample (grid y); kernels stride over x and y, so that any size fits the grid's limits.
inline dim3 grid_for(int64_t items_per_sample, int64_t samples) {
  const int64_t blocks = (items_per_sample + kThreads - 1) / kThreads;
  return dim3(static_cast<unsigned>(std::clamp<int64_t>(blocks, 1, 1 << 20)),
              static_cast<unsigned>(std::clamp<int64_t>(samples, 1, 65535)));
}

// The same for kernels that leave one partial sum per block: at most kPartials blocks. They are many enough to fill any
// device several times over, so that no device waits long for its last block, and the same on all devices.
inline dim3 grid_of_partials(int64_t blocks_per_sample, int64_t samples) {
  const int64_t y = std::clamp<int64_t>(samples, 1, kPartials);
  const int64_t x = std::clamp<int64_t>(blocks_per_sample, 1, kPartials / y);
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y));
}

// Reports a call that failed. The runtime keeps its error until somebody asks for it, and would tell it of later calls.
inline void check(const char* name, cudaError_t error) {
  if (error != cudaSuccess) {
    cudaGetLastError();
    throw std::runtime_error(std::string(name) + ": CUDA launch failed: " + cudaGetErrorString(error));
  }
}

// What a block needs of shared memory, and the classes that make it so much.
struct Shared {
  int64_t bytes = 0, classes = 0;
};

// Refuses what no block can hold.
inline void check_shared(const char* name, const Shared& shared) {
  int device = 0, most = 0;
  check(name, cudaGetDevice(&device));
  check(name, cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  if (shared.bytes > most) {
    throw std::runtime_error(std::string(name) + ": logits: " + std::to_string(shared.classes) + " classes need " +
                             std::to_string(shared.bytes) + " bytes of shared memory, and this device has " +
                             std::to_string(most) + "; use the CPU or backend='reference'");
  }
}

// Launches a kernel and reports a launch that was refused. It does not wait for the kernel.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, const Shared& shared,
            cudaStream_t stream, Arguments&&... arguments) {
  if (shared.bytes > kDefaultShared) {
    check_shared(name, shared);
    check(name,
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared.bytes)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared.bytes);
  config.stream = stream;
  check(name, cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

}  // namespace labeldrop::cuda
