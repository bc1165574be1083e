#include "pixel_loss.h"

#include <vector>

namespace labeldrop {
namespace {

double real(const void* from, const PixelLossArguments& a) {
  return a.logits_type == Float::f64 ? *static_cast<const double*>(from) : *static_cast<const float*>(from);
}

}  // namespace

int64_t run_pixel_loss(const PixelLossArguments& given, int threads, int64_t (*kernel)(const CpuPixelLossArguments&)) {
  CpuPixelLossArguments a{given, 1, nullptr, threads};
  if (a.mean) {
    const double sum = sum_weights(weights_of(a), a.threads);
    *a.divisor = sum == 0 ? 1 : sum;
  }
  if (!a.upstream_per_pixel) a.upstream = nullptr;
  const bool one_factor = given.upstream != nullptr && !given.upstream_per_pixel;
  a.scale = (one_factor ? real(given.upstream, a) : 1) / *a.divisor;
  std::vector<double> block_loss(pixel_blocks(a.samples, a.channels, a.pixels));
  a.block_loss = block_loss.data();
  const int64_t invalid = kernel(a);
  double sum = 0;
  for (double block : block_loss) sum += block;
  sum /= *a.divisor;
  if (a.result != nullptr && a.logits_type == Float::f64) *static_cast<double*>(a.result) = sum;
  if (a.result != nullptr && a.logits_type != Float::f64) *static_cast<float*>(a.result) = static_cast<float>(sum);
  return invalid;
}

}  // namespace labeldrop
