// The loop of losses that score each class of a pixel by itself: a formula (csrc/math/sigmoid_focal.h and others) over
// the active classes. Included by files that are compiled once per instruction set.
#pragma once

#include "../math/term.h"
#include "pixel_blocks.h"

namespace labeldrop {
namespace {

// Formula: kChannels, and operator()(V (&)[kChannels], positive, element) -> Term. Channel c of class k is c * K + k.
template <class Formula>
int64_t run_pixelwise(const CpuPixelLossArguments& a, const Formula& formula) {
  return run_blocks(
      a, [&a, &formula](const auto& s, const Block& block, auto logits, auto gradient, const Prefetch& prefetch) {
        using Real = std::remove_pointer_t<decltype(gradient.start)>;
        using V = typename Lanes<Real>::V;
        constexpr int kLanes = Lanes<Real>::count;
        const Real* class_weight = static_cast<const Real*>(a.class_weight);
        const V zero{};
        for (int i = 0; i < block.count; i += kLanes) {
          prefetch(i, kLanes);
          const V factor = load_lanes<V>(s.factor + i);
          V loss{};
          for_each_class(s, a.classes, i, [&](int64_t k, auto positive, auto negative) __attribute__((always_inline)) {
            V channel[Formula::kChannels];
            for (int c = 0; c < Formula::kChannels; ++c) {
              channel[c] = load_lanes<V>(logits.start + (c * a.classes + k) * logits.pitch + i);
            }
            const uint64_t element = (block.sample * a.classes + k) * a.pixels + block.first + i;
            const auto term = formula(channel, positive, element);
            const Real weight = class_weight ? class_weight[k] : Real(1);
            const auto active = positive | negative;
            // chosen, not multiplied by 0: what is inactive may be NaN
            loss += active ? weight * term.loss : zero;
            for (int c = 0; c < Formula::kChannels && gradient.start != nullptr; ++c) {
              const V product = weight * factor * term.gradient[c];
              store_lanes(gradient.start + (c * a.classes + k) * gradient.pitch + i, active ? product : zero);
            }
          });
          store_lanes(s.loss + i, loss);
        }
      });
}

}  // namespace
}  // namespace labeldrop
