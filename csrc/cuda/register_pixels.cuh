// A thread takes N pixels of at most 32 classes into registers, z[MaxK][N]: the one way in which kernels read logits
// and write gradients of so few classes. Where z comes from is a path; what becomes of it is a body.
//
//     Path                    layout, rows of K values           N pixels of a thread are
//     ContiguousPath          contiguous                         neighbours: one access a class
//     RowPath                 channels-last, 4 to 32 bytes       kBlock apart: a pixel's row is one or two accesses
//     TilePath (tile.cuh)     channels-last, any other           kBlock apart: through shared memory
//
// On the host, with_contiguous_path or with_channels_last_path (tile.cuh) calls f(Path()) with the path for some
// arguments: logits, what is stored (a gradient like the logits, or null), whether the arrays of one value a pixel are
// aligned to kVectorBytes. The kernel is a template of it, launched with kBlock threads and what Path::setup(a, stored)
// says: `shared` bytes at least, and `layout`. A sample is `tiles` parts, of which a block takes every gridDim.x-th:
//
//     template <class Path>
//     __global__ void __launch_bounds__(kBlock, kBlocksHeld<Path>) kernel(const Arguments a, const TileLayout layout)
//     {
//       LABELDROP_DYNAMIC_SHARED(shared);
//       Body body{...};
//       for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
//         Path::run(a, a.gradient, layout, sample, shared, body);  // nullptr: a pass that stores nothing like logits
//       }
//     }
//
// and the body has two members:
//
//     // what is known of pixels without their logits, read while these are on their way; `Pixels` is a ThreadPixels.
//     template <class Pixels> Known known(const Pixels& pixels);
//     // z[MaxK][N], the logits, is overwritten by what is stored in their place. z of a pixel that does not exist
//     // may be anything; so may z[k] for k >= classes.count, or it is -inf: go through them with classes.each.
//     template <class Classes, class Pixels> void operator()(float (&z)[Classes::MaxK][Pixels::N], Classes classes,
//                                                            const Pixels& pixels, Known& known);
#pragma once

#include <type_traits>

#include "elements.cuh"

namespace labeldrop::cuda {

constexpr int kBlock = 128;           // threads
constexpr int kMostInRegisters = 32;  // classes: one word of the tables

// Pixels of one thread: N of one sample, kStep apart. Neighbours all exist, others do so far as the sample goes.
template <int N_, int kStep_>
struct ThreadPixels {
  static constexpr int N = N_, kStep = kStep_;
  static constexpr bool kNeighbours = kStep == 1;
  int64_t sample, first;  // the first one, counted through all samples
  int left;               // pixels from it to the end of the tile

  __device__ __forceinline__ bool exists(int i) const { return kNeighbours || i * kStep < left; }
  __device__ __forceinline__ int apart(int i) const { return i * kStep; }  // from the first one
};

// values[i] of each pixel that exists, from an array of one value a pixel; the same for storing.
template <class Value, class Pixels>
__device__ __forceinline__ void load_of_pixels(const Value* from, const Pixels& pixels, Value (&values)[Pixels::N]) {
  if constexpr (Pixels::kNeighbours) {
    load_values(from + pixels.first, values);
  } else {
#pragma unroll
    for (int i = 0; i < Pixels::N; ++i) {
      if (pixels.exists(i)) values[i] = from[pixels.first + pixels.apart(i)];
    }
  }
}

template <class Value, class Pixels>
__device__ __forceinline__ void store_of_pixels(Value* to, const Pixels& pixels, const Value (&values)[Pixels::N]) {
  if constexpr (Pixels::kNeighbours) {
    store_values(to + pixels.first, values);
  } else {
#pragma unroll
    for (int i = 0; i < Pixels::N; ++i) {
      if (pixels.exists(i)) to[pixels.first + pixels.apart(i)] = values[i];
    }
  }
}

// The number of classes, from kLeast to MaxK. Between the classes of a group nobody asks whether they are the last.
template <int MaxK_, int kLeast_>
struct ClassCount {
  static constexpr int MaxK = MaxK_, kLeast = kLeast_, kGroup = MaxK < 16 ? 1 : MaxK / 8;
  int count;

  __device__ __forceinline__ bool exists(int k) const { return k < kLeast || k < count; }

  // step(k) for every class, and perhaps for some up to the end of a group
  template <class Step>
  __device__ __forceinline__ void each(Step step) const {
#pragma unroll
    for (int first = 0; first < MaxK; first += kGroup) {
      if (exists(first)) {
#pragma unroll
        for (int k = first; k < first + kGroup; ++k) step(k);
      }
    }
  }
};

// Pixels of a thread: 64 numbers at most, so that nothing spills and enough threads fit.
template <int MaxK>
constexpr int kPixelsHeld = MaxK <= 4    ? 8
                            : MaxK <= 16 ? 4
                                         : 2;

// step(k) for every class, and perhaps for some up to the end of a group.
template <int MaxK, class Step>
__device__ __forceinline__ void for_each_class(int classes, Step step) {
  ClassCount<MaxK, 0>{classes}.each(step);
}

// Blocks that a multiprocessor is to have room for, as __launch_bounds__ has it: 128 or 168 registers a thread.
template <class Path>
constexpr int kBlocksHeld = Path::MaxK * Path::N > 32 || Path::kStaged ? 3 : 4;

// A tile of channels-last rows in shared memory, see tile.cuh.
struct TileLayout {
  int row = 0;          // bytes of a pixel
  int unit = 0;         // bytes of an access to a row
  int moved = 0;        // bits of a chunk's byte that change with the chunks before it
  bool chunks = false;  // both global arrays begin at a multiple of 16 bytes
};

// What a launch needs to know of its path.
struct PathSetup {
  int64_t tiles;        // parts of a sample, one a block at a time
  int64_t shared = 0;   // bytes of a block
  TileLayout layout{};  // an argument of the kernel
};

// ---------------------------------------------------------------------------------------------------------- contiguous

template <class Storage_, int MaxK_, int kLeast, int N_>
struct ContiguousPath {
  using Storage = Storage_;
  static constexpr int MaxK = MaxK_, N = N_;
  static constexpr bool kStaged = false;
  using Classes = ClassCount<MaxK, kLeast>;
  using Pixels = ThreadPixels<N, 1>;
  using Access = Raw<Storage, N>;
  // From class to class, in accesses; 32 bits for more than one pixel: more than 2^32 accesses fit no device.
  using Stride = std::conditional_t<N == 1, uint64_t, uint32_t>;

  static PathSetup setup(const LossArguments& a, const void*) { return {(a.pixels / N + kBlock - 1) / kBlock}; }

  template <class Body>
  static __device__ __forceinline__ void run(const LossArguments& a, void* stored, const TileLayout&, int64_t sample,
                                             unsigned char*, Body& body) {
    for (int64_t i = blockIdx.x * static_cast<int64_t>(kBlock) + threadIdx.x; i < a.pixels / N;
         i += static_cast<int64_t>(gridDim.x) * kBlock) {
      process(a, stored, sample, i * N, body);
    }
  }

 private:
  template <class Body>
  static __device__ __forceinline__ void process(const LossArguments& a, void* stored, int64_t sample, int64_t first,
                                                 Body& body) {
    const Classes classes{static_cast<int>(a.channels)};
    const int64_t element = sample * a.channels * a.pixels + first;
    const Stride stride = static_cast<Stride>(a.pixels / N);
    const Pixels pixels{sample, sample * a.pixels + first, N};
    // All classes are on their way before the first is looked at.
    const unsigned char* from = static_cast<const unsigned char*>(a.logits) + element * sizeof(Storage);
    Access raw[MaxK];
    classes.each([&](int k) {
      if (classes.exists(k)) {
        raw[k] = *reinterpret_cast<const Access*>(from + Stride(stride) * static_cast<uint64_t>(k * sizeof(Access)));
      } else {
        raw[k] = minus_infinity<Storage, N>();
      }
    });
    auto known = body.known(pixels);
    float z[MaxK][N];
    classes.each([&](int k) { unpack<Storage, N>(raw[k], z[k]); });
    body(z, classes, pixels, known);
    if (stored == nullptr) return;
    unsigned char* to = static_cast<unsigned char*>(stored) + element * sizeof(Storage);
    classes.each([&](int k) {
      if (!classes.exists(k)) return;
      *reinterpret_cast<Access*>(to + Stride(stride) * static_cast<uint64_t>(k * sizeof(Access))) =
          pack<Storage, N>(z[k]);
    });
  }
};

template <class Storage, int MaxK, int kLeast, class Function>
auto with_contiguous_pixels(const LossArguments& a, bool aligned, Function f) {
  constexpr int kMost = kPixelsHeld<MaxK>, kWidest = static_cast<int>(kVectorBytes / sizeof(Storage));
  constexpr int kPixels = kMost < kWidest ? kMost : kWidest;
  if (aligned && a.pixels % kPixels == 0) return f(ContiguousPath<Storage, MaxK, kLeast, kPixels>());
  if constexpr (kPixels == 8) {
    if (aligned && a.pixels % 4 == 0) return f(ContiguousPath<Storage, MaxK, kLeast, 4>());
  }
  return f(ContiguousPath<Storage, kMostInRegisters, 0, 1>());
}

template <class Storage, class Function>
auto with_contiguous_classes(const LossArguments& a, bool aligned, Function f) {
  if (a.channels <= 2) return with_contiguous_pixels<Storage, 2, 1>(a, aligned, f);
  if (a.channels <= 4) return with_contiguous_pixels<Storage, 4, 3>(a, aligned, f);
  if (a.channels <= 8) return with_contiguous_pixels<Storage, 8, 5>(a, aligned, f);
  if (a.channels <= 16) return with_contiguous_pixels<Storage, 16, 9>(a, aligned, f);
  return with_contiguous_pixels<Storage, kMostInRegisters, 17>(a, aligned, f);
}

// f(Path()) for contiguous logits of at most 32 classes, not double; returns what it does.
template <class Function>
auto with_contiguous_path(const LossArguments& a, const void* stored, bool per_pixel_aligned, Function f) {
  const bool aligned = per_pixel_aligned && vector_aligned(a.logits) && vector_aligned(stored);
  if (a.logits_type == Float::bf16) return with_contiguous_classes<BFloat16>(a, aligned, f);
  if (a.logits_type == Float::f16) return with_contiguous_classes<Float16>(a, aligned, f);
  return with_contiguous_classes<float>(a, aligned, f);
}

// ------------------------------------------------------------------------------------------------ channels-last, rows

// Rows of 4, 8, 16 or 32 bytes. Neighbouring lanes' accesses are of neighbouring bytes, or leave every second 16 bytes
// to the next access: longer rows would ask too much of the first cache.
template <class Storage_, int K, int N_>
struct RowPath {
  using Storage = Storage_;
  static constexpr int MaxK = K, N = N_;
  static constexpr bool kStaged = false;
  using Classes = ClassCount<K, K>;
  using Pixels = ThreadPixels<N, kBlock>;
  static constexpr int kWidest = static_cast<int>(kVectorBytes / sizeof(Storage));
  static constexpr int kUnit = K < kWidest ? K : kWidest, kUnits = K / kUnit;  // values of an access, accesses of a row
  using Access = Raw<Storage, kUnit>;

  static PathSetup setup(const LossArguments& a, const void*) { return {(a.pixels + N * kBlock - 1) / (N * kBlock)}; }

  template <class Body>
  static __device__ __forceinline__ void run(const LossArguments& a, void* stored, const TileLayout&, int64_t sample,
                                             unsigned char*, Body& body) {
    constexpr int64_t kTile = N * kBlock;
    const uint32_t tiles = static_cast<uint32_t>((a.pixels + kTile - 1) / kTile);
    for (uint32_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      const int64_t first = tile * kTile;
      const int count = a.pixels - first < kTile ? static_cast<int>(a.pixels - first) : static_cast<int>(kTile);
      const int thread = static_cast<int>(threadIdx.x);
      process(a, stored, Pixels{sample, sample * a.pixels + first + thread, count - thread}, body);
    }
  }

 private:
  template <class Body>
  static __device__ __forceinline__ void process(const LossArguments& a, void* stored, const Pixels& pixels,
                                                 Body& body) {
    const Access* from = static_cast<const Access*>(a.logits) + pixels.first * kUnits;
    Access raw[N][kUnits];
#pragma unroll
    for (int i = 0; i < N; ++i) {
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        if (pixels.exists(i)) raw[i][u] = from[i * kBlock * kUnits + u];
      }
    }
    auto known = body.known(pixels);
    float z[K][N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        float x[kUnit];
        unpack<Storage, kUnit>(raw[i][u], x);
#pragma unroll
        for (int j = 0; j < kUnit; ++j) z[u * kUnit + j][i] = x[j];
      }
    }
    body(z, Classes{K}, pixels, known);
    if (stored == nullptr) return;
    Access* to = static_cast<Access*>(stored) + pixels.first * kUnits;
#pragma unroll
    for (int i = 0; i < N; ++i) {
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        float x[kUnit];
#pragma unroll
        for (int j = 0; j < kUnit; ++j) x[j] = z[u * kUnit + j][i];
        if (pixels.exists(i)) to[i * kBlock * kUnits + u] = pack<Storage, kUnit>(x);
      }
    }
  }
};

}  // namespace labeldrop::cuda
