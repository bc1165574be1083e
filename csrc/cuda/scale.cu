// A gradient times the one upstream value, in place. The device looks at the value, so that the host need not wait.
#include "launch.cuh"

namespace labeldrop::cuda {
namespace {

template <class Real, int N>
__global__ void __launch_bounds__(kThreads) scale_kernel(Vector<Real, N>* values, int64_t count, const Real* factor) {
  const Real by = *factor;
  if (by == Real(1)) return;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    Vector<Real, N> vector = values[i];
    // what takes no part stays 0, whatever the factor
#pragma unroll
    for (int j = 0; j < N; ++j) vector.values[j] = vector.values[j] == Real(0) ? Real(0) : vector.values[j] * by;
    values[i] = vector;
  }
}

template <class Real, int N>
void launch_vectors(const ScaleArguments& a, cudaStream_t stream) {
  const int64_t count = a.size / N;
  launch("scale", scale_kernel<Real, N>, grid_for(count, 1), dim3(kThreads), {}, stream,
         static_cast<Vector<Real, N>*>(a.values), count, static_cast<const Real*>(a.factor));
}

template <class Real>
void launch_widest(const ScaleArguments& a, cudaStream_t stream) {
  constexpr int kWide = kVectorBytes / sizeof(Real);
  const bool aligned = vector_aligned(a.values) && a.size % kWide == 0;
  aligned ? launch_vectors<Real, kWide>(a, stream) : launch_vectors<Real, 1>(a, stream);
}

}  // namespace

void scale(const ScaleArguments& a, Stream handle) {
  const auto stream = static_cast<cudaStream_t>(handle);
  if (a.size == 0) return;
  a.is_double ? launch_widest<double>(a, stream) : launch_widest<float>(a, stream);
}

}  // namespace labeldrop::cuda
