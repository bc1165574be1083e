// Set cross-entropy of channels-last logits [N, S, K], K > 32, not double: a block takes a tile of pixels through
// shared memory, where each thread has its share of a pixel's row for itself; the gradient leaves the same way.
#include "set_cross_entropy_split.cuh"
#include "tile.cuh"

namespace labeldrop::cuda {
namespace {

constexpr int kShare = kMostInRegisters;  // classes

template <class Storage>
__global__ void __launch_bounds__(kBlock, 4)
    set_cross_entropy_many_classes_channels_last_kernel(const CudaPixelLossArguments a, const ClassSplit split,
                                                        const TileLayout layout) {
  using Real = RealOf<Storage>;
  using Classes = ClassCount<kShare, 0>;
  LABELDROP_DYNAMIC_SHARED(shared);
  if (gradient_stays<Real>(a)) return;
  const Exchange<Parts<Real>, 1> exchange(split, shared);
  unsigned char* tile = shared + Exchange<Parts<Real>, 1>::bytes(split);
  const Real common = common_factor<Real>(a);
  const Share share(split, a.classes);
  const Classes classes{share.count};
  const int64_t step = static_cast<int64_t>(gridDim.x) * exchange.pixels();
  double sum = 0;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t first = blockIdx.x * static_cast<int64_t>(exchange.pixels()); first < a.pixels; first += step) {
      const int count = tile_pixels(exchange.pixels(), a.pixels - first);
      const int64_t in_all = sample * a.pixels + first, start = in_all * layout.row;
      const int shift = layout.chunks ? static_cast<int>(start % kVectorBytes) : 0;
      load_tile<Storage>(layout, tile, static_cast<const unsigned char*>(a.logits) + start, shift, count * layout.row);
      const ThreadPixels<1, kBlock> pixel{sample, in_all + share.lane, count - share.lane};
      ShareWords<1> words{};
      if (pixel.exists(0) && share.count > 0) words = load_share_words<Real, 1>(a, sample, pixel.first, share);
      const Known<Real> known = load_known(a, exchange, common, sample, in_all, count);
      __syncthreads();
      Real z[kShare][1];
      const int byte = shift + share.lane * layout.row + share.first * static_cast<int>(sizeof(Storage));
      with_unit<Storage>(layout.unit, [&](auto v) {
        load_rows_of_tile<Storage, decltype(v)::value>(layout, tile, byte, classes, pixel, z);
      });
      Real* loss = a.loss != nullptr ? static_cast<Real*>(a.loss) + in_all : nullptr;
      sum += static_cast<double>(evaluate_share(z, words, split.classes, exchange, known, a.gradient != nullptr, loss));
      if (a.gradient == nullptr) continue;
      with_unit<Storage>(layout.unit, [&](auto v) {
        store_rows_of_tile<Storage, decltype(v)::value>(layout, tile, byte, classes, pixel, z);
      });
      __syncthreads();
      store_tile<Storage>(layout, tile, static_cast<unsigned char*>(a.gradient) + start, shift, count * layout.row);
      __syncthreads();
    }
  }
  __syncthreads();
  if (a.result != nullptr) store_partial(a.partials, sum, shared);
}

template <class Storage>
int launch_tiles(const CudaPixelLossArguments& a, cudaStream_t stream) {
  const TileLayout layout =
      tile_layout(a.classes * sizeof(Storage), vector_aligned(a.logits) && vector_aligned(a.gradient));
  const int unit = layout.unit / static_cast<int>(sizeof(Storage));
  const ClassSplit split =
      split_classes("set_cross_entropy", a.classes, kShare, std::max(unit, ClassCount<kShare, 0>::kGroup), 1);
  // 16 bytes more, because a tile keeps its misalignment in global memory
  const int64_t shared = Exchange<Parts<RealOf<Storage>>, 1>::bytes(split) + split.lanes() * layout.row + kVectorBytes;
  const dim3 grid = grid_of_partials((a.pixels + split.lanes() - 1) / split.lanes(), a.samples);
  launch("set_cross_entropy", set_cross_entropy_many_classes_channels_last_kernel<Storage>, grid, kBlock,
         Shared{shared, a.classes}, stream, a, split, layout);
  return static_cast<int>(grid.x * grid.y);
}

}  // namespace

int set_cross_entropy_many_classes_channels_last(const CudaPixelLossArguments& a, cudaStream_t stream) {
  if (a.logits_type == Float::bf16) return launch_tiles<BFloat16>(a, stream);
  if (a.logits_type == Float::f16) return launch_tiles<Float16>(a, stream);
  return launch_tiles<float>(a, stream);
}

}  // namespace labeldrop::cuda
