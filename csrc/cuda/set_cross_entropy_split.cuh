// Set cross-entropy of pixels whose classes are split over the threads of a block, see split_classes.cuh: for more
// classes than one thread has registers for, and for doubles.
#pragma once

#include "set_cross_entropy.cuh"
#include "split_classes.cuh"

namespace labeldrop::cuda {

// Part 0: candidates, part 1: the other active classes. The answer has what the exponentials are multiplied by for
// sums.
template <class Real>
using Parts = MaxSums<Real, 2>;

// The bits of a share's classes in the tables of N pixels.
template <int N>
struct ShareWords {
  uint32_t candidates[N], active[N];
  bool same;  // for all of them
};

// For shares of some classes.
template <class Real, int N>
__device__ __forceinline__ ShareWords<N> load_share_words(const CudaPixelLossArguments& a, int64_t sample,
                                                          int64_t pixel, const Share& share) {
  ShareWords<N> words;
  int32_t rows[N];
  Real weights[N];
  load_rows(a, pixel, rows);
  load_weights(a, sample, pixel, rows, weights);
  const int size = static_cast<int>((a.classes + 31) / 32);
  const uint32_t* tables = a.tables + sample * a.labels * kPixelTables * size;
  words.same = true;
#pragma unroll
  for (int i = 1; i < N; ++i) words.same &= rows[i] == rows[0];
  const auto look_up = [&](int i) {
    const uint32_t* row = tables + static_cast<int64_t>(rows[i] < 0 ? 0 : rows[i]) * (kPixelTables * size);
    // the NaN of an invalid pixel is to reach every class
    words.active[i] = rows[i] == kSkipped ? 0 : rows[i] == kInvalid ? ~0u : share.bits(row + kPixelActive * size);
    words.candidates[i] = words.active[i] & share.bits(row + kPixelCandidates * size);
  };
  look_up(0);
#pragma unroll
  for (int i = 1; i < N; ++i) {
    words.active[i] = words.active[0];
    words.candidates[i] = words.candidates[0];
  }
  if (!words.same) {
#pragma unroll
    for (int i = 1; i < N; ++i) look_up(i);
  }
  return words;
}

// Calls f(of) with the pixel whose words are those of pixel i, of(i): where all have the same, each bit is asked for
// once, and what is computed is no other.
template <int N, class Function>
__device__ __forceinline__ void with_words(const ShareWords<N>& words, Function f) {
  if (N > 1 && words.same) {
    f([](int) { return 0; });
  } else {
    f([](int i) { return i; });
  }
}

// Logits become the exponentials of what they are below the share's own maxima, and 0 where inactive.
template <class Real, int MaxK, int N, class Of>
__device__ __forceinline__ void exponentials(Real (&z)[MaxK][N], const ShareWords<N>& words, Of of, int classes,
                                             Parts<Real> (&parts)[N]) {
  constexpr Real kInfinity = infinity<Real>();
#pragma unroll
  for (int i = 0; i < N; ++i) parts[i] = {{-kInfinity, -kInfinity}, {0, 0}};
  for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      z[k][i] = has_bit(words.active[of(i)], k) ? z[k][i] : -kInfinity;
      if (has_bit(words.candidates[of(i)], k)) {
        parts[i].max[0] = larger_number(parts[i].max[0], z[k][i]);
      } else {
        parts[i].max[1] = larger_number(parts[i].max[1], z[k][i]);
      }
    }
  });
  // Active classes that are all -inf (or NaN), here and perhaps everywhere: they share their vanishing probability.
  bool lost = false;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    lost |= parts[i].max[0] == -kInfinity && words.candidates[i] != 0;
    lost |= parts[i].max[1] == -kInfinity && words.candidates[i] != words.active[i];
#pragma unroll
    for (Real& max : parts[i].max) max = finite_from_below(max);
  }
  if (lost) {
    for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] = has_bit(words.active[i], k) ? finite_from_below(z[k][i]) : z[k][i];
    });
  }
  for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const bool is_candidate = has_bit(words.candidates[of(i)], k);
      z[k][i] = exp_nonpositive(z[k][i] - (is_candidate ? parts[i].max[0] : parts[i].max[1]));
      if (is_candidate) {
        parts[i].sum[0] += z[k][i];
      } else {
        parts[i].sum[1] += z[k][i];
      }
    }
  });
}

// Exponentials become gradients.
template <class Real, int MaxK, int N>
__device__ __forceinline__ void gradients(Real (&z)[MaxK][N], const ShareWords<N>& words, int classes,
                                          const Parts<Real> (&parts)[N], const Exchange<Parts<Real>, N>& exchange) {
  Real scale[N][2];
  bool finite = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const Parts<Real>& answer = exchange.answer_of(i);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      scale[i][c] = exp_nonpositive(parts[i].max[c] - answer.max[c]) * answer.sum[c];
      finite &= magnitude(scale[i][c]) < infinity<Real>();
    }
  }
  with_words(words, [&](auto of) {
    for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] *= has_bit(words.candidates[of(i)], k) ? scale[i][0] : scale[i][1];
    });
  });
  if (!finite) {  // 0 times that is not 0
    for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] = has_bit(words.active[i], k) ? z[k][i] : Real(0);
    });
  }
}

// What the thread that joins what others find out about a pixel knows of it before its logits.
template <class Real>
struct Known {
  bool joins = false;
  Real weight = 0, factor = 0;
};

// For pixel threadIdx.x of the tile, if there is one; `first`, the tile's first pixel, counts through all samples.
template <class Real, int N>
__device__ __forceinline__ Known<Real> load_known(const CudaPixelLossArguments& a,
                                                  const Exchange<Parts<Real>, N>& exchange, Real common, int64_t sample,
                                                  int64_t first, int64_t left) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= exchange.pixels() || thread >= left) return {};
  int32_t rows[1];
  Real weights[1], factors[1];
  load_rows(a, first + thread, rows);
  load_weights(a, sample, first + thread, rows, weights);
  load_factors(a, first + thread, common, weights, factors);
  return {true, weights[0], factors[0]};
}

// Answers with the gradient's factors, and returns the weighted loss of a pixel of the tile.
template <class Real, int N>
__device__ __forceinline__ Real join(const Exchange<Parts<Real>, N>& exchange, int pixel, const Known<Real>& known) {
  Parts<Real> all = joined(exchange, pixel);
  const auto formula = set_cross_entropy_pixel(all.max[0], all.sum[0], all.max[1], all.sum[1]);
  all.sum[0] = known.weight == 0 ? 0 : formula.candidate_scale * known.factor;
  all.sum[1] = known.weight == 0 ? 0 : formula.other_scale * known.factor;
  exchange.answer(pixel, all);
  return known.weight == 0 ? 0 : known.weight * formula.loss;
}

// Fills z with the gradients of this thread's share, if they are asked for. Returns the weighted loss of pixel
// threadIdx.x of the tile, 0 if it is none, and stores it at `loss`, that of the tile's first pixel, or null. All
// threads of the block take part.
template <class Real, int MaxK, int N>
__device__ __forceinline__ Real evaluate_share(Real (&z)[MaxK][N], const ShareWords<N>& words, int classes,
                                               const Exchange<Parts<Real>, N>& exchange, const Known<Real>& known,
                                               bool with_gradient, Real* loss) {
  Parts<Real> parts[N];
  with_words(words, [&](auto of) { exponentials(z, words, of, classes, parts); });
  exchange.leave(parts);
  __syncthreads();
  Real weighted = 0;
  if (known.joins) {
    weighted = join(exchange, static_cast<int>(threadIdx.x), known);
    if (loss != nullptr) loss[threadIdx.x] = weighted;
  }
  __syncthreads();
  if (with_gradient) gradients(z, words, classes, parts, exchange);
  return weighted;
}

// Returns the number of partial sums that it leaves.
int set_cross_entropy_many_classes_channels_last(const CudaPixelLossArguments& arguments, cudaStream_t stream);

}  // namespace labeldrop::cuda
