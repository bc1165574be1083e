// Set cross-entropy on the CPU; compiled once per instruction set (LABELDROP_ISA). A vector of pixels at a time:
// maxima, exponentials and sums, loss, gradient.
#include "../math/set_cross_entropy.h"

#include "pixel_blocks.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

template <class V>
struct Parts {
  V candidates, others;
};

template <class Real>
LABELDROP_INLINE Parts<typename Lanes<Real>::V> maxima(const Scratch<Real>& s, Rows<const Real> logits, int64_t classes,
                                                       int pixel) {
  using V = typename Lanes<Real>::V;
  const V lowest = V{} - infinity<Real>();
  Parts<V> max{lowest, lowest};
  for_each_class(s, classes, pixel, [&](int64_t k, auto is_candidate, auto is_other) __attribute__((always_inline)) {
    const V z = finite_from_below(load_lanes<V>(logits.start + k * logits.pitch + pixel));
    const V candidate = is_candidate ? z : lowest;
    const V other = is_other ? z : lowest;
    max.candidates = candidate > max.candidates ? candidate : max.candidates;
    max.others = other > max.others ? other : max.others;
  });
  return max;
}

// Stores each class's exponential in scratch and returns the sums.
template <class Real, class V>
LABELDROP_INLINE Parts<V> exponentials(const Scratch<Real>& s, Rows<const Real> logits, int64_t classes, int pixel,
                                       Parts<V> max) {
  const V zero{};
  Parts<V> sum{zero, zero};
  for_each_class(s, classes, pixel, [&](int64_t k, auto is_candidate, auto is_other) __attribute__((always_inline)) {
    const V z = finite_from_below(load_lanes<V>(logits.start + k * logits.pitch + pixel));
    const V e = exp_nonpositive(z - (is_candidate ? max.candidates : max.others));
    store_lanes(s.values + k * s.pitch + pixel, e);
    sum.candidates += is_candidate ? e : zero;
    sum.others += is_other ? e : zero;
  });
  return sum;
}

// The gradient from the exponentials.
template <class Real, class V>
LABELDROP_INLINE void gradients(const Scratch<Real>& s, Rows<Real> gradient, int64_t classes, int pixel,
                                Parts<V> scale) {
  const V zero{};
  for_each_class(s, classes, pixel, [&](int64_t k, auto is_candidate, auto is_other) __attribute__((always_inline)) {
    // chosen, not multiplied by 0: the exponential of what is inactive may be NaN
    const V product = load_lanes<V>(s.values + k * s.pitch + pixel) * (is_candidate ? scale.candidates : scale.others);
    store_lanes(gradient.start + k * gradient.pitch + pixel, (is_candidate | is_other) ? product : zero);
  });
}

// Loss of every pixel of the block, and its gradient if there is a place for it.
struct Compute {
  const CpuPixelLossArguments& a;

  template <class Real>
  void operator()(const Scratch<Real>& s, const Block& block, Rows<const Real> logits, Rows<Real> gradient,
                  const Prefetch& prefetch) const {
    using V = typename Lanes<Real>::V;
    for (int i = 0; i < block.count; i += Lanes<Real>::count) {
      prefetch(i, Lanes<Real>::count);
      const Parts<V> max = maxima(s, logits, a.classes, i);
      const Parts<V> sum = exponentials(s, logits, a.classes, i, max);
      const auto pixel = set_cross_entropy_pixel(max.candidates, sum.candidates, max.others, sum.others);
      store_lanes(s.loss + i, pixel.loss);
      if (gradient.start != nullptr) {
        const V factor = load_lanes<V>(s.factor + i);
        gradients(s, gradient, a.classes, i, Parts<V>{pixel.candidate_scale * factor, pixel.other_scale * factor});
      }
    }
  }
};

}  // namespace

int64_t set_cross_entropy(const CpuPixelLossArguments& a) { return run_blocks(a, Compute{a}); }

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
