// Pixels of a target that count: the divisor of a mean, which the gradient needs before the pass that forms it.
#include "operators.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

template <class Value>
int64_t count(const void* from, int64_t size, int64_t ignore_index, int threads) {
  const Value* target = static_cast<const Value*>(from);
  const Value ignore = static_cast<Value>(ignore_index);
  int64_t counted = 0;
#pragma omp parallel for simd num_threads(threads) schedule(static) reduction(+ : counted)
  for (int64_t i = 0; i < size; ++i) counted += target[i] != ignore;
  return counted;
}

}  // namespace

int64_t count_pixels(const void* target, Integer type, int64_t size, int64_t ignore_index, int threads) {
  if (!representable(type, ignore_index)) return size;
  switch (type) {
    case Integer::u8: return count<uint8_t>(target, size, ignore_index, threads);
    case Integer::i16: return count<int16_t>(target, size, ignore_index, threads);
    case Integer::i32: return count<int32_t>(target, size, ignore_index, threads);
    case Integer::i64: return count<int64_t>(target, size, ignore_index, threads);
  }
  return size;
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
