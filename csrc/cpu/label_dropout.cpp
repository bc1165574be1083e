// Label dropout on the annotations, a few numbers: no threads. Compiled once per instruction set.
#include "../math/label_dropout.h"

#include "operators.h"

namespace labeldrop {
namespace LABELDROP_ISA {

void label_dropout(const LabelDropoutArguments& a, uint64_t key) {
  const PhiloxKey philox = philox_key(key);
  for (int64_t n = 0; n < a.samples; ++n) {
    for (int64_t l = 0; l < a.labels; ++l) {
      const int64_t e = n * a.labels + l;
      a.out[e] = a.annotated[e] != 0 && label_kept(static_cast<uint64_t>(e), a.probability[l], philox);
    }
  }
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
