// Set cross-entropy of any number of classes, layout and element type: K > 32, and double. A block takes a tile of
// pixels through shared memory, see lane_tiles.cuh.
#include "lane_tiles.cuh"
#include "set_cross_entropy.cuh"

namespace labeldrop::cuda {
namespace {

template <class Real>
struct Parts {
  Real candidates, others;
};

// A pixel's rows of the tables, [W] words.
struct Rows {
  const uint32_t *candidates, *active;
  int32_t row;
};

// step(k, is_candidate, is_other) for this lane's share of the classes
template <class Step>
__device__ __forceinline__ void for_share(int classes, int lanes, const Rows& rows, Step step) {
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const bool counts = rows.row != kSkipped;
  for (int w = 0; w * 32 < classes; ++w) {
    const uint32_t active = counts ? __ldg(rows.active + w) : 0;
    const uint32_t candidates = active & __ldg(rows.candidates + w), others = active & ~candidates;
    const int end = classes - w * 32 < 32 ? classes - w * 32 : 32;
    for (int bit = lane; bit < end; bit += lanes) {
      step(w * 32 + bit, has_bit(candidates, bit), has_bit(others, bit));
    }
  }
}

// Logits to gradients in place for this lane's share of a pixel; `z` is its row. Returns the unweighted loss.
template <class Real>
__device__ __forceinline__ Real process(int classes, int lanes, const Rows& rows, Real weight, Real factor, Real* z) {
  const Real lowest = -infinity<Real>();
  Parts<Real> max{lowest, lowest}, sum{0, 0};
  for_share(classes, lanes, rows, [&](int k, bool is_candidate, bool is_other) {
    const Real value = finite_from_below(z[k]);
    if (is_candidate) max.candidates = value > max.candidates ? value : max.candidates;
    if (is_other) max.others = value > max.others ? value : max.others;
  });
  max = {joined_max(max.candidates, lanes), joined_max(max.others, lanes)};
  for_share(classes, lanes, rows, [&](int k, bool is_candidate, bool is_other) {
    z[k] = exp_nonpositive(finite_from_below(z[k]) - (is_candidate ? max.candidates : max.others));
    if (is_candidate) sum.candidates += z[k];
    if (is_other) sum.others += z[k];
  });
  sum = {joined_sum(sum.candidates, lanes), joined_sum(sum.others, lanes)};
  const auto pixel = set_cross_entropy_pixel(max.candidates, sum.candidates, max.others, sum.others);
  const Parts<Real> scale{pixel.candidate_scale * factor, pixel.other_scale * factor};
  for_share(classes, lanes, rows, [&](int k, bool is_candidate, bool is_other) {
    // chosen, not multiplied by 0: the exponential of what is inactive may be NaN
    const Real product = z[k] * (is_candidate ? scale.candidates : scale.others);
    z[k] = is_candidate || is_other ? product : rows.row == kInvalid ? weight : Real(0);
  });
  return pixel.loss;
}

// The rows, weight and gradient's factor of a pixel of this tile, and of none beyond its end.
template <class Real>
__device__ __forceinline__ Rows load_pixel(const CudaPixelLossArguments& a, int64_t sample, int64_t pixel, bool exists,
                                           Real common, Real (&weights)[1], Real (&factors)[1]) {
  int32_t rows[1] = {kSkipped};
  weights[0] = 0;
  factors[0] = 0;
  if (exists) {
    load_rows(a, pixel, rows);
    load_weights(a, sample, pixel, rows, weights);
    load_factors(a, pixel, common, weights, factors);
  }
  const int64_t words = (a.classes + 31) / 32;
  const uint32_t* tables = a.tables + (sample * a.labels + (rows[0] < 0 ? 0 : rows[0])) * kPixelTables * words;
  return {tables + kPixelCandidates * words, tables + kPixelActive * words, rows[0]};
}

template <class Storage>
__global__ void __launch_bounds__(kTileThreads, sizeof(Storage) == sizeof(double) ? 1 : 0)  // or doubles would spill
    set_cross_entropy_many_classes_kernel(const CudaPixelLossArguments a, const LaneTiles tiles) {
  using Real = RealOf<Storage>;
  LABELDROP_DYNAMIC_SHARED(shared);
  if (gradient_stays<Real>(a)) return;
  Real* tile = reinterpret_cast<Real*>(shared);  // [P, pitch]
  const Storage* __restrict__ logits = static_cast<const Storage*>(a.logits);
  Storage* __restrict__ gradient = static_cast<Storage*>(a.gradient);
  const Real common = common_factor<Real>(a);
  const int p = static_cast<int>(threadIdx.x) / tiles.lanes;
  const bool leads = static_cast<int>(threadIdx.x) % tiles.lanes == 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * tiles.pixels;
  double sum = 0;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t first = blockIdx.x * static_cast<int64_t>(tiles.pixels); first < a.pixels; first += step) {
      const int count = tile_pixels(tiles.pixels, a.pixels - first);
      for_each_value(a, tiles, sample, first, count,
                     [&](int to, int64_t from) { tile[to] = Element<Storage>::load(logits[from]); });
      const int64_t pixel = sample * a.pixels + first + p;
      Real weights[1], factors[1];
      const Rows rows = load_pixel(a, sample, pixel, p < count, common, weights, factors);
      __syncthreads();
      const Real unweighted =
          process(static_cast<int>(a.classes), tiles.lanes, rows, weights[0], factors[0], tile + p * tiles.pitch);
      const Real loss = rows.row == kSkipped ? Real(0) : weights[0] * unweighted;
      if (leads && p < count) {
        if (a.loss != nullptr) static_cast<Real*>(a.loss)[pixel] = loss;
        sum += static_cast<double>(loss);
      }
      __syncthreads();
      if (gradient != nullptr) {
        for_each_value(a, tiles, sample, first, count,
                       [&](int from, int64_t to) { gradient[to] = Element<Storage>::store(tile[from]); });
        __syncthreads();
      }
    }
  }
  if (a.result != nullptr) store_partial(a.partials, sum, shared);
}

template <class Storage>
int launch_tiles(const CudaPixelLossArguments& a, cudaStream_t stream) {
  constexpr int64_t kNumber = sizeof(RealOf<Storage>);
  const LaneTiles tiles = lane_tiles(a.classes, kNumber);
  const Shared shared{std::max(tiles.bytes(kNumber), kSumBytes), a.classes};
  const dim3 grid = grid_of_partials((a.pixels + tiles.pixels - 1) / tiles.pixels, a.samples);
  launch("set_cross_entropy", set_cross_entropy_many_classes_kernel<Storage>, grid, kTileThreads, shared, stream, a,
         tiles);
  return static_cast<int>(grid.x * grid.y);
}

}  // namespace

int set_cross_entropy_many_classes(const CudaPixelLossArguments& a, cudaStream_t stream) {
  switch (a.logits_type) {
    case Float::f32: return launch_tiles<float>(a, stream);
    case Float::bf16: return launch_tiles<BFloat16>(a, stream);
    case Float::f16: return launch_tiles<Float16>(a, stream);
    case Float::f64: return launch_tiles<double>(a, stream);
  }
  return 0;
}

}  // namespace labeldrop::cuda
