// The forward pass of dice_sums, of N pixels in registers at a time, whatever brought them there.
#pragma once

#include "dice_registers.cuh"

namespace labeldrop::cuda {

// Sums of a block: intersection [K], prediction [K], cross-entropy [1], labels' weights [L].
__host__ __device__ inline int64_t sums_of_part(const DiceSumsArguments& a) { return 2 * a.channels + 1 + a.labels; }

// What is added up for each sample: floats in a thread, which sees kMostPixels at most, then doubles.
template <int MaxK>
struct DiceThreadSums {
  float intersection[MaxK] = {}, prediction[MaxK] = {};
  double cross_entropy = 0;
};

struct DiceBlockSums {
  DiceSample sample;
  uint32_t* alike;   // [L]: times that a thread has seen N pixels of a label
  uint32_t* single;  // [L]: further pixels
  double* warps;     // [warps, 2 K + 1]

  static constexpr int kWarps = kBlock / 32;

  __device__ __forceinline__ DiceBlockSums(const DiceSumsArguments& a, unsigned char* shared)
      : sample(a, shared),
        alike(reinterpret_cast<uint32_t*>(shared + DiceSample::bytes(a))),
        single(alike + a.labels),
        warps(reinterpret_cast<double*>(single + a.labels)) {}

  static __host__ __device__ int64_t bytes(const DiceSumsArguments& a) {
    const int64_t bytes = DiceSample::bytes(a) + 2 * a.labels * static_cast<int64_t>(sizeof(uint32_t)) +
                          kWarps * (2 * a.channels + 1) * static_cast<int64_t>(sizeof(double));
    return (bytes + kVectorBytes - 1) / kVectorBytes * kVectorBytes;
  }

  __device__ __forceinline__ void begin(const DiceSumsArguments& a, int64_t of_sample) const {
    for (int l = static_cast<int>(threadIdx.x); l < 2 * a.labels; l += kBlock) alike[l] = 0;
    sample.load(a, of_sample);
  }
};

// How often each label is there: integers, whose sum has no order.
template <int N>
__device__ __forceinline__ void count_labels(const DiceSumsArguments& a, const DiceBlockSums& s,
                                             const DicePixels<N>& p) {
  if (p.alike) {
    atomicAdd(s.alike + p.rows[0], 1u);
    return;
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int32_t row = p.rows[i];
    if (row == kInvalid) atomicAdd(s.sample.invalid, 1u);
    if (row >= 0 && a.pixel_weight == nullptr) atomicAdd(s.single + row, 1u);
  }
}

// Logits in memory to q_k, 0 where not counted, whatever the mode and the row; returns the cross-entropy.
__device__ __forceinline__ float counted_probabilities(const DiceSumsArguments& a, const DiceRow& row, uint32_t merged,
                                                       float* z) {
  const DicePixelScales scales = scales_of(a, row, z);
  float background = 0;
#pragma unroll 1
  for (int k = 0; k < a.channels; ++k) {
    const float p = scales.probability(z[k], has_bit(row.candidates, k));
    const bool added = a.squared && has_bit(merged | 1u, k);  // else the sums are
    if (added) background += p;
    z[k] = has_bit(row.counted, k) && !added ? p : 0;
  }
  if (a.squared && has_bit(row.counted, 0)) z[0] = background;
  return scales.loss;
}

// What the paths of register_pixels.cuh call: adds the sums of a thread's pixels.
template <class Storage, int MaxK>
struct DiceForwardBody {
  const DiceSumsForwardArguments& a;
  const DiceBlockSums& s;
  uint32_t merged;
  bool usual;
  DiceThreadSums<MaxK> sums;

  template <class Pixels>
  __device__ __forceinline__ DicePixels<Pixels::N> known(const Pixels& pixels) const {
    const DicePixels<Pixels::N> p = load_dice_pixels(a, pixels);
    count_labels(a, s, p);
    return p;
  }

  template <class Classes, class Pixels>
  __device__ __forceinline__ void operator()(float (&z)[MaxK][Pixels::N], Classes classes, const Pixels& pixels,
                                             const DicePixels<Pixels::N>& p) {
    constexpr uint32_t kAll = (1u << Pixels::N) - 1;
    if (!usual) return add_each(kAll & ~p.missing, classes, pixels, p);
    without_logits_of_no_row(p, classes, z);
    if (a.with_cross_entropy) {
      const uint32_t faint = add_with_losses(classes, pixels, p, z) & ~p.missing;
      if (faint != 0) add_each(faint, classes, pixels, p);
    } else {
      float share[Pixels::N];
      exponentials(classes, z, share);
      weigh(a, pixels, p, share);
      add(classes, p, z, share);
    }
  }

 private:
  // Pixels of a set, one by one, of any row and mode. Their logits are read anew into memory: to unroll this for all
  // pixels would take more instructions and registers than all the rest.
  template <class Classes, class Pixels>
  __device__ __forceinline__ void add_each(uint32_t set, Classes classes, const Pixels& pixels,
                                           const DicePixels<Pixels::N>& p) {
    int32_t rows[Pixels::N];
    p.all_rows(rows);
#pragma unroll 1
    for (int i = 0; i < Pixels::N; ++i) {
      if ((set >> i & 1u) == 0) continue;
      const int64_t pixel = pixels.first + i * Pixels::kStep;
      const float weight = a.pixel_weight == nullptr ? 1 : static_cast<const float*>(a.pixel_weight)[pixel];
      const DiceRow row = s.sample.rows[rows[i]];
      float q[MaxK];
      load_logits_again<Storage>(a, pixels.sample, pixel, q);
      sums.cross_entropy += static_cast<double>(weight * counted_probabilities(a, row, merged, q));
      const PredictionPower<float> power(a.squared);
      classes.each([&](int k) {
        if (!classes.exists(k)) return;
        const float weighted = q[k] * weight;
        sums.prediction[k] += power.term(q[k], weighted);
        if (has_bit(row.positive, k)) sums.intersection[k] += weighted;
      });
    }
  }

  // Returns the set of pixels that are not added, because they are faint.
  template <class Classes, class Pixels>
  __device__ __forceinline__ uint32_t add_with_losses(Classes classes, const Pixels& pixels,
                                                      const DicePixels<Pixels::N>& p, float (&z)[MaxK][Pixels::N]) {
    constexpr int N = Pixels::N;
    uint32_t candidates[N];
    load_row_words(s.sample, p, &DiceRow::candidates, candidates);
    const DiceParts<N> parts = exponentials_of_parts(classes, candidates, z);
    float weights[N], share[N], sum = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) weights[i] = 1;
    weigh(a, pixels, p, weights);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const bool counts = weights[i] != 0 && (parts.faint >> i & 1u) == 0;
      const float loss = log1p_nonnegative(quotient(parts.others[i], parts.candidates[i]));
      sum += counts ? weights[i] * loss : 0;
      share[i] = counts ? weights[i] * reciprocal(parts.candidates[i] + parts.others[i]) : 0;
      if (!counts) {  // 0 times NaN is not 0
        classes.each([&](int k) { z[k][i] = 0; });
      }
    }
    sums.cross_entropy += static_cast<double>(sum);
    add(classes, p, z, share);
    return parts.faint;
  }

  // z * share are probabilities times weights.
  template <class Classes, int N>
  __device__ __forceinline__ void add(Classes classes, const DicePixels<N>& p, const float (&z)[MaxK][N],
                                      const float (&share)[N]) {
    uint32_t positive[N];
    load_row_words(s.sample, p, &DiceRow::positive, positive);
    classes.each([&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float q = z[k][i] * share[i];
        sums.prediction[k] += q;
        if (has_bit(positive[i], k)) sums.intersection[k] += q;
      }
    });
  }
};

// The sums over a warp of `Count` numbers of every lane: number lane / (32 / Count) of them, in this lane. Lanes share
// out the numbers between them in each step, so that this takes Count exchanges.
template <int Count, int Lanes = 32>
__device__ __forceinline__ float sum_over_lanes(float* values) {
  constexpr int kOther = Lanes / 2;
  if constexpr (Lanes == 1) {
    return values[0];
  } else if constexpr (Count == 1) {
    values[0] += __shfl_xor_sync(kAllLanes, values[0], kOther);
    return sum_over_lanes<1, kOther>(values);
  } else {
    const bool upper = (threadIdx.x & kOther) != 0;
#pragma unroll
    for (int i = 0; i < Count / 2; ++i) {
      const float kept = upper ? values[i + Count / 2] : values[i], given = upper ? values[i] : values[i + Count / 2];
      values[i] = kept + __shfl_xor_sync(kAllLanes, given, kOther);
    }
    return sum_over_lanes<Count / 2, kOther>(values);
  }
}

// The block's sums to their place. All threads, whole warps; it ends with a barrier.
template <int MaxK, int N>
__device__ __forceinline__ void store_part(const DiceSumsForwardArguments& a, const DiceBlockSums& s, uint32_t merged,
                                           DiceThreadSums<MaxK>& sums, double* part) {
  const int classes = static_cast<int>(a.channels), labels = static_cast<int>(a.labels);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, k = lane / (32 / MaxK);
  double* own = s.warps + thread / 32 * (2 * classes + 1);
  const float intersection = sum_over_lanes<MaxK>(sums.intersection),
              prediction = sum_over_lanes<MaxK>(sums.prediction);
  if (lane % (32 / MaxK) == 0 && k < classes) {
    own[k] = static_cast<double>(intersection);
    own[classes + k] = static_cast<double>(prediction);
  }
  double loss = sums.cross_entropy;
  if (a.with_cross_entropy) {
    for (int offset = 16; offset > 0; offset /= 2) loss += __shfl_xor_sync(kAllLanes, loss, offset);
  }
  if (lane == 0) own[2 * classes] = loss;
  __syncthreads();
  const auto over_warps = [&](int row) {
    double sum = 0;
    for (int w = 0; w < DiceBlockSums::kWarps; ++w) sum += s.warps[w * (2 * classes + 1) + row];
    return sum;
  };
  const bool broken = *s.sample.invalid != 0;
  for (int row = thread; row < 2 * classes + 1; row += kBlock) {
    double sum = over_warps(row);
    const int of_class = row < classes ? row : row - classes;
    if (row < 2 * classes && has_bit(merged, of_class)) sum = 0;
    if (of_class == 0) {
      for (int m = 1; m < classes; ++m) sum += has_bit(merged, m) ? over_warps(row + m) : 0;
    }
    const bool is_loss = row == 2 * classes;
    part[row] = broken && (!is_loss || a.with_cross_entropy) ? infinity<double>() - infinity<double>() : sum;
  }
  for (int l = thread; l < labels && a.pixel_weight == nullptr; l += kBlock) {
    part[2 * classes + 1 + l] = static_cast<double>(s.alike[l]) * N + static_cast<double>(s.single[l]);
  }
  __syncthreads();
}

// The launchers: each returns the number of parts of a sample, `most.x` at most.
int64_t dice_sums_many_classes(const DiceSumsForwardArguments& arguments, double* partials, dim3 most,
                               cudaStream_t stream);

}  // namespace labeldrop::cuda
