// Philox4x32: four random words of 32 bits for each value of a counter (Salmon, Moraes, Dror and Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", 2011). There is no state: every pixel computes its own words, in any order, and
// computes the same ones again in the backward pass.
//
// With seven rounds or more it passes every test of TestU01's BigCrush, says that paper; ten, their default, leave a
// margin. Label dropout, which draws few words, has ten. The noise of predictive_variance has seven: words are a third
// of what it costs, and it is averaged over samples and pixels, not searched for structure.
//
// One round takes the counter (c0, c1, c2, c3) and the key (k0, k1) to
//     c0' = high(M1 c2) ^ c1 ^ k0,  c1' = low(M1 c2),  c2' = high(M0 c0) ^ c3 ^ k1,  c3' = low(M0 c0)
// and a constant is added to each key word before the next round.
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

struct PhiloxRound {
  static constexpr uint32_t kFirst = 0xD2511F53u, kSecond = 0xCD9E8D57u;  // M0, M1

  LABELDROP_INLINE static PhiloxKey next(PhiloxKey key) { return {key.k0 + 0x9E3779B9u, key.k1 + 0xBB67AE85u}; }
};

// Word is uint32_t, or a vector of 64-bit integers (csrc/cpu/philox_lanes.h) whose lower halves are the words; what
// comes back in the upper halves means nothing.
template <int kRounds, class Word, int n>
LABELDROP_INLINE void philox_rounds(PhiloxWords<Word> (&counters)[n], PhiloxKey key) {
#ifdef __CUDACC__
#pragma unroll
#else
#pragma GCC unroll 10
#endif
  for (int round = 0; round < kRounds; ++round) {
    for (PhiloxWords<Word>& c : counters) {
      const WordProduct<Word> first = multiply_words(PhiloxRound::kFirst, c.c0);
      const WordProduct<Word> second = multiply_words(PhiloxRound::kSecond, c.c2);
      c = {second.high ^ c.c1 ^ key.k0, second.low, first.high ^ c.c3 ^ key.k1, first.low};
    }
    key = PhiloxRound::next(key);
  }
}
template <class Word, int kRounds = 10>
LABELDROP_INLINE PhiloxWords<Word> philox4x32(PhiloxWords<Word> counter, PhiloxKey key) {
  PhiloxWords<Word> counters[1] = {counter};
  philox_rounds<kRounds>(counters, key);
  return counters[0];
}

constexpr int kNoiseRounds = 7;

// Words of the noise of one element: counter (e, e >> 32, group, 0).
template <class V>
LABELDROP_INLINE PhiloxWords<Unsigned<V>> philox_elements(uint64_t element, uint32_t group, PhiloxKey key) {
  static_assert(sizeof(Unsigned<V>) == sizeof(uint32_t), "vectors have a version of their own (philox_lanes.h)");
  const PhiloxWords<uint32_t> counter{static_cast<uint32_t>(element), static_cast<uint32_t>(element >> 32), group, 0u};
  return philox4x32<uint32_t, kNoiseRounds>(counter, key);
}

}  // namespace labeldrop
