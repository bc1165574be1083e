// Label dropout as a rewrite of the target: one read and one write per pixel, 16 bytes a thread where aligned.
#include "launch.cuh"
#include "operators.h"

namespace labeldrop::cuda {
namespace {

template <class Value, int N>
__global__ void drop_labels_kernel(const Vector<Value, N>* __restrict__ target,  // [samples, vectors]
                                   Vector<Value, N>* __restrict__ out,           // [samples, vectors]
                                   const uint8_t* __restrict__ annotated,        // [samples, labels]
                                   int64_t samples, int64_t vectors, int64_t labels, int64_t ignore_index) {
  for (int64_t sample = blockIdx.y; sample < samples; sample += gridDim.y) {
    const uint8_t* row = annotated + sample * labels;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < vectors;
         i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
      Vector<Value, N> pixels = target[sample * vectors + i];
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const int64_t label = static_cast<int64_t>(pixels.values[j]);
        const bool is_label = label != ignore_index && label >= 0 && label < labels;
        if (is_label && row[label] == 0) pixels.values[j] = 0;
      }
      out[sample * vectors + i] = pixels;
    }
  }
}

template <class Value, int N>
void launch_vectors(const DropLabelsArguments& a, cudaStream_t stream) {
  using Pixels = Vector<Value, N>;
  const int64_t vectors = a.pixels / N;
  launch("drop_labels", drop_labels_kernel<Value, N>, grid_for(vectors, a.samples), kThreads, {}, stream,
         static_cast<const Pixels*>(a.target), static_cast<Pixels*>(a.out), a.annotated, a.samples, vectors, a.labels,
         a.ignore_index);
}

template <class Value>
void launch_widest(const DropLabelsArguments& a, cudaStream_t stream) {
  constexpr int kWide = kVectorBytes / sizeof(Value);
  const bool aligned = vector_aligned(a.target) && vector_aligned(a.out) && a.pixels % kWide == 0;
  aligned ? launch_vectors<Value, kWide>(a, stream) : launch_vectors<Value, 1>(a, stream);
}

}  // namespace

void drop_labels(const DropLabelsArguments& a, Stream handle) {
  if (a.samples == 0 || a.pixels == 0) return;
  const auto stream = static_cast<cudaStream_t>(handle);
  switch (a.target_type) {
    case Integer::u8: return launch_widest<uint8_t>(a, stream);
    case Integer::i16: return launch_widest<int16_t>(a, stream);
    case Integer::i32: return launch_widest<int32_t>(a, stream);
    case Integer::i64: return launch_widest<int64_t>(a, stream);
  }
}

}  // namespace labeldrop::cuda
