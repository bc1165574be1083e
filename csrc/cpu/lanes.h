// Vectors of the width that the instruction set has, through the compilers' vector extension: +, <, ?: work on all
// lanes. Included by files that are compiled once per instruction set.
#pragma once

#include "../math/philox.h"
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

namespace labeldrop {

typedef float FloatLanes __attribute__((vector_size(LABELDROP_VECTOR_BYTES)));
typedef int32_t IntegerLanes __attribute__((vector_size(LABELDROP_VECTOR_BYTES)));
typedef uint32_t UnsignedLanes __attribute__((vector_size(LABELDROP_VECTOR_BYTES)));
typedef uint64_t WideLanes __attribute__((vector_size(LABELDROP_VECTOR_BYTES)));  // half as many

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

// The lower halves' product. The processors have it as one instruction, which compilers do not find.
template <>
LABELDROP_INLINE WordProduct<WideLanes> multiply_words<WideLanes>(uint32_t factor, WideLanes word) {
#if defined(__AVX512F__)
  const WideLanes product = (WideLanes)_mm512_maskz_mul_epu32(0xff, _mm512_set1_epi64(factor), (__m512i)word);
#elif defined(__AVX2__)
  const WideLanes product = (WideLanes)_mm256_mul_epu32(_mm256_set1_epi64x(factor), (__m256i)word);
#elif defined(__x86_64__)
  const WideLanes product = (WideLanes)_mm_mul_epu32(_mm_set1_epi64x(factor), (__m128i)word);
#else
  const WideLanes product = (word & 0xffffffffu) * static_cast<uint64_t>(factor);
#endif
  return {product >> 32, product};
}

// Even and odd elements apart, in 64-bit integers: two products a round, and no shuffle until the end.
template <>
LABELDROP_INLINE PhiloxWords<UnsignedLanes> philox_elements<FloatLanes>(uint64_t element, uint32_t group,
                                                                        PhiloxKey key) {
  WideLanes even{};
  for (size_t i = 0; i < sizeof(even) / sizeof(uint64_t); ++i) even[i] = element + 2 * i;
  const WideLanes odd = even + 1, zero{};
  const PhiloxWords<WideLanes> a = philox4x32<WideLanes>({even, even >> 32, zero + group, zero}, key);
  const PhiloxWords<WideLanes> b = philox4x32<WideLanes>({odd, odd >> 32, zero + group, zero}, key);
  const auto merged = [](WideLanes low, WideLanes high) __attribute__((always_inline)) {
    return (UnsignedLanes)((low & 0xffffffffu) | (high << 32));
  };
  return {merged(a.c0, b.c0), merged(a.c1, b.c1), merged(a.c2, b.c2), merged(a.c3, b.c3)};
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

}  // namespace labeldrop
