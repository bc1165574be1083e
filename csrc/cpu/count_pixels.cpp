// Pixels of a target that count: the divisor of a mean, which the gradient needs before the pass that forms it.
#include <type_traits>

#include "block_io.h"
#include "operators.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

template <class Value>
int64_t count(const Value* target, int64_t size, Value ignore, int threads) {
  int64_t counted = 0;
#pragma omp parallel for simd num_threads(threads) schedule(static) reduction(+ : counted)
  for (int64_t i = 0; i < size; ++i) counted += target[i] != ignore;
  return counted;
}

}  // namespace

int64_t count_pixels(const void* target, Integer type, int64_t size, int64_t ignore_index, int threads) {
  if (!representable(type, ignore_index)) return size;
  return with_integers(target, type, [&](auto* values) {
    using Value = std::remove_const_t<std::remove_pointer_t<decltype(values)>>;
    return count(values, size, static_cast<Value>(ignore_index), threads);
  });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
