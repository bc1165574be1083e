// Tiles on their way in and out: element types, layouts, stores past the caches. Compiled once per instruction set
// (LABELDROP_ISA), so that no kernel has a copy of its own.
#include "tiles.h"

#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "../math/half.h"
#include "operators.h"

namespace labeldrop {

typedef uint16_t HalfLanes __attribute__((vector_size(LABELDROP_VECTOR_BYTES / 2)));
template <>
struct InMemory<HalfLanes> {
  typedef uint16_t type __attribute__((vector_size(LABELDROP_VECTOR_BYTES / 2), aligned(sizeof(uint16_t))));
};

namespace LABELDROP_ISA {
namespace {

constexpr int kFloats = Lanes<float>::count;
constexpr int kQuads = kFloats / 4;  // groups of four floats in a vector

// ---- element types: a vector of floats from and to halves ----

LABELDROP_INLINE FloatLanes widen(HalfLanes bits, BFloat16) {
  return bfloat16_to_reals<FloatLanes>(__builtin_convertvector(bits, UnsignedLanes));
}
LABELDROP_INLINE HalfLanes narrow(FloatLanes x, BFloat16) {
  return __builtin_convertvector(bfloat16_bits(x), HalfLanes);
}

// Rounding is to the nearest whatever the thread's rounding mode is, as in the formulas for other processors.
LABELDROP_INLINE FloatLanes widen(HalfLanes bits, Float16) {
#if defined(__AVX512F__)
  return (FloatLanes)_mm512_maskz_cvtph_ps(0xffff, (__m256i)bits);
#elif defined(__F16C__)
  return (FloatLanes)_mm256_cvtph_ps((__m128i)bits);
#else
  return float16_to_reals<FloatLanes>(__builtin_convertvector(bits, UnsignedLanes));
#endif
}
LABELDROP_INLINE HalfLanes narrow(FloatLanes x, Float16) {
#if defined(__AVX512F__)
  return (HalfLanes)_mm512_maskz_cvtps_ph(0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__F16C__)
  return (HalfLanes)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  return __builtin_convertvector(float16_bits(x), HalfLanes);
#endif
}

// ---- one element ----

template <class Real>
LABELDROP_INLINE Real load_one(Real from) {
  return from;
}
template <class Real>
LABELDROP_INLINE Real load_one(BFloat16 from) {
  return to_float(from);
}
template <class Real>
LABELDROP_INLINE Real load_one(Float16 from) {
  return to_float(from);
}
LABELDROP_INLINE void store_one(float& to, float from) { to = from; }
[[maybe_unused]] LABELDROP_INLINE void store_one(double& to, double from) { to = from; }
LABELDROP_INLINE void store_one(BFloat16& to, float from) { to = to_bfloat16(from); }
LABELDROP_INLINE void store_one(Float16& to, float from) { to = to_float16(from); }

// ---- neighbours in memory ----

LABELDROP_INLINE FloatLanes load_reals(const float* from) { return load_lanes<FloatLanes>(from); }
template <class Half>
LABELDROP_INLINE FloatLanes load_reals(const Half* from) {
  return widen(load_lanes<HalfLanes>(&from->bits), Half());
}

// Past the caches, to memory. The address is a multiple of the vector's size.
LABELDROP_INLINE void stream_lanes(float* to, FloatLanes v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, (__m512)v);
#elif defined(__AVX2__)
  _mm256_stream_ps(to, (__m256)v);
#elif defined(__x86_64__)
  _mm_stream_ps(to, (__m128)v);
#else
  store_lanes(to, v);
#endif
}
LABELDROP_INLINE void stream_lanes(uint16_t* to, HalfLanes v) {
#if defined(__AVX512F__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)v);
#elif defined(__AVX2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)v);
#elif defined(__x86_64__)
  _mm_stream_si64(reinterpret_cast<long long*>(to), bit_cast<long long>(v));
#else
  store_lanes(to, v);
#endif
}

template <bool kStreaming, class Element, class V>
LABELDROP_INLINE void put_lanes(Element* to, V v) {
  if constexpr (kStreaming) {
    stream_lanes(to, v);
  } else {
    store_lanes(to, v);
  }
}
template <bool kStreaming>
LABELDROP_INLINE void store_reals(float* to, FloatLanes v) {
  put_lanes<kStreaming>(to, v);
}
template <bool kStreaming, class Half>
LABELDROP_INLINE void store_reals(Half* to, FloatLanes v) {
  put_lanes<kStreaming>(&to->bits, narrow(v, Half()));
}

// ---- four neighbours of each of some pixels ----
// Vectors are taken for groups of four floats: transposing within the groups is an instruction a step on every
// processor, and where the groups come from is the load's business.

// Group b from `from` + b * step.
LABELDROP_INLINE FloatLanes load_quads(const float* from, [[maybe_unused]] int64_t step) {
#if defined(__AVX512F__)
  const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm_loadu_ps(from + step), 1);
  const __m256 high =
      _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + 2 * step)), _mm_loadu_ps(from + 3 * step), 1);
  return (FloatLanes)_mm512_maskz_insertf32x8(0xffff, _mm512_castps256_ps512(low), high, 1);
#elif defined(__AVX2__)
  return (FloatLanes)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm_loadu_ps(from + step), 1);
#else
  return load_lanes<FloatLanes>(from);
#endif
}

typedef uint64_t HalfQuads __attribute__((vector_size(LABELDROP_VECTOR_BYTES / 2)));

template <class Half>
LABELDROP_INLINE FloatLanes load_quads(const Half* from, int64_t step) {
  HalfQuads bits{};
  for (int b = 0; b < kQuads; ++b) {
    uint64_t quad;
    memcpy(&quad, from + b * step, sizeof(quad));
    bits[b] = quad;
  }
  return widen((HalfLanes)bits, Half());
}

// Group b to `to`.
template <int b>
LABELDROP_INLINE void store_quad(float* to, FloatLanes v) {
#if defined(__AVX512F__)
  _mm_storeu_ps(to, _mm512_maskz_extractf32x4_ps(0xf, (__m512)v, b));
#elif defined(__AVX2__)
  _mm_storeu_ps(to, _mm256_extractf128_ps((__m256)v, b));
#else
  store_lanes(to, v);
#endif
}
template <int b>
LABELDROP_INLINE void store_quad(uint16_t* to, HalfLanes v) {
  const uint64_t quad = ((HalfQuads)v)[b];
  memcpy(to, &quad, sizeof(quad));
}

// Four vectors with a common index of each group. `v` is what is stored: floats, or their halves.
template <int b, class Element, class V>
LABELDROP_INLINE void store_quads(Element* to, int64_t stride, const V (&v)[4]) {
  // in the order of the pixels: what is written past one of less than four channels is the next one's
  for (int p = 0; p < 4; ++p) store_quad<b>(to + (4 * b + p) * stride, v[p]);
  if constexpr (b + 1 < kQuads) store_quads<b + 1>(to, stride, v);
}

// i and j of each group of the first vector, and of the second, in the order i, of the second i, j, of the second j;
// or i, j, of the second i, j.
#define LABELDROP_ZIP(g, i, j) 4 * g + i, kFloats + 4 * g + i, 4 * g + j, kFloats + 4 * g + j
#define LABELDROP_JOIN(g, i, j) 4 * g + i, 4 * g + j, kFloats + 4 * g + i, kFloats + 4 * g + j
#if LABELDROP_VECTOR_BYTES == 64
#define LABELDROP_GROUPS(order, i, j) order(0, i, j), order(1, i, j), order(2, i, j), order(3, i, j)
#elif LABELDROP_VECTOR_BYTES == 32
#define LABELDROP_GROUPS(order, i, j) order(0, i, j), order(1, i, j)
#else
#define LABELDROP_GROUPS(order, i, j) order(0, i, j)
#endif

// Transposes the 4 x 4 numbers that the vectors have in each group.
LABELDROP_INLINE void transpose_groups(FloatLanes (&v)[4]) {
  const FloatLanes low_01 = LABELDROP_SHUFFLE(v[0], v[1], LABELDROP_GROUPS(LABELDROP_ZIP, 0, 1));
  const FloatLanes high_01 = LABELDROP_SHUFFLE(v[0], v[1], LABELDROP_GROUPS(LABELDROP_ZIP, 2, 3));
  const FloatLanes low_23 = LABELDROP_SHUFFLE(v[2], v[3], LABELDROP_GROUPS(LABELDROP_ZIP, 0, 1));
  const FloatLanes high_23 = LABELDROP_SHUFFLE(v[2], v[3], LABELDROP_GROUPS(LABELDROP_ZIP, 2, 3));
  v[0] = LABELDROP_SHUFFLE(low_01, low_23, LABELDROP_GROUPS(LABELDROP_JOIN, 0, 1));
  v[1] = LABELDROP_SHUFFLE(low_01, low_23, LABELDROP_GROUPS(LABELDROP_JOIN, 2, 3));
  v[2] = LABELDROP_SHUFFLE(high_01, high_23, LABELDROP_GROUPS(LABELDROP_JOIN, 0, 1));
  v[3] = LABELDROP_SHUFFLE(high_01, high_23, LABELDROP_GROUPS(LABELDROP_JOIN, 2, 3));
}
#undef LABELDROP_ZIP
#undef LABELDROP_JOIN
#undef LABELDROP_GROUPS

// ---- a vector of pixels whose channels are neighbours ----

// kRows channels, at most four, on the way in and out. Four are read and written in any case.
template <int kRows, class Storage>
LABELDROP_INLINE void load_channels(float* values, int64_t pitch, const Storage* from, int64_t stride) {
  FloatLanes v[4];
  for (int p = 0; p < 4; ++p) v[p] = load_quads(from + p * stride, 4 * stride);
  transpose_groups(v);
  for (int c = 0; c < kRows; ++c) store_lanes(values + c * pitch, v[c]);
}

template <int kRows, class Storage>
LABELDROP_INLINE void store_channels(const float* values, int64_t pitch, Storage* to, int64_t stride) {
  FloatLanes v[4] = {};
  for (int c = 0; c < kRows; ++c) v[c] = load_lanes<FloatLanes>(values + c * pitch);
  transpose_groups(v);
  if constexpr (std::is_same_v<Storage, float>) {
    store_quads<0>(to, stride, v);
  } else {
    const HalfLanes halves[4] = {narrow(v[0], Storage()), narrow(v[1], Storage()), narrow(v[2], Storage()),
                                 narrow(v[3], Storage())};
    store_quads<0>(&to->bits, stride, halves);
  }
}

// Calls step(rows, first channel), rows being a constant, until all channels have been in one. The last four may
// have been in another step as well.
template <class Step>
LABELDROP_INLINE void for_four_channels(int64_t channels, Step step) {
  if (channels == 2) return step(std::integral_constant<int, 2>(), 0);
  if (channels == 3) return step(std::integral_constant<int, 3>(), 0);
  for (int64_t c = 0; c + 4 < channels; c += 4) step(std::integral_constant<int, 4>(), c);
  step(std::integral_constant<int, 4>(), channels - 4);
}

// Pixels of a tile that vectors can take where a pixel's channels are neighbours: four elements from any of these are
// within the tile's memory.
LABELDROP_INLINE int vector_pixels(int64_t channels, int64_t pixel_stride, int count) {
  if (channels < 2 || (channels < 4 && pixel_stride != channels)) return 0;
  return (channels < 4 ? count - 1 : count) / kFloats * kFloats;
}

// ---- tiles ----

template <class Storage>
LABELDROP_INLINE int load_vectors(float* __restrict values, int64_t pitch, const Storage* __restrict from,
                                  int64_t channels, int64_t channel_stride, int64_t pixel_stride, int count) {
  if (pixel_stride == 1) {
    const int end = count / kFloats * kFloats;
    for (int64_t c = 0; c < channels; ++c) {
      for (int i = 0; i < end; i += kFloats) {
        store_lanes(values + c * pitch + i, load_reals(from + c * channel_stride + i));
      }
    }
    return end;
  }
  const int end = vector_pixels(channels, pixel_stride, count);
  for (int i = 0; i < end; i += kFloats) {
    for_four_channels(channels, [&](auto rows, int64_t c) __attribute__((always_inline)) {
      load_channels<rows()>(values + c * pitch + i, pitch, from + i * pixel_stride + c, pixel_stride);
    });
  }
  return end;
}

template <bool kStreaming, class Storage>
LABELDROP_INLINE int store_vectors(const float* __restrict values, int64_t pitch, Storage* __restrict to,
                                   int64_t channels, int64_t channel_stride, int64_t pixel_stride, int count) {
  if (pixel_stride == 1) {
    const int end = count / kFloats * kFloats;
    for (int64_t c = 0; c < channels; ++c) {
      for (int i = 0; i < end; i += kFloats) {
        store_reals<kStreaming>(to + c * channel_stride + i, load_lanes<FloatLanes>(values + c * pitch + i));
      }
    }
    return end;
  }
  const int end = vector_pixels(channels, pixel_stride, count);
  for (int i = 0; i < end; i += kFloats) {
    for_four_channels(channels, [&](auto rows, int64_t c) __attribute__((always_inline)) {
      store_channels<rows()>(values + c * pitch + i, pitch, to + i * pixel_stride + c, pixel_stride);
    });
  }
  return end;
}

template <class Real, class Storage>
void read(Real* values, int64_t pitch, const Storage* from, int64_t channels, int64_t channel_stride,
          int64_t pixel_stride, int count) {
  int begin = 0;
  if constexpr (std::is_same_v<Real, float>) {
    begin = load_vectors(values, pitch, from, channels, channel_stride, pixel_stride, count);
  }
  for (int64_t c = 0; c < channels; ++c) {
    for (int i = begin; i < count; ++i) {
      values[c * pitch + i] = load_one<Real>(from[c * channel_stride + i * pixel_stride]);
    }
  }
}

template <class Real, class Storage>
void write(const Real* values, int64_t pitch, Storage* to, int64_t channels, int64_t channel_stride,
           int64_t pixel_stride, int count, bool streaming) {
  int begin = 0;
  if constexpr (std::is_same_v<Real, float>) {
    begin = streaming ? store_vectors<true>(values, pitch, to, channels, channel_stride, pixel_stride, count)
                      : store_vectors<false>(values, pitch, to, channels, channel_stride, pixel_stride, count);
  }
  for (int64_t c = 0; c < channels; ++c) {
    for (int i = begin; i < count; ++i) {
      store_one(to[c * channel_stride + i * pixel_stride], values[c * pitch + i]);
    }
  }
}

}  // namespace

void read_tile(float* values, int64_t pitch, const void* from, Float type, int64_t channels, int64_t channel_stride,
               int64_t pixel_stride, int count) {
  const auto as = [&](auto storage) {
    read(values, pitch, static_cast<const decltype(storage)*>(from), channels, channel_stride, pixel_stride, count);
  };
  switch (type) {
    case Float::f32: return as(float());
    case Float::bf16: return as(BFloat16());
    case Float::f16: return as(Float16());
    default: std::abort();
  }
}

void write_tile(const float* values, int64_t pitch, void* to, Float type, int64_t channels, int64_t channel_stride,
                int64_t pixel_stride, int count, bool streaming) {
  const auto as = [&](auto storage) {
    write(values, pitch, static_cast<decltype(storage)*>(to), channels, channel_stride, pixel_stride, count, streaming);
  };
  switch (type) {
    case Float::f32: return as(float());
    case Float::bf16: return as(BFloat16());
    case Float::f16: return as(Float16());
    default: std::abort();
  }
}

#ifdef LABELDROP_DOUBLES
void read_tile(double* values, int64_t pitch, const void* from, Float, int64_t channels, int64_t channel_stride,
               int64_t pixel_stride, int count) {
  read(values, pitch, static_cast<const double*>(from), channels, channel_stride, pixel_stride, count);
}

void write_tile(const double* values, int64_t pitch, void* to, Float, int64_t channels, int64_t channel_stride,
                int64_t pixel_stride, int count, bool streaming) {
  write(values, pitch, static_cast<double*>(to), channels, channel_stride, pixel_stride, count, streaming);
}
#endif

void tiles(const TilesArguments& a) {
  const auto move = [&](auto* values) {
    if (a.load) {
      read_tile(values, a.pitch, a.memory, a.type, a.channels, a.channel_stride, a.pixel_stride, a.count);
    } else {
      write_tile(values, a.pitch, a.memory, a.type, a.channels, a.channel_stride, a.pixel_stride, a.count, a.streaming);
      if (a.streaming) end_stream();
    }
  };
#ifdef LABELDROP_DOUBLES
  if (a.type == Float::f64) return move(static_cast<double*>(a.values));
#endif
  move(static_cast<float*>(a.values));
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
