// The loops of losses that score each class of a pixel by itself: a formula (csrc/math/sigmoid_focal.h and others) over
// the active classes. Formula: kChannels, and operator()(Real (&)[kChannels], positive, element) -> Term; channel c of
// class k is c K + k. A formula with noise has set_key.
#pragma once

#include <type_traits>

#include "../math/term.h"
#include "pixels.cuh"
#include "reduce.cuh"

namespace labeldrop::cuda {

template <class Formula, class = void>
struct HasKey : std::false_type {};
template <class Formula>
struct HasKey<Formula, std::void_t<decltype(std::declval<Formula&>().set_key(uint64_t{}))>> : std::true_type {};

// The key is on the device, so that drawing it does not make the host wait.
template <class Formula>
__device__ __forceinline__ void read_key(const CudaPixelLossArguments& a, Formula& formula) {
  if constexpr (HasKey<Formula>::value) formula.set_key(static_cast<uint64_t>(*a.key));
}

template <class Real>
__device__ __forceinline__ Real weight_of_class(const CudaPixelLossArguments& a, int k) {
  return a.class_weight != nullptr ? __ldg(static_cast<const Real*>(a.class_weight) + k) : Real(1);
}

// Word w of a pixel's row in a table; that of no class where the pixel is skipped, of all where its NaN is to reach
// all.
struct RowWords {
  __device__ __forceinline__ RowWords(const CudaPixelLossArguments& a, int64_t sample, int32_t row)
      : row(row),
        words((a.classes + 31) / 32),
        tables(a.tables + (sample * a.labels + (row < 0 ? 0 : row)) * kPixelTables * words) {}

  __device__ __forceinline__ uint32_t active(int w) const {
    return row == kSkipped ? 0u : row == kInvalid ? ~0u : __ldg(tables + kPixelActive * words + w);
  }
  __device__ __forceinline__ uint32_t candidates(int w) const { return __ldg(tables + kPixelCandidates * words + w); }

  int32_t row;
  int64_t words;
  const uint32_t* tables;  // [T, W]: the row
};

// ---------------------------------------------------------------------------- contiguous logits, N pixels of a thread

// The channels of one class of N neighbouring pixels: on their way from memory while the class before is computed.
template <class Storage, int N, int Channels>
struct RawClass {
  __device__ __forceinline__ RawClass(const Storage* logits, int64_t channel_stride) {
#pragma unroll
    for (int c = 0; c < Channels; ++c) {
      channel[c] = *reinterpret_cast<const Raw<Storage, N>*>(logits + c * channel_stride);
    }
  }
  Raw<Storage, N> channel[Channels];
};

// One class of N pixels: adds to their losses, writes their gradients.
template <class Storage, int N, class Formula>
__device__ __forceinline__ void process_class(const Formula& formula,
                                              const RawClass<Storage, N, Formula::kChannels>& raw,
                                              const bool (&active)[N], const bool (&positive)[N], uint64_t element,
                                              RealOf<Storage> class_weight, const RealOf<Storage> (&factors)[N],
                                              RealOf<Storage> (&loss)[N], Storage* gradient, int64_t channel_stride) {
  using Real = RealOf<Storage>;
  constexpr int kChannels = Formula::kChannels;
  Real channel[kChannels][N];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) unpack<Storage, N>(raw.channel[c], channel[c]);
  bool any = false;
#pragma unroll
  for (int i = 0; i < N; ++i) any |= active[i];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    Real z[kChannels];
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      z[c] = channel[c][i];
      channel[c][i] = 0;
    }
    if (any) {
      const auto term = formula(z, positive[i], element + i);
      // chosen, not multiplied by 0: what is inactive may be NaN
      loss[i] += active[i] ? class_weight * term.loss : Real(0);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        channel[c][i] = active[i] ? class_weight * factors[i] * term.gradient[c] : Real(0);
      }
    }
  }
  if (gradient == nullptr) return;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    *reinterpret_cast<Raw<Storage, N>*>(gradient + c * channel_stride) = pack<Storage, N>(channel[c]);
  }
}

template <class Storage, int N, class Formula>
__device__ __forceinline__ double process_pixels(const CudaPixelLossArguments& a, const Formula& formula,
                                                 RealOf<Storage> common, int64_t sample, int64_t first) {
  using Real = RealOf<Storage>;
  using Class = RawClass<Storage, N, Formula::kChannels>;
  const int64_t pixel = sample * a.pixels + first, channel_stride = a.classes * a.pixels;
  const int64_t start = sample * a.channels * a.pixels + first;
  const int classes = static_cast<int>(a.classes);
  const Storage* __restrict__ logits = static_cast<const Storage*>(a.logits) + start;
  Storage* __restrict__ gradient = a.gradient != nullptr ? static_cast<Storage*>(a.gradient) + start : nullptr;
  Class next(logits, channel_stride);

  int32_t rows[N];
  Real weights[N], factors[N], loss[N];
  load_rows(a, pixel, rows);
  load_weights(a, sample, pixel, rows, weights);
  load_factors(a, pixel, common, weights, factors);
#pragma unroll
  for (int i = 0; i < N; ++i) loss[i] = 0;
  uint64_t element = static_cast<uint64_t>(sample * a.classes) * a.pixels + first;
  uint32_t active_words[N], candidate_words[N];
  for (int k = 0; k < classes; ++k) {
    if (k % 32 == 0) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const RowWords words(a, sample, rows[i]);
        active_words[i] = words.active(k / 32);
        candidate_words[i] = words.candidates(k / 32);
      }
    }
    const Class raw = next;
    if (k + 1 < classes) next = Class(logits + (k + 1) * a.pixels, channel_stride);
    bool active[N], positive[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      active[i] = (active_words[i] >> (k % 32) & 1) != 0;
      positive[i] = (candidate_words[i] >> (k % 32) & 1) != 0;
    }
    process_class<Storage, N>(formula, raw, active, positive, element, weight_of_class<Real>(a, k), factors, loss,
                              gradient != nullptr ? gradient + k * a.pixels : nullptr, channel_stride);
    element += a.pixels;
  }
  double sum = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    loss[i] = weights[i] == 0 ? Real(0) : weights[i] * loss[i];
    sum += static_cast<double>(loss[i]);
  }
  if (a.loss != nullptr) store_values(static_cast<Real*>(a.loss) + pixel, loss);
  return sum;
}

template <class Storage, int N, class Formula>
__global__ void __launch_bounds__(kThreads, 1)  // said, so that registers are not saved at the price of spills
    pixelwise_contiguous_kernel(const CudaPixelLossArguments a, Formula formula) {
  using Real = RealOf<Storage>;
  LABELDROP_DYNAMIC_SHARED(shared);
  if (gradient_stays<Real>(a)) return;
  read_key(a, formula);
  const Real common = common_factor<Real>(a);
  double sum = 0;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < a.pixels / N;
         i += static_cast<int64_t>(gridDim.x) * kThreads) {
      sum += process_pixels<Storage, N>(a, formula, common, sample, i * N);
    }
  }
  if (a.result != nullptr) store_partial(a.partials, sum, shared);
}

// ----------------------------------------------------------------- any layout, one class of one pixel after the other

struct PixelwiseTiles {
  int pixels;  // of a whole tile; a power of 2
  int pitch;   // terms of a pixel: odd, against bank conflicts
};

// The tile's shared memory: terms [P, pitch], then weights and factors [P], then rows [P].
template <class Real>
struct PixelwiseShared {
  __device__ __forceinline__ PixelwiseShared(unsigned char* shared, const PixelwiseTiles& tiles)
      : terms(reinterpret_cast<Real*>(shared)),
        weights(terms + tiles.pixels * tiles.pitch),
        factors(weights + tiles.pixels),
        rows(reinterpret_cast<int32_t*>(factors + tiles.pixels)) {}

  Real *terms, *weights, *factors;
  int32_t* rows;
};

template <class Real>
int64_t pixelwise_shared_bytes(const PixelwiseTiles& tiles) {
  return tiles.pixels *
         ((tiles.pitch + 2) * static_cast<int64_t>(sizeof(Real)) + static_cast<int64_t>(sizeof(int32_t)));
}

// A tile's pixels and classes, in the order in which they lie in memory: step(pixel of the tile, class).
template <class Step>
__device__ __forceinline__ void for_each_term(const CudaPixelLossArguments& a, const PixelwiseTiles& tiles, int count,
                                              Step step) {
  const int classes = static_cast<int>(a.classes), thread = static_cast<int>(threadIdx.x);
  if (a.channels_last) {
    int p = thread / classes, k = thread % classes;
    const int rows = kThreads / classes, rest = kThreads % classes;
    while (p < count) {
      step(p, k);
      p += rows;
      k += rest;
      if (k >= classes) k -= classes, ++p;
    }
  } else {
    const int p = thread % tiles.pixels;
    for (int k = thread / tiles.pixels; k < classes && p < count; k += kThreads / tiles.pixels) step(p, k);
  }
}

// One class of one pixel; returns its weighted term.
template <class Storage, class Formula>
__device__ __forceinline__ RealOf<Storage> process_term(const CudaPixelLossArguments& a, const Formula& formula,
                                                        int64_t sample, int64_t pixel, int k, int32_t row,
                                                        RealOf<Storage> factor) {
  using Real = RealOf<Storage>;
  constexpr int kChannels = Formula::kChannels;
  const int64_t channel_stride = a.channels_last ? a.classes : a.classes * a.pixels;
  const int64_t start =
      sample * a.channels * a.pixels + (a.channels_last ? pixel * a.channels + k : k * a.pixels + pixel);
  const RowWords words(a, sample, row);
  Real gradient[kChannels], term_loss = 0;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) gradient[c] = 0;
  if ((words.active(k / 32) >> (k % 32) & 1) != 0) {
    Real channel[kChannels];
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      channel[c] = Element<Storage>::load(static_cast<const Storage*>(a.logits)[start + c * channel_stride]);
    }
    const bool positive = (words.candidates(k / 32) >> (k % 32) & 1) != 0;
    const uint64_t element = static_cast<uint64_t>((sample * a.classes + k) * a.pixels + pixel);
    const auto term = formula(channel, positive, element);
    const Real class_weight = weight_of_class<Real>(a, k);
    term_loss = class_weight * term.loss;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) gradient[c] = class_weight * factor * term.gradient[c];
  }
  if (a.gradient != nullptr) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      static_cast<Storage*>(a.gradient)[start + c * channel_stride] = Element<Storage>::store(gradient[c]);
    }
  }
  return term_loss;
}

// A tile: rows and weights, then terms in memory's order, then each pixel's sum in the order of its classes.
template <class Storage, class Formula>
__device__ __forceinline__ double process_tile(const CudaPixelLossArguments& a, const Formula& formula,
                                               const PixelwiseTiles& tiles,
                                               const PixelwiseShared<RealOf<Storage>>& shared, RealOf<Storage> common,
                                               int64_t sample, int64_t first) {
  using Real = RealOf<Storage>;
  const int count = tile_pixels(tiles.pixels, a.pixels - first);
  for (int p = threadIdx.x; p < count; p += kThreads) {
    const int64_t pixel = sample * a.pixels + first + p;
    int32_t rows[1];
    Real weights[1], factors[1];
    load_rows(a, pixel, rows);
    load_weights(a, sample, pixel, rows, weights);
    load_factors(a, pixel, common, weights, factors);
    shared.rows[p] = rows[0];
    shared.weights[p] = weights[0];
    shared.factors[p] = factors[0];
  }
  __syncthreads();
  for_each_term(a, tiles, count, [&](int p, int k) {
    shared.terms[p * tiles.pitch + k] =
        process_term<Storage>(a, formula, sample, first + p, k, shared.rows[p], shared.factors[p]);
  });
  __syncthreads();
  double sum = 0;
  for (int p = threadIdx.x; p < count; p += kThreads) {
    Real loss = 0;
    for (int k = 0; k < static_cast<int>(a.classes); ++k) loss += shared.terms[p * tiles.pitch + k];
    loss = shared.weights[p] == 0 ? Real(0) : shared.weights[p] * loss;
    if (a.loss != nullptr) static_cast<Real*>(a.loss)[sample * a.pixels + first + p] = loss;
    sum += static_cast<double>(loss);
  }
  __syncthreads();
  return sum;
}

template <class Storage, class Formula>
__global__ void __launch_bounds__(kThreads, sizeof(Storage) == sizeof(double) ? 1 : 4)
    pixelwise_tile_kernel(const CudaPixelLossArguments a, Formula formula, const PixelwiseTiles tiles) {
  using Real = RealOf<Storage>;
  LABELDROP_DYNAMIC_SHARED(memory);
  if (gradient_stays<Real>(a)) return;
  read_key(a, formula);
  const Real common = common_factor<Real>(a);
  const PixelwiseShared<Real> shared(memory, tiles);
  const int64_t step = static_cast<int64_t>(gridDim.x) * tiles.pixels;
  double sum = 0;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t first = blockIdx.x * static_cast<int64_t>(tiles.pixels); first < a.pixels; first += step) {
      sum += process_tile<Storage>(a, formula, tiles, shared, common, sample, first);
    }
  }
  if (a.result != nullptr) store_partial(a.partials, sum, memory);
}

// -------------------------------------------------------------------------------------------------------- the launcher

template <class Storage, class Formula>
int launch_pixelwise_tiles(const char* name, const CudaPixelLossArguments& a, const Formula& formula,
                           cudaStream_t stream) {
  using Real = RealOf<Storage>;
  constexpr int64_t kTerms = 4096;  // of a tile: several for each thread, and enough blocks fit
  PixelwiseTiles tiles;
  tiles.pitch = static_cast<int>(a.classes | 1);
  // At least a warp of pixels where these are neighbours in memory.
  const int least = a.channels_last ? 1 : 32;
  tiles.pixels = kThreads;
  while (tiles.pixels > least && tiles.pixels * static_cast<int64_t>(tiles.pitch) > kTerms) tiles.pixels /= 2;
  // Fewer, rather than so much shared memory that not every device has it.
  while (tiles.pixels > 1 && pixelwise_shared_bytes<Real>(tiles) > kDefaultShared) tiles.pixels /= 2;
  const Shared shared{std::max(pixelwise_shared_bytes<Real>(tiles), kSumBytes), a.classes};
  const dim3 grid = grid_of_partials((a.pixels + tiles.pixels - 1) / tiles.pixels, a.samples);
  launch(name, pixelwise_tile_kernel<Storage, Formula>, grid, kThreads, shared, stream, a, formula, tiles);
  return static_cast<int>(grid.x * grid.y);
}

// `Wide`: the formula is so short that memory sets the pace, and 16-byte accesses are worth a kernel of their own.
template <bool Wide, class Storage, class Formula>
int launch_pixelwise_as(const char* name, const CudaPixelLossArguments& a, const Formula& formula,
                        cudaStream_t stream) {
  if constexpr (Wide && sizeof(Storage) < sizeof(double)) {
    constexpr int kPixels = static_cast<int>(kVectorBytes / sizeof(Storage));
    if (!a.channels_last && pixels_aligned(a, kPixels) && vector_aligned(a.logits) && vector_aligned(a.gradient)) {
      const dim3 grid = grid_of_partials((a.pixels / kPixels + kThreads - 1) / kThreads, a.samples);
      launch(name, pixelwise_contiguous_kernel<Storage, kPixels, Formula>, grid, kThreads, Shared{kSumBytes}, stream, a,
             formula);
      return static_cast<int>(grid.x * grid.y);
    }
  }
  return launch_pixelwise_tiles<Storage>(name, a, formula, stream);
}

template <bool Wide, class Formula>
void run_pixelwise(const char* name, const CudaPixelLossArguments& a, const Formula& formula, Stream handle) {
  const auto stream = static_cast<cudaStream_t>(handle);
  int partials = 0;
  if (a.samples != 0 && a.pixels != 0) {
    switch (a.logits_type) {
      case Float::f32: partials = launch_pixelwise_as<Wide, float>(name, a, formula, stream); break;
      case Float::bf16: partials = launch_pixelwise_as<Wide, BFloat16>(name, a, formula, stream); break;
      case Float::f16: partials = launch_pixelwise_as<Wide, Float16>(name, a, formula, stream); break;
      case Float::f64: partials = launch_pixelwise_as<Wide, double>(name, a, formula, stream); break;
    }
  }
  if (a.result != nullptr) {
    finish_sum(name, {a.partials, partials, a.divisor, false, a.result, a.logits_type == Float::f64}, stream);
  }
}

}  // namespace labeldrop::cuda
