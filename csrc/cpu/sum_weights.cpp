// Sum of the weights of the pixels that count: the divisor of a mean, which the gradient needs before the pass that
// forms it. Compiled once per instruction set.
#include <new>
#include <type_traits>

#include "block_io.h"
#include "buffer.h"
#include "operators.h"
#include "threads.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

// The sum of of_pixels(begin, end) over parts of one size and in one order, so that it does not depend on the threads.
template <class Function>
double sum_parts(int64_t pixels, int threads, const Function& of_pixels) {
  constexpr int64_t kPart = 1 << 14;
  const int64_t count = (pixels + kPart - 1) / kPart;
  const Buffer<double> parts(count);
  if (parts.get() == nullptr) throw std::bad_alloc();
  share_out(count, threads, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      parts.get()[part] = of_pixels(part * kPart, pixels < (part + 1) * kPart ? pixels : (part + 1) * kPart);
    }
    return kNothing;
  });
  double total = 0;
  for (int64_t part = 0; part < count; ++part) total += parts.get()[part];
  return total;
}

// A function of its own: what a lambda has captured would be gathered from memory for each lane.
template <class Value>
int64_t count_part(const Value* target, int64_t pixels, Value ignore) {
  int64_t counted = 0;
#pragma omp simd reduction(+ : counted)
  for (int64_t i = 0; i < pixels; ++i) counted += target[i] != ignore;
  return counted;
}

template <class Value>
double count(const Value* target, int64_t pixels, Value ignore, int threads) {
  return sum_parts(pixels, threads, [=](int64_t begin, int64_t end) {
    return static_cast<double>(count_part(target + begin, end - begin, ignore));
  });
}

template <class Real, class Value>
double sum(const WeightArguments& a, const Value* target, int threads) {
  const Real* label_weight = static_cast<const Real*>(a.label_weight);
  const Real* pixel_weight = static_cast<const Real*>(a.pixel_weight);
  return sum_parts(a.samples * a.pixels, threads, [&](int64_t begin, int64_t end) {
    double total = 0;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t label = static_cast<int64_t>(target[i]);
      if (label == a.ignore_index) continue;
      const int64_t row = label >= 0 && label < a.labels ? label : 0;
      const Real of_label = label_weight ? label_weight[i / a.pixels * a.labels + row] : Real(1);
      total += static_cast<double>(of_label * (pixel_weight ? pixel_weight[i] : Real(1)));
    }
    return total;
  });
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
    return count(target, size, static_cast<Value>(a.ignore_index), threads);
  });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
