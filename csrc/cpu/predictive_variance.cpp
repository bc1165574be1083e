// Predictive variance on the CPU; compiled once per instruction set (LABELDROP_ISA).
#include "../math/predictive_variance.h"

#include "pixelwise.h"

namespace labeldrop {
namespace LABELDROP_ISA {

int64_t predictive_variance(const CpuPixelLossArguments& a) {
  return with_predictive_variance(a.parameters, static_cast<uint64_t>(*a.key),
                                  [&a](const auto& formula) { return run_pixelwise(a, formula); });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
