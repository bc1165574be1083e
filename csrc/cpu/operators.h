// The CPU operators: pointers, sizes and codes, nothing of torch. One file per operator holds its kernel.
#pragma once

#include <cstdint>

#include "../arguments.h"

namespace labeldrop {

// What an operator that reads a target returns: the flat index of the first pixel whose value is neither a label nor
// ignore_index, or one of these.
constexpr int64_t kValid = -1;
constexpr int64_t kOutOfMemory = -2;

// What a kernel takes; its upstream is [N, S] or null.
struct CpuPixelLossArguments : PixelLossArguments {
  double scale;        // factor of the gradient: the one upstream value, if there is just one, over the divisor
  double* block_loss;  // [blocks]: sum of the loss over each block of pixels
  int threads;
};

// Pixels of a block: with what else there is of each pixel, a first-level cache holds it up to 100 channels.
inline int64_t pixel_block(int64_t channels) {
  const int64_t block = 6144 / (channels + 6) / 16 * 16;
  return block < 64 ? 64 : block > 512 ? 512 : block;
}

inline int64_t pixel_blocks(int64_t samples, int64_t channels, int64_t pixels) {
  const int64_t block = pixel_block(channels);
  return samples * ((pixels + block - 1) / block);
}

// Losses that are sums over pixels; each returns the first invalid pixel, or kValid.
int64_t predictive_variance(const PixelLossArguments& arguments, int threads);
int64_t set_cross_entropy(const PixelLossArguments& arguments, int threads);
int64_t sigmoid_focal(const PixelLossArguments& arguments, int threads);
int64_t label_flip(const PixelLossArguments& arguments, int threads);

// Sum of the weights of the pixels that count; without weights, their number.
double sum_weights(const WeightArguments& arguments, int threads);

// The sums of soft Dice losses and their gradient; each returns the first invalid pixel, or kValid.
int64_t dice_sums(const DiceSumsForwardArguments& arguments, int threads);
int64_t dice_sums_backward(const DiceSumsBackwardArguments& arguments, int threads);

void mean_overlap(const MeanOverlapArguments& arguments);

void pack_tables(const PackArguments& arguments);

int64_t drop_labels(const DropLabelsArguments& arguments, int threads);

void label_dropout(const LabelDropoutArguments& arguments, uint64_t key);

// For tests: the normal numbers of elements first, first + 1, ...
struct NormalsArguments {
  float* out;  // [4 groups, elements]
  uint64_t first;
  int64_t elements, groups;
  uint64_t key;
};
void normals(const NormalsArguments& arguments);

// For tests: a tile's way in or out (tiles.h).
struct TilesArguments {
  void* values;  // [C, pitch] Real
  int64_t pitch;
  void* memory;
  Float type;
  int64_t channels, channel_stride, pixel_stride;
  int count;
  bool load, streaming;
};
void tiles(const TilesArguments& arguments);

enum class Isa : int { baseline = 0, avx2 = 1, avx512 = 2 };

// The instruction set in use: the best that this processor and this build have, unless select_isa chose a lesser one.
Isa current_isa();
// False, and no change, if the processor or the build does not have it. For tests.
bool select_isa(Isa isa);

}  // namespace labeldrop
