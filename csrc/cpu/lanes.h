// Vectors of the width that the instruction set has, through the compilers' vector extension: +, <, ?: work on all
// lanes. Included by files that are compiled once per instruction set.
#pragma once

#include "../math/portable.h"

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

template <>
struct ScalarOf<FloatLanes> {
  using type = float;
};
template <>
struct IntegerOf<FloatLanes> {
  using type = IntegerLanes;
};
template <>
LABELDROP_INLINE FloatLanes to_reals<FloatLanes>(IntegerLanes integers) {
  return __builtin_convertvector(integers, FloatLanes);
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

template <class V, class Element>
LABELDROP_INLINE V load_lanes(const Element* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

template <class V, class Element>
LABELDROP_INLINE void store_lanes(Element* to, V v) {
  __builtin_memcpy(to, &v, sizeof(v));
}

}  // namespace labeldrop
