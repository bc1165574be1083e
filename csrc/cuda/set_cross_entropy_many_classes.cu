// Set cross-entropy of contiguous logits [N, K, S], K > 32, and of all doubles: a thread has N neighbouring pixels of a
// share of the classes, with one access per class, straight into registers.
#include "set_cross_entropy_split.cuh"

namespace labeldrop::cuda {
namespace {

// Where the logits of a sample lie: [K, S] or [S, K].
struct Strides {
  int64_t of_sample, of_class, of_pixel;  // bytes
};

// Classes of a share, and the steps that they are counted in.
template <int N>
constexpr int kShare = N == 1 ? 32 : 16;
template <int N>
constexpr int kStep = ClassCount<kShare<N>, 0>::kGroup;

template <class Storage, int N>
__global__ void __launch_bounds__(kBlock, sizeof(Storage) == sizeof(double) ? 2 : 3)
    set_cross_entropy_many_classes_kernel(const CudaPixelLossArguments a, const ClassSplit split,
                                          const Strides strides) {
  constexpr int MaxK = kShare<N>;
  using Real = RealOf<Storage>;
  using Pixels = Raw<Storage, N>;
  LABELDROP_DYNAMIC_SHARED(shared);
  if (gradient_stays<Real>(a)) return;
  const Real common = common_factor<Real>(a);
  const Share share(split, a.classes);
  const Exchange<Parts<Real>, N> exchange(split, share, shared);
  const int pixels = split.lanes() * N;  // of a tile
  const int64_t step = static_cast<int64_t>(gridDim.x) * pixels;
  double sum = 0;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t first = blockIdx.x * static_cast<int64_t>(pixels); first < a.pixels; first += step) {
      const int64_t own = first + share.lane * N;
      const int count = own < a.pixels ? share.count : 0;  // classes to load, and as many to store
      const int64_t byte = sample * strides.of_sample + share.first * strides.of_class + own * strides.of_pixel;
      // All classes are on their way before the first is looked at. To unpack floats is not to look at them.
      constexpr bool kPacked = sizeof(Storage) < sizeof(float);
      Pixels raw[MaxK];
      Real z[MaxK][N];
      const char* from = static_cast<const char*>(a.logits) + byte;
      const auto load = [&](int k) {
        if (k < count) raw[k] = *reinterpret_cast<const Pixels*>(from);
        if constexpr (!kPacked) unpack<Storage, N>(raw[k], z[k]);
        from += strides.of_class;
      };
      if constexpr (kPacked) {  // where nobody asks for the number of classes, fewer registers are taken
#pragma unroll
        for (int k = 0; k < MaxK; ++k) load(k);
      } else {
        for_each_class<MaxK>(split.classes, load);
      }
      const ThreadPixels<N, 1> own_pixels{sample, sample * a.pixels + own, N};
      Known<Real, MaxK, N> known{};
      if (own < a.pixels) known = load_known<MaxK>(a, own_pixels, share, common);
      if constexpr (kPacked) {
#pragma unroll
        for (int k = 0; k < MaxK; ++k) unpack<Storage, N>(raw[k], z[k]);
      }
      sum += static_cast<double>(evaluate_share(a, z, share, own_pixels, known, split.classes, exchange));
      if (a.gradient == nullptr) continue;
      char* to = static_cast<char*>(a.gradient) + byte;
      for_each_class<MaxK>(split.classes, [&](int k) {
        if (k < count) *reinterpret_cast<Pixels*>(to) = pack<Storage, N>(z[k]);
        to += strides.of_class;
      });
    }
  }
  __syncthreads();
  if (a.result != nullptr) store_partial(a.partials, sum, shared);
}

template <class Storage, int N>
int launch_pixels(const CudaPixelLossArguments& a, cudaStream_t stream) {
  const ClassSplit split = split_classes("set_cross_entropy", a.classes, kShare<N>, kStep<N>, N);
  constexpr int64_t kSize = sizeof(Storage);
  const Strides strides{a.classes * a.pixels * kSize, a.channels_last ? kSize : a.pixels * kSize,
                        a.channels_last ? a.classes * kSize : kSize};
  const Shared shared{std::max(Exchange<Parts<RealOf<Storage>>, N>::bytes(split), kSumBytes), a.classes};
  const int64_t pixels = split.lanes() * N;
  const dim3 grid = grid_of_partials((a.pixels + pixels - 1) / pixels, a.samples);
  launch("set_cross_entropy", set_cross_entropy_many_classes_kernel<Storage, N>, grid, kBlock, shared, stream, a, split,
         strides);
  return static_cast<int>(grid.x * grid.y);
}

template <class Storage>
int launch_widest(const CudaPixelLossArguments& a, cudaStream_t stream) {
  constexpr int kPixels = 4;
  const bool aligned = pixels_aligned(a, kPixels) && vector_aligned(a.logits) && vector_aligned(a.gradient);
  const bool splits = a.classes <= most_split_classes(kShare<kPixels>);
  return aligned && splits ? launch_pixels<Storage, kPixels>(a, stream) : launch_pixels<Storage, 1>(a, stream);
}

}  // namespace

int set_cross_entropy_many_classes(const CudaPixelLossArguments& a, cudaStream_t stream) {
  if (a.channels_last && a.logits_type != Float::f64) return set_cross_entropy_many_classes_channels_last(a, stream);
  switch (a.logits_type) {
    case Float::f32: return launch_widest<float>(a, stream);
    case Float::bf16: return launch_widest<BFloat16>(a, stream);
    case Float::f16: return launch_widest<Float16>(a, stream);
    case Float::f64: return launch_pixels<double, 1>(a, stream);
  }
  return 0;
}

}  // namespace labeldrop::cuda
