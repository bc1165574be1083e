// Kernels for the tests of the emulated device: a right one, and one for each mistake that it has to notice.
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace examples {
namespace {

constexpr unsigned kFull = 0xffffffffu;
constexpr int kThreads = 128;

// out [blocks]: the sum of the block's indices.
__global__ void sum(float* __restrict__ out) {
  LABELDROP_DYNAMIC_SHARED(memory);
  float* partials = reinterpret_cast<float*>(memory);  // [warps]
  float value = static_cast<float>(blockIdx.x * blockDim.x + threadIdx.x);
  for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(kFull, value, bits);
  if (threadIdx.x % 32 == 0) partials[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned w = 1; w < blockDim.x / 32; ++w) value += partials[w];
  out[blockIdx.x] = value;
}

// out [threads]: from lane + 1 within groups of 8, and from lane 3 of the group.
__global__ void shuffles(double* out) {
  const double mine = threadIdx.x;
  out[threadIdx.x] = __shfl_down_sync(kFull, mine, 1, 8) + 1000 * __shfl_sync(kFull, mine, 3, 8);
}

// Threads that have ended are not waited for.
__global__ void early_exit(float* out) {
  LABELDROP_DYNAMIC_SHARED(memory);
  float* first = reinterpret_cast<float*>(memory);  // [1]
  if (threadIdx.x >= 40) return;
  if (threadIdx.x == 0) *first = 7;
  __syncthreads();
  out[threadIdx.x] = *first;
}

// Reads what another warp writes without waiting for it.
__global__ void missing_barrier(float* out) {
  LABELDROP_DYNAMIC_SHARED(memory);
  float* values = reinterpret_cast<float*>(memory);  // [threads]
  values[threadIdx.x] = 1;
  out[threadIdx.x] = values[kThreads - 1 - threadIdx.x];
}

__global__ void not_written(float* out) {
  LABELDROP_DYNAMIC_SHARED(memory);
  out[threadIdx.x] = reinterpret_cast<float*>(memory)[threadIdx.x];
}

__global__ void different_barriers(float* out) {
  if (threadIdx.x < 64) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

__global__ void divergent_shuffle(float* out) {
  if (threadIdx.x % 2 == 0) out[threadIdx.x] = __shfl_xor_sync(kFull, 1.0f, 2);
}

__global__ void different_shuffles(float* out) {
  if (threadIdx.x % 2 == 0) {
    out[threadIdx.x] = __shfl_xor_sync(kFull, 1.0f, 2);
  } else {
    out[threadIdx.x] = __shfl_xor_sync(kFull, 2.0f, 2);
  }
}

__global__ void barrier_and_shuffle(float* out) {
  if (threadIdx.x == 5) __syncthreads();
  out[threadIdx.x] = __shfl_xor_sync(kFull, 1.0f, 1);
}

__global__ void shared_overflow(float* out) {
  LABELDROP_DYNAMIC_SHARED(memory);
  out[threadIdx.x] = reinterpret_cast<float*>(memory)[threadIdx.x + 1] = 1;
}

__global__ void misaligned(float* out) {
  struct alignas(16) Vector {
    float values[4];
  };
  *reinterpret_cast<Vector*>(out + 1) = {};
}

__global__ void outside_of_an_array(float* out) {
  float values[4] = {};
  for (unsigned i = 0; i <= threadIdx.x; ++i) values[i] = 1;
  out[threadIdx.x] = values[0] + values[3];
}

template <class Value>
void launch(void (*kernel)(Value*), void* out, unsigned blocks, unsigned shared_bytes) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = shared_bytes;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, static_cast<Value*>(out));
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(cudaGetLastError()));
}

}  // namespace

void run(const std::string& name, void* out, unsigned blocks, unsigned shared_bytes) {
  const std::pair<const char*, void (*)(float*)> kernels[] = {
      {"sum", sum},
      {"early_exit", early_exit},
      {"missing_barrier", missing_barrier},
      {"not_written", not_written},
      {"different_barriers", different_barriers},
      {"divergent_shuffle", divergent_shuffle},
      {"different_shuffles", different_shuffles},
      {"barrier_and_shuffle", barrier_and_shuffle},
      {"shared_overflow", shared_overflow},
      {"misaligned", misaligned},
      {"outside_of_an_array", outside_of_an_array},
  };
  if (name == "shuffles") return launch(shuffles, out, blocks, shared_bytes);
  for (const auto& [known, kernel] : kernels) {
    if (name == known) return launch(kernel, out, blocks, shared_bytes);
  }
  throw std::runtime_error("no example " + name);
}

}  // namespace examples
