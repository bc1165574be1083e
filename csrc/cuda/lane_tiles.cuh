// Tiles of pixels in shared memory as numbers [P, K], for any number of classes, layout and element type: 1 to 32
// neighbouring lanes share a pixel's classes, so that a tile stays small however many there are.
#pragma once

#include "launch.cuh"
#include "reduce.cuh"

namespace labeldrop::cuda {

constexpr int kTileThreads = 128;  // of a block

struct LaneTiles {
  int lanes;   // that share a pixel
  int pixels;  // of a whole tile: threads / lanes
  int pitch;   // numbers of a pixel: odd, against bank conflicts

  int64_t bytes(int64_t number_bytes) const { return number_bytes * pixels * pitch; }
};

inline LaneTiles lane_tiles(int64_t classes, int64_t number_bytes) {
  constexpr int64_t kEnough = 32 * 1024;  // bytes
  LaneTiles tiles{1, kTileThreads, static_cast<int>(classes | 1)};
  while (tiles.lanes < 32 && tiles.bytes(number_bytes) > kEnough) {
    tiles.lanes *= 2;
    tiles.pixels = kTileThreads / tiles.lanes;
  }
  return tiles;
}

// copy(number in shared, value in global) for every value of the tile, in global memory's order
template <class Arguments, class Copy>
__device__ __forceinline__ void for_each_value(const Arguments& a, const LaneTiles& tiles, int64_t sample,
                                               int64_t first, int count, Copy copy) {
  const int classes = static_cast<int>(a.channels), thread = static_cast<int>(threadIdx.x);
  if (a.channels_last) {
    const int64_t start = (sample * a.pixels + first) * a.channels;
    int p = thread / classes, k = thread % classes;
    for (int i = thread; i < count * classes; i += kTileThreads) {
      copy(p * tiles.pitch + k, start + i);
      k += kTileThreads % classes;
      p += kTileThreads / classes;
      if (k >= classes) k -= classes, ++p;
    }
  } else {
    const int p = thread % tiles.pixels;
    const int64_t start = sample * a.channels * a.pixels + first + p;
    if (p >= count) return;
#pragma unroll 8  // loads on their way
    for (int k = thread / tiles.pixels; k < classes; k += tiles.lanes) copy(p * tiles.pitch + k, start + k * a.pixels);
  }
}

// Largest or summed values of the lanes that share a pixel. All lanes of the warp take part.
template <class Real, class Join>
__device__ __forceinline__ Real joined(Real value, int lanes, Join join) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) value = join(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}
template <class Real>
__device__ __forceinline__ Real joined_sum(Real value, int lanes) {
  return joined(value, lanes, [](Real x, Real y) { return x + y; });
}
template <class Real>
__device__ __forceinline__ Real joined_max(Real value, int lanes) {
  return joined(value, lanes, [](Real x, Real y) { return x > y ? x : y; });
}

}  // namespace labeldrop::cuda
