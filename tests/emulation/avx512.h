// The instructions of AVX-512 that csrc/cpu uses, one number at a time: included before everything else, it lets the
// code for AVX-512 be compiled and tested on processors without it. Vectors of 64 bytes are then pairs of AVX2's.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define __AVX512F__ 1

namespace emulated {

// The first `count` numbers of a vector: those of a set mask bit from function(i), 0 elsewhere.
template <class V, class Function>
inline V numbers(unsigned mask, int count, Function function) {
  V result{};
  for (int i = 0; i < count; ++i) {
    if (mask >> i & 1) result[i] = function(i);
  }
  return result;
}

template <class Function>
inline __mmask16 mask_of(Function function) {
  unsigned mask = 0;
  for (int i = 0; i < 16; ++i) mask |= static_cast<unsigned>(function(i) ? 1 : 0) << i;
  return static_cast<__mmask16>(mask);
}

typedef int32_t Integers __attribute__((vector_size(64), may_alias));
typedef uint32_t Words __attribute__((vector_size(64), may_alias));
typedef uint64_t Wides __attribute__((vector_size(64), may_alias));
typedef float Eight __attribute__((vector_size(32), may_alias));

// ---- arithmetic; of two numbers of which one is none, the second ----
inline __m512 maskz_max_ps(unsigned mask, __m512 a, __m512 b) {
  return numbers<__m512>(mask, 16, [&](int i) { return a[i] > b[i] ? a[i] : b[i]; });
}
inline __m512 maskz_min_ps(unsigned mask, __m512 a, __m512 b) {
  return numbers<__m512>(mask, 16, [&](int i) { return a[i] < b[i] ? a[i] : b[i]; });
}
inline __m512 maskz_sqrt_ps(unsigned mask, __m512 a) {
  return numbers<__m512>(mask, 16, [&](int i) { return __builtin_sqrtf(a[i]); });
}
inline __m512i maskz_mul_epu32(unsigned mask, __m512i a, __m512i b) {
  const auto low = [](__m512i v, int i) { return ((Wides)v)[i] & 0xffffffffu; };
  return (__m512i)numbers<Wides>(mask, 8, [&](int i) { return low(a, i) * low(b, i); });
}

// ---- masks ----
inline __mmask16 test_epi32_mask(__m512i a, __m512i b) {
  return mask_of([&](int i) { return (((Integers)a)[i] & ((Integers)b)[i]) != 0; });
}
inline __mmask16 movepi32_mask(__m512i a) {
  return mask_of([&](int i) { return ((Integers)a)[i] < 0; });
}
inline __mmask16 cmp_le_ps_mask(__m512 a, __m512 b) {
  return mask_of([&](int i) { return a[i] <= b[i]; });
}
inline __m512 mask_blend_ps(unsigned mask, __m512 clear, __m512 set) {
  return numbers<__m512>(~0u, 16, [&](int i) { return mask >> i & 1 ? set[i] : clear[i]; });
}
inline __m512i mask_blend_epi32(unsigned mask, __m512i clear, __m512i set) {
  return (__m512i)numbers<Integers>(~0u, 16, [&](int i) { return ((Integers)(mask >> i & 1 ? set : clear))[i]; });
}

// ---- places ----
inline __m512 set1_ps(float a) { return __m512{} + a; }
inline __m512i set1_epi64(long long a) { return __m512i{} + a; }
inline __m512i loadu_si512(const void* from) {
  __m512i result;
  memcpy(&result, from, sizeof(result));
  return result;
}
inline __m512i maskz_permutexvar_epi32(unsigned mask, __m512i index, __m512i a) {
  return (__m512i)numbers<Integers>(mask, 16, [&](int i) { return ((Integers)a)[((Integers)index)[i] & 15]; });
}
inline __m512i mask_i32gather_epi32(__m512i otherwise, unsigned mask, __m512i index, const int32_t* from, int scale) {
  Integers result = (Integers)otherwise;
  for (int i = 0; i < 16; ++i) {
    const char* address = reinterpret_cast<const char*>(from) + static_cast<int64_t>(((Integers)index)[i]) * scale;
    if (mask >> i & 1) memcpy(&result[i], address, sizeof(int32_t));
  }
  return (__m512i)result;
}
inline __m512 castps256_ps512(__m256 a) {
  return numbers<__m512>(0xff, 16, [&](int i) { return a[i]; });
}
inline __m512 maskz_insertf32x8(unsigned mask, __m512 a, __m256 b, int place) {
  return numbers<__m512>(mask, 16, [&](int i) { return i / 8 == place ? b[i % 8] : a[i]; });
}
inline __m128 maskz_extractf32x4_ps(unsigned mask, __m512 a, int place) {
  return numbers<__m128>(mask, 4, [&](int i) { return a[4 * place + i]; });
}
inline void stream_ps(float* to, __m512 a) {
  if (reinterpret_cast<uintptr_t>(to) % sizeof(a) != 0) __builtin_trap();
  memcpy(to, &a, sizeof(a));
}

// ---- half precision, by AVX2's instructions ----
inline __m512 maskz_cvtph_ps(unsigned mask, __m256i a) {
  const __m256 low = _mm256_cvtph_ps(_mm256_castsi256_si128(a)), high = _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1));
  return numbers<__m512>(mask, 16, [&](int i) { return i < 8 ? low[i] : high[i - 8]; });
}
inline __m256i maskz_cvtps_ph(unsigned mask, __m512 a) {
  if (mask != 0xffff) __builtin_trap();
  const auto half = [&](int first) {
    return _mm256_cvtps_ph((__m256)numbers<Eight>(0xff, 8, [&](int i) { return a[first + i]; }),
                           _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  };
  return _mm256_set_m128i(half(8), half(0));
}

}  // namespace emulated

#define _mm512_maskz_max_ps emulated::maskz_max_ps
#define _mm512_maskz_min_ps emulated::maskz_min_ps
#define _mm512_maskz_sqrt_ps emulated::maskz_sqrt_ps
#define _mm512_maskz_mul_epu32 emulated::maskz_mul_epu32
#define _mm512_test_epi32_mask emulated::test_epi32_mask
#define _mm512_movepi32_mask emulated::movepi32_mask
#define _mm512_cmp_ps_mask(a, b, rule) emulated::cmp_le_ps_mask(a, b)
#define _mm512_mask_blend_ps emulated::mask_blend_ps
#define _mm512_mask_blend_epi32 emulated::mask_blend_epi32
#define _mm512_set1_ps emulated::set1_ps
#define _mm512_set1_epi64 emulated::set1_epi64
#define _mm512_setzero_si512() \
  __m512i {}
#define _mm512_loadu_si512 emulated::loadu_si512
#define _mm512_maskz_permutexvar_epi32 emulated::maskz_permutexvar_epi32
#define _mm512_mask_i32gather_epi32 emulated::mask_i32gather_epi32
#define _mm512_castps256_ps512 emulated::castps256_ps512
#define _mm512_maskz_insertf32x8 emulated::maskz_insertf32x8
#define _mm512_maskz_extractf32x4_ps emulated::maskz_extractf32x4_ps
#define _mm512_stream_ps emulated::stream_ps
#define _mm512_maskz_cvtph_ps emulated::maskz_cvtph_ps
#define _mm512_maskz_cvtps_ph(mask, a, rounding) emulated::maskz_cvtps_ph(mask, a)
