// The kernels' normal numbers by themselves, for tests; compiled once per instruction set (LABELDROP_ISA).
#include <cstring>

#include "../math/normal.h"
#include "operators.h"
#include "philox_lanes.h"

namespace labeldrop {
namespace LABELDROP_ISA {

void normals(const NormalsArguments& a) {
  constexpr int kLanes = Lanes<float>::count, kVectors = 4;
  for (int64_t i = 0; i < a.elements; i += kVectors * kLanes) {
    const PhiloxRun<FloatLanes, kVectors> run(a.first + i, philox_key(a.key));
    for (int64_t group = 0; group < a.groups; ++group) {
      UnsignedLanes words[4][kVectors];
      run(static_cast<uint32_t>(group), kVectors, words);
      for (int v = 0; v < kVectors; ++v) {
        const int64_t at = i + v * kLanes, left = a.elements - at;
        if (left <= 0) break;
        const auto low = normal_pair<FloatLanes>(words[0][v], words[1][v]);
        const auto high = normal_pair<FloatLanes>(words[2][v], words[3][v]);
        const FloatLanes eps[4] = {low.first, low.second, high.first, high.second};
        const size_t bytes = (left < kLanes ? left : kLanes) * sizeof(float);
        for (int t = 0; t < 4; ++t) memcpy(a.out + (4 * group + t) * a.elements + at, &eps[t], bytes);
      }
    }
  }
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
