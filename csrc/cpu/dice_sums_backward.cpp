// The gradient of dice_sums on the CPU; compiled once per instruction set (LABELDROP_ISA). A vector of pixels at a
// time: probabilities as in the forward pass, each class's upstream gradient, and the logits' gradient from these.
#include "dice_pixels.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

// Gradients of one block of pixels.
template <DiceMode kMode, class Real>
struct WriteGradient {
  using V = typename Lanes<Real>::V;
  static constexpr int kLanes = Lanes<Real>::count;

  const DiceSumsBackwardArguments& a;
  Real* class_gradient;  // [K, lanes]: g_k of the vector of pixels

  void operator()(const DiceScratch<Real>& s, const Block& block, Rows<const Real> logits, Rows<Real> gradient,
                  const Prefetch& prefetch) const {
    const Real upstream = static_cast<Real>(*a.upstream_cross_entropy);
    for (int i = 0; i < block.count; i += kLanes) {
      prefetch(i, kLanes);
      auto pixels = dice_pixels<kMode>(s, logits, a.channels, i);
      const V mean = class_gradients(s, pixels, block.sample, i);
      const V weight = load_lanes<V>(s.weight + i), zero{};
      const V slope = weight * pixels.slope * upstream;
      const V candidate_slope = weight * pixels.candidate_slope * upstream;
      pixels.share *= weight;
      pixels.candidate_share *= weight;
      for_classes<kMode>(s, 0, a.channels, i, [&](int64_t k, auto bits) __attribute__((always_inline)) {
        const V p = probability<kMode>(s, pixels, k, i, bits);  // softmax: times the weight
        const V g = load_lanes<V>(class_gradient + k * kLanes);
        V product = kMode == DiceMode::sigmoid ? weight * (p * (Real(1) - p) * g) : p * (g - mean);
        if constexpr (kMode == DiceMode::softmax_and_cross_entropy) {
          product += load_lanes<V>(s.values + k * s.pitch + i) * (bits[kCandidates] ? candidate_slope : slope);
        }
        // chosen, not multiplied by 0: mean may be NaN
        store_lanes(gradient.start + k * gradient.pitch + i, bits.is_active() ? product : zero);
      });
    }
  }

  // Leaves g_k of every class; returns the sum of p_k g_k.
  LABELDROP_INLINE V class_gradients(const DiceScratch<Real>& s, const DicePixels<V>& pixels, int64_t sample,
                                     int i) const {
    const PredictionPower<Real> power(a.squared);
    const Real* intersection = static_cast<const Real*>(a.upstream_intersection) + sample * a.channels;
    const Real* prediction = static_cast<const Real*>(a.upstream_prediction) + sample * a.channels;
    V mean{};
    const auto add = [&](int64_t k, V q, auto bits) __attribute__((always_inline)) {
      const V g = dice_class_gradient(q, bits[kPositive], bits[kCounted], intersection[k], prediction[k], power);
      store_lanes(class_gradient + k * kLanes, g);
      mean += q * g;
    };
    const V q_0 = background<kMode>(s, pixels, i);
    for_classes<kMode>(s, 0, 1, i, [&](int64_t k, auto bits) __attribute__((always_inline)) { add(k, q_0, bits); });
    for_classes<kMode>(s, 1, a.channels, i, [&](int64_t k, auto bits) __attribute__((always_inline)) {
      add(k, probability<kMode>(s, pixels, k, i, bits), bits);
    });
    // q_0 g_0 above has their part of the mean
    const V g_0 = load_lanes<V>(class_gradient);
    for (int m = 0; m < s.merged_count; ++m) store_lanes(class_gradient + s.merged[m] * kLanes, g_0);
    return mean;
  }
};

template <DiceMode kMode, class Real, class Storage>
int64_t run(const DiceSumsBackwardArguments& a, int threads) {
  const int64_t size = pixel_block(a.channels);
  const int64_t blocks = pixel_blocks(a.samples, a.channels, a.pixels);
  return share_out(blocks, threads, [&](int64_t begin, int64_t end) -> int64_t {
    DiceScratch<Real> scratch(a, size);
    const Buffer<Real> class_gradient(a.channels * Lanes<Real>::count);
    if (!scratch.allocated() || class_gradient.get() == nullptr) return kOutOfMemory;
    int64_t lowest = kNothing;
    for (int64_t b = begin; b < end; ++b) {
      const Block block(a, b, size);
      const Prefetch prefetch(a, Block(a, b + 1 < end ? b + 1 : b, size), sizeof(Storage));
      const int64_t invalid = load_dice_masks(a, scratch, block);
      if (invalid >= 0 && block.pixel + invalid < lowest) lowest = block.pixel + invalid;
      const WriteGradient<kMode, Real> write{a, class_gradient.get()};
      compute_in_place_or_scratch<Real, Storage>(a, a.gradient, scratch, block, prefetch, write);
    }
    return lowest;
  });
}

}  // namespace

int64_t dice_sums_backward(const DiceSumsBackwardArguments& a, int threads) {
  return with_dice_types(a, [&](auto mode, auto real, auto storage) {
    return run<mode(), decltype(real), decltype(storage)>(a, threads);
  });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
