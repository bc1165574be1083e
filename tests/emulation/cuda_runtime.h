// A CUDA device in host memory: lets a C++ compiler build csrc/cuda/*.cu, so that the kernels are tested without a GPU.
//
// Blocks run one after the other, and the threads of a block as fibers of one operating-system thread, which change
// places at barriers and shuffles only (runtime.cpp). Correctness shows here; speed, memory ordering between blocks and
// anything of the hardware do not. Only what the project's kernels use is here: add to it what a new kernel needs.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
// A variable would count against a block's shared memory unseen: what a launch asks for is to be all, see launch.cuh.
#define __shared__ static_assert(false, "all shared memory is LABELDROP_DYNAMIC_SHARED");
#define LABELDROP_DYNAMIC_SHARED(name) unsigned char* const name = ::emulation::dynamic_shared()

// ------------------------------------------------------------------------------------------------ types of the runtime

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#define CUDART_VERSION 0

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorUnknown = 999
};
using cudaStream_t = struct EmulatedStream*;

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

struct cudaLaunchAttribute {};  // none is emulated

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

namespace emulation {

constexpr int kMultiprocessors = 2;
constexpr int kSharedBytes = 48 << 10;       // of a block, unless a kernel asks for more
constexpr int kSharedBytesOptin = 64 << 10;  // that of sm_75, the least of all
constexpr unsigned kWarp = 32;

// Where in the source a thread waits.
struct Place {
  const char* file;
  int line;
  bool operator!=(const Place& other) const { return line != other.line || std::strcmp(file, other.file) != 0; }
};

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& body,
                   const std::string& arguments);
cudaError_t allow_shared(const void* kernel, int bytes);
void barrier(Place place);
// Leaves `bytes` of this lane at `mine` and waits for the warp; returns what each lane has left, 8 bytes a lane.
const uint64_t* exchange(const void* mine, size_t bytes, unsigned mask, Place place);
unsigned lane();
unsigned char* dynamic_shared();

template <class Value, class Source>
Value shuffle(Value value, unsigned mask, int width, Place place, Source source) {
  static_assert(sizeof(Value) == 4 || sizeof(Value) == 8, "shuffles move 4 or 8 bytes");
  const unsigned self = lane(), first = self / width * width;
  const uint64_t* lanes = exchange(&value, sizeof(Value), mask, place);
  const unsigned from = source(self, first);
  if (from >= first && from < first + width) std::memcpy(&value, &lanes[from], sizeof(Value));
  return value;
}

}  // namespace emulation

// -------------------------------------------------------------------------------------------------- inside of a kernel

// Set by the scheduler whenever a thread goes on.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = emulation::kWarp;

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::barrier({file, line});
}

inline void __syncwarp(unsigned mask = ~0u, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const int nothing = 0;
  emulation::exchange(&nothing, sizeof(nothing), mask, {file, line});
}

template <class Value>
Value __shfl_sync(unsigned mask, Value value, int source, int width = warpSize, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  return emulation::shuffle(value, mask, width, {file, line},
                            [=](unsigned, unsigned first) { return first + static_cast<unsigned>(source) % width; });
}

template <class Value>
Value __shfl_xor_sync(unsigned mask, Value value, int bits, int width = warpSize, const char* file = __builtin_FILE(),
                      int line = __builtin_LINE()) {
  return emulation::shuffle(value, mask, width, {file, line}, [=](unsigned self, unsigned) { return self ^ bits; });
}

template <class Value>
Value __shfl_down_sync(unsigned mask, Value value, unsigned by, int width = warpSize,
                       const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return emulation::shuffle(value, mask, width, {file, line}, [=](unsigned self, unsigned) { return self + by; });
}

inline void __threadfence() {}

inline int __popc(unsigned value) { return __builtin_popcount(value); }

// One at a time, as everything here.
inline unsigned atomicAdd(unsigned* address, unsigned value) { return std::exchange(*address, *address + value); }
inline unsigned atomicOr(unsigned* address, unsigned value) { return std::exchange(*address, *address | value); }

// Cache hints.
template <class Value>
Value __ldg(const Value* address) {
  return *address;
}
template <class Value>
Value __ldcs(const Value* address) {
  return *address;
}
template <class Value>
void __stcs(Value* address, Value value) {
  *address = value;
}

// --------------------------------------------------------------------------------------------------- beside the kernel

cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int value) {
  return emulation::allow_shared(reinterpret_cast<const void*>(kernel), value);
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
  std::string bytes;  // each at a multiple of its alignment, as the device has them in its constant memory
  const auto append = [&](const auto& value) {
    constexpr size_t kAlignment = alignof(std::decay_t<decltype(value)>);
    bytes.resize((bytes.size() + kAlignment - 1) / kAlignment * kAlignment);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  std::apply([&](const auto&... value) { (append(value), ...); }, values);
  return emulation::launch(*config, reinterpret_cast<const void*>(kernel), [&] { std::apply(kernel, values); }, bytes);
}
