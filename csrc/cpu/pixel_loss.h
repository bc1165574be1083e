// What every loss that is a sum over pixels does once a call on the CPU, around the kernel.
#pragma once

#include "operators.h"

namespace labeldrop {

// The divisor, where it is asked for, then the kernel, then the reduced loss. Returns what the kernel does.
int64_t run_pixel_loss(const PixelLossArguments& arguments, int threads,
                       int64_t (*kernel)(const CpuPixelLossArguments&));

}  // namespace labeldrop
