// Tables as bits, a few numbers: no threads.
#include "operators.h"

namespace labeldrop {

void pack_tables(const PackArguments& a) {
  const int64_t words = (a.classes + 31) / 32;
  uint32_t* to = a.words;
  for (int64_t row = 0; row < a.rows; ++row) {
    for (int64_t t = 0; t < a.count; ++t) {
      const uint8_t* from = a.tables[t] + row * a.classes;
      for (int64_t w = 0; w < words; ++w, ++to) {
        *to = 0;
        for (int64_t k = 32 * w; k < a.classes && k < 32 * (w + 1); ++k) {
          *to |= static_cast<uint32_t>(from[k] != 0) << (k % 32);
        }
      }
    }
  }
}

}  // namespace labeldrop
