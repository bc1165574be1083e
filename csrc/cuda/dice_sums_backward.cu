// The gradient of dice_sums on the GPU: a tile of logits becomes its gradient in shared memory.
#include "dice_lanes.cuh"

namespace labeldrop::cuda {
namespace {

// Logits to gradients in place.
template <DiceMode kMode, class Real>
__device__ __forceinline__ void process(const DiceSumsBackwardArguments& a, int64_t sample,
                                        const DiceLane<Real>& pixel) {
  const Real* intersection = static_cast<const Real*>(a.upstream_intersection) + sample * a.channels;
  const Real* prediction = static_cast<const Real*>(a.upstream_prediction) + sample * a.channels;
  const PredictionPower<Real> power(a.squared);
  const DiceScales<Real> scales = dice_scales<kMode>(pixel);
  const Real q_0 = background<kMode>(pixel, scales);
  const auto class_gradient = [&](int k, Real q, const DiceClass& c) {
    return dice_class_gradient(q, c.positive, c.counted, __ldg(intersection + k), __ldg(prediction + k), power);
  };
  Real mean = 0, g_0 = 0;
  for_share<kMode>(pixel, [&](int k, const DiceClass& c) {
    const Real q = k == 0 ? q_0 : scales.probability(pixel.z[k], c);
    const Real g = class_gradient(k, q, c);
    if (k == 0) g_0 = g;
    mean += q * g;
  });
  mean = joined_sum(mean, pixel.lanes);
  g_0 = joined_sum(g_0, pixel.lanes);  // the other lanes have 0
  const Real upstream = kMode == DiceMode::softmax_and_cross_entropy ? static_cast<Real>(*a.upstream_cross_entropy) : 0;
  for_share<kMode>(pixel, [&](int k, const DiceClass& c) {
    const Real e = pixel.z[k], p = scales.probability(e, c);
    const Real g = k == 0 || c.merged ? g_0 : class_gradient(k, p, c);
    Real product = kMode == DiceMode::sigmoid ? p * (Real(1) - p) * g : p * (g - mean);
    if (kMode == DiceMode::softmax_and_cross_entropy) {
      product += e * (c.candidate ? scales.candidate_slope : scales.slope) * upstream;
    }
    // chosen, not multiplied by 0: mean may be NaN
    pixel.z[k] = c.active() ? pixel.weight * product : Real(0);
  });
}

// Without this number the compiler gives up registers for more blocks, and spills some in double.
constexpr int kBlocksAtOnce = 8;

template <DiceMode kMode, class Storage>
__global__ void __launch_bounds__(kTileThreads, kBlocksAtOnce)
    dice_sums_backward_kernel(const DiceSumsBackwardArguments a, const LaneTiles tiles) {
  using Real = RealOf<Storage>;
  LABELDROP_DYNAMIC_SHARED(shared);
  Real* tile = reinterpret_cast<Real*>(shared);  // [P, pitch]
  const Storage* __restrict__ logits = static_cast<const Storage*>(a.logits);
  Storage* __restrict__ gradient = static_cast<Storage*>(a.gradient);
  const int64_t step = static_cast<int64_t>(gridDim.x) * tiles.pixels;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t first = blockIdx.x * static_cast<int64_t>(tiles.pixels); first < a.pixels; first += step) {
      const int count = tile_pixels(tiles.pixels, a.pixels - first);
      for_each_value(a, tiles, sample, first, count,
                     [&](int to, int64_t from) { tile[to] = Element<Storage>::load(logits[from]); });
      const DiceLane<Real> pixel = load_lane(a, tiles, sample, first, count, tile);
      __syncthreads();
      process<kMode>(a, sample, pixel);
      __syncthreads();
      for_each_value(a, tiles, sample, first, count,
                     [&](int from, int64_t to) { gradient[to] = Element<Storage>::store(tile[from]); });
      __syncthreads();
    }
  }
}

}  // namespace

void dice_sums_backward(const DiceSumsBackwardArguments& a, Stream handle) {
  if (a.samples == 0 || a.pixels == 0) return;
  with_dice_types(a, [&](auto mode, auto storage) {
    using Storage = typename decltype(storage)::type;
    const LaneTiles tiles = lane_tiles(a.channels, sizeof(RealOf<Storage>));
    const Shared shared{tiles.bytes(sizeof(RealOf<Storage>)), a.channels};
    const dim3 grid = grid_of_partials((a.pixels + tiles.pixels - 1) / tiles.pixels, a.samples);
    launch("dice_sums_backward", dice_sums_backward_kernel<decltype(mode)::mode, Storage>, grid, kTileThreads, shared,
           static_cast<cudaStream_t>(handle), a, tiles);
  });
}

}  // namespace labeldrop::cuda
