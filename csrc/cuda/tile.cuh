// The paths of channels-last logits (register_pixels.cuh): rows that go straight into registers, or a tile of pixels in
// shared memory, which is read and written in 16-byte chunks in order; a pixel's row then is read by its thread.
//
// Rows are accessed in units: the largest power of 2, up to 16 bytes, that divides a row. A row of an odd number of
// units is free of bank conflicts. Only units of 16 bytes can be even in number: of such rows the chunks change places
// within every 8 of them, so that 8 lanes' chunks lie in different banks.
#pragma once

#include "register_pixels.cuh"

namespace labeldrop::cuda {

using Chunk = Vector<uint32_t, 4>;  // 16 bytes

inline TileLayout tile_layout(int64_t row, bool chunks) {
  TileLayout t{};
  t.row = static_cast<int>(row);
  t.unit = static_cast<int>(std::min<int64_t>(kVectorBytes, row & -row));
  const int units = t.row / t.unit;
  t.moved = (std::min(units & -units, 8) - 1) * t.unit;
  t.chunks = chunks;
  return t;
}

// Where a byte of the tile lies in shared memory. What is XORed is the same for chunks 64 apart.
__device__ __forceinline__ int tile_place(const TileLayout& t, int byte) { return byte ^ (byte >> 3 & t.moved); }

// A tile of `bytes` in whole chunks, counted from the multiple of 16 bytes before it in global memory, which is `shift`
// bytes before, and what these leave over at both ends: bytes [begin, head) and [tail, end) are copied value by value.
struct WholeChunks {
  __device__ __forceinline__ WholeChunks(const TileLayout& t, int shift, int bytes)
      : begin(shift), end(shift + bytes), first(shift == 0 ? 0 : 1), last((shift + bytes) / kVectorBytes) {
    if (!t.chunks || last < first) first = last = 0;
    head = first != last ? first * kVectorBytes : shift;
    tail = first != last ? last * kVectorBytes : shift;
  }
  int begin, end;   // bytes of the tile
  int first, last;  // whole chunks
  int head, tail;
};

// threadIdx.x, as a number that the compiler does not know to be the same each time: what follows from it is not kept
// in registers from the loads to the stores.
__device__ __forceinline__ int this_thread() {
#ifdef __CUDA_ARCH__
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
#else
  return static_cast<int>(threadIdx.x);
#endif
}

// copy(byte in shared, byte in global from the tile's start) for each value of bytes [begin, end)
template <class Storage, class Copy>
__device__ __forceinline__ void copy_values(const TileLayout& t, int thread, int shift, int begin, int end, Copy copy) {
  constexpr int kSize = static_cast<int>(sizeof(Storage));
  for (int byte = begin + thread * kSize; byte < end; byte += kSize * kBlock) {
    copy(tile_place(t, byte), byte - shift);
  }
}

// step(chunk, chunks from it to the end, its byte in shared memory) for every kAtOnce-th chunk of this thread: the next
// ones are kBlock further, in both.
template <int kAtOnce, class Step>
__device__ __forceinline__ void for_each_chunk(const TileLayout& t, int thread, const WholeChunks& whole, Step step) {
  for (int c = whole.first + thread; c < whole.last; c += kAtOnce * kBlock) {
    step(c, whole.last - c, tile_place(t, c * kVectorBytes));
  }
}

// global to shared; `from` is the tile's first value
template <class Storage>
__device__ __forceinline__ void load_tile(const TileLayout& t, unsigned char* shared, const unsigned char* from,
                                          int shift, int bytes) {
  constexpr int kAtOnce = 8;  // loads in flight per thread
  const int thread = this_thread();
  const WholeChunks whole(t, shift, bytes);
  const Chunk* __restrict__ chunks = reinterpret_cast<const Chunk*>(from - shift);
  for_each_chunk<kAtOnce>(t, thread, whole, [&](int c, int left, int place) {
    Chunk part[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (j * kBlock < left) part[j] = chunks[c + j * kBlock];
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (j * kBlock < left) *reinterpret_cast<Chunk*>(shared + place + j * kBlock * kVectorBytes) = part[j];
    }
  });
  const auto copy = [&](int place, int offset) {
    *reinterpret_cast<Storage*>(shared + place) = *reinterpret_cast<const Storage*>(from + offset);
  };
  copy_values<Storage>(t, thread, shift, whole.begin, whole.head, copy);
  copy_values<Storage>(t, thread, shift, whole.tail, whole.end, copy);
}

// shared to global
template <class Storage>
__device__ __forceinline__ void store_tile(const TileLayout& t, const unsigned char* shared, unsigned char* to,
                                           int shift, int bytes) {
  constexpr int kAtOnce = 4;
  const int thread = this_thread();
  const WholeChunks whole(t, shift, bytes);
  Chunk* __restrict__ chunks = reinterpret_cast<Chunk*>(to - shift);
  for_each_chunk<kAtOnce>(t, thread, whole, [&](int c, int left, int place) {
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (j * kBlock < left) {
        chunks[c + j * kBlock] = *reinterpret_cast<const Chunk*>(shared + place + j * kBlock * kVectorBytes);
      }
    }
  });
  const auto copy = [&](int place, int offset) {
    *reinterpret_cast<Storage*>(to + offset) = *reinterpret_cast<const Storage*>(shared + place);
  };
  copy_values<Storage>(t, thread, shift, whole.begin, whole.head, copy);
  copy_values<Storage>(t, thread, shift, whole.tail, whole.end, copy);
}

// access(k, i, byte) for each unit of V values of each row that exists, at class k of pixel i and a byte of the tile;
// the first pixel's row is at `byte`. missing(k) for each unit that does not exist, though a class of its group does.
template <class Storage, int V, class Classes, class Pixels, class Access, class Missing>
__device__ __forceinline__ void for_each_unit(const TileLayout& t, int byte, Classes classes, const Pixels& pixels,
                                              Access access, Missing missing) {
  constexpr int kGroup = V > Classes::kGroup ? V : Classes::kGroup;
#pragma unroll
  for (int i = 0; i < Pixels::N; ++i) {
    if (!pixels.exists(i)) continue;
    const int row = byte + i * Pixels::kStep * t.row;
#pragma unroll
    for (int first = 0; first + kGroup <= Classes::MaxK; first += kGroup) {
      if (!classes.exists(first)) continue;
#pragma unroll
      for (int k = first; k < first + kGroup; k += V) {
        const int place = row + k * static_cast<int>(sizeof(Storage));
        if (!classes.exists(k)) {
          missing(k, i);
        } else {  // only units of 16 bytes change places
          access(k, i, V * sizeof(Storage) == kVectorBytes ? tile_place(t, place) : place);
        }
      }
    }
  }
}

// Rows of the tile as numbers, V values to a unit. Classes beyond the last one, of a group with it, are -inf.
template <class Storage, int V, class Classes, class Pixels>
__device__ __forceinline__ void load_rows_of_tile(const TileLayout& t, const unsigned char* tile, int byte,
                                                  Classes classes, const Pixels& pixels,
                                                  float (&z)[Classes::MaxK][Pixels::N]) {
  const auto set = [&](int k, int i, const Raw<Storage, V>& raw) {
    float x[V];
    unpack<Storage, V>(raw, x);
#pragma unroll
    for (int j = 0; j < V; ++j) z[k + j][i] = x[j];
  };
  for_each_unit<Storage, V>(
      t, byte, classes, pixels,
      [&](int k, int i, int place) { set(k, i, *reinterpret_cast<const Raw<Storage, V>*>(tile + place)); },
      [&](int k, int i) { set(k, i, minus_infinity<Storage, V>()); });
}

template <class Storage, int V, class Classes, class Pixels>
__device__ __forceinline__ void store_rows_of_tile(const TileLayout& t, unsigned char* tile, int byte, Classes classes,
                                                   const Pixels& pixels, const float (&z)[Classes::MaxK][Pixels::N]) {
  for_each_unit<Storage, V>(
      t, byte, classes, pixels,
      [&](int k, int i, int place) {
        float x[V];
#pragma unroll
        for (int j = 0; j < V; ++j) x[j] = z[k + j][i];
        *reinterpret_cast<Raw<Storage, V>*>(tile + place) = pack<Storage, V>(x);
      },
      [](int, int) {});
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

template <class Storage_, int MaxK_, int kLeast, int N_ = (kPixelsHeld<MaxK_> < 4 ? kPixelsHeld<MaxK_> : 4)>
struct TilePath {
  using Storage = Storage_;
  static constexpr int MaxK = MaxK_, N = N_;
  static constexpr bool kStaged = true;  // in shared memory
  using Classes = ClassCount<MaxK, kLeast>;
  using Pixels = ThreadPixels<N, kBlock>;
  static constexpr int kTile = N * kBlock;  // pixels

  static PathSetup setup(const LossArguments& a, const void* stored) {
    const int64_t row = a.channels * static_cast<int64_t>(sizeof(Storage));
    // 16 bytes more, because a tile keeps its misalignment in global memory
    return {(a.pixels + kTile - 1) / kTile, row * kTile + kVectorBytes,
            tile_layout(row, vector_aligned(a.logits) && vector_aligned(stored))};
  }

  template <class Body>
  static __device__ __forceinline__ void run(const LossArguments& a, void* stored, const TileLayout& t, int64_t sample,
                                             unsigned char* shared, Body& body) {
    const Classes classes{static_cast<int>(a.channels)};
    const uint32_t tiles = static_cast<uint32_t>((a.pixels + kTile - 1) / kTile);
    for (uint32_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      const int64_t first = tile * static_cast<int64_t>(kTile);
      const int count = a.pixels - first < kTile ? static_cast<int>(a.pixels - first) : kTile;
      const int64_t start = (sample * a.pixels + first) * t.row;
      const int shift = t.chunks ? static_cast<int>(start % kVectorBytes) : 0, thread = static_cast<int>(threadIdx.x);
      load_tile<Storage>(t, shared, static_cast<const unsigned char*>(a.logits) + start, shift, count * t.row);
      const Pixels pixels{sample, sample * a.pixels + first + thread, count - thread};
      auto known = body.known(pixels);
      __syncthreads();
      float z[MaxK][N];
      const int byte = shift + thread * t.row;
      with_unit<Storage>(
          t.unit, [&](auto v) { load_rows_of_tile<Storage, decltype(v)::value>(t, shared, byte, classes, pixels, z); });
      body(z, classes, pixels, known);
      if (stored != nullptr) {
        with_unit<Storage>(t.unit, [&](auto v) {
          const int byte = shift + this_thread() * t.row;
          store_rows_of_tile<Storage, decltype(v)::value>(t, shared, byte, classes, pixels, z);
        });
      }
      __syncthreads();
      if (stored != nullptr) {
        store_tile<Storage>(t, shared, static_cast<unsigned char*>(stored) + start, shift, count * t.row);
        __syncthreads();
      }
    }
  }
};

template <class Storage, class Function>
auto with_channels_last_classes(const LossArguments& a, bool aligned, Function f) {
  if (aligned && a.channels == 2) return f(RowPath<Storage, 2, 4>());
  if (aligned && a.channels == 4) return f(RowPath<Storage, 4, 4>());
  if (aligned && a.channels == 8) return f(RowPath<Storage, 8, 4>());
  if constexpr (sizeof(Storage) == 2) {
    if (aligned && a.channels == 16) return f(RowPath<Storage, 16, 4>());
  }
  if (a.channels <= 4) return f(TilePath<Storage, 4, 1>());
  if (a.channels <= 8) return f(TilePath<Storage, 8, 5>());
  if (a.channels <= 16) return f(TilePath<Storage, 16, 9>());
  return f(TilePath<Storage, kMostInRegisters, 17>());
}

// f(Path()) for channels-last logits of at most 32 classes, not double; returns what it does.
template <class Function>
auto with_channels_last_path(const LossArguments& a, const void* stored, Function f) {
  const bool aligned = vector_aligned(a.logits) && vector_aligned(stored);
  if (a.logits_type == Float::bf16) return with_channels_last_classes<BFloat16>(a, aligned, f);
  if (a.logits_type == Float::f16) return with_channels_last_classes<Float16>(a, aligned, f);
  return with_channels_last_classes<float>(a, aligned, f);
}

}  // namespace labeldrop::cuda
