#include "../math/sigmoid_focal.h"
#include "pixelwise.cuh"

namespace labeldrop::cuda {

void sigmoid_focal(const CudaPixelLossArguments& a, Stream stream) {
  with_focus(a.parameters[0], [&](auto focus) {
    run_pixelwise<true>("sigmoid_focal", a, SigmoidFocal<decltype(focus)::value>(a.parameters), stream);
  });
}

}  // namespace labeldrop::cuda
