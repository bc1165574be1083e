// Channels-last logits, class by class: a block takes a tile of pixels through shared memory, where gradients take the
// logits' places. A thread has N pixels of up to 32 classes; of more classes it has one pixel, of which it takes the
// words of the tables part, part + parts...
#pragma once

#include "pixelwise_terms.cuh"
#include "tile.cuh"

namespace labeldrop::cuda {

constexpr int kLogBlock = 7;
static_assert(1 << kLogBlock == kBlock);
constexpr int64_t kTileBytes = 32 * 1024;  // of a block: enough blocks share a multiprocessor, with enough on its way

struct PixelwiseTile {
  TileLayout layout;
  int unit;       // bytes of an access to classes of a channel
  int log_width;  // of the number of threads whose pixels lie side by side; others have other words of these
  int losses;     // where in shared memory each thread's loss is to be, if several have a part of each pixel's; or 0
};

// How G classes of a pixel are accessed: V values at a time, whose places in the tile are their bytes unless `moved`.
template <int V_, bool moved_>
struct PixelwiseAccess {
  static constexpr int V = V_;
  static constexpr bool moved = moved_;

  static __device__ __forceinline__ int place(const TileLayout& t, int byte) {
    return moved ? tile_place(t, byte) : byte;
  }
};

// f(PixelwiseAccess()) for accesses of a unit, but of no more than G values. Only units of 16 bytes are moved.
template <class Storage, int G, class Function>
__device__ __forceinline__ void with_access(int unit, Function f) {
  constexpr int kSize = static_cast<int>(sizeof(Storage)), kWidest = kVectorBytes / kSize;
  if constexpr (kSize == 8) return f(PixelwiseAccess<1, true>());
  if (unit == kVectorBytes) return f(PixelwiseAccess<(G < kWidest ? G : kWidest), true>());
  if constexpr (kSize == 2 && G >= 4) {
    if (unit == 8) return f(PixelwiseAccess<4, false>());
  }
  if constexpr (G >= 2) {
    if (unit >= 2 * kSize) return f(PixelwiseAccess<2, false>());
  }
  f(PixelwiseAccess<1, false>());
}

// G classes of N pixels from or to a tile; the first one's byte is that of each pixel and `offset`.
template <class Access, class Storage, int G, int N>
__device__ __forceinline__ void load_group(const TileLayout& t, const unsigned char* tile, const int (&bytes)[N],
                                           int offset, RealOf<Storage> (&z)[G][N]) {
  constexpr int V = Access::V;
#pragma unroll
  for (int j = 0; j < G; j += V) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int place = Access::place(t, bytes[i] + offset + j * static_cast<int>(sizeof(Storage)));
      RealOf<Storage> x[V];
      unpack<Storage, V>(*reinterpret_cast<const Raw<Storage, V>*>(tile + place), x);
#pragma unroll
      for (int v = 0; v < V; ++v) z[j + v][i] = x[v];
    }
  }
}

template <class Access, class Storage, int G, int N>
__device__ __forceinline__ void store_group(const TileLayout& t, unsigned char* tile, const int (&bytes)[N], int offset,
                                            const RealOf<Storage> (&z)[G][N]) {
  constexpr int V = Access::V;
#pragma unroll
  for (int j = 0; j < G; j += V) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int place = Access::place(t, bytes[i] + offset + j * static_cast<int>(sizeof(Storage)));
      RealOf<Storage> x[V];
#pragma unroll
      for (int v = 0; v < V; ++v) x[v] = z[j + v][i];
      *reinterpret_cast<Raw<Storage, V>*>(tile + place) = pack<Storage, V>(x);
    }
  }
}

// Classes `first` to `end` of N pixels, G at a time, then what is left over by ever fewer.
template <class Storage, int G, int N, class Formula, class Sum>
__device__ __forceinline__ void score_groups(const CudaPixelLossArguments& a, const Formula& formula,
                                             const PixelwiseTile& t, unsigned char* tile, const int (&bytes)[N],
                                             const Known<RealOf<Storage>, N>& known, int first, int end,
                                             uint64_t first_element, Sum (&sums)[N]) {
  constexpr int kSize = static_cast<int>(sizeof(Storage)), kChannels = Formula::kChannels;
  const int channel = static_cast<int>(a.classes) * kSize;  // bytes
  for (; end - first >= G; first += G) {
    RealOf<Storage> z[kChannels][G][N];
    with_access<Storage, G>(t.unit, [&](auto access) {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        load_group<decltype(access), Storage>(t.layout, tile, bytes, c * channel + first * kSize, z[c]);
      }
    });
    uint32_t mask = 1u << (first % kWordBits);
#pragma unroll
    for (int j = 0; j < G; ++j) {
      const auto element = [&](int) { return first_element + static_cast<uint64_t>(first + j) * a.pixels; };
      score_class(a, formula, known, first + j, mask, j, element, z, sums);
      mask <<= 1;
    }
    if (a.gradient == nullptr) continue;
    with_access<Storage, G>(t.unit, [&](auto access) {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        store_group<decltype(access), Storage>(t.layout, tile, bytes, c * channel + first * kSize, z[c]);
      }
    });
  }
  if constexpr (G > 1) {
    if (first < end) {
      score_groups<Storage, G / 2>(a, formula, t, tile, bytes, known, first, end, first_element, sums);
    }
  }
}

// A thread's words of its pixels; `known` is of the first one. Returns the loss; losses: where those of pixels are to
// be, or null.
template <class Storage, int G, class Formula, class Pixels>
__device__ __forceinline__ RealOf<Storage> score_words(const CudaPixelLossArguments& a, const Formula& formula,
                                                       const PixelwiseTile& t, RealOf<Storage> common,
                                                       const Pixels& pixels, Known<RealOf<Storage>, Pixels::N>& known,
                                                       int word, unsigned char* tile, int byte,
                                                       RealOf<Storage>* losses) {
  const int classes = static_cast<int>(a.classes), step = (kBlock * kWordBits) >> t.log_width;
  const uint64_t element = static_cast<uint64_t>(pixels.sample * (a.classes - 1) * a.pixels + pixels.first);
  typename Formula::template Sum<RealOf<Storage>> sums[Pixels::N];
  int bytes[Pixels::N];
#pragma unroll
  for (int i = 0; i < Pixels::N; ++i) bytes[i] = byte + i * kBlock * t.layout.row;
  for (int first = word * kWordBits; first < classes; first += step) {
    if (first != word * kWordBits) {
      load_known(a, common, first / kWordBits, pixels, known);
#pragma unroll
      for (int i = 0; i < Pixels::N; ++i) sums[i].flush();
    }
    const int end = classes - first < kWordBits ? classes : first + kWordBits;
    score_groups<Storage, G>(a, formula, t, tile, bytes, known, first, end, element, sums);
    if (a.gradient != nullptr && !finite_factors(known)) {
      clear_inactive(known, first, end, [&](int k, int i) {
        for (int64_t c = k; c < a.channels; c += a.classes) {
          const int place = tile_place(t.layout, bytes[i] + static_cast<int>(c * sizeof(Storage)));
          *reinterpret_cast<Storage*>(tile + place) = Element<Storage>::store(0);
        }
      });
    }
  }
  return add_losses(pixels, known, classes, sums, losses);
}

// Each pixel's loss from those of the threads that have parts of it.
template <class Real>
__device__ __forceinline__ void add_parts(int width, int count, const Real* parts, Real* losses) {
  for (int p = threadIdx.x; p < count; p += kBlock) {
    Real loss = 0;
    for (int thread = p; thread < kBlock; thread += width) loss += parts[thread];
    losses[p] = loss;
  }
}

template <class Storage, int N, int G, class Formula>
__device__ __forceinline__ RealOf<Storage> score_tile(const CudaPixelLossArguments& a, const Formula& formula,
                                                      const PixelwiseTile& t, RealOf<Storage> common, int64_t sample,
                                                      int64_t first, unsigned char* tile) {
  using Real = RealOf<Storage>;
  const TileLayout& layout = t.layout;
  const int thread = static_cast<int>(threadIdx.x), width = 1 << t.log_width;
  const int lane = thread & (width - 1), word = thread >> t.log_width;
  const int count = tile_pixels(N * width, a.pixels - first);
  const int64_t start = (sample * a.pixels + first) * layout.row;
  const int shift = layout.chunks ? static_cast<int>(start % kVectorBytes) : 0;
  load_tile<Storage>(layout, tile, static_cast<const unsigned char*>(a.logits) + start, shift, count * layout.row);
  const ThreadPixels<N, kBlock> pixels{sample, sample * a.pixels + first + lane, count - lane};
  const bool any = lane < count && word * kWordBits < a.classes;
  Known<Real, N> known;
  if (any) load_known(a, common, word, pixels, known);
  __syncthreads();
  Real loss = 0, *losses = t.losses == 0 ? static_cast<Real*>(a.loss) : nullptr;
  if (any) {
    loss = score_words<Storage, G>(a, formula, t, common, pixels, known, word, tile, shift + lane * layout.row, losses);
  }
  if (t.losses != 0) reinterpret_cast<Real*>(tile + t.losses)[thread] = loss;
  __syncthreads();
  if (a.gradient != nullptr) {
    store_tile<Storage>(layout, tile, static_cast<unsigned char*>(a.gradient) + start, shift, count * layout.row);
  }
  if (t.losses != 0) {
    add_parts(width, count, reinterpret_cast<const Real*>(tile + t.losses),
              static_cast<Real*>(a.loss) + sample * a.pixels + first);
  }
  __syncthreads();
  return loss;
}

template <class Storage, int N, int G, class Formula>
__global__ void __launch_bounds__(kBlock, sizeof(Storage) == sizeof(double) ? 1 : 3)
    pixelwise_channels_last_kernel(const CudaPixelLossArguments a, Formula formula, const PixelwiseTile t) {
  using Real = RealOf<Storage>;
  LABELDROP_DYNAMIC_SHARED(shared);
  if (gradient_stays<Real>(a)) return;
  read_key(a, formula);
  const Real common = common_factor<Real>(a);
  const int pixels = N << t.log_width;
  double sum = 0;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * pixels; first < a.pixels;
         first += static_cast<int64_t>(gridDim.x) * pixels) {
      sum += static_cast<double>(score_tile<Storage, N, G>(a, formula, t, common, sample, first, shared));
    }
  }
  if (a.result != nullptr) store_partial(a.partials, sum, shared);
}

template <class Storage, int N, int G, class Formula>
int launch_tiles(const char* name, const CudaPixelLossArguments& a, const Formula& formula, cudaStream_t stream) {
  using Real = RealOf<Storage>;
  const int64_t channel = a.classes * static_cast<int64_t>(sizeof(Storage)), row = channel * Formula::kChannels;
  PixelwiseTile t{};
  t.layout = tile_layout(row, vector_aligned(a.logits) && vector_aligned(a.gradient));
  t.unit = static_cast<int>(std::min<int64_t>(kVectorBytes, channel & -channel));
  const auto bytes = [&] { return (N << t.log_width) * row; };
  for (t.log_width = kLogBlock; t.log_width > 0 && bytes() > kTileBytes; --t.log_width) {
  }
  int64_t shared = std::max(bytes() + kVectorBytes, kSumBytes) /* a tile keeps its misalignment */;
  if (a.loss != nullptr && t.log_width < kLogBlock) {
    t.losses = static_cast<int>((shared + kVectorBytes - 1) / kVectorBytes * kVectorBytes);
    shared = t.losses + kBlock * static_cast<int64_t>(sizeof(Real));
  }
  const int64_t pixels = N << t.log_width;
  const dim3 grid = grid_of_partials((a.pixels + pixels - 1) / pixels, a.samples);
  launch(name, pixelwise_channels_last_kernel<Storage, N, G, Formula>, grid, kBlock, Shared{shared, a.classes}, stream,
         a, formula, t);
  return static_cast<int>(grid.x * grid.y);
}

// Keeps the compiler from taking a branch's instructions always, only not to branch.
__device__ __forceinline__ void seldom() {
#ifdef __CUDA_ARCH__
  asm volatile("");
#endif
}

// Rows of a few bytes go straight into registers (RowPath of tile.cuh).
template <class Formula>
struct PixelwiseRows {
  const CudaPixelLossArguments& a;
  const Formula& formula;
  float common;
  double sum = 0;

  template <class Pixels>
  __device__ __forceinline__ Known<float, Pixels::N> known(const Pixels& pixels) const {
    Known<float, Pixels::N> known;
    load_known(a, common, 0, pixels, known);
    return known;
  }

  template <class Classes, class Pixels>
  __device__ __forceinline__ void operator()(float (&z)[Classes::MaxK][Pixels::N], Classes, const Pixels& pixels,
                                             const Known<float, Pixels::N>& known) {
    constexpr int K = Classes::MaxK, N = Pixels::N;
    typename Formula::template Sum<float> sums[N];
    float (&channels)[1][K][N] = reinterpret_cast<float (&)[1][K][N]>(z);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      score_class(a, formula, known, k, 1u << k, k, [](int) { return uint64_t{0}; }, channels, sums);
    }
    if (!finite_factors(known)) {
      seldom();
#pragma unroll
      for (int k = 0; k < K; ++k) {
#pragma unroll
        for (int i = 0; i < N; ++i) z[k][i] = (known.active[i] & 1u << k) != 0 ? z[k][i] : 0;
      }
    }
    sum += static_cast<double>(add_losses(pixels, known, K, sums, static_cast<float*>(a.loss)));
  }
};

template <class Path, class Formula>
__global__ void __launch_bounds__(kBlock, 3)
    pixelwise_rows_kernel(const CudaPixelLossArguments a, const Formula formula) {
  LABELDROP_DYNAMIC_SHARED(shared);
  if (gradient_stays<float>(a)) return;
  PixelwiseRows<Formula> rows{a, formula, common_factor<float>(a)};
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    Path::run(a, a.gradient, TileLayout{}, sample, shared, rows);
  }
  if (a.result != nullptr) store_partial(a.partials, rows.sum, shared);
}

// Whether a path is that of rows; the one of rows for these kernels, of no more pixels than leave room for enough
// threads.
template <class Path>
struct Rows : std::false_type {};
template <class Storage, int K, int N>
struct Rows<RowPath<Storage, K, N>> : std::true_type {
  using Path = RowPath<Storage, K, (K < 4 ? 4 : 16 / K)>;
};

// N pixels a thread, of rows or of a tile that lets enough blocks share a multiprocessor; one, by longer groups of
// classes, of any other tile.
template <class Storage, int N, int G, class Formula>
int launch_channels_last(const char* name, const CudaPixelLossArguments& a, const Formula& formula,
                         cudaStream_t stream) {
  if constexpr (N > 1) {
    const bool aligned = vector_aligned(a.logits) && vector_aligned(a.gradient);
    return with_channels_last_classes<Storage>(a, aligned, [&](auto path) {
      using Found = Rows<decltype(path)>;
      if constexpr (Found::value) {
        using Path = typename Found::Path;
        const dim3 grid = grid_of_partials(Path::setup(a, a.gradient).tiles, a.samples);
        launch(name, pixelwise_rows_kernel<Path, Formula>, grid, kBlock, Shared{kSumBytes}, stream, a, formula);
        return static_cast<int>(grid.x * grid.y);
      } else if (N * kBlock * a.channels * static_cast<int64_t>(sizeof(Storage)) <= kTileBytes) {
        return launch_tiles<Storage, N, G>(name, a, formula, stream);
      } else {
        return launch_tiles<Storage, 1, 8>(name, a, formula, stream);
      }
    });
  }
  return launch_tiles<Storage, 1, (G > 1 ? 4 : 1)>(name, a, formula, stream);
}

}  // namespace labeldrop::cuda
