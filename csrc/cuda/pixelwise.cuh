// Launches of losses that score each class of a pixel by itself; pixelwise_terms.cuh says what a formula is.
#pragma once

#include "pixelwise_channels_last.cuh"
#include "pixelwise_contiguous.cuh"

namespace labeldrop::cuda {

// How many terms a thread works on side by side: N pixels, G classes. One of each for formulas that are loops
// themselves; and for double, which is there to check gradients.
struct OneTerm {
  template <class Storage>
  static constexpr int kPixels = 1;
  static constexpr int kTilePixels = 1, kClasses = 1;
};
// For formulas of 40 instructions and more: others would wait for instructions, and for the compiler.
struct FewTerms {
  template <class Storage>
  static constexpr int kPixels = 8 / static_cast<int>(sizeof(Storage));
  static constexpr int kTilePixels = 1, kClasses = 2;
};
// Where memory sets the pace: accesses of 16 bytes.
struct ManyTerms {
  template <class Storage>
  static constexpr int kPixels = 16 / static_cast<int>(sizeof(Storage));
  static constexpr int kTilePixels = 4, kClasses = 4;
};

template <class Terms, class Storage, class Formula>
int launch_pixelwise(const char* name, const CudaPixelLossArguments& a, const Formula& formula, cudaStream_t stream) {
  constexpr int kPixels = Terms::template kPixels<Storage>, kClasses = Terms::kClasses;
  if (a.channels_last) return launch_channels_last<Storage, Terms::kTilePixels, kClasses>(name, a, formula, stream);
  if (kPixels > 1 && pixels_aligned(a, kPixels) && vector_aligned(a.logits) && vector_aligned(a.gradient)) {
    return launch_contiguous<Storage, kPixels, kClasses>(name, a, formula, stream);
  }
  return launch_contiguous<Storage, 1, kClasses>(name, a, formula, stream);
}

template <class Terms, class Formula>
void run_pixelwise(const char* name, const CudaPixelLossArguments& a, const Formula& formula, Stream handle) {
  const auto stream = static_cast<cudaStream_t>(handle);
  int partials = 0;
  if (a.samples != 0 && a.pixels != 0) {
    switch (a.logits_type) {
      case Float::f32: partials = launch_pixelwise<Terms, float>(name, a, formula, stream); break;
      case Float::bf16: partials = launch_pixelwise<Terms, BFloat16>(name, a, formula, stream); break;
      case Float::f16: partials = launch_pixelwise<Terms, Float16>(name, a, formula, stream); break;
      case Float::f64: partials = launch_pixelwise<OneTerm, double>(name, a, formula, stream); break;
    }
  }
  if (a.result != nullptr && partials == 0) store_sum_of_nothing(name, a.partials, stream);
}

}  // namespace labeldrop::cuda
