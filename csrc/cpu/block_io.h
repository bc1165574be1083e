// Labels of a block of pixels, and the types of elements by their codes.
// Included by files that are compiled per instruction set, hence the unnamed namespace.
#pragma once

#include <cstdlib>

#include "operators.h"

namespace labeldrop {
namespace {

// calls f with the target as a pointer to its own type
template <class Function>
auto with_integers(const void* target, Integer type, Function f) {
  switch (type) {
    case Integer::u8: return f(static_cast<const uint8_t*>(target));
    case Integer::i16: return f(static_cast<const int16_t*>(target));
    case Integer::i32: return f(static_cast<const int32_t*>(target));
    default: return f(static_cast<const int64_t*>(target));
  }
}

// Calls f with a zero of the type that is computed in: float for all types but double. Doubles are for gradient checks:
// one at a time whatever the instruction set, so that the baseline's code serves all (`isa_for` in dispatch.cpp). CMake
// says which that is: flags of the user may give the baseline AVX2 as well.
template <class Function>
int64_t with_reals(Float type, Function f) {
#ifdef LABELDROP_DOUBLES
  if (type == Float::f64) return f(double());
#endif
  if (type == Float::f64) std::abort();  // no result would be taken for one
  return f(float());
}

// First of n pixels whose value is neither a label nor ignore_index. There is one.
template <class Value>
int64_t first_invalid(const Value* target, int n, int64_t labels, int64_t ignore_index) {
  for (int i = 0; i < n; ++i) {
    const int64_t label = static_cast<int64_t>(target[i]);
    if (label != ignore_index && (label < 0 || label >= labels)) return i;
  }
  return -1;
}

}  // namespace
}  // namespace labeldrop
