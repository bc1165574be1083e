// What dice_sums takes, on either device. Pointers, sizes and codes; nothing of torch.
#pragma once

#include <cstdint>

#include "types.h"

namespace labeldrop {

// The tables of a label value, in the order in which their bits lie in memory.
enum DiceTable : int { kActive = 0, kCounted = 1, kPositive = 2, kCandidates = 3 };

// Real is float, or double where the logits are double. K is the number of channels, W = ceil(K / 32); class k is bit
// k % 32 of word k / 32.
struct DiceSumsArguments {
  const void* logits;  // [N, K, S], in memory [N, S, K] if channels_last
  Float logits_type;
  bool channels_last;
  const void* target;  // [N, S]
  Integer target_type;
  const uint32_t* tables;    // [N, L, T, W] bits, T = 4 if with_cross_entropy, else 3; positive only where counted, and
                             // candidates only where active
  const uint32_t* merged;    // [N, W] bits, never class 0; merged classes are never counted
  const void* pixel_weight;  // [N, S] Real or null: 1; a pixel of weight 0 counts for nothing
  int64_t samples, channels, pixels, labels;  // N, K, S, L
  int64_t ignore_index;
  bool sigmoid;             // else softmax
  bool squared;             // predictions are sums of p^2
  bool with_cross_entropy;  // only with softmax
};

struct DiceSumsForwardArguments : DiceSumsArguments {
  double *intersection, *prediction;  // [N, K]
  double* label_weight;               // [N, L]: sum of the weights of the pixels that have a label
  double* cross_entropy;              // [N]: weighted sum over the sample's pixels
};

struct DiceSumsBackwardArguments : DiceSumsArguments {
  const void *upstream_intersection, *upstream_prediction;  // [N, K] Real
  const double* upstream_cross_entropy;                     // [1], of the sum over all of these
  void* gradient;                                           // like logits
};

}  // namespace labeldrop
