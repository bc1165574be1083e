// Label dropout on the annotations: a thread per label and sample.
#include "../math/label_dropout.h"
#include "launch.cuh"
#include "operators.h"

namespace labeldrop::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) label_dropout_kernel(const LabelDropoutArguments a, const int64_t* key) {
  const PhiloxKey philox = philox_key(static_cast<uint64_t>(*key));
  const int64_t size = a.samples * a.labels;
  for (int64_t e = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; e < size;
       e += static_cast<int64_t>(gridDim.x) * kThreads) {
    a.out[e] = a.annotated[e] != 0 && label_kept(static_cast<uint64_t>(e), a.probability[e % a.labels], philox);
  }
}

}  // namespace

void label_dropout(const LabelDropoutArguments& a, const int64_t* key, Stream stream) {
  const int64_t size = a.samples * a.labels;
  if (size == 0) return;
  launch("label_dropout", label_dropout_kernel, grid_for(size, 1), dim3(kThreads), {},
         static_cast<cudaStream_t>(stream), a, key);
}

}  // namespace labeldrop::cuda
