// A tile of neighbouring pixels of channels-last logits in shared memory, one thread per pixel.
//
// Global memory is read and written in 16-byte chunks in order; a pixel's row of K values then is read by its thread.
// Rows are accessed in units: the largest power of 2, up to 16 bytes, that divides a row. A row of an odd number of
// units is free of bank conflicts, and only units of 16 bytes can be even in number; such rows are padded by one unit.
#pragma once

#include <type_traits>

#include "elements.cuh"

namespace labeldrop::cuda {

using Chunk = Vector<uint32_t, 4>;  // 16 bytes

struct TileLayout {
  int row;           // bytes of a pixel in global memory
  int pitch;         // bytes of a pixel in shared memory
  int unit;          // bytes of an access to a row
  bool padded;       // pitch = row + 16
  uint32_t inverse;  // 2^16 / units per row, rounded up, where padded
  bool chunks;       // both global arrays begin at a multiple of 16 bytes
};

inline TileLayout tile_layout(int64_t row, bool chunks) {
  TileLayout t{};
  t.row = static_cast<int>(row);
  t.unit = static_cast<int>(std::min<int64_t>(kVectorBytes, row & -row));
  const int units = t.row / t.unit;
  t.padded = units % 2 == 0;
  t.pitch = t.row + (t.padded ? kVectorBytes : 0);
  t.inverse = t.padded ? (65536u + units - 1) / units : 0;
  t.chunks = chunks;
  return t;
}

// Bytes that a tile of `pixels` takes: up to 15 more, because it keeps the misalignment that it has in global memory.
inline int64_t tile_bytes(const TileLayout& t, int64_t pixels) { return pixels * t.pitch + kVectorBytes; }

// Where a chunk of the tile lies in shared memory. The quotient is exact below 2^16 / units chunks, far beyond any
// tile.
__device__ __forceinline__ int chunk_place(const TileLayout& t, int chunk) {
  return t.padded ? chunk + static_cast<int>(static_cast<uint32_t>(chunk) * t.inverse >> 16) : chunk;
}

// The bytes by which the tile that begins at byte `start` of the array is behind a multiple of 16.
__device__ __forceinline__ int tile_shift(const TileLayout& t, int64_t start) {
  return t.chunks ? static_cast<int>(start % kVectorBytes) : 0;
}

// A tile of `bytes` in whole chunks, counted from the multiple of 16 before it, and what these leave over at both ends.
struct WholeChunks {
  __device__ __forceinline__ WholeChunks(const TileLayout& t, int shift, int bytes)
      : begin(shift), end(shift + bytes), first(shift == 0 ? 0 : 1), last((shift + bytes) / kVectorBytes) {
    if (!t.chunks || last < first) first = last = 0;
    head = first != last ? first * kVectorBytes : shift;
    tail = first != last ? last * kVectorBytes : shift;
  }
  int begin, end;   // bytes of the tile
  int first, last;  // whole chunks
  int head, tail;   // bytes [begin, head) and [tail, end) are copied value by value
};

// copy(byte in shared, byte in global from the tile's start) for each value of bytes [begin, end)
template <class Storage, class Copy>
__device__ __forceinline__ void copy_values(const TileLayout& t, int shift, int begin, int end, Copy copy) {
  constexpr int kSize = static_cast<int>(sizeof(Storage));
  for (int byte = begin + static_cast<int>(threadIdx.x) * kSize; byte < end; byte += kSize * blockDim.x) {
    copy(chunk_place(t, byte / kVectorBytes) * kVectorBytes + byte % kVectorBytes, byte - shift);
  }
}

// global to shared; `from` is the tile's first value
template <class Storage>
__device__ __forceinline__ void load_tile(const TileLayout& t, unsigned char* shared, const unsigned char* from,
                                          int shift, int bytes) {
  constexpr int kAtOnce = 4;  // loads in flight per thread
  const WholeChunks whole(t, shift, bytes);
  const Chunk* __restrict__ chunks = reinterpret_cast<const Chunk*>(from - shift);
  const int threads = static_cast<int>(blockDim.x);
  for (int c = whole.first + static_cast<int>(threadIdx.x); c < whole.last; c += kAtOnce * threads) {
    Chunk part[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (c + j * threads < whole.last) part[j] = chunks[c + j * threads];
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (c + j * threads < whole.last) reinterpret_cast<Chunk*>(shared)[chunk_place(t, c + j * threads)] = part[j];
    }
  }
  const auto copy = [&](int place, int offset) {
    *reinterpret_cast<Storage*>(shared + place) = *reinterpret_cast<const Storage*>(from + offset);
  };
  copy_values<Storage>(t, shift, whole.begin, whole.head, copy);
  copy_values<Storage>(t, shift, whole.tail, whole.end, copy);
}

// shared to global
template <class Storage>
__device__ __forceinline__ void store_tile(const TileLayout& t, const unsigned char* shared, unsigned char* to,
                                           int shift, int bytes) {
  const WholeChunks whole(t, shift, bytes);
  Chunk* __restrict__ chunks = reinterpret_cast<Chunk*>(to - shift);
  for (int c = whole.first + static_cast<int>(threadIdx.x); c < whole.last; c += static_cast<int>(blockDim.x)) {
    chunks[c] = reinterpret_cast<const Chunk*>(shared)[chunk_place(t, c)];
  }
  const auto copy = [&](int place, int offset) {
    *reinterpret_cast<Storage*>(to + offset) = *reinterpret_cast<const Storage*>(shared + place);
  };
  copy_values<Storage>(t, shift, whole.begin, whole.head, copy);
  copy_values<Storage>(t, shift, whole.tail, whole.end, copy);
}

// The first `classes` values of a row as numbers, N of them to a unit.
template <class Storage, int N, int MaxK>
__device__ __forceinline__ void load_row_units(const unsigned char* row, int classes, RealOf<Storage> (&z)[MaxK][1]) {
#pragma unroll
  for (int k = 0; k + N <= MaxK; k += N) {
    if (k < classes) {
      RealOf<Storage> x[N];
      unpack<Storage, N>(*reinterpret_cast<const Raw<Storage, N>*>(row + k * sizeof(Storage)), x);
#pragma unroll
      for (int j = 0; j < N; ++j) z[k + j][0] = x[j];
    }
  }
}

template <class Storage, int N, int MaxK>
__device__ __forceinline__ void store_row_units(unsigned char* row, int classes, const RealOf<Storage> (&z)[MaxK][1]) {
#pragma unroll
  for (int k = 0; k + N <= MaxK; k += N) {
    if (k < classes) {
      RealOf<Storage> x[N];
#pragma unroll
      for (int j = 0; j < N; ++j) x[j] = z[k + j][0];
      *reinterpret_cast<Raw<Storage, N>*>(row + k * sizeof(Storage)) = pack<Storage, N>(x);
    }
  }
}

// Calls f(std::integral_constant) with the number of values of a unit.
template <class Storage, class Function>
__device__ __forceinline__ void with_unit(int unit, Function f) {
  constexpr int kSize = static_cast<int>(sizeof(Storage));
  if (unit == 16) return f(std::integral_constant<int, 16 / kSize>());
  if (unit == 8) return f(std::integral_constant<int, 8 / kSize>());
  if (unit == 4) return f(std::integral_constant<int, 4 / kSize>());
  if constexpr (kSize == 2) f(std::integral_constant<int, 1>());
}

}  // namespace labeldrop::cuda
