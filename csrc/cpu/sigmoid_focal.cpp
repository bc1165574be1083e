// Sigmoid focal loss and binary cross-entropy on the CPU; compiled once per instruction set (LABELDROP_ISA).
#include "../math/sigmoid_focal.h"

#include "pixelwise.h"

namespace labeldrop {
namespace LABELDROP_ISA {

int64_t sigmoid_focal(const CpuPixelLossArguments& a) {
  if (a.parameters[0] == 0 && a.parameters[1] < 0) {
    return a.class_weight ? run_pixelwise(a, WeightedBinaryCrossEntropy()) : run_pixelwise(a, BinaryCrossEntropy());
  }
  return with_focus(a.parameters[0],
                    [&a](auto focus) { return run_pixelwise(a, SigmoidFocal<decltype(focus)::value>(a.parameters)); });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
