// Run-time choice of the instruction set. Every operator's file is compiled once per set, in a namespace of that name.
#include <new>

#include "operators.h"

// The losses that are sums over pixels, all with the same arguments.
#define LABELDROP_PIXEL_LOSSES(apply) \
  apply(set_cross_entropy) apply(sigmoid_focal) apply(label_flip) apply(predictive_variance)

#define LABELDROP_DECLARE(name) int64_t name(const CpuPixelLossArguments&);
#define LABELDROP_OPERATORS                                          \
  LABELDROP_PIXEL_LOSSES(LABELDROP_DECLARE)                          \
  double sum_weights(const WeightArguments&, int);                   \
  int64_t dice_sums(const DiceSumsForwardArguments&, int);           \
  int64_t dice_sums_backward(const DiceSumsBackwardArguments&, int); \
  int64_t drop_labels(const DropLabelsArguments&);                   \
  void label_dropout(const LabelDropoutArguments&);                  \
  void normals(const NormalsArguments&);

namespace labeldrop {

namespace baseline {
LABELDROP_OPERATORS
}
#ifdef LABELDROP_X86
namespace avx2 {
LABELDROP_OPERATORS
}
namespace avx512 {
LABELDROP_OPERATORS
}
#define LABELDROP_DISPATCH(call) \
  (current_isa() == Isa::avx512 ? avx512::call : current_isa() == Isa::avx2 ? avx2::call : baseline::call)
#else
#define LABELDROP_DISPATCH(call) baseline::call
#endif

namespace {

Isa best_isa() {
#ifdef LABELDROP_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return Isa::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::baseline;
}

Isa& chosen_isa() {
  static Isa isa = best_isa();
  return isa;
}

int64_t checked(int64_t result) {
  if (result == kOutOfMemory) throw std::bad_alloc();
  return result;
}

}  // namespace

Isa current_isa() { return chosen_isa(); }

bool select_isa(Isa isa) {
  if (static_cast<int>(isa) < 0 || static_cast<int>(isa) > static_cast<int>(best_isa())) return false;
  chosen_isa() = isa;
  return true;
}

#define LABELDROP_FORWARD(name) \
  int64_t name(const CpuPixelLossArguments& a) { return checked(LABELDROP_DISPATCH(name(a))); }
LABELDROP_PIXEL_LOSSES(LABELDROP_FORWARD)

double sum_weights(const WeightArguments& a, int threads) { return LABELDROP_DISPATCH(sum_weights(a, threads)); }

int64_t dice_sums(const DiceSumsForwardArguments& a, int threads) {
  return checked(LABELDROP_DISPATCH(dice_sums(a, threads)));
}

int64_t dice_sums_backward(const DiceSumsBackwardArguments& a, int threads) {
  return checked(LABELDROP_DISPATCH(dice_sums_backward(a, threads)));
}

void normals(const NormalsArguments& a) { LABELDROP_DISPATCH(normals(a)); }

int64_t drop_labels(const DropLabelsArguments& a) { return LABELDROP_DISPATCH(drop_labels(a)); }

void label_dropout(const LabelDropoutArguments& a) { LABELDROP_DISPATCH(label_dropout(a)); }

}  // namespace labeldrop
