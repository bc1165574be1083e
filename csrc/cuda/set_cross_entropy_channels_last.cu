// Set cross-entropy of channels-last logits [N, S, K], K <= 32, not double.
#include "set_cross_entropy.cuh"
#include "tile.cuh"

namespace labeldrop::cuda {

int set_cross_entropy_channels_last(const CudaPixelLossArguments& a, cudaStream_t stream) {
  return with_channels_last_path(a, a.gradient, [&](auto path) { return launch_set_cross_entropy(a, path, stream); });
}

}  // namespace labeldrop::cuda
