// Losses that score each class of a pixel by itself: what is known of a thread's pixels, and a term of each.
//
// Formula (csrc/math/sigmoid_focal.h and others): kChannels; operator()(Real (&)[kChannels], positive, element) -> a
// term with gradient[kChannels]; Sum<Real> of these; channel c of class k is c K + k. One that costs no more than a
// branch has nothing(c), the channels of a positive class that has no loss and no gradient: an inactive class is given
// them, and no branch is needed. One with noise has set_key.
#pragma once

#include <type_traits>

#include "../math/term.h"
#include "pixels.cuh"
#include "reduce.cuh"

namespace labeldrop::cuda {

constexpr int kWordBits = 32;  // classes of a word of the tables

template <class Formula, class = void>
struct HasKey : std::false_type {};
template <class Formula>
struct HasKey<Formula, std::void_t<decltype(std::declval<Formula&>().set_key(uint64_t{}))>> : std::true_type {};

template <class Formula, class = void>
struct HasNothing : std::false_type {};
template <class Formula>
struct HasNothing<Formula, std::void_t<decltype(Formula::template nothing<float>(0))>> : std::true_type {};

// The key is on the device, so that drawing it does not make the host wait.
template <class Formula>
__device__ __forceinline__ void read_key(const CudaPixelLossArguments& a, Formula& formula) {
  if constexpr (HasKey<Formula>::value) formula.set_key(static_cast<uint64_t>(*a.key));
}

// Of N pixels: the bits of 32 classes, weights, factors of the gradients. An inactive class is positive, as nothing(c)
// has it; a pixel that is skipped has no active class, and one whose NaN is to reach all classes has them all.
template <class Real, int N>
struct Known {
  uint32_t positive[N], active[N];
  Real weights[N], factors[N];
};

template <class Real, class Pixels>
__device__ __forceinline__ void look_up(const CudaPixelLossArguments& a, Real common, int word, const Pixels& pixels,
                                        int32_t (&rows)[Pixels::N], Known<Real, Pixels::N>& known) {
  const int words = static_cast<int>((a.classes + kWordBits - 1) / kWordBits);
  const uint32_t* tables = a.tables + pixels.sample * a.labels * (kPixelTables * words) + word;
  load_weights_of_pixels(a, pixels, rows, known.weights);
  load_factors_of_pixels(a, pixels, common, known.weights, known.factors);
#pragma unroll
  for (int i = 0; i < Pixels::N; ++i) {
    const uint32_t* row = tables + static_cast<int64_t>(rows[i] < 0 ? 0 : rows[i]) * (kPixelTables * words);
    known.active[i] = __ldg(row + kPixelActive * words);
    known.positive[i] = __ldg(row + kPixelCandidates * words) | ~known.active[i];
  }
  if (all_labels(rows)) return;
#pragma unroll
  for (int i = 0; i < Pixels::N; ++i) {
    if (rows[i] == kSkipped) known.active[i] = 0, known.positive[i] = ~0u;
    if (rows[i] == kInvalid) known.active[i] = ~0u;
  }
}

// What is known of a thread's pixels, of the classes of a word. Pixels of one label, as most are, are looked up once.
template <class Real, class Pixels>
__device__ __forceinline__ void load_known(const CudaPixelLossArguments& a, Real common, int word, const Pixels& pixels,
                                           Known<Real, Pixels::N>& known) {
  int32_t rows[Pixels::N];
  const bool same = load_rows_of_pixels(a, pixels, rows);
  if (Pixels::N == 1 || !same || a.pixel_weight != nullptr || a.upstream_per_pixel) {
    return look_up(a, common, word, pixels, rows, known);
  }
  int32_t row[1] = {rows[0]};
  Known<Real, 1> one;
  look_up(a, common, word, ThreadPixels<1, 1>{pixels.sample, pixels.first, 1}, row, one);
#pragma unroll
  for (int i = 0; i < Pixels::N; ++i) {
    known.positive[i] = one.positive[0];
    known.active[i] = one.active[0];
    known.weights[i] = one.weights[0];
    known.factors[i] = one.factors[0];
  }
}

// Whether 0 times each factor is 0.
template <class Real, int N>
__device__ __forceinline__ bool finite_factors(const Known<Real, N>& known) {
  bool finite = true;
#pragma unroll
  for (int i = 0; i < N; ++i) finite &= fabs(known.factors[i]) < infinity<Real>();
  return finite;
}

// Class k of N pixels, j-th of those in z: their terms go into the sums, gradients take the channels' places. `mask`:
// its bit. element(i): the number of a pixel's noise.
template <class Formula, class Real, class Sum, int G, int N, class Element>
__device__ __forceinline__ void score_class(const CudaPixelLossArguments& a, const Formula& formula,
                                            const Known<Real, N>& known, int k, uint32_t mask, int j, Element element,
                                            Real (&z)[Formula::kChannels][G][N], Sum (&sums)[N]) {
  constexpr int kChannels = Formula::kChannels;
  Real weight = 1;
  if constexpr (Sum::kWeighted) {
    if (a.class_weight != nullptr) weight = __ldg(static_cast<const Real*>(a.class_weight) + k);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const bool active = (known.active[i] & mask) != 0, positive = (known.positive[i] & mask) != 0;
    Real channel[kChannels];
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      channel[c] = z[c][j][i];
      if constexpr (HasNothing<Formula>::value) {
        // chosen, not multiplied by 0: what is inactive may be NaN
        channel[c] = active ? channel[c] : Formula::template nothing<Real>(c);
      } else {
        z[c][j][i] = 0;
      }
    }
    if (!HasNothing<Formula>::value && !active) continue;
    const auto term = formula(channel, positive, element(i));
    if constexpr (Sum::kWeighted) {
      sums[i].add(term, weight);
    } else {
      sums[i].add(term);
    }
#pragma unroll
    for (int c = 0; c < kChannels; ++c) z[c][j][i] = weight * known.factors[i] * term.gradient[c];
  }
}

// clear(class, pixel) of the inactive classes among `first` to `end` of a word: their gradients are 0 even if a factor
// is not finite, and 0 times that not 0.
template <class Real, int N, class Clear>
__device__ __forceinline__ void clear_inactive(const Known<Real, N>& known, int first, int end, Clear clear) {
#pragma unroll 1
  for (int k = first; k < end; ++k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if ((known.active[i] & 1u << (k % kWordBits)) == 0) clear(k, i);
    }
  }
}

// The pixels' weighted losses, stored if each one is asked for; their sum. One logarithm serves pixels of weight 1.
template <class Real, class Sum, class Pixels>
__device__ __forceinline__ Real add_losses(const Pixels& pixels, const Known<Real, Pixels::N>& known, int classes,
                                           Sum (&sums)[Pixels::N], Real* stored) {
  constexpr int N = Pixels::N;
  if constexpr (N > 1) {
    bool ones = stored == nullptr && classes <= Sum::kMostTerms / N;
#pragma unroll
    for (int i = 0; i < N; ++i) ones &= known.weights[i] == 1;
    if (ones) {
#pragma unroll
      for (int i = 1; i < N; ++i) sums[0].merge(sums[i]);
      return sums[0].loss();
    }
  }
  Real loss[N], sum = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    loss[i] = known.weights[i] == 0 ? Real(0) : known.weights[i] * sums[i].loss();
    sum += loss[i];
  }
  if (stored != nullptr) store_of_pixels(stored, pixels, loss);
  return sum;
}

}  // namespace labeldrop::cuda
