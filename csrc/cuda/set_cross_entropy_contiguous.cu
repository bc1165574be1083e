// Set cross-entropy of contiguous logits [N, K, S], K <= 32, not double.
#include "set_cross_entropy.cuh"

namespace labeldrop::cuda {

int set_cross_entropy_contiguous(const CudaPixelLossArguments& a, cudaStream_t stream) {
  return with_contiguous_path(a, a.gradient, per_pixel_aligned(a),
                              [&](auto path) { return launch_set_cross_entropy(a, path, stream); });
}

}  // namespace labeldrop::cuda
