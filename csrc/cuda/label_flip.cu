#include "../math/label_flip.h"
#include "pixelwise.cuh"

namespace labeldrop::cuda {

void label_flip(const CudaPixelLossArguments& a, Stream stream) {
  with_focus(a.parameters[0], [&](auto focus) {
    run_pixelwise<FewTerms>("label_flip", a, LabelFlip<decltype(focus)::value>(a.parameters), stream);
  });
}

}  // namespace labeldrop::cuda
