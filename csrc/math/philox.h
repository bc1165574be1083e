// Philox4x32-10: four random words of 32 bits for each value of a counter (Salmon, Moraes, Dror and Shaw, "Parallel
// random numbers: as easy as 1, 2, 3", 2011). There is no state: every pixel computes its own words, in any order, and
// computes the same ones again in the backward pass.
//
// One round takes the counter (c0, c1, c2, c3) and the key (k0, k1) to
//     c0' = high(M1 c2) ^ c1 ^ k0,  c1' = low(M1 c2),  c2' = high(M0 c0) ^ c3 ^ k1,  c3' = low(M0 c0)
// and a constant is added to each key word before the next of ten rounds.
#pragma once

#include "portable.h"

namespace labeldrop {

template <class Word>
struct PhiloxWords {
  Word c0, c1, c2, c3;
};

struct PhiloxKey {
  uint32_t k0, k1;
};

LABELDROP_INLINE PhiloxKey philox_key(uint64_t key) {
  return {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
}

// Word is uint32_t, or a vector of 64-bit integers (lanes.h) whose lower halves are the words; what comes back in the
// upper halves means nothing.
template <class Word, int n>
LABELDROP_INLINE void philox4x32(PhiloxWords<Word> (&counters)[n], PhiloxKey key) {
#ifdef __CUDACC__
#pragma unroll
#else
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    for (PhiloxWords<Word>& c : counters) {
      const WordProduct<Word> first = multiply_words(0xD2511F53u, c.c0);
      const WordProduct<Word> second = multiply_words(0xCD9E8D57u, c.c2);
      c = {second.high ^ c.c1 ^ key.k0, second.low, first.high ^ c.c3 ^ key.k1, first.low};
    }
    key.k0 += 0x9E3779B9u;
    key.k1 += 0xBB67AE85u;
  }
}
template <class Word>
LABELDROP_INLINE PhiloxWords<Word> philox4x32(PhiloxWords<Word> counter, PhiloxKey key) {
  PhiloxWords<Word> counters[1] = {counter};
  philox4x32(counters, key);
  return counters[0];
}

// Words of one element, or of V's number of elements from `element` on: counter (e, e >> 32, group, 0).
template <class V>
LABELDROP_INLINE PhiloxWords<Unsigned<V>> philox_elements(uint64_t element, uint32_t group, PhiloxKey key) {
  static_assert(sizeof(Unsigned<V>) == sizeof(uint32_t), "vectors have a version of their own (lanes.h)");
  return philox4x32<uint32_t>({static_cast<uint32_t>(element), static_cast<uint32_t>(element >> 32), group, 0u}, key);
}

}  // namespace labeldrop
