// The CUDA operators: device pointers, sizes, codes and a stream; nothing of torch, nothing that waits for the device.
#pragma once

#include <cstdint>

#include "../types.h"

namespace labeldrop::cuda {

using Stream = void*;  // a cudaStream_t

struct DropLabelsArguments {
  const void* target;  // [N, S] contiguous
  void* out;           // [N, S]
  Integer type;
  const uint8_t* annotated;         // [N, L] 0 or 1
  int64_t samples, pixels, labels;  // N, S, L
  int64_t ignore_index;
};

// A value that is no label is copied as it is: the loss that reads the result is the one to complain.
// Throws std::runtime_error if the launch fails.
void drop_labels(const DropLabelsArguments& arguments, Stream stream);

}  // namespace labeldrop::cuda
