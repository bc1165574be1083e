// The CUDA operators: device pointers, sizes, codes and a stream; nothing of torch, nothing that waits for the device.
// Each throws std::runtime_error if a launch fails.
#pragma once

#include <cstdint>
#include <vector>

#include "../arguments.h"

namespace labeldrop::cuda {

using Stream = void*;  // a cudaStream_t

// Partial sums of a reduction: no grid has more blocks.
#ifndef LABELDROP_PARTIALS
#define LABELDROP_PARTIALS 4096
#endif
constexpr int64_t kPartials = LABELDROP_PARTIALS;

// Doubles of scratch that a loss needs, the last of which is 0 before: two counters of blocks, of the sum of the
// weights and of the loss.
constexpr int64_t kScratch = kPartials + 1;

// A sum over a grid, reduce.cuh: result = sum of the blocks' parts / divisor.
struct GridSum {
  double* parts;          // [kPartials]
  uint32_t* blocks;       // [1], 0 before: that have left their part
  const double* divisor;  // [1], or null: 1
  bool one_if_zero;       // a sum of 0 becomes 1
  void* result;           // [1] double or float
  bool result_is_double;
};

struct CudaPixelLossArguments : PixelLossArguments {
  bool unless_one;  // leave the gradient as it is, on the device, if the one upstream value is 1
  double* scratch;  // [kScratch]
  GridSum partials;
};

struct ScaleArguments {
  void* values;  // [size] Real
  int64_t size;
  const void* factor;  // [1] Real
  bool is_double;      // Real is double, else float
};

// Losses that are sums over pixels. A pixel whose value is neither a label nor ignore_index gets a NaN loss and NaN
// gradients.
void set_cross_entropy(const CudaPixelLossArguments& arguments, Stream stream);
void sigmoid_focal(const CudaPixelLossArguments& arguments, Stream stream);
void label_flip(const CudaPixelLossArguments& arguments, Stream stream);
void predictive_variance(const CudaPixelLossArguments& arguments, Stream stream);

// sum [1]: the weights of the pixels that count, or 1 if they add up to 0, so that it can divide.
void sum_weights(const WeightArguments& arguments, double* scratch, double* sum, Stream stream);

// The sums of soft Dice losses, with scratch of as many doubles as dice_sums_partials says, and their gradient. A pixel
// whose value is neither a label nor ignore_index gets NaN gradients, and makes the sums of its sample NaN.
int64_t dice_sums_partials(int64_t samples, int64_t classes, int64_t labels, int64_t pixels);
void dice_sums(const DiceSumsForwardArguments& arguments, double* partials, Stream stream);
void dice_sums_backward(const DiceSumsBackwardArguments& arguments, Stream stream);
void mean_overlap(const MeanOverlapArguments& arguments, Stream stream);

// A value that is no label is copied as it is: the loss that reads the result is the one to complain.
void drop_labels(const DropLabelsArguments& arguments, Stream stream);

// values *= factor, but for values of 0, which stay 0 where the factor is infinite or NaN.
void scale(const ScaleArguments& arguments, Stream stream);

void pack_tables(const PackArguments& arguments, Stream stream);
void rule_tables(const RuleTablesArguments& arguments, Stream stream);

// key [1]
void label_dropout(const LabelDropoutArguments& arguments, const int64_t* key, Stream stream);

// The GPU architectures that were compiled, such as 80 and 90; the CUDA runtime's version, such as 13000; and the
// newest that the installed driver can run, 0 without a driver.
std::vector<int> architectures();
int runtime_version();
int driver_version();

}  // namespace labeldrop::cuda
