// What the rows of a sample's tables say, as bits. Nothing else reads the tables. Included by files that are compiled
// once per instruction set.
#pragma once

#include <type_traits>

#include "buffer.h"
#include "lanes.h"
#include "operators.h"

namespace labeldrop {
namespace {

// The bits of a word, one after the other from number `last` on downwards, as what vectors choose by.
template <class Bits>
class BitWalk {
 public:
  BitWalk() = default;
#if defined(__AVX512F__)
  // an instruction tests a bit that is read from memory
  LABELDROP_INLINE BitWalk(Bits bits, int64_t last) : bits_(bits), bit_(int32_t{1} << (last % 32)) {}
  LABELDROP_INLINE auto is_set() const { return (bits_ & bit_) != 0; }
  LABELDROP_INLINE void next() { bit_ = static_cast<int32_t>(static_cast<uint32_t>(bit_) >> 1); }

 private:
  Bits bits_;
  int32_t bit_;
#else
  // a sign is what an instruction chooses by
  LABELDROP_INLINE BitWalk(Bits bits, int64_t last) : bits_(bits << static_cast<int>(31 - last % 32)) {}
  LABELDROP_INLINE auto is_set() const { return bits_ < 0; }
  LABELDROP_INLINE void next() { bits_ = (Bits)((Unsigned)bits_ + (Unsigned)bits_); }  // that may overflow

 private:
  using Unsigned = std::conditional_t<std::is_same_v<Bits, int32_t>, uint32_t, UnsignedLanes>;
  Bits bits_;
#endif
};

// The tables of one sample after the other. Row L is read by pixels that do not count: it has no active class.
class RowTables {
 public:
  explicit RowTables(const PixelLossArguments& a)
      : words((a.classes + 31) / 32),
        a_(a),
        rows_((a.labels + kTableGroup) / kTableGroup * kTableGroup),
        bits_(2 * words * rows_) {}

  bool allocated() const { return bits_.get() != nullptr; }

  void start(int64_t sample) {
    if (sample == sample_) return;
    sample_ = sample;
    for (int64_t l = 0; l < a_.labels; ++l) {
      const uint32_t* row = a_.tables + (sample * a_.labels + l) * kPixelTables * words;
      for (int64_t w = 0; w < words; ++w) {
        const uint32_t candidates = row[kPixelCandidates * words + w], active = row[kPixelActive * words + w];
        bits_.get()[w * rows_ + l] = static_cast<int32_t>(active & candidates);
        bits_.get()[(words + w) * rows_ + l] = static_cast<int32_t>(active & ~candidates);
      }
    }
  }

  // Word w of the candidates' bits, or of the others', of each pixel's row.
  template <class Bits>
  LABELDROP_INLINE Bits candidate_bits(int64_t w, Bits rows) const {
    return look_up(bits_.get() + w * rows_, rows_, rows);
  }
  template <class Bits>
  LABELDROP_INLINE Bits other_bits(int64_t w, Bits rows) const {
    return look_up(bits_.get() + (words + w) * rows_, rows_, rows);
  }

  // Whether class k is a candidate, or another active class, as what vectors choose by.
  template <class Bits>
  LABELDROP_INLINE auto is_candidate(int64_t k, Bits rows) const {
    return BitWalk<Bits>(candidate_bits(k / 32, rows), k).is_set();
  }
  template <class Bits>
  LABELDROP_INLINE auto is_other(int64_t k, Bits rows) const {
    return BitWalk<Bits>(other_bits(k / 32, rows), k).is_set();
  }

  const int64_t words;

 private:
  const PixelLossArguments& a_;
  const int64_t rows_;
  int64_t sample_ = -1;
  Buffer<int32_t> bits_;  // [candidates, others][W][rows]
};

}  // namespace
}  // namespace labeldrop
