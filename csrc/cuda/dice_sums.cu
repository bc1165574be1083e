// The sums of soft Dice losses on the GPU. Every block leaves its sums, and a second kernel adds these up in their
// order. So there is no atomic on floating-point numbers, and the result is the same from run to run.
#include "dice_forward.cuh"
#include "pixels.cuh"

namespace labeldrop::cuda {
namespace {

// blocks of the whole batch: enough to fill any device, if each thread has kMostPixels at most
constexpr int64_t kDiceParts = std::min<int64_t>(1024, kPartials);
constexpr int64_t kMostPixels = 64;

int64_t most_parts(int64_t samples, int64_t pixels) {
  const int64_t needed = (pixels + kBlock * kMostPixels - 1) / (kBlock * kMostPixels);
  return std::clamp<int64_t>(pixels, 0, std::max(needed, kDiceParts / std::max<int64_t>(1, samples)));
}

template <class Path>
__global__ void __launch_bounds__(kBlock, kDiceForwardBlocks<Path>)
    dice_sums_kernel(const DiceSumsForwardArguments a, const TileLayout layout, double* partials) {
  constexpr int MaxK = Path::MaxK;
  LABELDROP_DYNAMIC_SHARED(shared);
  const DiceBlockSums s(a, shared);
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    s.begin(a, sample);
    DiceForwardBody<typename Path::Storage, MaxK> body{a, s, __ldg(a.merged + sample), is_usual(a, s.sample), {}};
    Path::run(a, nullptr, layout, sample, shared + DiceBlockSums::bytes(a), body);
    store_part<MaxK, Path::N>(a, s, body.merged, body.sums,
                              partials + (sample * gridDim.x + blockIdx.x) * sums_of_part(a));
  }
}

// Sums of label i % labels over pixels i / labels, i / labels + subsets and so on of a turn.
__host__ __device__ inline int label_slots(const DiceSumsArguments& a) {
  const int labels = static_cast<int>(a.labels);
  return labels < kBlock ? kBlock / labels * labels : labels;
}

int64_t label_weights_bytes(const DiceSumsArguments& a) {
  return label_slots(a) * static_cast<int64_t>(sizeof(double)) + kBlock * (sizeof(float) + sizeof(int32_t));
}

// The labels' weights where there are some: seldom enough to read the target anew.
__global__ void __launch_bounds__(kBlock)
    dice_label_weights_kernel(const DiceSumsForwardArguments a, double* partials) {
  LABELDROP_DYNAMIC_SHARED(shared);
  const int thread = static_cast<int>(threadIdx.x), labels = static_cast<int>(a.labels), slots = label_slots(a);
  double* sums = reinterpret_cast<double*>(shared);
  float* weights = reinterpret_cast<float*>(sums + slots);
  int32_t* rows = reinterpret_cast<int32_t*>(weights + kBlock);
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int slot = thread; slot < slots; slot += kBlock) sums[slot] = 0;
    for (int64_t first = blockIdx.x * static_cast<int64_t>(kBlock); first < a.pixels; first += gridDim.x * kBlock) {
      const ThreadPixels<1, kBlock> pixel{sample, sample * a.pixels + first + thread,
                                          tile_pixels(kBlock, a.pixels - first) - thread};
      const DicePixels<1> p = load_dice_pixels(a, pixel);
      rows[thread] = p.rows[0];
      float weight[1] = {1};
      weigh(a, pixel, p, weight);
      weights[thread] = weight[0];
      __syncthreads();
      for (int slot = thread; slot < slots; slot += kBlock) {
        float sum = 0;
        for (int i = slot / labels; i < kBlock; i += slots / labels) {
          if (rows[i] == slot % labels) sum += weights[i];
        }
        sums[slot] += static_cast<double>(sum);
      }
      __syncthreads();
    }
    double* part = partials + (sample * gridDim.x + blockIdx.x) * sums_of_part(a) + 2 * a.channels + 1;
    __syncthreads();
    for (int l = thread; l < labels; l += kBlock) {
      double sum = 0;
      for (int slot = l; slot < slots; slot += labels) sum += sums[slot];
      part[l] = sum;
    }
    __syncthreads();
  }
}

constexpr int kRowsAtOnce = 32, kSegments = 1024 / kRowsAtOnce;

// The sums over the parts [N, parts, sums], in their order: every segment of them first.
__global__ void __launch_bounds__(1024)
    finish_dice_sums_kernel(const DiceSumsForwardArguments a, const double* partials, int64_t parts) {
  LABELDROP_DYNAMIC_SHARED(shared);
  double* segments = reinterpret_cast<double*>(shared);  // [segments, rows]: one for each thread
  const int64_t rows = sums_of_part(a), classes = a.channels;
  const int lane = static_cast<int>(threadIdx.x) % kRowsAtOnce, segment = static_cast<int>(threadIdx.x) / kRowsAtOnce;
  const int64_t row = blockIdx.x * static_cast<int64_t>(kRowsAtOnce) + lane;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    double own = 0;
#pragma unroll 8  // loads on their way
    for (int64_t part = parts * segment / kSegments; row < rows && part < parts * (segment + 1) / kSegments; ++part) {
      own += partials[(sample * parts + part) * rows + row];
    }
    segments[threadIdx.x] = own;
    __syncthreads();
    if (segment == 0 && row < rows) {
      double sum = 0;
      for (int s = 0; s < kSegments; ++s) sum += segments[s * kRowsAtOnce + lane];
      if (row < classes) {
        a.intersection[sample * classes + row] = sum;
      } else if (row < 2 * classes) {
        a.prediction[sample * classes + row - classes] = sum;
      } else if (row == 2 * classes) {
        a.cross_entropy[sample] = sum;
      } else {
        a.label_weight[sample * a.labels + row - 2 * classes - 1] = sum;
      }
    }
    __syncthreads();
  }
}

}  // namespace

int64_t dice_sums_partials(int64_t samples, int64_t classes, int64_t labels, int64_t pixels) {
  return samples * most_parts(samples, pixels) * (2 * classes + 1 + labels);
}

int64_t dice_sums_in_registers(const DiceSumsForwardArguments& a, double* partials, dim3 most, cudaStream_t stream) {
  int64_t parts = 0;
  const auto start = [&](auto path) {
    using Path = decltype(path);
    const PathSetup setup = Path::setup(a, nullptr);
    parts = std::min<int64_t>(setup.tiles, most.x);
    const Shared shared{DiceBlockSums::bytes(a) + setup.shared, a.channels};
    const dim3 grid(static_cast<unsigned>(parts), most.y);
    launch("dice_sums", dice_sums_kernel<Path>, grid, kBlock, shared, stream, a, setup.layout, partials);
    if (a.pixel_weight == nullptr) return;
    launch("dice_sums", dice_label_weights_kernel, grid, kBlock, Shared{label_weights_bytes(a), a.channels}, stream, a,
           partials);
  };
  with_dice_path(a, nullptr, start);
  return parts;
}

void dice_sums(const DiceSumsForwardArguments& a, double* partials, Stream handle) {
  if (a.samples == 0) return;
  const auto stream = static_cast<cudaStream_t>(handle);
  const dim3 most(static_cast<unsigned>(most_parts(a.samples, a.pixels)),
                  static_cast<unsigned>(std::min<int64_t>(a.samples, kDiceParts)));
  int64_t parts = 0;
  if (a.pixels != 0) {
    parts = fits_registers(a) ? dice_sums_in_registers(a, partials, most, stream)
                              : dice_sums_many_classes(a, partials, most, stream);
  }
  const auto x = static_cast<unsigned>((sums_of_part(a) + kRowsAtOnce - 1) / kRowsAtOnce);
  launch("dice_sums", finish_dice_sums_kernel, dim3(x, most.y), 1024,
         Shared{1024 * static_cast<int64_t>(sizeof(double))}, stream, a, partials, parts);
}

}  // namespace labeldrop::cuda
