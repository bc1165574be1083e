// Moving a block of pixels between memory and scratch: element types and layouts are dealt with here, once.
// Included by files that are compiled per instruction set, hence the unnamed namespace.
#pragma once

#include "../math/half.h"
#include "../types.h"

namespace labeldrop {
namespace {

inline void load(float& to, float from) { to = from; }
inline void load(double& to, double from) { to = from; }
inline void load(float& to, BFloat16 from) { to = to_float(from); }
inline void load(float& to, Float16 from) { to = to_float(from); }
inline void store(float& to, float from) { to = from; }
inline void store(double& to, double from) { to = from; }
inline void store(BFloat16& to, float from) { to = to_bfloat16(from); }
inline void store(Float16& to, float from) { to = to_float16(from); }

// One class of n pixels.
template <class Real, class Storage>
void load_class(Real* __restrict to, const Storage* __restrict from, int64_t stride, int n) {
  if (stride == 1) {
#pragma omp simd
    for (int i = 0; i < n; ++i) load(to[i], from[i]);
  } else {
#pragma omp simd
    for (int i = 0; i < n; ++i) load(to[i], from[i * stride]);
  }
}

template <class Real, class Storage>
void store_class(Storage* __restrict to, const Real* __restrict from, int64_t stride, int n) {
  if (stride == 1) {
#pragma omp simd
    for (int i = 0; i < n; ++i) store(to[i], from[i]);
  } else {
#pragma omp simd
    for (int i = 0; i < n; ++i) store(to[i * stride], from[i]);
  }
}

template <class Value>
void load_integers(int64_t* __restrict to, const Value* __restrict from, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i) to[i] = static_cast<int64_t>(from[i]);
}

inline void load_labels(int64_t* to, const void* from, Integer type, int64_t offset, int n) {
  switch (type) {
    case Integer::u8: return load_integers(to, static_cast<const uint8_t*>(from) + offset, n);
    case Integer::i16: return load_integers(to, static_cast<const int16_t*>(from) + offset, n);
    case Integer::i32: return load_integers(to, static_cast<const int32_t*>(from) + offset, n);
    case Integer::i64: return load_integers(to, static_cast<const int64_t*>(from) + offset, n);
  }
}

}  // namespace
}  // namespace labeldrop
