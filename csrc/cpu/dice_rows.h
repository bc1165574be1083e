// What the rows of a sample's tables say to dice_sums, in three forms. Included by files that are compiled once per
// instruction set.
//
// Vectors whose pixels all read one row need its list of classes. Rows of which the same classes are active and counted
// form a group: they differ in no more than a few classes, the pixel's own, so that vectors whose pixels read rows of
// one group need one list as well, and a few numbers for each pixel. The other vectors need bits.
#pragma once

#include "buffer.h"
#include "lanes.h"
#include "operators.h"

namespace labeldrop {
namespace {

enum class DiceMode { softmax, softmax_and_cross_entropy, sigmoid };

// The classes of one row: its candidates if there is a cross-entropy, the others that are active, the inactive ones.
struct DiceRow {
  int64_t id = -1;  // another one for each row of each sample
  int64_t sample = 0;
  int candidates = 0, active = 0, positives = 0;  // how many; active ones with the candidates
  const int32_t* offsets = nullptr;               // [K]: of the classes' rows in a tile
  const int32_t* sums = nullptr;  // [active]: the class in whose sums they are, 0 for merged ones; -1 for none
  // of what is positive: place in this list, row in a tile, and class in whose sums it is
  const int32_t *positive = nullptr, *positive_offsets = nullptr, *positive_sums = nullptr;
};

// The tables of one sample after the other. Row L is read by pixels that do not count: its bits are all 0.
class DiceRows {
 public:
  DiceRows(const DiceSumsArguments& a, int64_t pitch)
      : words((a.channels + 31) / 32),
        a_(a),
        pitch_(pitch),
        rows_((a.labels + kTableGroup) / kTableGroup * kTableGroup),
        bits_(kTables * words * rows_),
        groups_(rows_),
        lists_(kRows * kLists * a.channels),
        merged_(a.channels),
        merged(merged_.get()) {}

  bool allocated() const { return bits_.get() && groups_.get() && lists_.get() && merged_.get(); }

  void start(int64_t sample) {
    if (sample == sample_) return;
    sample_ = sample;
    first_id_ = sample * (a_.labels + 1);
    const int tables = a_.with_cross_entropy ? 4 : 3;
    for (int64_t l = 0; l < a_.labels; ++l) {
      const uint32_t* row = a_.tables + (sample * a_.labels + l) * tables * words;
      for (int64_t i = 0; i < tables * words; ++i) bits_.get()[i * rows_ + l] = static_cast<int32_t>(row[i]);
      // the active classes that are no candidates
      for (int64_t w = 0; w < words; ++w) plane(kActive, w)[l] &= ~plane(kCandidates, w)[l];
    }
    merged_count = 0;
    for (int64_t k = 0; k < a_.channels; ++k) {
      if (is_merged(k)) merged_.get()[merged_count++] = static_cast<int32_t>(k);
    }
    make_groups();
  }

  // Few rows are in use at a time: they are kept where their number says, until another one needs the place, which the
  // next call may do.
  LABELDROP_INLINE const DiceRow& row(int32_t number) {
    DiceRow& row = kept_[place(number)];
    if (row.id != first_id_ + number) make_row(row, number);
    return row;
  }
  // where a row is kept: anything that belongs to it can be kept at the same place
  static constexpr int kRows = 64;
  LABELDROP_INLINE static int place(int64_t number) { return static_cast<int>(number & (kRows - 1)); }

  // Word w of each pixel's row, in the order of DiceTable: active means the active classes that are no candidates.
  template <class Bits>
  __attribute__((noinline)) void look_up_words(int64_t w, Bits rows, Bits (&found)[4]) const {
    for (int table = 0; table < kTables; ++table) {
      found[table] = look_up(bits_.get() + (table * words + w) * rows_, rows_, rows);
    }
  }

  // Of each pixel: the first row of its row's group; -1 where it is in none.
  template <class Bits>
  LABELDROP_INLINE Bits groups(Bits rows) const {
    return look_up(groups_.get(), rows_, rows);
  }
  LABELDROP_INLINE int32_t group(int32_t row) const { return groups_.get()[row]; }
  // More classes of a pixel's own no row in a group has.
  static constexpr int kMostPositives = 4;

  const int64_t words;

 private:
  static constexpr int kTables = 4, kLists = 5;

  LABELDROP_INLINE int32_t* plane(DiceTable table, int64_t w) const {
    return bits_.get() + (table * words + w) * rows_;
  }
  uint32_t active(int32_t row, int64_t w) const {
    return static_cast<uint32_t>(plane(kActive, w)[row] | plane(kCandidates, w)[row]);
  }
  bool is_merged(int64_t k) const { return a_.merged[sample_ * words + k / 32] >> (k % 32) & 1u; }
  bool is_set(DiceTable table, int32_t row, int64_t k) const {
    return static_cast<uint32_t>(plane(table, k / 32)[row]) >> (k % 32) & 1u;
  }

  bool belongs_to_a_group(int32_t row) {
    int candidates = 0, positives = 0;
    for (int64_t w = 0; w < words; ++w) {
      const uint32_t merged = a_.merged[sample_ * words + w], background = is_set(kPositive, row, 0) ? merged : 0;
      const uint32_t positive = (static_cast<uint32_t>(plane(kPositive, w)[row]) & ~merged) | background;
      positives += __builtin_popcount(positive & active(row, w));
      candidates += __builtin_popcount(static_cast<uint32_t>(plane(kCandidates, w)[row]));
    }
    return positives <= kMostPositives && (candidates == 1 || !a_.with_cross_entropy);
  }

  bool are_of_one_group(int32_t first, int32_t second) const {
    for (int64_t w = 0; w < words; ++w) {
      if (active(first, w) != active(second, w) || plane(kCounted, w)[first] != plane(kCounted, w)[second])
        return false;
    }
    return true;
  }

  void make_groups() {
    int32_t* groups = groups_.get();
    groups[a_.labels] = -1;
    for (int32_t row = 0; row < a_.labels; ++row) {
      groups[row] = belongs_to_a_group(row) ? row : -1;
      for (int32_t first = 0; first < row && groups[row] == row; ++first) {
        if (groups[first] == first && are_of_one_group(first, row)) groups[row] = first;
      }
    }
  }

  __attribute__((noinline)) void make_row(DiceRow& row, int32_t number) {
    int32_t* offsets = lists_.get() + place(number) * kLists * a_.channels;
    int32_t *sums = offsets + a_.channels, *positive = sums + a_.channels;
    int32_t *positive_offsets = positive + a_.channels, *positive_sums = positive_offsets + a_.channels;
    int count = 0;
    row.positives = 0;
    for (int part = 0; part < 3; ++part) {
      for (int32_t k = 0; k < a_.channels; ++k) {
        const int part_of_class = is_set(kCandidates, number, k) ? 0 : is_set(kActive, number, k) ? 1 : 2;
        if (part_of_class != part) continue;
        const int32_t sum = is_merged(k) ? 0 : k;
        offsets[count] = k * static_cast<int32_t>(pitch_);
        sums[count] = is_set(kCounted, number, sum) ? sum : -1;
        if (part < 2 && is_set(kPositive, number, sum)) {
          positive[row.positives] = count;
          positive_offsets[row.positives] = offsets[count];
          positive_sums[row.positives++] = sum;
        }
        ++count;
      }
      if (part == 0) row.candidates = count;
      if (part == 1) row.active = count;
    }
    row.offsets = offsets;
    row.sums = sums;
    row.positive = positive;
    row.positive_offsets = positive_offsets;
    row.positive_sums = positive_sums;
    row.id = first_id_ + number;
    row.sample = sample_;
  }

  const DiceSumsArguments& a_;
  const int64_t pitch_, rows_;
  int64_t sample_ = -1, first_id_ = 0;
  Buffer<int32_t> bits_;    // [T][W][rows]
  Buffer<int32_t> groups_;  // [rows]
  Buffer<int32_t> lists_;   // [kRows][offsets, sums and three of what is positive][K]
  Buffer<int32_t> merged_;
  DiceRow kept_[kRows];

 public:
  const int32_t* const merged;  // [merged_count]: the sample's merged classes
  int merged_count = 0;
};

}  // namespace
}  // namespace labeldrop
