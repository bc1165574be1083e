// What lets one formula compile for the CPU's instruction sets and for CUDA.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define LABELDROP_INLINE __host__ __device__ __forceinline__
#else
// Always inlined: the CPU files are compiled once per instruction set, and an out-of-line copy of a shared function
// could be linked from the wrong one.
#define LABELDROP_INLINE __attribute__((always_inline)) inline
#endif

// A GPU's own instructions, whose formulas the emulated device has too.
#if defined(__CUDA_ARCH__) || defined(LABELDROP_EMULATED)
#define LABELDROP_ON_GPU
#endif

namespace labeldrop {

template <class To, class From>
LABELDROP_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs equal sizes");
#ifdef __CUDA_ARCH__
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
#else
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
#endif
}

// The formulas are written for one number or for a vector of them (csrc/cpu/lanes.h): V is float, double, or a vector.
template <class V>
struct ScalarOf {
  using type = V;
};
template <class V>
using Scalar = typename ScalarOf<V>::type;

// Integers as wide as V's numbers, as many of them.
template <class V>
struct IntegerOf;
template <>
struct IntegerOf<float> {
  using type = int32_t;
};

// A random word of 32 bits for each of V's numbers.
template <class V>
struct UnsignedOf {
  using type = uint32_t;
};
template <class V>
using Unsigned = typename UnsignedOf<V>::type;

template <class V>
LABELDROP_INLINE V to_reals(typename IntegerOf<V>::type integers) {
  return static_cast<V>(integers);
}
template <class V>
LABELDROP_INLINE V to_reals(Unsigned<V> integers) {
  return static_cast<V>(integers);
}

// Both halves of the 64-bit product of 32-bit words; lanes.h has it for vectors.
template <class Word>
struct WordProduct {
  Word high, low;
};
template <class Word>
LABELDROP_INLINE WordProduct<Word> multiply_words(uint32_t factor, Word word) {
#ifdef __CUDA_ARCH__
  return {__umulhi(factor, word), factor * word};
#else
  const uint64_t product = static_cast<uint64_t>(factor) * word;
  return {static_cast<Word>(product >> 32), static_cast<Word>(product)};
#endif
}

template <class V>
LABELDROP_INLINE V square_root(V x) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(V) == sizeof(float)) {  // to 2^-23 of it; an exact one has a branch and a call
    V root;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
  } else {
    return sqrt(x);
  }
#else
  return std::sqrt(x);
#endif
}

// The larger one; b where either is NaN. One instruction, which compilers do not find for every vector.
template <class V>
LABELDROP_INLINE V larger(V a, V b) {
  return a > b ? a : b;
}

// The smaller one, likewise.
template <class V>
LABELDROP_INLINE V smaller(V a, V b) {
  return a < b ? a : b;
}

// One or the other, as the sign bit says; of a zero, either.
template <class V>
LABELDROP_INLINE V choose_by_sign(V sign, V if_negative, V otherwise) {
  return sign < 0 ? if_negative : otherwise;
}

// -|x|
LABELDROP_INLINE double minus_magnitude(double x) { return -fabs(x); }
template <class V>
LABELDROP_INLINE V minus_magnitude(V x) {
#ifdef __CUDA_ARCH__
  return -fabsf(x);  // part of the instruction that takes it
#else
  using Integer = typename IntegerOf<V>::type;
  return bit_cast<V>(bit_cast<Integer>(x) | INT32_MIN);
#endif
}

template <class Real>
LABELDROP_INLINE constexpr Real infinity() {
  return static_cast<Real>(__builtin_huge_val());
}

}  // namespace labeldrop
