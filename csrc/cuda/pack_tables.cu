// Tables as bits: a thread per word.
#include "launch.cuh"

namespace labeldrop::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) pack_tables_kernel(const PackArguments a, int64_t words) {
  const int64_t size = a.rows * a.count * words;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < size;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t row = i / words / a.count, first = i % words * 32;
    const uint8_t* from = a.tables[i / words % a.count] + row * a.classes;
    uint32_t word = 0;
    for (int64_t k = first; k < a.classes && k < first + 32; ++k) {
      word |= static_cast<uint32_t>(from[k] != 0) << (k - first);
    }
    a.words[i] = word;
  }
}

}  // namespace

void pack_tables(const PackArguments& a, Stream stream) {
  const int64_t words = (a.classes + 31) / 32, size = a.rows * a.count * words;
  if (size == 0) return;
  launch("pack_tables", pack_tables_kernel, grid_for(size, 1), dim3(kThreads), {}, static_cast<cudaStream_t>(stream), a,
         words);
}

}  // namespace labeldrop::cuda
