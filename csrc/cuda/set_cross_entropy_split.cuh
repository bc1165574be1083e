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

// What a share's classes are, of at most MaxK <= 32: two bits of each, in one word if there is room for them.
template <int MaxK>
class ShareBits {
  static constexpr int kWords = 2 * MaxK <= 32 ? 1 : 2;
  static constexpr uint32_t kEvery = ~0u >> (32 - MaxK);

 public:
  ShareBits() = default;
  __device__ __forceinline__ ShareBits(uint32_t active, uint32_t candidates) {
    words_[0] = active & kEvery;
    if constexpr (kWords == 1) {
      words_[0] |= (active & candidates) << MaxK;
    } else {
      words_[1] = active & candidates;
    }
  }

  __device__ __forceinline__ bool is_active(int k) const { return has_bit(words_[0], k); }
  __device__ __forceinline__ bool is_candidate(int k) const {
    return kWords == 1 ? has_bit(words_[0], MaxK + k) : has_bit(words_[kWords - 1], k);
  }
  // of so many classes, 1 to MaxK
  __device__ __forceinline__ bool all_active(int classes) const {
    return ((words_[0] & kEvery) | ~0u << (classes - 1) << 1) == ~0u;
  }
  __device__ __forceinline__ bool has_candidates() const { return candidates() != 0; }
  __device__ __forceinline__ bool has_others() const { return candidates() != (words_[0] & kEvery); }

 private:
  __device__ __forceinline__ uint32_t candidates() const {
    return kWords == 1 ? words_[0] >> MaxK : words_[kWords - 1];
  }

  uint32_t words_[kWords] = {};
};

// What a thread knows of N pixels before their logits: the bits of its share's classes, and of the pixel that it joins,
// if any, all that the other threads need not know.
template <class Real, int MaxK, int N>
struct Known {
  ShareBits<MaxK> bits[N];
  bool same;   // bits of all pixels
  bool joins;  // a pixel that exists
  Real weight, factor;
};

template <int MaxK, class Real, class Pixels>
__device__ __forceinline__ Known<Real, MaxK, Pixels::N> load_known(const CudaPixelLossArguments& a,
                                                                   const Pixels& pixels, const Share& share,
                                                                   Real common) {
  constexpr int N = Pixels::N;
  Known<Real, MaxK, N> known{};
  int32_t rows[N];
  Real weights[N];
  load_rows_of_pixels(a, pixels, rows);
  load_weights_of_pixels(a, pixels, rows, weights);
  known.same = true;
#pragma unroll
  for (int i = 1; i < N; ++i) known.same &= rows[i] == rows[0];
  const uint32_t size = (static_cast<uint32_t>(a.classes) + 31) / 32;
  const uint32_t* tables = a.tables + pixels.sample * a.labels * (kPixelTables * size);
  const auto look_up = [&](int i) {
    if (rows[i] == kSkipped || share.count == 0) return;
    const uint32_t* row = tables + static_cast<uint64_t>(rows[i] < 0 ? 0 : rows[i]) * (kPixelTables * size);
    // the NaN of an invalid pixel is to reach every class
    const uint32_t active = rows[i] == kInvalid ? ~0u : share.bits(row + kPixelActive * size) & share.every();
    known.bits[i] = {active, share.bits(row + kPixelCandidates * size)};
  };
  look_up(0);
  if (known.same) {
#pragma unroll
    for (int i = 1; i < N; ++i) known.bits[i] = known.bits[0];
  } else {
#pragma unroll
    for (int i = 1; i < N; ++i) look_up(i);
  }
  known.joins = share.index < N && pixels.exists(share.index);
  if (known.joins) {
    const int64_t pixel = pixels.first + pixels.apart(share.index);
#pragma unroll
    for (int i = 0; i < N; ++i) known.weight = share.index == i ? weights[i] : known.weight;
    const Real upstream = a.upstream_per_pixel ? static_cast<const Real*>(a.upstream)[pixel] : Real(1);
    known.factor = upstream * common * known.weight;
  }
  return known;
}

// Calls f(of) with the pixel whose bits are those of pixel i, of(i): where all have the same, each bit is asked for
// once, and what is computed is no other.
template <class Real, int MaxK, int N, class Function>
__device__ __forceinline__ void with_bits(const Known<Real, MaxK, N>& known, Function f) {
  if (N > 1 && known.same) {
    f([](int) { return 0; });
  } else {
    f([](int i) { return i; });
  }
}

// Logits become the exponentials of what they are below the share's own maxima, and 0 where inactive. Maxima of -inf
// are given as the least number; returns bits of the parts that have classes, all of them -inf.
template <class Real, int MaxK, int N, class Of>
__device__ __forceinline__ uint32_t exponentials(Real (&z)[MaxK][N], const Known<Real, MaxK, N>& known, Of of,
                                                 int classes, Parts<Real> (&parts)[N]) {
  constexpr Real kInfinity = infinity<Real>();
#pragma unroll
  for (int i = 0; i < N; ++i) parts[i] = {{-kInfinity, -kInfinity}, {0, 0}};
  bool all_active = true;
#pragma unroll
  for (int i = 0; i < N; ++i) all_active &= known.bits[of(i)].all_active(classes);
  if (!all_active) {
    for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] = known.bits[of(i)].is_active(k) ? z[k][i] : -kInfinity;
    });
  }
  for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (known.bits[of(i)].is_candidate(k)) {
        parts[i].max[0] = larger_number(parts[i].max[0], z[k][i]);
      } else {
        parts[i].max[1] = larger_number(parts[i].max[1], z[k][i]);
      }
    }
  });
  // Active classes that are all -inf (or NaN), here and perhaps everywhere: they share their vanishing probability.
  uint32_t lost = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (parts[i].max[0] == -kInfinity && known.bits[i].has_candidates()) lost |= 1u << 2 * i;
    if (parts[i].max[1] == -kInfinity && known.bits[i].has_others()) lost |= 2u << 2 * i;
#pragma unroll
    for (Real& max : parts[i].max) max = finite_from_below(max);
  }
  if (lost != 0) {
    for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] = known.bits[i].is_active(k) ? finite_from_below(z[k][i]) : z[k][i];
    });
  }
  for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const bool is_candidate = known.bits[of(i)].is_candidate(k);
      z[k][i] = exp_nonpositive(z[k][i] - (is_candidate ? parts[i].max[0] : parts[i].max[1]));
      if (is_candidate) {
        parts[i].sum[0] += z[k][i];
      } else {
        parts[i].sum[1] += z[k][i];
      }
    }
  });
  return lost;
}

// The maxima of parts without any class, and of those of which bit 2 i or 2 i + 1 of `lost` says that all are -inf.
template <class Real, int N>
__device__ __forceinline__ void set_lost_maxima(uint32_t lost, Parts<Real> (&parts)[N]) {
  constexpr Real kInfinity = infinity<Real>();
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (int c = 0; c < 2; ++c) parts[i].max[c] = parts[i].sum[c] == 0 ? -kInfinity : parts[i].max[c];
  }
  if (lost == 0) return;
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (int c = 0; c < 2; ++c) parts[i].max[c] = has_bit(lost, 2 * i + c) ? -kInfinity : parts[i].max[c];
  }
}

// Exponentials become gradients.
template <class Real, int MaxK, int N>
__device__ __forceinline__ void gradients(Real (&z)[MaxK][N], const Known<Real, MaxK, N>& known, int classes,
                                          const Parts<Real> (&parts)[N], const Exchange<Parts<Real>, N>& exchange) {
  Real scale[N][2];
  bool finite = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const Parts<Real>& answer = exchange.answer_of(i);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      scale[i][c] = rescaling(parts[i].max[c], answer.max[c]) * answer.sum[c];
      finite &= magnitude(scale[i][c]) < infinity<Real>();
    }
  }
  with_bits(known, [&](auto of) {
    for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] *= known.bits[of(i)].is_candidate(k) ? scale[i][0] : scale[i][1];
    });
  });
  if (!finite) {  // 0 times that is not 0
    for_each_class<MaxK>(classes, [&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) z[k][i] = known.bits[i].is_active(k) ? z[k][i] : Real(0);
    });
  }
}

// Answers with the gradient's factors, and returns the weighted loss of the pixel that this thread joins.
//
// The others' sum is taken relative to the candidates' maximum, so that a tiny loss has all its digits. If it is so
// large there that the candidates vanish beside it, it is taken as if the gap between the maxima were kGap, and the
// rest of the gap goes to the loss alone.
template <class Real, int MaxK, int N>
__device__ __forceinline__ Real join(const Exchange<Parts<Real>, N>& exchange, const Known<Real, MaxK, N>& known) {
  constexpr Real kInfinity = infinity<Real>(), kMost = kGap;
  Parts<Real> all = joined(exchange);
  const bool has_candidates = all.max[0] > -kInfinity, has_others = all.max[1] > -kInfinity;
  const Real gap = has_candidates ? all.max[1] - all.max[0] : kInfinity;
  Real excess = larger(gap - kMost, Real(0));
  Real others = exp_any(smaller(kMost, gap));
  if (!has_others) {  // NaN if nothing has a probability
    excess = has_candidates ? Real(0) : kInfinity - kInfinity;
    others = excess;
  }
  const Real candidates = all.sum[0] == 0 ? Real(1) : all.sum[0];
  const auto formula = set_cross_entropy_scales(candidates, all.sum[1] * others);
  all.sum[0] = known.weight == 0 ? 0 : -formula.candidate_scale * known.factor;
  all.sum[1] = known.weight == 0 ? 0 : formula.other_scale * others * known.factor;
  exchange.answer(all);
  return known.weight == 0 ? 0 : known.weight * (formula.loss + excess);
}

// Fills z with the gradients of this thread's share, if they are asked for. Returns the weighted loss of the pixel that
// it joins, or 0, and stores it in a.loss if that is asked for. All threads of the block take part.
template <class Real, int MaxK, int N, class Pixels>
__device__ __forceinline__ Real evaluate_share(const CudaPixelLossArguments& a, Real (&z)[MaxK][N], const Share& share,
                                               const Pixels& pixels, const Known<Real, MaxK, N>& known, int classes,
                                               const Exchange<Parts<Real>, N>& exchange) {
  Parts<Real> parts[N];
  uint32_t lost = 0;
  with_bits(known, [&](auto of) { lost = exponentials(z, known, of, classes, parts); });
  set_lost_maxima(lost, parts);
  exchange.leave(parts);
  __syncthreads();
  Real loss = 0;
  if (known.joins) {
    loss = join(exchange, known);
    if (a.loss != nullptr) static_cast<Real*>(a.loss)[pixels.first + pixels.apart(share.index)] = loss;
  }
  __syncthreads();
  if (a.gradient != nullptr) gradients(z, known, classes, parts, exchange);
  return loss;
}

// Returns the number of partial sums that it leaves.
int set_cross_entropy_many_classes_channels_last(const CudaPixelLossArguments& arguments, cudaStream_t stream);

}  // namespace labeldrop::cuda
