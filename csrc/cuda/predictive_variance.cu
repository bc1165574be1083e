#include "../math/predictive_variance.h"
#include "pixelwise.cuh"

namespace labeldrop::cuda {

void predictive_variance(const CudaPixelLossArguments& a, Stream stream) {
  constexpr uint64_t kNoKeyYet = 0;  // the kernel reads it
  with_predictive_variance(a.parameters, kNoKeyYet, [&](const auto& formula) {
    run_pixelwise<OneTerm>("predictive_variance", a, formula, stream);
  });
}

}  // namespace labeldrop::cuda
