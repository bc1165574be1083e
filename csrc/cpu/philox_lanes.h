// Philox words for vectors of elements. Included by files that are compiled once per instruction set.
#pragma once

#include "../math/philox.h"
#include "lanes.h"

namespace labeldrop {
namespace {

typedef uint64_t WideLanes __attribute__((vector_size(LABELDROP_VECTOR_BYTES)));  // half as many as floats

}  // namespace

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

// The even lanes of one vector, with those of another one in between.
LABELDROP_INLINE UnsignedLanes interleaved(WideLanes even, WideLanes odd) {
#if defined(__AVX512F__)
  return (UnsignedLanes)_mm512_mask_blend_epi32(0xaaaa, (__m512i)even, (__m512i)(odd << 32));
#elif defined(__AVX2__)
  return (UnsignedLanes)_mm256_blend_epi32((__m256i)even, (__m256i)(odd << 32), 0xaa);
#else
  return (UnsignedLanes)((even & 0xffffffffu) | (odd << 32));
#endif
}

namespace {

// Words of up to kVectors vectors of elements, from one on: philox_elements of each and of one group after the other.
template <class V, int kVectors>
class PhiloxRun {
 public:
  LABELDROP_INLINE PhiloxRun(uint64_t element, PhiloxKey key) : element_(element), key_(key) {}

  LABELDROP_INLINE void operator()(uint32_t group, int vectors, Unsigned<V> (&words)[4][kVectors]) const {
    for (int v = 0; v < vectors; ++v) {
      const PhiloxWords<uint32_t> of_one = philox_elements<V>(element_ + v, group, key_);
      words[0][v] = of_one.c0, words[1][v] = of_one.c1, words[2][v] = of_one.c2, words[3][v] = of_one.c3;
    }
  }

 private:
  const uint64_t element_;
  const PhiloxKey key_;
};

// Even and odd elements apart, in 64-bit integers: two products a round, and no shuffle until the end. Two rounds are
// mostly the same for all groups, or for all elements (the element's upper word, h, hardly ever changes): the counter
// (e, h, g, 0) becomes, M0, M1 and k the multipliers and the rounds' keys,
//     (high(M1 g) ^ h ^ k0, low(M1 g), c2 = high(M0 e) ^ k1, c3 = low(M0 e)),  then
//     (high(M1 c2) ^ c1 ^ k0', low(M1 c2), high(M0 c0) ^ c3 ^ k1', low(M0 c0))
template <int kVectors>
class PhiloxRun<FloatLanes, kVectors> {
 public:
  LABELDROP_INLINE PhiloxRun(uint64_t element, PhiloxKey key) : element_(element), key_(key) {
    WideLanes elements{};
    for (uint64_t i = 0; i < kWide; ++i) elements[i] = static_cast<uint32_t>(element) + 2 * i;
    for (int j = 0; j < 2 * kVectors; ++j) {
      const WordProduct<WideLanes> first = multiply_words(PhiloxRound::kFirst, elements);
      third_[j] = first.low;
      second_[j] = multiply_words(PhiloxRound::kSecond, first.high ^ key.k1).low;
      elements += j % 2 == 0 ? 1 : 2 * kWide - 1;
    }
  }

  LABELDROP_INLINE void operator()(uint32_t group, int vectors, UnsignedLanes (&words)[4][kVectors]) const {
    if ((element_ + kVectors * kLanes - 1) >> 32 != element_ >> 32) return one_by_one(group, words);
    const WordProduct<uint32_t> of_group = multiply_words(PhiloxRound::kSecond, group);
    const PhiloxKey key = PhiloxRound::next(key_);
    const uint32_t upper = static_cast<uint32_t>(element_ >> 32);
    const WordProduct<uint32_t> shared = multiply_words(PhiloxRound::kFirst, of_group.high ^ upper ^ key_.k0);
    for (int v = 0; v < vectors; v += kSideBySide) {
      PhiloxWords<WideLanes> c[2 * kSideBySide];
      for (int j = 0; j < 2 * kSideBySide; ++j) {
        const WideLanes second = second_[2 * v + j];
        c[j] = {(second >> 32) ^ (of_group.low ^ key.k0), second, third_[2 * v + j] ^ (shared.high ^ key.k1),
                WideLanes{} + shared.low};
      }
      philox_rounds<kNoiseRounds - 2>(c, PhiloxRound::next(key));
      for (int j = 0; j < kSideBySide; ++j) {
        const PhiloxWords<WideLanes>&even = c[2 * j], &odd = c[2 * j + 1];
        words[0][v + j] = interleaved(even.c0, odd.c0);
        words[1][v + j] = interleaved(even.c1, odd.c1);
        words[2][v + j] = interleaved(even.c2, odd.c2);
        words[3][v + j] = interleaved(even.c3, odd.c3);
      }
    }
  }

 private:
  static constexpr int kLanes = Lanes<float>::count;
  static constexpr uint64_t kWide = kLanes / 2;
  static constexpr int kSideBySide = 2;  // a round waits for the one before it

  // where the elements' upper word changes
  __attribute__((noinline)) void one_by_one(uint32_t group, UnsignedLanes (&words)[4][kVectors]) const {
    for (int i = 0; i < kVectors * kLanes; ++i) {
      const PhiloxWords<uint32_t> of_one = philox_elements<float>(element_ + i, group, key_);
      words[0][i / kLanes][i % kLanes] = of_one.c0;
      words[1][i / kLanes][i % kLanes] = of_one.c1;
      words[2][i / kLanes][i % kLanes] = of_one.c2;
      words[3][i / kLanes][i % kLanes] = of_one.c3;
    }
  }

  const uint64_t element_;
  const PhiloxKey key_;
  WideLanes second_[2 * kVectors], third_[2 * kVectors];
};

}  // namespace
}  // namespace labeldrop
