// The sums of soft Dice losses of more classes than a thread holds, and of doubles: a block turns its tile into
// probabilities, then every thread adds up some pixels of one class. And their gradient: a tile of logits becomes it.
#include "dice_forward.cuh"
#include "dice_lanes.cuh"

namespace labeldrop::cuda {
namespace {

// How the threads share out `rows` sums over a tile's pixels: slot i is row i % rows, pixels i / rows + j * subsets.
struct Slots {
  int rows, subsets;
  __host__ __device__ int count() const { return rows * subsets; }
};

__host__ __device__ inline Slots slots_for(int64_t rows) {
  return {static_cast<int>(rows), 0 < rows && rows < kTileThreads ? static_cast<int>(kTileThreads / rows) : 1};
}

// The block's shared memory.
template <class Real>
struct SharedSums {
  Slots classes, labels;
  double* intersection;   // [slots of classes]
  double* prediction;     // [slots of classes]
  double* cross_entropy;  // [threads]
  double* label_weight;   // [slots of labels]
  Real* tile;             // [P, pitch]
  Real* weights;          // [P]
  int32_t* rows;          // [P]

  __device__ __forceinline__ SharedSums(const DiceSumsArguments& a, const LaneTiles& tiles, unsigned char* shared)
      : classes(slots_for(a.channels)), labels(slots_for(a.labels)) {
    intersection = reinterpret_cast<double*>(shared);
    prediction = intersection + classes.count();
    cross_entropy = prediction + classes.count();
    label_weight = cross_entropy + kTileThreads;
    tile = reinterpret_cast<Real*>(label_weight + labels.count());
    weights = tile + tiles.pixels * tiles.pitch;
    rows = reinterpret_cast<int32_t*>(weights + tiles.pixels);
  }
};

int64_t shared_bytes(const DiceSumsArguments& a, const LaneTiles& tiles, int64_t number_bytes) {
  const int64_t doubles = 2 * slots_for(a.channels).count() + kTileThreads + slots_for(a.labels).count();
  return doubles * 8 + tiles.bytes(number_bytes) + tiles.pixels * (number_bytes + int64_t(sizeof(int32_t)));
}

// A probability q >= 0 with one more bit: the sign says that the pixel is positive. It also works for NaN.
template <class Real>
struct BitsOf {
  using type = uint32_t;
};
template <>
struct BitsOf<double> {
  using type = uint64_t;
};
template <class Real>
constexpr typename BitsOf<Real>::type kSign = typename BitsOf<Real>::type(1) << (sizeof(Real) * 8 - 1);

template <class Real>
__device__ __forceinline__ Real marked(Real q, bool positive) {
  const auto bits = bit_cast<typename BitsOf<Real>::type>(q) & ~kSign<Real>;
  return bit_cast<Real>(positive ? bits | kSign<Real> : bits);
}
template <class Real>
__device__ __forceinline__ bool is_marked(Real q) {
  return (bit_cast<typename BitsOf<Real>::type>(q) & kSign<Real>) != 0;
}

// Logits to what the pixel adds to the sums, in place: 0 where the class is not counted. Returns the cross-entropy.
template <DiceMode kMode, class Real>
__device__ __forceinline__ Real process(const DiceLane<Real>& pixel) {
  const DiceScales<Real> scales = dice_scales<kMode>(pixel);
  const Real q_0 = background<kMode>(pixel, scales);
  for_share<kMode>(pixel, [&](int k, const DiceClass& c) {
    const Real q = k == 0 ? q_0 : scales.probability(pixel.z[k], c);
    pixel.z[k] = c.counted ? marked(q, c.positive) : Real(0);
  });
  return scales.loss;
}

// Adds a tile of `count` pixels to the block's sums; each slot has a thread of its own.
template <bool kWeighted, class Real>
__device__ __forceinline__ void add_tile(const SharedSums<Real>& s, int pitch, int count,
                                         const PredictionPower<Real>& power) {
  for (int slot = static_cast<int>(threadIdx.x); slot < s.classes.count(); slot += kTileThreads) {
    Real intersection = 0, prediction = 0;
    for (int p = slot / s.classes.rows; p < count; p += s.classes.subsets) {
      const Real value = s.tile[p * pitch + slot % s.classes.rows], q = marked(value, false);
      const Real weighted = kWeighted ? q * s.weights[p] : q;
      if (is_marked(value)) intersection += weighted;
      prediction += power.term(q, weighted);
    }
    s.intersection[slot] += static_cast<double>(intersection);
    s.prediction[slot] += static_cast<double>(prediction);
  }
  for (int slot = static_cast<int>(threadIdx.x); slot < s.labels.count(); slot += kTileThreads) {
    Real sum = 0;
    for (int p = slot / s.labels.rows; p < count; p += s.labels.subsets) {
      if (s.rows[p] == slot % s.labels.rows) sum += kWeighted ? s.weights[p] : Real(1);
    }
    s.label_weight[slot] += static_cast<double>(sum);
  }
}

// The sums of the block's slots to their place, and zeros in the slots.
template <class Real>
__device__ __forceinline__ void store_part(const SharedSums<Real>& s, double* part) {
  const auto add_up = [](double* slots, int row, int rows, int count) {
    double sum = 0;
    for (int slot = row; slot < count; slot += rows) {
      sum += slots[slot];
      slots[slot] = 0;
    }
    return sum;
  };
  const int classes = s.classes.rows, labels = s.labels.rows;
  for (int r = static_cast<int>(threadIdx.x); r < 2 * classes + 1 + labels; r += kTileThreads) {
    part[r] = r < classes       ? add_up(s.intersection, r, classes, s.classes.count())
              : r < 2 * classes ? add_up(s.prediction, r - classes, classes, s.classes.count())
              : r > 2 * classes ? add_up(s.label_weight, r - 2 * classes - 1, labels, s.labels.count())
                                : add_up(s.cross_entropy, 0, 1, kTileThreads);
  }
}

template <DiceMode kMode, class Storage>
__global__ void __launch_bounds__(kTileThreads)
    dice_sums_lanes_kernel(const DiceSumsForwardArguments a, const LaneTiles tiles, double* partials) {
  using Real = RealOf<Storage>;
  LABELDROP_DYNAMIC_SHARED(shared);
  const SharedSums<Real> s(a, tiles, shared);
  const Storage* __restrict__ logits = static_cast<const Storage*>(a.logits);
  const int thread = static_cast<int>(threadIdx.x);
  const bool leads = thread % tiles.lanes == 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * tiles.pixels;
  for (double* slot = s.intersection + thread; slot < reinterpret_cast<double*>(s.tile); slot += kTileThreads)
    *slot = 0;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t first = blockIdx.x * static_cast<int64_t>(tiles.pixels); first < a.pixels; first += step) {
      const int count = tile_pixels(tiles.pixels, a.pixels - first);
      for_each_value(a, tiles, sample, first, count,
                     [&](int to, int64_t from) { s.tile[to] = Element<Storage>::load(logits[from]); });
      const DiceLane<Real> pixel = load_lane(a, tiles, sample, first, count, s.tile);
      if (leads) s.rows[thread / tiles.lanes] = pixel.row;
      if (leads) s.weights[thread / tiles.lanes] = pixel.weight;
      __syncthreads();
      const Real loss = process<kMode>(pixel);
      if (leads) s.cross_entropy[thread] += static_cast<double>(pixel.weight * loss);
      __syncthreads();
      if (a.pixel_weight != nullptr) {
        add_tile<true>(s, tiles.pitch, count, PredictionPower<Real>(a.squared));
      } else {
        add_tile<false>(s, tiles.pitch, count, PredictionPower<Real>(a.squared));
      }
      __syncthreads();
    }
    __syncthreads();
    store_part(s, partials + (sample * gridDim.x + blockIdx.x) * sums_of_part(a));
    __syncthreads();
  }
}

// Logits to gradients in place.
template <DiceMode kMode, class Real>
__device__ __forceinline__ void process_backward(const DiceSumsBackwardArguments& a, int64_t sample,
                                                 const DiceLane<Real>& pixel) {
  const Real* intersection = static_cast<const Real*>(a.upstream_intersection) + sample * a.channels;
  const Real* prediction = static_cast<const Real*>(a.upstream_prediction) + sample * a.channels;
  const PredictionPower<Real> power(a.squared);
  const DiceScales<Real> scales = dice_scales<kMode>(pixel);
  const Real q_0 = background<kMode>(pixel, scales);
  const auto class_gradient = [&](int k, Real q, const DiceClass& c) {
    return dice_class_gradient(q, c.positive, c.counted, __ldg(intersection + k), __ldg(prediction + k), power);
  };
  Real mean = 0, g_0 = 0;
  for_share<kMode>(pixel, [&](int k, const DiceClass& c) {
    const Real q = k == 0 ? q_0 : scales.probability(pixel.z[k], c);
    const Real g = class_gradient(k, q, c);
    if (k == 0) g_0 = g;
    mean += q * g;
  });
  mean = joined_sum(mean, pixel.lanes);
  g_0 = joined_sum(g_0, pixel.lanes);  // the other lanes have 0
  const Real upstream = kMode == DiceMode::softmax_and_cross_entropy ? static_cast<Real>(*a.upstream_cross_entropy) : 0;
  const Real factor = factor_of<Real>(a);
  for_share<kMode>(pixel, [&](int k, const DiceClass& c) {
    const Real e = pixel.z[k], p = scales.probability(e, c);
    const Real g = k == 0 || c.merged ? g_0 : class_gradient(k, p, c);
    Real product = kMode == DiceMode::sigmoid ? p * (Real(1) - p) * g : p * (g - mean);
    if (kMode == DiceMode::softmax_and_cross_entropy) {
      product += e * (c.candidate ? scales.candidate_slope : scales.slope) * upstream;
    }
    // chosen, not multiplied by 0: mean may be NaN
    pixel.z[k] = c.active() ? pixel.weight * (factor * product) : Real(0);
  });
}

// Without this number the compiler gives up registers for more blocks, and spills some in double.
constexpr int kBlocksAtOnce = 8;

template <DiceMode kMode, class Storage>
__global__ void __launch_bounds__(kTileThreads, kBlocksAtOnce)
    dice_sums_backward_lanes_kernel(const DiceSumsBackwardArguments a, const LaneTiles tiles) {
  using Real = RealOf<Storage>;
  LABELDROP_DYNAMIC_SHARED(shared);
  Real* tile = reinterpret_cast<Real*>(shared);  // [P, pitch]
  const Storage* __restrict__ logits = static_cast<const Storage*>(a.logits);
  Storage* __restrict__ gradient = static_cast<Storage*>(a.gradient);
  const int64_t step = static_cast<int64_t>(gridDim.x) * tiles.pixels;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t first = blockIdx.x * static_cast<int64_t>(tiles.pixels); first < a.pixels; first += step) {
      const int count = tile_pixels(tiles.pixels, a.pixels - first);
      for_each_value(a, tiles, sample, first, count,
                     [&](int to, int64_t from) { tile[to] = Element<Storage>::load(logits[from]); });
      const DiceLane<Real> pixel = load_lane(a, tiles, sample, first, count, tile);
      __syncthreads();
      process_backward<kMode>(a, sample, pixel);
      __syncthreads();
      for_each_value(a, tiles, sample, first, count,
                     [&](int from, int64_t to) { gradient[to] = Element<Storage>::store(tile[from]); });
      __syncthreads();
    }
  }
}

}  // namespace

int64_t dice_sums_many_classes(const DiceSumsForwardArguments& a, double* partials, dim3 most, cudaStream_t stream) {
  int64_t parts = 0;
  with_dice_types(a, [&](auto mode, auto storage) {
    using Storage = typename decltype(storage)::type;
    const LaneTiles tiles = lane_tiles(a.channels, sizeof(RealOf<Storage>));
    const Shared shared{shared_bytes(a, tiles, sizeof(RealOf<Storage>)), a.channels};
    parts = std::min<int64_t>((a.pixels + tiles.pixels - 1) / tiles.pixels, most.x);
    launch("dice_sums", dice_sums_lanes_kernel<decltype(mode)::mode, Storage>,
           dim3(static_cast<unsigned>(parts), most.y), kTileThreads, shared, stream, a, tiles, partials);
  });
  return parts;
}

void dice_sums_backward_many_classes(const DiceSumsBackwardArguments& a, cudaStream_t stream) {
  with_dice_types(a, [&](auto mode, auto storage) {
    using Storage = typename decltype(storage)::type;
    const LaneTiles tiles = lane_tiles(a.channels, sizeof(RealOf<Storage>));
    const Shared shared{tiles.bytes(sizeof(RealOf<Storage>)), a.channels};
    const dim3 grid = grid_of_partials((a.pixels + tiles.pixels - 1) / tiles.pixels, a.samples);
    launch("dice_sums_backward", dice_sums_backward_lanes_kernel<decltype(mode)::mode, Storage>, grid, kTileThreads,
           shared, stream, a, tiles);
  });
}

}  // namespace labeldrop::cuda
