// Set cross-entropy on the GPU: which kernel serves which logits.
#include "set_cross_entropy.cuh"

namespace labeldrop::cuda {

void set_cross_entropy(const CudaPixelLossArguments& a, Stream handle) {
  const auto stream = static_cast<cudaStream_t>(handle);
  int partials = 0;
  if (a.samples != 0 && a.pixels != 0) {
    const bool many = a.classes > kMostInRegisters || a.logits_type == Float::f64;
    partials = many              ? set_cross_entropy_many_classes(a, stream)
               : a.channels_last ? set_cross_entropy_channels_last(a, stream)
                                 : set_cross_entropy_contiguous(a, stream);
  }
  if (a.result != nullptr && partials == 0) store_sum_of_nothing("set_cross_entropy", a.partials, stream);
}

}  // namespace labeldrop::cuda
