// Set cross-entropy of any number of classes, layout and element type: K > 32, and double. A block takes a tile of
// pixels through shared memory as numbers [P, K]; 1 to 32 neighbouring lanes share a pixel's classes, so that the tile
// stays small however many there are.
#include "set_cross_entropy.cuh"

namespace labeldrop::cuda {
namespace {

constexpr int64_t kTileBytes = 32 * 1024;

struct Tiles {
  int lanes;   // that share a pixel
  int pixels;  // of a whole tile: kBlock / lanes
  int pitch;   // numbers of a pixel: odd, against bank conflicts
};

// copy(number in shared, value in global) for every value of the tile, in global memory's order
template <class Storage, class Copy>
__device__ __forceinline__ void for_each_value(const CudaPixelLossArguments& a, const Tiles& tiles, int64_t sample,
                                               int64_t first, int count, Copy copy) {
  const int classes = static_cast<int>(a.classes), thread = static_cast<int>(threadIdx.x);
  if (a.channels_last) {
    const int64_t start = (sample * a.pixels + first) * a.classes;
    int p = thread / classes, k = thread % classes;
    for (int i = thread; i < count * classes; i += kBlock) {
      copy(p * tiles.pitch + k, start + i);
      k += kBlock % classes;
      p += kBlock / classes;
      if (k >= classes) k -= classes, ++p;
    }
  } else {
    const int p = thread % tiles.pixels;
    const int64_t start = sample * a.classes * a.pixels + first + p;
    if (p >= count) return;
    for (int k = thread / tiles.pixels; k < classes; k += tiles.lanes) copy(p * tiles.pitch + k, start + k * a.pixels);
  }
}

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

// Largest or summed values of the lanes that share a pixel. All lanes of the warp take part.
template <class Real, class Join>
__device__ __forceinline__ Real joined(Real value, int lanes, Join join) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) value = join(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

// Logits to gradients in place for this lane's share of a pixel; `z` is its row. Returns the unweighted loss.
template <class Real>
__device__ __forceinline__ Real process(int classes, int lanes, const Rows& rows, Real weight, Real factor, Real* z) {
  const Real lowest = -infinity<Real>();
  const auto larger = [](Real x, Real y) { return x > y ? x : y; };
  const auto plus = [](Real x, Real y) { return x + y; };
  Parts<Real> max{lowest, lowest}, sum{0, 0};
  for_share(classes, lanes, rows, [&](int k, bool is_candidate, bool is_other) {
    const Real value = finite_from_below(z[k]);
    if (is_candidate) max.candidates = value > max.candidates ? value : max.candidates;
    if (is_other) max.others = value > max.others ? value : max.others;
  });
  max = {joined(max.candidates, lanes, larger), joined(max.others, lanes, larger)};
  for_share(classes, lanes, rows, [&](int k, bool is_candidate, bool is_other) {
    z[k] = exp_nonpositive(finite_from_below(z[k]) - (is_candidate ? max.candidates : max.others));
    if (is_candidate) sum.candidates += z[k];
    if (is_other) sum.others += z[k];
  });
  sum = {joined(sum.candidates, lanes, plus), joined(sum.others, lanes, plus)};
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
  const int64_t offset = (sample * a.labels + (rows[0] < 0 ? 0 : rows[0])) * words;
  return {a.candidates + offset, a.active + offset, rows[0]};
}

template <class Storage>
__global__ void __launch_bounds__(kBlock)
    set_cross_entropy_many_classes_kernel(const CudaPixelLossArguments a, const Tiles tiles) {
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
      for_each_value<Storage>(a, tiles, sample, first, count,
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
        for_each_value<Storage>(a, tiles, sample, first, count,
                                [&](int from, int64_t to) { gradient[to] = Element<Storage>::store(tile[from]); });
        __syncthreads();
      }
    }
  }
  if (a.result != nullptr) store_partial(a.partials, sum);
}

template <class Storage>
int launch_tiles(const CudaPixelLossArguments& a, cudaStream_t stream) {
  Tiles tiles;
  tiles.pitch = static_cast<int>(a.classes | 1);
  const int64_t pixel_bytes = tiles.pitch * static_cast<int64_t>(sizeof(RealOf<Storage>));
  tiles.lanes = 1;
  while (tiles.lanes < 32 && kBlock / tiles.lanes * pixel_bytes > kTileBytes) tiles.lanes *= 2;
  tiles.pixels = kBlock / tiles.lanes;
  const int64_t shared = tiles.pixels * pixel_bytes;
  check_shared("set_cross_entropy", shared, a.classes);
  const dim3 grid = grid_of_partials((a.pixels + tiles.pixels - 1) / tiles.pixels, a.samples);
  launch("set_cross_entropy", set_cross_entropy_many_classes_kernel<Storage>, grid, kBlock, shared, stream, a, tiles);
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
