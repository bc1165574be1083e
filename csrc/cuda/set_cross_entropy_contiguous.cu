// Set cross-entropy of contiguous logits [N, K, S], K <= 32: a thread takes N neighbouring pixels of every class, with
// one access per class, straight into registers.
#include <type_traits>

#include "set_cross_entropy.cuh"

namespace labeldrop::cuda {
namespace {

// Class k's row, class after class, for pointers that stay at the last class. That keeps the compiler from forming each
// row's address anew, and lets classes beyond the last be read, which is cheaper than to ask.
class RowStep {
 public:
  __device__ __forceinline__ RowStep(int64_t pixels, size_t size, int classes)
      : bytes_(pixels * static_cast<int64_t>(size)), classes_(classes) {}

  // the pointer to row k + 1 from that to row k
  template <class Value>
  __device__ __forceinline__ Value* next(Value* row, int k) const {
    using Byte = std::conditional_t<std::is_const_v<Value>, const char, char>;
    return reinterpret_cast<Value*>(reinterpret_cast<Byte*>(row) + (k + 1 < classes_ ? bytes_ : 0));
  }

 private:
  int64_t bytes_;
  int classes_;
};

template <class Storage, int N, int MaxK>
__device__ __forceinline__ double process(const CudaPixelLossArguments& a, float common, int64_t sample,
                                          int64_t first) {
  using Pixels = Raw<Storage, N>;
  const int classes = static_cast<int>(a.classes);
  const int64_t element = sample * a.classes * a.pixels + first, pixel = sample * a.pixels + first;
  const RowStep step(a.pixels, sizeof(Storage), classes);
  const Pixels* from = reinterpret_cast<const Pixels*>(static_cast<const Storage*>(a.logits) + element);
  // All classes are on their way before the first is looked at. To unpack floats is not to look at them.
  constexpr bool kPacked = sizeof(Storage) < sizeof(float);
  Pixels raw[MaxK];
  float z[MaxK][N], loss[N];
  for_each_class<MaxK>(classes, [&](int k) {
    raw[k] = *from;
    if constexpr (!kPacked) unpack<Storage, N>(raw[k], z[k]);
    from = step.next(from, k);
  });
  const PixelWords<N> words = load_words<N>(a, sample, pixel);
  if constexpr (kPacked) for_each_class<MaxK>(classes, [&](int k) { unpack<Storage, N>(raw[k], z[k]); });
  const auto factors_of = [&](float (&factors)[N]) { load_factors(a, pixel, common, words.weights, factors); };
  evaluate(z, words, classes, a.gradient != nullptr, factors_of, loss);
  if (a.loss != nullptr) store_values(static_cast<float*>(a.loss) + pixel, loss);
  if (a.gradient != nullptr) {
    Pixels* to = reinterpret_cast<Pixels*>(static_cast<Storage*>(a.gradient) + element);
    for_each_class<MaxK>(classes, [&](int k) {
      if (k < classes) *to = pack<Storage, N>(z[k]);
      to = reinterpret_cast<Pixels*>(reinterpret_cast<char*>(to) + a.pixels * static_cast<int64_t>(sizeof(Storage)));
    });
  }
  return static_cast<double>(sum_of(loss));
}

template <class Storage, int N, int MaxK>
__global__ void __launch_bounds__(kBlock) set_cross_entropy_contiguous_kernel(const CudaPixelLossArguments a) {
  LABELDROP_DYNAMIC_SHARED(shared);
  if (gradient_stays<float>(a)) return;
  const float common = common_factor<float>(a);
  double sum = 0;
  for (int64_t sample = blockIdx.y; sample < a.samples; sample += gridDim.y) {
    for (int64_t i = blockIdx.x * static_cast<int64_t>(kBlock) + threadIdx.x; i < a.pixels / N;
         i += static_cast<int64_t>(gridDim.x) * kBlock) {
      sum += process<Storage, N, MaxK>(a, common, sample, i * N);
    }
  }
  if (a.result != nullptr) store_partial(a.partials, sum, shared);
}

template <class Storage, int N, int MaxK>
int launch_vectors(const CudaPixelLossArguments& a, cudaStream_t stream) {
  const dim3 grid = grid_of_partials((a.pixels / N + kBlock - 1) / kBlock, a.samples);
  launch("set_cross_entropy", set_cross_entropy_contiguous_kernel<Storage, N, MaxK>, grid, kBlock, Shared{kSumBytes},
         stream, a);
  return static_cast<int>(grid.x * grid.y);
}

// Four pixels a thread, or fewer if their logits would not fit into the registers. More would take longer accesses of
// half types, and leave room for too few threads.
template <class Storage, int MaxK>
int launch_widest(const CudaPixelLossArguments& a, cudaStream_t stream) {
  constexpr int kPixels = kMostNumbersHeld < 4 * MaxK ? kMostNumbersHeld / MaxK : 4;
  const bool aligned = pixels_aligned(a, kPixels) && vector_aligned(a.logits) && vector_aligned(a.gradient);
  return aligned ? launch_vectors<Storage, kPixels, MaxK>(a, stream)
                 : launch_vectors<Storage, 1, kMostInRegisters>(a, stream);
}

template <class Storage>
int launch_classes(const CudaPixelLossArguments& a, cudaStream_t stream) {
  if (a.classes <= 4) return launch_widest<Storage, 4>(a, stream);
  if (a.classes <= 8) return launch_widest<Storage, 8>(a, stream);
  if (a.classes <= 16) return launch_widest<Storage, 16>(a, stream);
  return launch_widest<Storage, kMostInRegisters>(a, stream);
}

}  // namespace

int set_cross_entropy_contiguous(const CudaPixelLossArguments& a, cudaStream_t stream) {
  if (a.logits_type == Float::bf16) return launch_classes<BFloat16>(a, stream);
  if (a.logits_type == Float::f16) return launch_classes<Float16>(a, stream);
  return launch_classes<float>(a, stream);
}

}  // namespace labeldrop::cuda
