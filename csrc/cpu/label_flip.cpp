// Label-flip loss on the CPU; compiled once per instruction set (LABELDROP_ISA).
#include "../math/label_flip.h"

#include "pixelwise.h"

namespace labeldrop {
namespace LABELDROP_ISA {

int64_t label_flip(const CpuPixelLossArguments& a) {
  return with_focus(a.parameters[0],
                    [&a](auto focus) { return run_pixelwise(a, LabelFlip<decltype(focus)::value>(a.parameters)); });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
