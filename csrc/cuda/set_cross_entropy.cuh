// Set cross-entropy of N pixels whose K <= 32 logits one thread holds in registers, and the kernels' launchers.
//
// Reading and writing memory should take all the time there is, so what is done for each class is counted in
// instructions: one reference serves all classes of a pixel, its largest candidate, so that the candidates'
// exponentials add up to 1 at least and the others' are as small as the loss. Inactive classes become -inf before
// anything else, if there are any. Pixels whose others are far above their candidates are rare and are changed
// beforehand.
#pragma once

#include "../math/set_cross_entropy.h"
#include "pixels.cuh"
#include "reduce.cuh"
#include "register_pixels.cuh"

namespace labeldrop::cuda {

// The bits of the tables of N pixels. Those of at most 16 classes lie in one word: fewer registers.
template <int N>
class PixelBits {
 public:
  static constexpr bool kJoint = N >= 4;  // and at most 16 classes
  static constexpr int kActive = kJoint ? 16 : 0;

  __device__ __forceinline__ void set(int i, uint32_t candidates, uint32_t active) {
    words_[i] = kJoint ? (candidates & 0xffffu) | active << kActive : candidates;
    if constexpr (!kJoint) active_[i] = active;
  }
  __device__ __forceinline__ void copy(int from, int to) {
    words_[to] = words_[from];
    if constexpr (!kJoint) active_[to] = active_[from];
  }
  __device__ __forceinline__ bool candidate(int i, int k) const { return has_bit(words_[i], (k + turn_) % 32); }
  __device__ __forceinline__ bool active(int i, int k) const {
    return has_bit(kJoint ? words_[i] : active_[i], (k + (kJoint ? turn_ : 0) + kActive) % 32);
  }
  __device__ __forceinline__ bool all_candidates(int i) const {
    return kJoint ? (words_[i] & 0xffffu) == 0xffffu : words_[i] == ~0u;
  }
  __device__ __forceinline__ uint32_t all_active(int i) const { return kJoint ? words_[i] >> kActive : active_[i]; }

  // The same, turned by some bits. The compiler would keep what it has found out about each bit for the next pass over
  // the classes, which costs more than to ask again; it does not see that turned words have the same bits.
  __device__ __forceinline__ PixelBits turned(int bits) const {
    PixelBits other = *this;
    other.turn_ += bits;
#pragma unroll
    for (int i = 0; i < N; ++i) {
#ifdef __CUDA_ARCH__
      asm("shf.l.wrap.b32 %0, %1, %1, %2;" : "=r"(other.words_[i]) : "r"(words_[i]), "r"(bits));
#else
      other.words_[i] = words_[i] << bits | words_[i] >> (32 - bits);
#endif
    }
    return other;
  }

 private:
  uint32_t words_[N], active_[kJoint ? 1 : N];
  int turn_ = 0;
};

// What is known of N pixels without their logits.
template <int N>
struct PixelWords {
  PixelBits<N> bits;
  bool all_active;   // every class of every pixel
  uint32_t invalid;  // bit i: the value of pixel i is no label
  bool skips;        // a pixel counts for nothing: no class is active, all are candidates
  bool one_weight;   // each loss counts for the first pixel's weight, or for nothing: one logarithm will do for all
  // Only where there are weights: what only some calls need waits in the thread's memory, not in registers.
  bool weighted;
  volatile float weights[N];
};

template <class Pixels>
__device__ __forceinline__ void load_words(const CudaPixelLossArguments& a, const Pixels& pixels,
                                           PixelWords<Pixels::N>& p) {
  constexpr int N = Pixels::N;
  int32_t rows[N];
  bool same = load_rows_of_pixels(a, pixels, rows);
  p.weighted = a.pixel_weight != nullptr || a.label_weight != nullptr;
  if (p.weighted) {
    float weights[N];
    load_weights_of_pixels(a, pixels, rows, weights);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      p.weights[i] = weights[i];
      same &= rows[i] == rows[0];  // a pixel of weight 0 is skipped
    }
  }
  p.one_weight = a.loss == nullptr && a.pixel_weight == nullptr && (a.label_weight == nullptr || same);
  const auto* tables = reinterpret_cast<const Vector<uint32_t, kPixelTables>*>(a.tables) + pixels.sample * a.labels;
  const auto look_up = [&](int i) {
    const auto words = tables[rows[i] < 0 ? 0 : rows[i]];
    p.bits.set(i, words.values[kPixelCandidates], words.values[kPixelActive]);
  };
  look_up(0);
#pragma unroll
  for (int i = 1; i < N; ++i) p.bits.copy(0, i);
  if (!same) {
#pragma unroll
    for (int i = 1; i < N; ++i) look_up(i);
  }
  p.invalid = 0;
  p.skips = false;
  if (!all_labels(rows)) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (rows[i] < 0) p.bits.set(i, ~0u, rows[i] == kSkipped ? 0 : ~0u);
      if (rows[i] == kInvalid) p.invalid |= 1u << i;
      p.skips |= rows[i] == kSkipped;
    }
  }
  uint32_t active = p.bits.all_active(0);
#pragma unroll
  for (int i = 1; i < N; ++i) active &= p.bits.all_active(i);
  const uint32_t every = ~0u >> (kMostInRegisters - static_cast<int>(a.classes));
  p.all_active = (active & every) == every;
}

// Each pixel's largest candidate, which the exponentials are relative to.
template <int N>
struct References {
  float candidate[N];
  bool changed;              // there are pixels with an excess
  volatile float excess[N];  // only then: what the loss is above log(1 + odds)
};

__device__ __forceinline__ bool is_usual(float candidate, float largest) {
  constexpr float kLargest = 1 << 20;
  return largest - candidate < kGap && fabsf(candidate) < kLargest;
}

// For a pixel whose largest logit is kGap or more above its largest candidate, or whose candidate is beyond 2^20 or no
// number: its logits become what they are below the largest of their part, the others' by kGap above the candidates' at
// most. They are large enough then for the candidates to vanish beside them, and the rest of the gap goes to the loss
// alone. Parts that are -inf share their vanishing probability.
template <class Classes, int N>
__device__ __forceinline__ void own_references(float (&z)[Classes::MaxK][N], int i, const PixelBits<N>& bits,
                                               Classes classes, References<N>& r) {
  float other = -infinity<float>();
  classes.each([&](int k) {
    if (!bits.candidate(i, k)) other = fmaxf(other, z[k][i]);
  });
  const float candidate = r.candidate[i];
  if (is_usual(candidate, other)) return;
  const float excess = larger(other - kGap, candidate) - candidate;
  r.excess[i] = excess;
  r.candidate[i] = 0;
  // where everything is -inf nothing has a probability
  const float below_candidate = excess == excess ? finite_from_below(candidate) : excess;
  const float below_other = finite_from_below(other), gap = smaller(kGap, below_other - finite_from_below(candidate));
  classes.each([&](int k) {
    if (!bits.active(i, k)) return;
    const float finite = finite_from_below(z[k][i]);
    z[k][i] = bits.candidate(i, k) ? finite - below_candidate : (finite - below_other) + gap;
  });
}

template <class Classes, int N>
__device__ __forceinline__ void references(float (&z)[Classes::MaxK][N], const PixelWords<N>& p, Classes classes,
                                           References<N>& r) {
  constexpr float kInfinity = infinity<float>();
  if (!p.all_active) {
    float instead[N];
#pragma unroll
    for (int i = 0; i < N; ++i)
      instead[i] = p.skips && !p.bits.active(i, 0) && p.bits.all_candidates(i) ? 0 : -kInfinity;
    classes.each([&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] = p.bits.active(i, k) ? z[k][i] : instead[i];
    });
  }
  if (p.invalid != 0) {  // one NaN reaches every class
#pragma unroll
    for (int i = 0; i < N; ++i) z[0][i] = has_bit(p.invalid, i) ? kInfinity - kInfinity : z[0][i];
  }
  float all[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    all[i] = z[0][i];
    r.candidate[i] = p.bits.candidate(i, 0) ? z[0][i] : -kInfinity;
  }
  classes.each([&](int k) {
    if (k == 0) return;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      all[i] = fmaxf(all[i], z[k][i]);
      if (p.bits.candidate(i, k)) r.candidate[i] = fmaxf(r.candidate[i], z[k][i]);
    }
  });
  bool usual = true;
#pragma unroll
  for (int i = 0; i < N; ++i) usual &= is_usual(r.candidate[i], all[i]);
  r.changed = !usual;
  if (r.changed) {
    const PixelBits<N> bits = p.bits.turned(8);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      r.excess[i] = 0;
      own_references(z, i, bits, classes, r);
    }
  }
}

// The weighted losses of N pixels from their odds, and what they add up to. Their own rounding is no smaller than that
// of a float.
template <int N>
__device__ __forceinline__ float losses(const PixelWords<N>& p, const References<N>& r, const float (&odds)[N],
                                        float (&loss)[N]) {
  if (p.one_weight && !r.changed) {
    float joint = odds[0];
#pragma unroll
    for (int i = 1; i < N; ++i) joint = joint_odds(joint, odds[i]);
    if (!(joint >= 0x1p100f)) return (p.weighted ? p.weights[0] : 1) * log1p_nonnegative(joint);
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    loss[i] = log1p_nonnegative(odds[i]);
    if (r.changed) loss[i] += r.excess[i];
    if (p.weighted) loss[i] = p.weights[i] == 0 ? 0 : p.weights[i] * loss[i];
    sum += loss[i];
  }
  return sum;
}

// Fills z with the gradients of the logits, if they are asked for; load_factors(float (&)[N]) has what they are
// multiplied by. Returns the sum of the pixels' weighted losses; each of them is in `loss` if a.loss asks for it.
//
// With s = z - the largest candidate, in units of log 2, C and O the sums of 2^s over candidates and others:
//     odds = O / C,  loss = log(1 + odds),  gradient = 2^s / (C + O), for candidates -2^s odds / (C + O)
// s is rounded once, to |s| 2^-24, so that with the device's exponential each 2^s is off by less than |z - reference|
// 6e-8 + 2e-7 of itself: a tiny loss e^-x by x 6e-8, the others' gradients likewise. What rounding the reference costs
// is the same for all classes of the pixel, and cancels out.
template <class Classes, int N, class LoadFactors>
__device__ __forceinline__ float evaluate(float (&z)[Classes::MaxK][N], const PixelWords<N>& p, Classes classes,
                                          bool with_gradient, LoadFactors load_factors, float (&loss)[N]) {
  static_assert(!PixelBits<N>::kJoint || Classes::MaxK <= 16, "one word has no room for more classes");
  constexpr float kLog2e = 1.44269504088896341f;
  References<N> r;
  references(z, p, classes, r);
  float reference[N], candidates[N], others[N], odds[N], of_candidate[N], of_other[N];
#pragma unroll
  for (int i = 0; i < N; ++i) reference[i] = r.candidate[i] * kLog2e;
  const PixelBits<N> bits = p.bits.turned(16);
  classes.each([&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      z[k][i] = device_exp2(fmaf(z[k][i], kLog2e, -reference[i]));
      const bool candidate = bits.candidate(i, k);
      if (k == 0) {
        candidates[i] = candidate ? z[k][i] : 0;
        others[i] = candidate ? 0 : z[k][i];
      } else if (candidate) {
        candidates[i] += z[k][i];
      } else {
        others[i] += z[k][i];
      }
    }
  });
  float factors[N];
  load_factors(factors);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float total = candidates[i] + others[i], inverse = reciprocal(candidates[i] * total);
    of_candidate[i] = others[i] * inverse;
    odds[i] = of_candidate[i] * total;
    of_candidate[i] *= -factors[i];
    of_other[i] = candidates[i] * inverse * factors[i];
  }
  const float sum = losses(p, r, odds, loss);
  if (!with_gradient) return sum;
  const PixelBits<N> bits_again = bits.turned(8);
  classes.each([&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) z[k][i] *= bits_again.candidate(i, k) ? of_candidate[i] : of_other[i];
  });
  if (p.all_active) return sum;
  bool finite = true;
#pragma unroll
  for (int i = 0; i < N; ++i) finite &= fabsf(of_candidate[i]) + fabsf(of_other[i]) < infinity<float>();
  if (!finite) {  // 0 times that is not 0
    classes.each([&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] = bits_again.active(i, k) ? z[k][i] : 0;
    });
  }
  return sum;
}

struct SetCrossEntropyBody {
  const CudaPixelLossArguments& a;
  float common;
  double sum = 0;

  template <class Pixels>
  __device__ __forceinline__ PixelWords<Pixels::N> known(const Pixels& pixels) const {
    PixelWords<Pixels::N> words;
    load_words(a, pixels, words);
    return words;
  }

  template <class Classes, class Pixels>
  __device__ __forceinline__ void operator()(float (&z)[Classes::MaxK][Pixels::N], Classes classes,
                                             const Pixels& pixels, PixelWords<Pixels::N>& words) {
    float loss[Pixels::N];
    const auto load_factors = [&](float (&factors)[Pixels::N]) {
#pragma unroll
      for (int i = 0; i < Pixels::N; ++i) factors[i] = 1;
      if (a.upstream_per_pixel) load_of_pixels(static_cast<const float*>(a.upstream), pixels, factors);
#pragma unroll
      for (int i = 0; i < Pixels::N; ++i) factors[i] *= common;
      if (!words.weighted) return;
#pragma unroll
      for (int i = 0; i < Pixels::N; ++i) factors[i] *= words.weights[i];
    };
    sum += static_cast<double>(evaluate(z, words, classes, a.gradient != nullptr, load_factors, loss));
    if (a.loss != nullptr) store_of_pixels(static_cast<float*>(a.loss), pixels, loss);
  }
};

template <class Path>
__global__ void __launch_bounds__(kBlock, kBlocksHeld<Path>)
    set_cross_entropy_kernel(const CudaPixelLossArguments a, const TileLayout layout) {
  LABELDROP_DYNAMIC_SHARED(shared);
  if (gradient_stays<float>(a)) return;
  SetCrossEntropyBody body{a, common_factor<float>(a)};
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    Path::run(a, a.gradient, layout, sample, shared, body);
  }
  if (a.result != nullptr) store_partial(a.partials, body.sum, shared);
}

template <class Path>
int launch_set_cross_entropy(const CudaPixelLossArguments& a, Path, cudaStream_t stream) {
  const PathSetup setup = Path::setup(a, a.gradient);
  const dim3 grid = grid_of_partials(setup.tiles, a.samples);
  launch("set_cross_entropy", set_cross_entropy_kernel<Path>, grid, kBlock,
         Shared{std::max(setup.shared, kSumBytes), a.classes}, stream, a, setup.layout);
  return static_cast<int>(grid.x * grid.y);
}

// Each returns the number of partial sums that it leaves.
int set_cross_entropy_contiguous(const CudaPixelLossArguments& arguments, cudaStream_t stream);
int set_cross_entropy_channels_last(const CudaPixelLossArguments& arguments, cudaStream_t stream);
int set_cross_entropy_many_classes(const CudaPixelLossArguments& arguments, cudaStream_t stream);

}  // namespace labeldrop::cuda
