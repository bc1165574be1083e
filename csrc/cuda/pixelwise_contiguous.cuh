// Contiguous logits, class by class: a thread takes N neighbouring pixels, with one access a channel.
#pragma once

#include "pixelwise_terms.cuh"

namespace labeldrop::cuda {

// N pixels, G classes at a time: all of these are on their way before the first is looked at. Returns the loss.
template <class Storage, int N, int G, class Formula>
__device__ __forceinline__ RealOf<Storage> score_pixels(const CudaPixelLossArguments& a, const Formula& formula,
                                                        RealOf<Storage> common, int64_t sample, int64_t first) {
  using Real = RealOf<Storage>;
  using Sum = typename Formula::template Sum<Real>;
  using Access = Raw<Storage, N>;
  constexpr int kChannels = Formula::kChannels;
  const ThreadPixels<N, 1> pixels{sample, sample * a.pixels + first, N};
  const int64_t start = sample * a.channels * a.pixels + first, next_channel = a.classes * a.pixels;
  const int classes = static_cast<int>(a.classes);
  const Storage* from = static_cast<const Storage*>(a.logits) + start;
  Storage* to = static_cast<Storage*>(a.gradient) + start;
  Sum sums[N];
  Known<Real, N> known;
  bool finite = true;
  for (int k = 0; k < classes; k += G) {
    Access raw[G][kChannels];
#pragma unroll
    for (int j = 0; j < G; ++j) {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        if (k + j < classes) raw[j][c] = *reinterpret_cast<const Access*>(from + c * next_channel);
      }
      from += a.pixels;
    }
    if (k % kWordBits == 0) {
      load_known(a, common, k / kWordBits, pixels, known);
      finite = finite_factors(known);
      if (k != 0 && k % Sum::kMostTerms == 0) {
#pragma unroll
        for (int i = 0; i < N; ++i) sums[i].flush();
      }
    }
#pragma unroll
    for (int j = 0; j < G; ++j) {
      if (k + j >= classes) break;
      Real z[kChannels][1][N];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) unpack<Storage, N>(raw[j][c], z[c][0]);
      const uint32_t mask = 1u << ((k + j) % kWordBits);
      const auto element = [&](int i) {
        return static_cast<uint64_t>((sample * a.classes + k + j) * a.pixels + first + i);
      };
      score_class(a, formula, known, k + j, mask, 0, element, z, sums);
      if (a.gradient != nullptr) {
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          *reinterpret_cast<Access*>(to + c * next_channel) = pack<Storage, N>(z[c][0]);
        }
        to += a.pixels;
      }
    }
    if (!finite && a.gradient != nullptr && ((k + G) % kWordBits == 0 || k + G >= classes)) {
      Storage* row = static_cast<Storage*>(a.gradient) + start;
      clear_inactive(known, k / kWordBits * kWordBits, k + G < classes ? k + G : classes, [&](int inactive, int i) {
        for (int c = 0; c < kChannels; ++c) {
          row[c * next_channel + inactive * a.pixels + i] = Element<Storage>::store(0);
        }
      });
    }
  }
  return add_losses(pixels, known, classes, sums, static_cast<Real*>(a.loss));
}

template <class Storage, int N, int G, class Formula>
__global__ void __launch_bounds__(kBlock, 1)
    pixelwise_contiguous_kernel(const CudaPixelLossArguments a, Formula formula) {
  using Real = RealOf<Storage>;
  LABELDROP_DYNAMIC_SHARED(shared);
  if (gradient_stays<Real>(a)) return;
  read_key(a, formula);
  const Real common = common_factor<Real>(a);
  double sum = 0;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t i = blockIdx.x * static_cast<int64_t>(kBlock) + threadIdx.x; i < a.pixels / N;
         i += static_cast<int64_t>(gridDim.x) * kBlock) {
      sum += static_cast<double>(score_pixels<Storage, N, G>(a, formula, common, sample, i * N));
    }
  }
  if (a.result != nullptr) store_partial(a.partials, sum, shared);
}

template <class Storage, int N, int G, class Formula>
int launch_contiguous(const char* name, const CudaPixelLossArguments& a, const Formula& formula, cudaStream_t stream) {
  const dim3 grid = grid_of_partials((a.pixels / N + kBlock - 1) / kBlock, a.samples);
  launch(name, pixelwise_contiguous_kernel<Storage, N, G, Formula>, grid, kBlock, Shared{kSumBytes}, stream, a,
         formula);
  return static_cast<int>(grid.x * grid.y);
}

}  // namespace labeldrop::cuda
