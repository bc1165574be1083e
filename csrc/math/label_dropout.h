// Label dropout of one label of one sample. With u = word 0 of Philox4x32-10 at counter (e, e >> 32, 0, 1), times
// 2^-32,
//     kept = u >= p,  e = n L + l
// so that p = 0 keeps everything and p = 1 nothing. The last word of the counter is 0 for the noise of losses: the same
// key gives them other numbers.
#pragma once

#include "philox.h"

namespace labeldrop {

LABELDROP_INLINE bool label_kept(uint64_t element, float probability, PhiloxKey key) {
  const uint32_t low = static_cast<uint32_t>(element), high = static_cast<uint32_t>(element >> 32);
  const uint32_t word = philox4x32<uint32_t>({low, high, 0u, 1u}, key).c0;
  // in double, where the word and the probability are exact
  return word * (1.0 / 4294967296.0) >= static_cast<double>(probability);
}

}  // namespace labeldrop
