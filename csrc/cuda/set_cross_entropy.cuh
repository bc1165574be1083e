// Set cross-entropy of N pixels whose K <= 32 logits one thread holds in registers, and the kernels' launchers.
//
// Reading and writing memory should take all the time there is, so the steps over the classes are counted in
// instructions: an inactive class becomes -inf where it is read, and what happens seldom (a part whose logits are all
// -inf, a gradient that is not finite) has a branch of its own.
#pragma once

#include "../math/set_cross_entropy.h"
#include "pixels.cuh"
#include "reduce.cuh"

namespace labeldrop::cuda {

constexpr int kBlock = 128;           // threads
constexpr int kMostInRegisters = 32;  // classes: one word of the tables
constexpr int kMostNumbersHeld = 64;  // logits of one thread, so that nothing spills and enough threads fit

// Bits of the tables of N pixels, and their weights; a pixel that is skipped has no active class and weight 0.
template <int N>
struct PixelWords {
  uint32_t candidates[N], active[N];
  float weights[N];
};

template <int N>
__device__ __forceinline__ PixelWords<N> load_words(const CudaPixelLossArguments& a, int64_t sample, int64_t pixel) {
  PixelWords<N> p;
  int32_t rows[N];
  load_rows(a, pixel, rows);
  load_weights(a, sample, pixel, rows, p.weights);
  const uint32_t* tables = a.tables + sample * a.labels * kPixelTables;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const uint32_t* row = tables + (rows[i] < 0 ? 0 : rows[i]) * kPixelTables;
    // the NaN of an invalid pixel is to reach every class
    p.active[i] = rows[i] == kSkipped ? 0 : rows[i] == kInvalid ? ~0u : __ldg(row + kPixelActive);
    p.candidates[i] = p.active[i] & __ldg(row + kPixelCandidates);
  }
  return p;
}

// exp(x) for x <= 0; 0 below -87.3. The device's exponential of 2 is off by 2 units in the last place (CUDA's PTX
// guide), and its rounded argument by |x| 2^-23.7: together e^x |x| 7.4e-8, or 3e-8 at worst beside the largest class,
// whose exponential is 1, and |x| 7.4e-8 of a small class's own gradient.
__device__ __forceinline__ float exponential(float x) {
#ifdef __CUDA_ARCH__
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * 1.44269504088896341f));
  return power;
#else
  return exp_nonpositive(x);
#endif
}

// Classes between which nobody asks whether they are the last.
template <int MaxK>
constexpr int kClassGroup = MaxK < 8 ? 1 : MaxK / 8;

// step(k) for every class. Steps for k >= K, fewer than a group, may be taken as well.
template <int MaxK, class Step>
__device__ __forceinline__ void for_each_class(int classes, Step step) {
  constexpr int kGroup = kClassGroup<MaxK>;
#pragma unroll
  for (int first = 0; first < MaxK; first += kGroup) {
    if (first < classes) {
#pragma unroll
      for (int k = first; k < first + kGroup; ++k) step(k);
    }
  }
}

__device__ __forceinline__ bool has_bit(uint32_t word, int k) { return (word & (1u << k)) != 0; }

template <int N>
struct Extremes {
  float candidate[N], other[N];
};

// Largest logit of each part. Inactive logits become -inf.
template <int MaxK, int N>
__device__ __forceinline__ Extremes<N> maxima(float (&z)[MaxK][N], const PixelWords<N>& p, int classes) {
  constexpr float kInfinity = infinity<float>();
  Extremes<N> max;
#pragma unroll
  for (int i = 0; i < N; ++i) max.candidate[i] = max.other[i] = -kInfinity;
  for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      z[k][i] = has_bit(p.active[i], k) ? z[k][i] : -kInfinity;
      if (has_bit(p.candidates[i], k)) {
        max.candidate[i] = fmaxf(max.candidate[i], z[k][i]);
      } else {
        max.other[i] = fmaxf(max.other[i], z[k][i]);
      }
    }
  });
  // Active classes that are all -inf (or NaN): finite_from_below lets them share their vanishing probability.
  bool lost = false;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    lost |= max.candidate[i] == -kInfinity && p.candidates[i] != 0;
    lost |= max.other[i] == -kInfinity && p.candidates[i] != p.active[i];
    max.candidate[i] = finite_from_below(max.candidate[i]);
    max.other[i] = finite_from_below(max.other[i]);
  }
  if (lost) {
    for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] = has_bit(p.active[i], k) ? finite_from_below(z[k][i]) : z[k][i];
    });
  }
  return max;
}

// `evaluate` of any pixels.
template <int MaxK, int N, class LoadFactors>
__device__ __forceinline__ void evaluate_parts(float (&z)[MaxK][N], const PixelWords<N>& p, int classes,
                                               bool with_gradient, LoadFactors load_factors, float (&loss)[N]) {
  const Extremes<N> max = maxima(z, p, classes);
  Extremes<N> sum;
#pragma unroll
  for (int i = 0; i < N; ++i) sum.candidate[i] = sum.other[i] = 0;
  for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const bool is_candidate = has_bit(p.candidates[i], k);
      z[k][i] = exponential(z[k][i] - (is_candidate ? max.candidate[i] : max.other[i]));
      if (is_candidate) {
        sum.candidate[i] += z[k][i];
      } else {
        sum.other[i] += z[k][i];
      }
    }
  });
  Extremes<N> scale;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const auto pixel = set_cross_entropy_pixel(max.candidate[i], sum.candidate[i], max.other[i], sum.other[i]);
    loss[i] = p.weights[i] == 0 ? 0 : p.weights[i] * pixel.loss;
    scale.candidate[i] = pixel.candidate_scale;
    scale.other[i] = pixel.other_scale;
  }
  if (!with_gradient) return;
  float factors[N];
  load_factors(factors);
  bool finite = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    scale.candidate[i] = p.weights[i] == 0 ? 0 : scale.candidate[i] * factors[i];
    scale.other[i] = p.weights[i] == 0 ? 0 : scale.other[i] * factors[i];
    finite &= fabsf(scale.candidate[i]) < infinity<float>() && fabsf(scale.other[i]) < infinity<float>();
  }
  for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) z[k][i] *= has_bit(p.candidates[i], k) ? scale.candidate[i] : scale.other[i];
  });
  if (!finite) {  // 0 times that is not 0
    for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] = has_bit(p.active[i], k) ? z[k][i] : 0;
    });
  }
}

// Whether every class of each pixel is active and one of them is the candidate, as where everything is annotated: the
// pixel's own matter, so that its bits do not depend on its neighbours in other threads.
template <int N>
__device__ __forceinline__ bool all_have_one_candidate(const PixelWords<N>& p, int classes) {
  const uint32_t every = ~0u >> (kMostInRegisters - classes);
  bool one = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const uint32_t word = p.candidates[i];
    one &= p.active[i] == every && word != 0 && (word & (word - 1)) == 0;
  }
  return one;
}

// `evaluate` of such pixels: one maximum, one sum, and no class is asked whether it is active. With x = z - max,
//     loss = log(sum over all e^x) - x_candidate,  gradient = e^x / sum, the candidate's -(sum over the others) / sum
// where nothing is subtracted from what is as large: the others are summed alone, and if the candidate is the largest
// class, the sum of all is 1 + that. False, with z as it was, if a candidate is -inf or NaN.
template <int MaxK, int N, class LoadFactors>
__device__ __forceinline__ bool evaluate_one_candidate(float (&z)[MaxK][N], const PixelWords<N>& p, int classes,
                                                       bool with_gradient, LoadFactors load_factors, float (&loss)[N]) {
  constexpr float kInfinity = infinity<float>();
  constexpr int kGroup = kClassGroup<MaxK>;
  if (classes % kGroup != 0) {  // steps beyond the last class
    for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] = k % kGroup == 0 || k < classes ? z[k][i] : -kInfinity;
    });
  }
  float max[N], candidate[N], others[N];
#pragma unroll
  for (int i = 0; i < N; ++i) max[i] = candidate[i] = -kInfinity;
  for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      max[i] = fmaxf(max[i], z[k][i]);
      candidate[i] = has_bit(p.candidates[i], k) ? z[k][i] : candidate[i];
    }
  });
  bool usual = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    usual &= candidate[i] > -kInfinity;
    others[i] = 0;
  }
  if (!usual) return false;
  for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      // the candidate's place is marked by the one number that no exponential is, and that a sum does not notice
      const float e = exponential(z[k][i] - max[i]);
      z[k][i] = has_bit(p.candidates[i], k) ? -0.0f : e;
      others[i] += z[k][i];
    }
  });
  float scale[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float x = candidate[i] - max[i];
    const float above_one = x == 0 ? others[i] : (others[i] - 1) + exponential(x);
    loss[i] = p.weights[i] * (log1p_nonnegative(above_one) - x);
    scale[i] = reciprocal(1 + above_one);
  }
  if (!with_gradient) return true;
  float factors[N];
  load_factors(factors);
#pragma unroll
  for (int i = 0; i < N; ++i) scale[i] *= factors[i];
  for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      // as integers, -0 is less than any other negative number, and those are less than the exponentials
      z[k][i] = bit_cast<float>(larger(bit_cast<int32_t>(z[k][i]), bit_cast<int32_t>(-others[i]))) * scale[i];
    }
  });
  return true;
}

// Fills z with the gradients of the logits that are there, if they are asked for, and returns the weighted loss of each
// pixel. load_factors(float (&)[N]) has the factors of the gradients.
template <int MaxK, int N, class LoadFactors>
__device__ __forceinline__ void evaluate(float (&z)[MaxK][N], const PixelWords<N>& p, int classes, bool with_gradient,
                                         LoadFactors load_factors, float (&loss)[N]) {
  const bool done =
      all_have_one_candidate(p, classes) && evaluate_one_candidate(z, p, classes, with_gradient, load_factors, loss);
  if (!done) evaluate_parts(z, p, classes, with_gradient, load_factors, loss);
}

// The sum of N losses, as float: their own rounding is no smaller.
template <int N>
__device__ __forceinline__ float sum_of(const float (&loss)[N]) {
  float sum = loss[0];
#pragma unroll
  for (int i = 1; i < N; ++i) sum += loss[i];
  return sum;
}

// Each returns the number of partial sums that it leaves.
int set_cross_entropy_contiguous(const CudaPixelLossArguments& arguments, cudaStream_t stream);
int set_cross_entropy_channels_last(const CudaPixelLossArguments& arguments, cudaStream_t stream);
int set_cross_entropy_many_classes(const CudaPixelLossArguments& arguments, cudaStream_t stream);

}  // namespace labeldrop::cuda
