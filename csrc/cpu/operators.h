// The CPU operators: pointers, sizes and codes, nothing of torch. One file per operator holds its kernel.
#pragma once

#include <cstdint>

#include "../types.h"

namespace labeldrop {

// What an operator that reads a target returns: the flat index of the first pixel whose value is neither a label nor
// ignore_index, or one of these.
constexpr int64_t kValid = -1;
constexpr int64_t kOutOfMemory = -2;

struct SetCrossEntropyArguments {
  const void* logits;  // [N, K, S] by the strides below
  Float logits_type;
  const void* target;  // [N, S] contiguous
  Integer target_type;
  const uint32_t* candidates;                // [N, L, W] bits, W = ceil(K / 32)
  const uint32_t* active;                    // [N, L, W]
  int64_t samples, classes, pixels, labels;  // N, K, S, L
  int64_t class_stride, pixel_stride;        // (S, 1) contiguous, (1, K) channels-last; a sample is K * S elements
  int64_t ignore_index;
  void* loss;            // [N, S] or null; float, double if the logits are
  double* block_loss;    // [blocks]: sum of the loss over each block of pixels
  int64_t* block_count;  // [blocks]: pixels that count
  void* gradient;        // like logits, or null
  const void* upstream;  // [N, S] or null; float, double if the logits are
  double scale;          // factor of the gradient
  int threads;
};

struct DropLabelsArguments {
  const void* target;  // [N, S] contiguous
  void* out;           // [N, S]
  Integer type;
  const uint8_t* annotated;         // [N, L] 0 or 1
  int64_t samples, pixels, labels;  // N, S, L
  int64_t ignore_index;
  int threads;
};

// Pixels of a block. Scratch is then at most 64 KiB up to K = 256: it stays in a second-level cache and leaves room
// for what streams through.
inline int64_t set_cross_entropy_block(int64_t classes) {
  const int64_t block = 16384 / classes / 16 * 16;
  return block < 64 ? 64 : block > 512 ? 512 : block;
}

inline int64_t set_cross_entropy_blocks(int64_t samples, int64_t classes, int64_t pixels) {
  const int64_t block = set_cross_entropy_block(classes);
  return samples * ((pixels + block - 1) / block);
}

int64_t set_cross_entropy(const SetCrossEntropyArguments& arguments);
int64_t drop_labels(const DropLabelsArguments& arguments);

// Pixels of a target that differ from ignore_index.
int64_t count_pixels(const void* target, Integer type, int64_t size, int64_t ignore_index, int threads);

enum class Isa : int { baseline = 0, avx2 = 1, avx512 = 2 };

// The instruction set in use: the best that this processor and this build have, unless select_isa chose a lesser one.
Isa current_isa();
// False, and no change, if the processor or the build does not have it. For tests.
bool select_isa(Isa isa);

}  // namespace labeldrop
