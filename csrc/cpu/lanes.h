// Vectors of the width that the instruction set has, through the compilers' vector extension: +, <, ?: work on all
// lanes. Included by files that are compiled once per instruction set.
#pragma once

#include "../math/portable.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LABELDROP_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define LABELDROP_VECTOR_BYTES 32
#else
#define LABELDROP_VECTOR_BYTES 16
#endif

// Elements of two vectors, by their numbers.
#if defined(__clang__)
#define LABELDROP_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LABELDROP_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, IntegerLanes{__VA_ARGS__})
#endif

// Of a function, one copy: GCC would make others for values of its arguments that it knows, each as long to compile.
#if defined(__clang__)
#define LABELDROP_ONE_COPY __attribute__((noinline))
#else
#define LABELDROP_ONE_COPY __attribute__((noinline, noclone))
#endif

namespace labeldrop {

typedef float FloatLanes __attribute__((vector_size(LABELDROP_VECTOR_BYTES)));
typedef int32_t IntegerLanes __attribute__((vector_size(LABELDROP_VECTOR_BYTES)));
typedef uint32_t UnsignedLanes __attribute__((vector_size(LABELDROP_VECTOR_BYTES)));

template <>
struct ScalarOf<FloatLanes> {
  using type = float;
};
template <>
struct IntegerOf<FloatLanes> {
  using type = IntegerLanes;
};
template <>
struct UnsignedOf<FloatLanes> {
  using type = UnsignedLanes;
};
template <>
LABELDROP_INLINE FloatLanes to_reals<FloatLanes>(IntegerLanes integers) {
  return __builtin_convertvector(integers, FloatLanes);
}
template <>
LABELDROP_INLINE FloatLanes to_reals<FloatLanes>(UnsignedLanes integers) {
  return __builtin_convertvector(integers, FloatLanes);
}

template <>
LABELDROP_INLINE FloatLanes square_root<FloatLanes>(FloatLanes x) {
#if defined(__AVX512F__)
  return (FloatLanes)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
#elif defined(__AVX2__)
  return (FloatLanes)_mm256_sqrt_ps((__m256)x);
#elif defined(__x86_64__)
  return (FloatLanes)_mm_sqrt_ps((__m128)x);
#else
  FloatLanes root;
  for (size_t i = 0; i < sizeof(x) / sizeof(float); ++i) root[i] = __builtin_sqrtf(x[i]);
  return root;
#endif
}

template <>
LABELDROP_INLINE FloatLanes larger<FloatLanes>(FloatLanes a, FloatLanes b) {
#if defined(__AVX512F__)
  return (FloatLanes)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (FloatLanes)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
  return (FloatLanes)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}

template <>
LABELDROP_INLINE FloatLanes smaller<FloatLanes>(FloatLanes a, FloatLanes b) {
#if defined(__AVX512F__)
  return (FloatLanes)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (FloatLanes)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
  return (FloatLanes)_mm_min_ps((__m128)a, (__m128)b);
#else
  return a < b ? a : b;
#endif
}

// What a kernel computes with: lanes of floats, or one double at a time (doubles serve gradient checks).
template <class Real>
struct Lanes;
template <>
struct Lanes<float> {
  using V = FloatLanes;
  using Bits = IntegerLanes;
  static constexpr int count = LABELDROP_VECTOR_BYTES / sizeof(float);
};
template <>
struct Lanes<double> {
  using V = double;
  using Bits = int32_t;
  static constexpr int count = 1;
};

// Lanes somewhere in memory. Through these types the compiler knows that a store of numbers leaves pointers and sizes
// as they were; after a memcpy it would load them again, once for every class (a fifth of the kernel's time).
template <class V>
struct InMemory {
  using type = V;
};
template <>
struct InMemory<FloatLanes> {
  typedef float type __attribute__((vector_size(LABELDROP_VECTOR_BYTES), aligned(sizeof(float))));
};
template <>
struct InMemory<IntegerLanes> {
  typedef int32_t type __attribute__((vector_size(LABELDROP_VECTOR_BYTES), aligned(sizeof(int32_t))));
};

template <class V, class Element>
LABELDROP_INLINE V load_lanes(const Element* from) {
  return *reinterpret_cast<const typename InMemory<V>::type*>(from);
}

template <class V, class Element>
LABELDROP_INLINE void store_lanes(Element* to, V v) {
  *reinterpret_cast<typename InMemory<V>::type*>(to) = v;
}

// As many integers as there are lanes, as words: the low ones, and the high ones, which those of 64 bits alone have.
// Compilers take bytes one at a time, and vectors that are wider than the processor's.
struct IntegerWords {
  IntegerLanes low, high;
};

template <class Integer>
LABELDROP_INLINE IntegerWords load_words(const Integer* from) {
  typedef Integer Integers __attribute__((vector_size(LABELDROP_VECTOR_BYTES / 4 * sizeof(Integer))));
  Integers integers;
  __builtin_memcpy(&integers, from, sizeof(integers));
  return {__builtin_convertvector(integers, IntegerLanes), IntegerLanes{}};
}
LABELDROP_INLINE IntegerWords load_words(const int64_t* from) {
  const IntegerLanes first = load_lanes<IntegerLanes>(from);
  const IntegerLanes second = load_lanes<IntegerLanes>(from + sizeof(first) / sizeof(*from));
#if LABELDROP_VECTOR_BYTES == 64
#define LABELDROP_EVERY_OTHER(i) \
  i, i + 2, i + 4, i + 6, i + 8, i + 10, i + 12, i + 14, i + 16, i + 18, i + 20, i + 22, i + 24, i + 26, i + 28, i + 30
#elif LABELDROP_VECTOR_BYTES == 32
#define LABELDROP_EVERY_OTHER(i) i, i + 2, i + 4, i + 6, i + 8, i + 10, i + 12, i + 14
#else
#define LABELDROP_EVERY_OTHER(i) i, i + 2, i + 4, i + 6
#endif
  return {LABELDROP_SHUFFLE(first, second, LABELDROP_EVERY_OTHER(0)),
          LABELDROP_SHUFFLE(first, second, LABELDROP_EVERY_OTHER(1))};
#undef LABELDROP_EVERY_OTHER
}
#if defined(__AVX2__) && !defined(__AVX512F__)
LABELDROP_INLINE IntegerWords load_words(const uint8_t* from) {
  return {(IntegerLanes)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))), IntegerLanes{}};
}
#endif

// Whether no bit is set in any lane.
LABELDROP_INLINE bool no_bits(int32_t bits) { return bits == 0; }
LABELDROP_INLINE bool no_bits(IntegerLanes bits) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)bits, (__m512i)bits) == 0;
#elif defined(__AVX2__)
  return _mm256_testz_si256((__m256i)bits, (__m256i)bits) != 0;
#elif defined(__x86_64__)
  return _mm_movemask_epi8(_mm_cmpeq_epi32((__m128i)bits, _mm_setzero_si128())) == 0xffff;
#else
  int32_t any = 0;
  for (size_t i = 0; i < sizeof(bits) / sizeof(int32_t); ++i) any |= bits[i];
  return any == 0;
#endif
}

// A bit for each lane of the outcome of a comparison.
LABELDROP_INLINE unsigned lane_bits(bool outcome) { return outcome; }
LABELDROP_INLINE unsigned lane_bits(IntegerLanes outcome) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)outcome);
#elif defined(__AVX2__)
  return static_cast<unsigned>(_mm256_movemask_ps((__m256)outcome));
#elif defined(__x86_64__)
  return static_cast<unsigned>(_mm_movemask_ps((__m128)outcome));
#else
  unsigned bits = 0;
  for (size_t i = 0; i < sizeof(outcome) / sizeof(int32_t); ++i) bits |= (outcome[i] != 0) << i;
  return bits;
#endif
}

// Whether all lanes are at most `limit`, which NaN is not.
LABELDROP_INLINE bool all_at_most(double x, double limit) { return x <= limit; }
LABELDROP_INLINE bool all_at_most(FloatLanes x, float limit) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(limit), _CMP_LE_OQ) == 0xffff;
#elif defined(__AVX2__)
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_set1_ps(limit), _CMP_LE_OQ)) == 0xff;
#else
  return no_bits(~(x <= limit));
#endif
}

template <>
LABELDROP_INLINE FloatLanes choose_by_sign<FloatLanes>(FloatLanes sign, FloatLanes if_negative, FloatLanes otherwise) {
#if defined(__AVX512F__)
  return (FloatLanes)_mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)sign), (__m512)otherwise, (__m512)if_negative);
#elif defined(__AVX2__)
  return (FloatLanes)_mm256_blendv_ps((__m256)otherwise, (__m256)if_negative, (__m256)sign);
#else
  return bit_cast<IntegerLanes>(sign) < 0 ? if_negative : otherwise;
#endif
}

// The words at `index` in a table of `size` words, which there are; size is a multiple of kTableGroup.
constexpr int64_t kTableGroup = LABELDROP_VECTOR_BYTES / sizeof(int32_t);
LABELDROP_INLINE int32_t look_up(const int32_t* table, int64_t, int32_t index) { return table[index]; }
LABELDROP_INLINE IntegerLanes look_up(const int32_t* table, [[maybe_unused]] int64_t size, IntegerLanes index) {
#if defined(__AVX512F__)
  if (size == kTableGroup) {
    return (IntegerLanes)_mm512_maskz_permutexvar_epi32(0xffff, (__m512i)index, _mm512_loadu_si512(table));
  }
  return (IntegerLanes)_mm512_mask_i32gather_epi32(_mm512_setzero_si512(), 0xffff, (__m512i)index, table, 4);
#elif defined(__AVX2__)
  const auto group = [&](int64_t first) __attribute__((always_inline)) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table + first));
    return (FloatLanes)_mm256_permutevar8x32_epi32(words, (__m256i)index);
  };
  if (size == kTableGroup) return bit_cast<IntegerLanes>(group(0));
  if (size == 2 * kTableGroup) {
    return bit_cast<IntegerLanes>(choose_by_sign(bit_cast<FloatLanes>(index << 28), group(kTableGroup), group(0)));
  }
  return (IntegerLanes)_mm256_i32gather_epi32(table, (__m256i)index, 4);
#else
  IntegerLanes words;
  for (size_t i = 0; i < sizeof(words) / sizeof(int32_t); ++i) words[i] = table[index[i]];
  return words;
#endif
}

}  // namespace labeldrop
