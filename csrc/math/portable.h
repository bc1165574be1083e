// What lets one formula compile for the CPU's instruction sets and for CUDA.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define LABELDROP_INLINE __host__ __device__ __forceinline__
#else
// Always inlined: the CPU files are compiled once per instruction set, and an out-of-line copy of a shared function
// could be linked from the wrong one.
#define LABELDROP_INLINE __attribute__((always_inline)) inline
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

template <class V>
LABELDROP_INLINE V to_reals(typename IntegerOf<V>::type integers) {
  return static_cast<V>(integers);
}

template <class Real>
LABELDROP_INLINE constexpr Real infinity() {
  return static_cast<Real>(__builtin_huge_val());
}

}  // namespace labeldrop
