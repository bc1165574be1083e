// What the operators take, on either device: pointers, sizes and codes; nothing of torch. What one device alone has to
// know stands in its operators.h.
#pragma once

#include <cstdint>

namespace labeldrop {

// Codes by which Python names a tensor's element type (labeldrop_bench/ops/_native.py holds the same list).
enum class Float : int { f32 = 0, bf16 = 1, f16 = 2, f64 = 3 };
enum class Integer : int { u8 = 0, i16 = 1, i32 = 2, i64 = 3 };

// Whether an integer type can hold a value at all: a pixel of a uint8 target never equals ignore_index = -100.
inline bool representable(Integer type, int64_t value) {
  switch (type) {
    case Integer::u8: return value >= 0 && value <= UINT8_MAX;
    case Integer::i16: return value >= INT16_MIN && value <= INT16_MAX;
    case Integer::i32: return value >= INT32_MIN && value <= INT32_MAX;
    case Integer::i64: return true;
  }
  return false;
}

// The tables of a label value, in the order in which their bits lie in memory: of the losses that are sums over pixels,
// and of dice_sums. Positive only where counted; candidates of dice_sums only where active.
enum PixelTable : int { kPixelCandidates = 0, kPixelActive = 1, kPixelTables = 2 };
enum DiceTable : int { kActive = 0, kCounted = 1, kPositive = 2, kCandidates = 3 };

// Real is float, or double where the logits are double. A pointer that says "or null" may be left out.
struct LossArguments {
  const void* logits;  // [N, C, S], in memory [N, S, C] if channels_last
  Float logits_type;
  bool channels_last;
  const void* target;  // [N, S]
  Integer target_type;
  const uint32_t* tables;  // [N, L, T, W] bits, W = ceil(K / 32): class k is bit k % 32 of word k / 32
  int64_t samples, channels, pixels, labels;  // N, C, S, L
  int64_t ignore_index;
  const void* pixel_weight;  // [N, S] Real or null: 1; a pixel of weight 0 counts for nothing
};

// A loss that is a sum over pixels: result = sum of weight * loss / divisor,
// gradient = upstream / divisor * weight * dloss/dlogits.
struct PixelLossArguments : LossArguments {
  int64_t classes;           // K; C is K, or 2 K for two channels a class
  const void* label_weight;  // [N, L] Real or null: weight of the pixels that have a label
  const void* class_weight;  // [K] Real or null: weight of a class's term
  double parameters[3];      // the formula's constants
  const int64_t* key;        // [1] of the noise, or null where the formula has none
  const void* upstream;      // [N, S] Real if upstream_per_pixel, else [1] Real, or null: 1
  bool upstream_per_pixel;
  double* divisor;  // [1]
  bool mean;        // the divisor is first made the sum of the weights of the pixels that count, or 1 if that is 0
  void* result;     // [1] Real or null
  void* loss;       // [N, S] Real or null: not reduced
  void* gradient;   // like logits, or null
};

// The sums of soft Dice losses, for K = C classes.
struct DiceSumsArguments : LossArguments {
  const uint32_t* merged;   // [N, W] bits, never class 0; merged classes are never counted
  bool sigmoid;             // else softmax
  bool squared;             // predictions are sums of p^2
  bool with_cross_entropy;  // only with softmax; T = 4, else 3
};

struct DiceSumsForwardArguments : DiceSumsArguments {
  double *intersection, *prediction;  // [N, K]
  double* label_weight;               // [N, L]: sum of the weights of the pixels that have a label
  double* cross_entropy;              // [N]: weighted sum over the sample's pixels
};

struct DiceSumsBackwardArguments : DiceSumsArguments {
  const void *upstream_intersection, *upstream_prediction;  // [N, K] Real
  const double* upstream_cross_entropy;                     // [1], of the sum over all of these
  const void* factor;                                       // [1] Real, of all three, or null: 1; on CUDA alone
  void* gradient;                                           // like logits
};

// The mean of soft Dice terms, `1 - q` (or q) with q = (2 I + offset) / (P + T + epsilon), plus that of the
// cross-entropy that dice_sums has summed up: a few numbers.
struct MeanOverlapArguments {
  const double *intersection, *prediction;  // [N, K]: I, P
  const double* label_weight;               // [N, L]
  const double* cross_entropy;              // [N], or null: none
  const uint8_t* positive;                  // [N, L, K] 0 or 1: T is the sum of these labels' weights
  const uint8_t* included;                  // [N, K] 0 or 1: the terms that count
  const double* class_weight;               // [K] or null: 1
  int64_t samples, classes, labels;         // N, K, L
  double offset, epsilon;
  bool complement;                      // 1 - q
  bool mean;                            // else the sum
  bool batch;                           // I, P and T of a term are those of all samples in which it counts
  double factor, cross_entropy_factor;  // of the two parts
  bool is_double;                       // Real is double
  void* value;                          // [1] Real
  void* slopes;                         // [2, N, K] Real: its derivatives by I and P
  double* slope_of_cross_entropy;       // [1]: and by the sum of cross_entropy
};

// Where the weights of pixels come from, for their sum: the divisor of a mean.
struct WeightArguments {
  const void* target;  // [N, S]
  Integer target_type;
  int64_t samples, pixels, labels;
  int64_t ignore_index;
  const void* label_weight;  // [N, L] Real or null
  const void* pixel_weight;  // [N, S] Real or null
  bool weights_are_double;   // Real is double
};

inline WeightArguments weights_of(const PixelLossArguments& a) {
  return {a.target,       a.target_type,  a.samples,
          a.pixels,       a.labels,       a.ignore_index,
          a.label_weight, a.pixel_weight, a.logits_type == Float::f64};
}

// Tables as bits: words [rows, T, W] from T tables [rows, K] of bytes, 0 or 1.
struct PackArguments {
  static constexpr int kMostTables = 4;
  const uint8_t* tables[kMostTables];  // the first T of them
  int64_t count, rows, classes;        // T, rows, K
  uint32_t* words;
};

// What a step of a rule's formula makes a set of classes of; labeldrop_bench/sets.py says more, and holds the same
// list.
enum class SetCode : uint8_t {
  background,
  everything,
  covered,
  rows,
  single,
  occupied,
  in_some_row,
  foreground,
  both,
  either,
  others
};

// The tables of a rule that is a formula, for each label of each sample.
struct RuleTablesArguments {
  static constexpr int kMostSteps = 64;
  const uint8_t* annotated;                           // [N, L] 0 or 1, or null: all 1
  const uint32_t* member;                             // [L, W] bits: the labels' sets
  const uint8_t* exhaustive;                          // [L] 0 or 1
  int64_t samples, labels, classes;                   // N, L, K
  uint8_t steps[3 * kMostSteps];                      // of each: its SetCode, and which steps' sets it takes
  int64_t count;                                      // of steps
  int64_t dropped;                                    // results have K' = K - dropped classes, W' words
  uint8_t tables[PackArguments::kMostTables];         // the steps that are tables
  int64_t table_count;                                // T
  uint32_t* words;                                    // [N, L, T, W']
  int64_t positive_step, merged_step, included_step;  // of dice_sums
  uint8_t* positive;                                  // [N, L, K'] 0 or 1, or null
  uint32_t* merged;                                   // [N, W'], or null
  uint8_t* included;                                  // [N, K'] 0 or 1, if there is merged
  const double* weight;     // [L]: of pixels with an annotated label; others have that of label 0
  void* label_weight;       // [N, L] Real, or null
  bool weights_are_double;  // Real is double
  double* zero;             // [1], made 0, or null
};

struct DropLabelsArguments {
  const void* target;  // [N, S] contiguous
  void* out;           // [N, S]
  Integer target_type;
  const uint8_t* annotated;         // [N, L] 0 or 1
  int64_t samples, pixels, labels;  // N, S, L
  int64_t ignore_index;
};

struct LabelDropoutArguments {
  const uint8_t* annotated;  // [N, L] 0 or 1
  const float* probability;  // [L]
  uint8_t* out;              // [N, L]
  int64_t samples, labels;   // N, L
};

}  // namespace labeldrop
