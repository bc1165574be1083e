// What a loss that is a sum over pixels takes, on either device. Pointers, sizes and codes; nothing of torch.
#pragma once

#include <cstdint>

#include "types.h"

namespace labeldrop {

// Real is float, or double where the logits are double. A pointer that says "or null" may be left out.
struct PixelLossArguments {
  const void* logits;  // [N, C, S], in memory [N, S, C] if channels_last
  Float logits_type;
  bool channels_last;
  const void* target;  // [N, S]
  Integer target_type;
  const uint32_t* candidates;  // [N, L, W] bits, W = ceil(K / 32): class k is bit k % 32 of word k / 32
  const uint32_t* active;      // [N, L, W]
  int64_t samples, channels, classes, pixels, labels;  // N, C, K, S, L; C is K, or 2 K for two channels a class
  int64_t ignore_index;
  const void* label_weight;  // [N, L] Real or null: weight of the pixels that have a label
  const void* class_weight;  // [K] Real or null: weight of a class's term
  const void* pixel_weight;  // [N, S] Real or null
  const double* parameters;  // the formula's constants, in host memory
  void* loss;                // [N, S] Real or null: not reduced
  void* gradient;            // like logits, or null
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

}  // namespace labeldrop
