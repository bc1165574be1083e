// What this build was made by and for, and what the machine has: no kernel.
#include <cuda_runtime.h>

#include "operators.h"

namespace labeldrop::cuda {

std::vector<int> architectures() {
#ifdef __CUDA_ARCH_LIST__
  std::vector<int> list{__CUDA_ARCH_LIST__};
  for (int& architecture : list) architecture /= 10;  // the compiler says 800 where everybody else says 80
  return list;
#else
  return {};
#endif
}

int runtime_version() { return CUDART_VERSION; }

int driver_version() {
  int version = 0;
  if (cudaDriverGetVersion(&version) == cudaSuccess) return version;
  cudaGetLastError();  // which the runtime would keep
  return 0;
}

}  // namespace labeldrop::cuda
