// Set cross-entropy of channels-last logits [N, S, K], K <= 32: a block takes a tile of pixels through shared memory,
// where each thread has its pixels' rows for itself; the gradient leaves the same way.
#include "set_cross_entropy.cuh"
#include "tile.cuh"

namespace labeldrop::cuda {
namespace {

// What is known of a pixel before its logits: read while they are on their way.
struct alignas(16) Known {
  uint32_t candidates, active;
  float weight, factor;
};

constexpr int64_t kTileBytes =
    20 * 1024;                         // shared memory of a block: enough blocks fit, with enough bytes on their way
constexpr int64_t kMostPerThread = 8;  // pixels

struct Tiles {
  TileLayout layout;
  int pixels;  // of a whole tile
};

template <class Storage>
__device__ __forceinline__ void load_known(const CudaPixelLossArguments& a, float common, int64_t sample, int64_t first,
                                           int count, Known* known) {
  for (int p = threadIdx.x; p < count; p += kBlock) {
    const int64_t pixel = sample * a.pixels + first + p;
    const PixelWords<1> words = load_words<1>(a, sample, pixel);
    float factors[1];
    load_factors(a, pixel, common, words.weights, factors);
    known[p] = {words.candidates[0], words.active[0], words.weights[0], factors[0]};
  }
}

// A pixel whose row lies in shared memory: the gradient takes the logits' place. Returns the loss.
template <class Storage, int MaxK>
__device__ __forceinline__ float process(const CudaPixelLossArguments& a, const TileLayout& layout, const Known& known,
                                         unsigned char* row) {
  const int classes = static_cast<int>(a.classes);
  const bool with_gradient = a.gradient != nullptr;
  float z[MaxK][1], loss[1];
  with_unit<Storage>(layout.unit, [&](auto n) { load_row_units<Storage, decltype(n)::value>(row, classes, z); });
  const PixelWords<1> words{{known.candidates}, {known.active}, {known.weight}};
  evaluate(z, words, classes, with_gradient, [&](float (&factors)[1]) { factors[0] = known.factor; }, loss);
  if (with_gradient) {
    with_unit<Storage>(layout.unit, [&](auto n) { store_row_units<Storage, decltype(n)::value>(row, classes, z); });
  }
  return loss[0];
}

template <class Storage, int MaxK>
__global__ void __launch_bounds__(kBlock, MaxK <= 16 ? 4 : 3)
    set_cross_entropy_channels_last_kernel(const CudaPixelLossArguments a, const Tiles tiles) {
  LABELDROP_DYNAMIC_SHARED(shared);
  if (gradient_stays<float>(a)) return;
  Known* known = reinterpret_cast<Known*>(shared);
  unsigned char* tile = shared + tiles.pixels * sizeof(Known);
  const TileLayout& layout = tiles.layout;
  const float common = common_factor<float>(a);
  const int64_t step = static_cast<int64_t>(gridDim.x) * tiles.pixels;
  double sum = 0;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t first = blockIdx.x * static_cast<int64_t>(tiles.pixels); first < a.pixels; first += step) {
      const int count = tile_pixels(tiles.pixels, a.pixels - first);
      const int64_t start = (sample * a.pixels + first) * layout.row;
      const int shift = tile_shift(layout, start);
      load_tile<Storage>(layout, tile, static_cast<const unsigned char*>(a.logits) + start, shift, count * layout.row);
      load_known<Storage>(a, common, sample, first, count, known);
      __syncthreads();
      for (int p = threadIdx.x; p < count; p += kBlock) {
        const float loss = process<Storage, MaxK>(a, layout, known[p], tile + shift + p * layout.pitch);
        if (a.loss != nullptr) static_cast<float*>(a.loss)[sample * a.pixels + first + p] = loss;
        sum += static_cast<double>(loss);
      }
      __syncthreads();
      if (a.gradient != nullptr) {
        store_tile<Storage>(layout, tile, static_cast<unsigned char*>(a.gradient) + start, shift, count * layout.row);
        __syncthreads();
      }
    }
  }
  if (a.result != nullptr) store_partial(a.partials, sum, shared);
}

template <class Storage, int MaxK>
int launch_tiles(const CudaPixelLossArguments& a, cudaStream_t stream) {
  Tiles tiles;
  tiles.layout = tile_layout(a.classes * sizeof(Storage), vector_aligned(a.logits) && vector_aligned(a.gradient));
  const int64_t bytes_per_pixel = tiles.layout.pitch + sizeof(Known);
  tiles.pixels =
      static_cast<int>(kBlock * std::clamp<int64_t>(kTileBytes / (kBlock * bytes_per_pixel), 1, kMostPerThread));
  const int64_t shared = tiles.pixels * sizeof(Known) + tile_bytes(tiles.layout, tiles.pixels);
  const dim3 grid = grid_of_partials((a.pixels + tiles.pixels - 1) / tiles.pixels, a.samples);
  launch("set_cross_entropy", set_cross_entropy_channels_last_kernel<Storage, MaxK>, grid, kBlock,
         Shared{shared, a.classes}, stream, a, tiles);
  return static_cast<int>(grid.x * grid.y);
}

template <class Storage>
int launch_classes(const CudaPixelLossArguments& a, cudaStream_t stream) {
  if (a.classes <= 4) return launch_tiles<Storage, 4>(a, stream);
  if (a.classes <= 8) return launch_tiles<Storage, 8>(a, stream);
  if (a.classes <= 16) return launch_tiles<Storage, 16>(a, stream);
  return launch_tiles<Storage, kMostInRegisters>(a, stream);
}

}  // namespace

int set_cross_entropy_channels_last(const CudaPixelLossArguments& a, cudaStream_t stream) {
  if (a.logits_type == Float::bf16) return launch_classes<BFloat16>(a, stream);
  if (a.logits_type == Float::f16) return launch_classes<Float16>(a, stream);
  return launch_classes<float>(a, stream);
}

}  // namespace labeldrop::cuda
