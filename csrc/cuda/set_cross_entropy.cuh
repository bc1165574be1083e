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

__device__ __forceinline__ bool has_bit(uint32_t word, int k) { return (word & (1u << k)) != 0; }

// 2^x; 0 below -126. Off by 2 units in the last place.
__device__ __forceinline__ float power_of_2(float x) {
#ifdef __CUDA_ARCH__
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#else
  return x < -126 ? 0 : std::exp2(x);
#endif
}

// What is known of N pixels: bits of the tables and weights. Pixels that count for nothing (weight 0, no class active,
// all of them candidates) get logits of 0.
template <int N>
struct PixelWords {
  uint32_t candidates[N], active[N];
  float weights[N], factors[N];
  bool all_active;  // every class of every pixel
  // Whether each loss counts for `weight`, or the pixel for nothing: one logarithm will do for all.
  bool one_weight;
  float weight;
};

template <class Pixels>
__device__ __forceinline__ PixelWords<Pixels::N> load_words(const CudaPixelLossArguments& a, float common,
                                                            const Pixels& pixels) {
  constexpr int N = Pixels::N;
  PixelWords<N> p;
  int32_t rows[N];
  bool same = load_rows_of_pixels(a, pixels, rows);
  load_weights_of_pixels(a, pixels, rows, p.weights);
  if (a.pixel_weight != nullptr) {  // a pixel of weight 0 is skipped
#pragma unroll
    for (int i = 1; i < N; ++i) same &= rows[i] == rows[0];
  }
  const auto* tables = reinterpret_cast<const Vector<uint32_t, kPixelTables>*>(a.tables) + pixels.sample * a.labels;
  const auto look_up = [&](int i) {
    const auto words = tables[rows[i] < 0 ? 0 : rows[i]];
    p.candidates[i] = words.values[kPixelCandidates];
    p.active[i] = words.values[kPixelActive];
  };
  look_up(0);
#pragma unroll
  for (int i = 1; i < N; ++i) {
    p.candidates[i] = p.candidates[0];
    p.active[i] = p.active[0];
  }
  if (!same) {
#pragma unroll
    for (int i = 1; i < N; ++i) look_up(i);
  }
  bool labels = true;
#pragma unroll
  for (int i = 0; i < N; ++i) labels &= rows[i] >= 0;
  p.one_weight = a.loss == nullptr && a.pixel_weight == nullptr && (a.label_weight == nullptr || same);
  p.weight = p.weights[0];
  if (!labels) {
    if (a.label_weight == nullptr) p.weight = 1;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (rows[i] < 0) p.candidates[i] = ~0u;
      if (rows[i] == kSkipped) p.active[i] = 0;
      if (rows[i] == kInvalid) p.active[i] = ~0u;  // its NaN is to reach every class
      if (rows[i] == kInvalid) p.weight = p.weights[i];
    }
  }
  const uint32_t every = ~0u >> (kMostInRegisters - static_cast<int>(a.classes));
  p.all_active = true;
#pragma unroll
  for (int i = 0; i < N; ++i) p.all_active &= (p.active[i] & every) == every;
  load_factors_of_pixels(a, pixels, common, p.weights, p.factors);
  return p;
}

// Each pixel's largest candidate, which the exponentials are relative to.
template <int N>
struct References {
  float candidate[N], excess[N];  // excess: what the loss is above log(1 + odds)
  bool changed;                   // whether there is an excess
};

// For a pixel whose largest logit is kGap or more above its largest candidate, or whose candidate is beyond 2^20 or no
// number: its logits become what they are below the largest of their part, the others' by kGap above the candidates' at
// most. They are large enough then for the candidates to vanish beside them, and the rest of the gap goes to the loss
// alone. Parts that are -inf share their vanishing probability. All other pixels keep their logits to the last bit.
template <class Classes, int N>
__device__ __forceinline__ void own_references(float (&z)[Classes::MaxK][N], const PixelWords<N>& p, Classes classes,
                                               const bool (&usual)[N], References<N>& r) {
  constexpr float kInfinity = infinity<float>();
  float other[N], below_candidate[N], below_other[N], gap[N];
#pragma unroll
  for (int i = 0; i < N; ++i) other[i] = -kInfinity;
  classes.each([&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) other[i] = has_bit(p.candidates[i], k) ? other[i] : fmaxf(other[i], z[k][i]);
  });
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (usual[i]) continue;
    r.excess[i] = larger(other[i] - kGap, r.candidate[i]) - r.candidate[i];
    below_candidate[i] = finite_from_below(r.candidate[i]);
    below_other[i] = finite_from_below(other[i]);
    gap[i] = smaller(kGap, below_other[i] - below_candidate[i]);
    if (r.excess[i] != r.excess[i]) below_candidate[i] = r.excess[i];  // everything is -inf: nothing has a probability
    r.candidate[i] = 0;
  }
  classes.each([&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (usual[i] || !has_bit(p.active[i], k)) continue;
      const float finite = finite_from_below(z[k][i]);
      z[k][i] = has_bit(p.candidates[i], k) ? finite - below_candidate[i] : (finite - below_other[i]) + gap[i];
    }
  });
  r.changed = true;
}

template <class Classes, int N>
__device__ __forceinline__ References<N> references(float (&z)[Classes::MaxK][N], const PixelWords<N>& p,
                                                    Classes classes) {
  constexpr float kInfinity = infinity<float>(), kLargest = 1 << 20;
  if (!p.all_active) {
    float instead[N];
#pragma unroll
    for (int i = 0; i < N; ++i) instead[i] = p.active[i] == 0 && p.candidates[i] != 0 ? 0 : -kInfinity;
    classes.each([&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] = has_bit(p.active[i], k) ? z[k][i] : instead[i];
    });
  }
  References<N> r;
  r.changed = false;
  float all[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    r.candidate[i] = all[i] = -kInfinity;
    r.excess[i] = 0;
  }
  classes.each([&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      all[i] = fmaxf(all[i], z[k][i]);
      r.candidate[i] = has_bit(p.candidates[i], k) ? fmaxf(r.candidate[i], z[k][i]) : r.candidate[i];
    }
  });
  bool usual[N], all_usual = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    usual[i] = all[i] - r.candidate[i] < kGap && fabsf(r.candidate[i]) < kLargest;
    all_usual &= usual[i];
  }
  if (!all_usual) own_references(z, p, classes, usual, r);
  return r;
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
    if (!(joint >= 0x1p100f)) return p.weight * log1p_nonnegative(joint);
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    loss[i] = p.weights[i] == 0 ? 0 : p.weights[i] * (log1p_nonnegative(odds[i]) + r.excess[i]);
    sum += loss[i];
  }
  return sum;
}

// Fills z with the gradients of the logits, if they are asked for. Returns the sum of the pixels' weighted losses; each
// of them is in `loss` if a.loss asks for it.
//
// With s = z - the largest candidate, in units of log 2, C and O the sums of 2^s over candidates and others:
//     odds = O / C,  loss = log(1 + odds),  gradient = 2^s / (C + O), for candidates -2^s odds / (C + O)
// s is rounded once, to |s| 2^-24, so that with the device's exponential each 2^s is off by less than |z - reference|
// 6e-8 + 2e-7 of itself: a tiny loss e^-x by x 6e-8, the others' gradients likewise. What rounding the reference costs
// is the same for all classes of the pixel, and cancels out.
template <class Classes, int N>
__device__ __forceinline__ float evaluate(float (&z)[Classes::MaxK][N], const PixelWords<N>& p, Classes classes,
                                          bool with_gradient, float (&loss)[N]) {
  constexpr float kLog2e = 1.44269504088896341f;
  const References<N> r = references(z, p, classes);
  float reference[N], candidates[N], others[N], odds[N], of_candidate[N], of_other[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    reference[i] = r.candidate[i] * kLog2e;
    candidates[i] = others[i] = 0;
  }
  classes.each([&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      z[k][i] = power_of_2(fmaf(z[k][i], kLog2e, -reference[i]));
      if (has_bit(p.candidates[i], k)) {
        candidates[i] += z[k][i];
      } else {
        others[i] += z[k][i];
      }
    }
  });
  bool finite = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float total = candidates[i] + others[i], inverse = reciprocal(candidates[i] * total);
    of_candidate[i] = others[i] * inverse;
    odds[i] = of_candidate[i] * total;
    of_candidate[i] *= -p.factors[i];
    of_other[i] = candidates[i] * inverse * p.factors[i];
    finite &= fabsf(of_candidate[i]) + fabsf(of_other[i]) < infinity<float>();
  }
  const float sum = losses(p, r, odds, loss);
  if (!with_gradient) return sum;
  classes.each([&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) z[k][i] *= has_bit(p.candidates[i], k) ? of_candidate[i] : of_other[i];
  });
  if (!finite && !p.all_active) {  // 0 times that is not 0
    classes.each([&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] = has_bit(p.active[i], k) ? z[k][i] : 0;
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
    return load_words(a, common, pixels);
  }

  template <class Classes, class Pixels>
  __device__ __forceinline__ void operator()(float (&z)[Classes::MaxK][Pixels::N], Classes classes,
                                             const Pixels& pixels, const PixelWords<Pixels::N>& words) {
    float loss[Pixels::N];
    sum += static_cast<double>(evaluate(z, words, classes, a.gradient != nullptr, loss));
    if (a.loss != nullptr) store_of_pixels(static_cast<float*>(a.loss), pixels, loss);
  }
};

template <class Path>
__global__ void __launch_bounds__(kBlock)
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
