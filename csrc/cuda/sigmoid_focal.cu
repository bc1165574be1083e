#include "../math/sigmoid_focal.h"
#include "pixelwise.cuh"

namespace labeldrop::cuda {

void sigmoid_focal(const CudaPixelLossArguments& a, Stream stream) {
  if (a.parameters[0] == 0 && a.parameters[1] < 0) {
    return a.class_weight != nullptr ? run_pixelwise<FewTerms>("sigmoid_focal", a, WeightedBinaryCrossEntropy(), stream)
                                     : run_pixelwise<ManyTerms>("sigmoid_focal", a, BinaryCrossEntropy(), stream);
  }
  with_focus(a.parameters[0], [&](auto focus) {
    run_pixelwise<FewTerms>("sigmoid_focal", a, SigmoidFocal<decltype(focus)::value>(a.parameters), stream);
  });
}

}  // namespace labeldrop::cuda
