// Set cross-entropy of channels-last logits [N, S, K], K > 32, not double: a block takes a tile of pixels through
// shared memory, where each thread has its share of N pixels' rows for itself; the gradient leaves the same way.
#include "set_cross_entropy_split.cuh"
#include "tile.cuh"

namespace labeldrop::cuda {
namespace {

constexpr int kShare = kMostInRegisters;  // classes

// Pixels of a thread, `lanes` apart: two of half types, so that a tile takes as many bytes as one of floats.
template <class Storage>
constexpr int kPixels = static_cast<int>(sizeof(float) / sizeof(Storage));

// As in tile.cuh, but rows of an even number of 16 bytes are padded by 16, so that what is far apart in a row is at the
// same distance in all of them, and each access of a thread has its place known when it is compiled.
struct PaddedTile {
  TileLayout layout;
  int pitch;         // bytes of a pixel
  uint32_t inverse;  // 2^32 / units of a row, rounded up, where padded; else 0

  // Where the 16 bytes of a number lie. The quotient is exact.
  __device__ __forceinline__ int place(int chunk) const {
    return chunk + static_cast<int>(static_cast<uint64_t>(static_cast<uint32_t>(chunk)) * inverse >> 32);
  }
};

inline PaddedTile padded_tile(int64_t row, bool chunks) {
  PaddedTile tile{tile_layout(row, chunks), static_cast<int>(row), 0};
  const int units = tile.layout.row / tile.layout.unit;
  if (units % 2 == 0) {
    tile.pitch += kVectorBytes;
    tile.inverse = static_cast<uint32_t>(((uint64_t{1} << 32) + units - 1) / units);
  }
  return tile;
}

// copy(place in shared memory, offset in global memory from the tile's first byte) for what is left over by chunks.
template <class Storage, class Copy>
__device__ __forceinline__ void for_each_odd_value(const PaddedTile& t, const WholeChunks& whole, Copy copy) {
  constexpr int kSize = static_cast<int>(sizeof(Storage));
  const auto values = [&](int begin, int end) {
    for (int byte = begin + static_cast<int>(threadIdx.x) * kSize; byte < end; byte += kSize * kBlock) {
      copy(t.place(byte / kVectorBytes) * kVectorBytes + byte % kVectorBytes, byte - whole.begin);
    }
  };
  values(whole.begin, whole.head);
  values(whole.tail, whole.end);
}

constexpr int kMostChunks = kShare * static_cast<int>(sizeof(float)) / kVectorBytes;  // of a thread

// Global to shared memory; meanwhile() is called while all of it is on its way.
template <class Storage, class Meanwhile>
__device__ __forceinline__ void load_padded(const PaddedTile& t, unsigned char* shared, const unsigned char* from,
                                            int shift, int bytes, Meanwhile meanwhile) {
  const WholeChunks whole(t.layout, shift, bytes);
  const int c = whole.first + static_cast<int>(threadIdx.x);
  const Chunk* __restrict__ chunks = reinterpret_cast<const Chunk*>(from - shift) + c;
  Chunk part[kMostChunks];
#pragma unroll
  for (int j = 0; j < kMostChunks; ++j) {
    if (c + j * kBlock < whole.last) part[j] = chunks[j * kBlock];
  }
  meanwhile();
#pragma unroll
  for (int j = 0; j < kMostChunks; ++j) {
    if (c + j * kBlock < whole.last) reinterpret_cast<Chunk*>(shared)[t.place(c + j * kBlock)] = part[j];
  }
  for_each_odd_value<Storage>(t, whole, [&](int place, int offset) {
    *reinterpret_cast<Storage*>(shared + place) = *reinterpret_cast<const Storage*>(from + offset);
  });
}

template <class Storage>
__device__ __forceinline__ void store_padded(const PaddedTile& t, const unsigned char* shared, unsigned char* to,
                                             int shift, int bytes) {
  const WholeChunks whole(t.layout, shift, bytes);
  const int c = whole.first + static_cast<int>(threadIdx.x);
  Chunk* __restrict__ chunks = reinterpret_cast<Chunk*>(to - shift) + c;
#pragma unroll
  for (int j = 0; j < kMostChunks; ++j) {
    if (c + j * kBlock < whole.last)
      chunks[j * kBlock] = reinterpret_cast<const Chunk*>(shared)[t.place(c + j * kBlock)];
  }
  for_each_odd_value<Storage>(t, whole, [&](int place, int offset) {
    *reinterpret_cast<Storage*>(to + offset) = *reinterpret_cast<const Storage*>(shared + place);
  });
}

// V values at a time of a share of N pixels, `apart` bytes apart, and up to `classes` of each.
template <class Storage, int V, int N>
__device__ __forceinline__ void load_share(const unsigned char* from, int apart, int classes, float (&z)[kShare][N]) {
#pragma unroll
  for (int k = 0; k + V <= kShare; k += V) {
    if (k < classes) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        float x[V];
        unpack<Storage, V>(*reinterpret_cast<const Raw<Storage, V>*>(from + i * apart + k * sizeof(Storage)), x);
#pragma unroll
        for (int j = 0; j < V; ++j) z[k + j][i] = x[j];
      }
    }
  }
}
template <class Storage, int V, int N>
__device__ __forceinline__ void store_share(unsigned char* to, int apart, int classes, const float (&z)[kShare][N]) {
  constexpr bool kPairs = V == 1 && N == 2 && sizeof(Storage) == 2;  // of pixels, which are rounded together
#pragma unroll
  for (int k = 0; k + V <= kShare; k += V) {
    if (k >= classes) continue;
    unsigned char* const place = to + k * sizeof(Storage);
    if constexpr (kPairs) {
      const uint32_t word = Element<Storage>::pack(z[k]);
      *reinterpret_cast<uint16_t*>(place) = static_cast<uint16_t>(word);
      *reinterpret_cast<uint16_t*>(place + apart) = static_cast<uint16_t>(word >> 16);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        float x[V];
#pragma unroll
        for (int j = 0; j < V; ++j) x[j] = z[k + j][i];
        *reinterpret_cast<Raw<Storage, V>*>(place + i * apart) = pack<Storage, V>(x);
      }
    }
  }
}

// A thread's pixels, for what register_pixels.cuh and pixels.cuh have of ThreadPixels.
template <int N_>
struct LanePixels {
  static constexpr int N = N_;
  static constexpr bool kNeighbours = false;
  int64_t sample, first;  // the first one, counted through all samples
  int left, lanes;        // pixels from it to the end of the tile

  __device__ __forceinline__ bool exists(int i) const { return i * lanes < left; }
  __device__ __forceinline__ int apart(int i) const { return i * lanes; }
};

template <class Storage, int N>
__global__ void __launch_bounds__(kBlock, N == 1 ? 4 : 3)
    set_cross_entropy_many_classes_channels_last_kernel(const CudaPixelLossArguments a, const ClassSplit split,
                                                        const PaddedTile tile) {
  LABELDROP_DYNAMIC_SHARED(shared);
  if (gradient_stays<float>(a)) return;
  const float common = common_factor<float>(a);
  const Share share(split, a.classes);
  const Exchange<Parts<float>, N> exchange(split, share, shared);
  unsigned char* const rows_of_tile = shared + exchange.bytes(split);
  const int pixels = split.lanes() * N;  // of a tile
  const int apart = split.lanes() * tile.pitch;
  const int64_t step = static_cast<int64_t>(gridDim.x) * pixels;
  double sum = 0;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t first = blockIdx.x * static_cast<int64_t>(pixels); first < a.pixels; first += step) {
      const int count = tile_pixels(pixels, a.pixels - first), bytes = count * tile.layout.row;
      const int64_t in_all = sample * a.pixels + first, start = in_all * tile.layout.row;
      const int shift = tile.layout.chunks ? static_cast<int>(start % kVectorBytes) : 0;
      const LanePixels<N> own_pixels{sample, in_all + share.lane, count - share.lane, split.lanes()};
      Known<float, kShare, N> known;
      load_padded<Storage>(tile, rows_of_tile, static_cast<const unsigned char*>(a.logits) + start, shift, bytes,
                           [&] { known = load_known<kShare>(a, own_pixels, share, common); });
      __syncthreads();
      float z[kShare][N];
      unsigned char* const own =
          rows_of_tile + shift + share.lane * tile.pitch + share.first * static_cast<int>(sizeof(Storage));
      with_unit<Storage>(tile.layout.unit, [&](auto v) {
        // beyond the share's last class lies what its bits say is inactive
        load_share<Storage, decltype(v)::value>(own, apart, split.classes, z);
      });
      sum += static_cast<double>(evaluate_share(a, z, share, own_pixels, known, split.classes, exchange));
      if (a.gradient == nullptr) continue;
      with_unit<Storage>(tile.layout.unit,
                         [&](auto v) { store_share<Storage, decltype(v)::value>(own, apart, share.count, z); });
      __syncthreads();
      store_padded<Storage>(tile, rows_of_tile, static_cast<unsigned char*>(a.gradient) + start, shift, bytes);
      __syncthreads();
    }
  }
  __syncthreads();
  if (a.result != nullptr) store_partial(a.partials, sum, shared);
}

template <class Storage>
int launch_tiles(const CudaPixelLossArguments& a, cudaStream_t stream) {
  constexpr int N = kPixels<Storage>, kSize = static_cast<int>(sizeof(Storage));
  const PaddedTile tile = padded_tile(a.classes * kSize, vector_aligned(a.logits) && vector_aligned(a.gradient));
  const int unit = tile.layout.unit / kSize;
  const ClassSplit split =
      split_classes("set_cross_entropy", a.classes, kShare, std::max(unit, ClassCount<kShare, 0>::kGroup), N);
  const int64_t pixels = split.lanes() * N;
  // 16 bytes more, because a tile keeps its misalignment in global memory, and the empty end of the last row's shares
  const int64_t end = kVectorBytes + split.shares() * split.classes * kSize;
  const Shared shared{Exchange<Parts<float>, N>::bytes(split) + pixels * tile.pitch + end, a.classes};
  const dim3 grid = grid_of_partials((a.pixels + pixels - 1) / pixels, a.samples);
  launch("set_cross_entropy", set_cross_entropy_many_classes_channels_last_kernel<Storage, N>, grid, kBlock, shared,
         stream, a, split, tile);
  return static_cast<int>(grid.x * grid.y);
}

}  // namespace

int set_cross_entropy_many_classes_channels_last(const CudaPixelLossArguments& a, cudaStream_t stream) {
  if (a.logits_type == Float::bf16) return launch_tiles<BFloat16>(a, stream);
  if (a.logits_type == Float::f16) return launch_tiles<Float16>(a, stream);
  return launch_tiles<float>(a, stream);
}

}  // namespace labeldrop::cuda
