// The gradient of dice_sums on the GPU, of N pixels in registers at a time.
#include "dice_registers.cuh"

namespace labeldrop::cuda {
namespace {

// A class's upstream gradients, those of class 0 where it is merged.
struct alignas(8) DiceSlopes {
  float intersection, prediction;
};

// The block's shared memory; before a tile.
struct DiceBackwardShared {
  DiceSample sample;
  DiceSlopes* slopes;  // [32]

  __device__ __forceinline__ DiceBackwardShared(const DiceSumsBackwardArguments& a, unsigned char* shared)
      : sample(a, shared), slopes(reinterpret_cast<DiceSlopes*>(shared + DiceSample::bytes(a))) {}

  static __host__ __device__ int64_t bytes(const DiceSumsBackwardArguments& a) {
    return DiceSample::bytes(a) + kMostInRegisters * static_cast<int64_t>(sizeof(DiceSlopes));
  }

  // For all threads, with barriers before and after.
  __device__ __forceinline__ void load(const DiceSumsBackwardArguments& a, int64_t of_sample, uint32_t merged) const {
    __syncthreads();
    const int k = static_cast<int>(threadIdx.x);
    if (k < a.channels) {
      const int64_t place = of_sample * a.channels + (has_bit(merged, k) ? 0 : k);
      const float factor = factor_of<float>(a);
      slopes[k] = {factor * static_cast<const float*>(a.upstream_intersection)[place],
                   factor * static_cast<const float*>(a.upstream_prediction)[place]};
    } else if (k < kMostInRegisters) {
      slopes[k] = {0, 0};  // steps beyond the last class add 0 times this
    }
    sample.load(a, of_sample);
  }
};

// Logits in memory to gradients, whatever the mode and the row.
__device__ __forceinline__ void any_gradient(const DiceSumsArguments& a, const DiceRow& row, uint32_t merged,
                                             const DiceSlopes* slopes, float weight, float upstream, float* z) {
  const DicePixelScales scales = scales_of(a, row, z);
  const PredictionPower<float> power(a.squared);
  float background = 0, mean = 0;
#pragma unroll 1
  for (int k = 0; k < a.channels; ++k) {
    if (has_bit(merged | 1u, k)) background += scales.probability(z[k], has_bit(row.candidates, k));
  }
  const auto class_gradient = [&](int k, float p) {
    const float q = has_bit(merged | 1u, k) ? background : p;
    return dice_class_gradient(q, has_bit(row.positive, k), has_bit(row.counted, k), slopes[k].intersection,
                               slopes[k].prediction, power);
  };
#pragma unroll 1
  for (int k = 0; k < a.channels; ++k) {
    const float p = scales.probability(z[k], has_bit(row.candidates, k));
    if (has_bit(row.active, k)) mean += p * class_gradient(k, p);
  }
#pragma unroll 1
  for (int k = 0; k < a.channels; ++k) {
    const bool is_candidate = has_bit(row.candidates, k);
    const float e = z[k], p = scales.probability(e, is_candidate), g = class_gradient(k, p);
    float product = a.sigmoid ? p * (1 - p) * g : p * (g - mean);
    if (a.with_cross_entropy) product += e * (is_candidate ? scales.candidate_slope : scales.slope) * upstream;
    // chosen, not multiplied by 0: mean may be NaN
    z[k] = has_bit(row.active, k) ? weight * product : 0;
  }
}

// What the paths of register_pixels.cuh call: logits to gradients.
template <class Storage, int MaxK>
struct DiceBackwardBody {
  const DiceSumsBackwardArguments& a;
  const DiceBackwardShared& s;
  uint32_t merged;
  bool usual;
  float upstream;  // of the cross-entropy

  template <class Pixels>
  __device__ __forceinline__ DicePixels<Pixels::N> known(const Pixels& pixels) const {
    return load_dice_pixels(a, pixels);
  }

  template <class Classes, class Pixels>
  __device__ __forceinline__ void operator()(float (&z)[MaxK][Pixels::N], Classes classes, const Pixels& pixels,
                                             const DicePixels<Pixels::N>& p) const {
    constexpr int N = Pixels::N;
    uint32_t others = (1u << N) - 1;
    if (usual) {
      without_logits_of_no_row(p, classes, z);
      others = 0;
      if (a.with_cross_entropy) {
        others = compound_gradients(classes, pixels, p, z);
      } else {
        float share[N];
        exponentials(classes, z, share);
        gradients(classes, pixels, p, share, z, [](int, int) { return 0.0f; });
      }
    }
    others &= ~p.missing;
    if (others != 0) gradients_of_each(others, classes, pixels, p, z);
    if (p.missing == 0) return;
    const float nan = infinity<float>() - infinity<float>();
    classes.each([&](int k) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if ((p.missing >> i & 1u) != 0) z[k][i] = p.rows[i] == kInvalid ? nan : 0;
      }
    });
  }

 private:
  // p_k (g_k - mean), and more(k, i) times e_k, of pixels of a sample that is_usual.
  template <class Classes, class Pixels, class More>
  __device__ __forceinline__ void gradients(Classes classes, const Pixels& pixels, const DicePixels<Pixels::N>& p,
                                            float (&share)[Pixels::N], float (&z)[MaxK][Pixels::N], More more) const {
    constexpr int N = Pixels::N;
    uint32_t positive[N];
    load_row_words(s.sample, p, &DiceRow::positive, positive);
    float mean[N];
#pragma unroll
    for (int i = 0; i < N; ++i) mean[i] = 0;
    classes.each([&](int k) {
      const float otherwise = s.slopes[k].prediction, if_positive = s.slopes[k].intersection + otherwise;
#pragma unroll
      for (int i = 0; i < N; ++i) mean[i] += z[k][i] * (has_bit(positive[i], k) ? if_positive : otherwise);
    });
#pragma unroll
    for (int i = 0; i < N; ++i) mean[i] *= share[i];
    weigh(a, pixels, p, share);
    classes.each([&](int k) {
      const float otherwise = s.slopes[k].prediction, if_positive = s.slopes[k].intersection + otherwise;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float g = has_bit(positive[i], k) ? if_positive : otherwise;
        z[k][i] *= share[i] * (g - mean[i]) + more(k, i);
      }
    });
  }

  // The set of pixels whose gradients these are not, because they are faint.
  template <class Classes, class Pixels>
  __device__ __forceinline__ uint32_t compound_gradients(Classes classes, const Pixels& pixels,
                                                         const DicePixels<Pixels::N>& p,
                                                         float (&z)[MaxK][Pixels::N]) const {
    constexpr int N = Pixels::N;
    uint32_t candidates[N];
    load_row_words(s.sample, p, &DiceRow::candidates, candidates);
    const DiceParts<N> parts = exponentials_of_parts(classes, candidates, z);
    // set_cross_entropy's gradient is p_k of others, and -(others' share) e_k / (sum of candidates) of candidates
    float share[N], slope[N], candidate_slope[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      share[i] = reciprocal(parts.candidates[i] + parts.others[i]);
      slope[i] = upstream;
    }
    weigh(a, pixels, p, slope);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      slope[i] *= share[i];
      candidate_slope[i] = -slope[i] * quotient(parts.others[i], parts.candidates[i]);
    }
    gradients(classes, pixels, p, share, z,
              [&](int k, int i) { return has_bit(candidates[i], k) ? candidate_slope[i] : slope[i]; });
    return parts.faint;
  }

  // Pixels of a set, one by one, of any row and mode, see DiceForwardBody.
  template <class Classes, class Pixels>
  __device__ __forceinline__ void gradients_of_each(uint32_t set, Classes classes, const Pixels& pixels,
                                                    const DicePixels<Pixels::N>& p, float (&z)[MaxK][Pixels::N]) const {
    constexpr int N = Pixels::N;
    int32_t rows[N];
    p.all_rows(rows);
#pragma unroll 1
    for (int i = 0; i < N; ++i) {
      if ((set >> i & 1u) == 0) continue;
      const int64_t pixel = pixels.first + i * Pixels::kStep;
      const float weight = a.pixel_weight == nullptr ? 1 : static_cast<const float*>(a.pixel_weight)[pixel];
      float gradient[MaxK];
      load_logits_again<Storage>(a, pixels.sample, pixel, gradient);
      any_gradient(a, s.sample.rows[rows[i]], merged, s.slopes, weight, upstream, gradient);
      classes.each([&](int k) {
        if (!classes.exists(k)) return;
#pragma unroll
        for (int j = 0; j < N; ++j) z[k][j] = i == j ? gradient[k] : z[k][j];
      });
    }
  }
};

template <class Path>
__global__ void __launch_bounds__(kBlock, kDiceBackwardBlocks<Path>)
    dice_sums_backward_kernel(const DiceSumsBackwardArguments a, const TileLayout layout) {
  LABELDROP_DYNAMIC_SHARED(shared);
  const DiceBackwardShared s(a, shared);
  const float upstream = a.with_cross_entropy ? factor_of<float>(a) * static_cast<float>(*a.upstream_cross_entropy) : 0;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    const uint32_t merged = __ldg(a.merged + sample);
    s.load(a, sample, merged);
    const DiceBackwardBody<typename Path::Storage, Path::MaxK> body{a, s, merged, is_usual(a, s.sample), upstream};
    Path::run(a, a.gradient, layout, sample, shared + DiceBackwardShared::bytes(a), body);
  }
}

}  // namespace

void dice_sums_backward(const DiceSumsBackwardArguments& a, Stream handle) {
  if (a.samples == 0 || a.pixels == 0) return;
  const auto stream = static_cast<cudaStream_t>(handle);
  if (!fits_registers(a)) return dice_sums_backward_many_classes(a, stream);
  with_dice_path(a, a.gradient, [&](auto path) {
    using Path = decltype(path);
    const PathSetup setup = Path::setup(a, a.gradient);
    const Shared shared{DiceBackwardShared::bytes(a) + setup.shared, a.channels};
    launch("dice_sums_backward", dice_sums_backward_kernel<Path>, grid_of_partials(setup.tiles, a.samples), kBlock,
           shared, stream, a, setup.layout);
  });
}

}  // namespace labeldrop::cuda
