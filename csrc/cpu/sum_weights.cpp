// Sum of the weights of the pixels that count: the divisor of a mean, which the gradient needs before the pass that
// forms it. Compiled once per instruction set.
#include <omp.h>

#include <type_traits>
#include <vector>

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

// In parts of one size and in one order, so that the sum does not depend on the threads.
template <class Real, class Value>
double sum(const WeightArguments& a, const Value* target, int threads) {
  constexpr int64_t kPart = 1 << 14;
  const Real* label_weight = static_cast<const Real*>(a.label_weight);
  const Real* pixel_weight = static_cast<const Real*>(a.pixel_weight);
  const int64_t size = a.samples * a.pixels;
  std::vector<double> parts((size + kPart - 1) / kPart);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t part = 0; part < static_cast<int64_t>(parts.size()); ++part) {
    const int64_t end = size < (part + 1) * kPart ? size : (part + 1) * kPart;
    double total = 0;
    for (int64_t i = part * kPart; i < end; ++i) {
      const int64_t label = static_cast<int64_t>(target[i]);
      if (label == a.ignore_index) continue;
      const int64_t row = label >= 0 && label < a.labels ? label : 0;
      const Real of_label = label_weight ? label_weight[i / a.pixels * a.labels + row] : Real(1);
      total += static_cast<double>(of_label * (pixel_weight ? pixel_weight[i] : Real(1)));
    }
    parts[part] = total;
  }
  double total = 0;
  for (double part : parts) total += part;
  return total;
}

}  // namespace

double sum_weights(const WeightArguments& a, int threads) {
  return with_integers(a.target, a.target_type, [&](auto* target) -> double {
    using Value = std::remove_const_t<std::remove_pointer_t<decltype(target)>>;
    if (a.label_weight != nullptr || a.pixel_weight != nullptr) {
      return a.weights_are_double ? sum<double>(a, target, threads) : sum<float>(a, target, threads);
    }
    const int64_t size = a.samples * a.pixels;
    if (!representable(a.target_type, a.ignore_index)) return static_cast<double>(size);
    return static_cast<double>(count(target, size, static_cast<Value>(a.ignore_index), threads));
  });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
