// The kernels' normal numbers by themselves, for tests; compiled once per instruction set (LABELDROP_ISA).
#include <cstring>

#include "../math/normal.h"
#include "lanes.h"
#include "operators.h"

namespace labeldrop {
namespace LABELDROP_ISA {

void normals(const NormalsArguments& a) {
  constexpr int kLanes = Lanes<float>::count;
  for (int64_t i = 0; i < a.elements; i += kLanes) {
    const int64_t left = a.elements - i;
    const size_t bytes = (left < kLanes ? left : kLanes) * sizeof(float);
    for (int64_t group = 0; group < a.groups; ++group) {
      const auto words = philox_elements<FloatLanes>(a.first + i, static_cast<uint32_t>(group), philox_key(a.key));
      const auto low = normal_pair<FloatLanes>(words.c0, words.c1), high = normal_pair<FloatLanes>(words.c2, words.c3);
      const FloatLanes eps[4] = {low.first, low.second, high.first, high.second};
      for (int t = 0; t < 4; ++t) memcpy(a.out + (4 * group + t) * a.elements + i, &eps[t], bytes);
    }
  }
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
