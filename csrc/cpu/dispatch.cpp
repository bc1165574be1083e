// Run-time choice of the instruction set. Every operator's file is compiled once per set, in a namespace of that name.
#include <new>
#ifdef LABELDROP_X86
#include <cpuid.h>
#endif

#include "operators.h"
#include "pixel_loss.h"

// The losses that are sums over pixels, all with the same arguments.
#define LABELDROP_PIXEL_LOSSES(apply) \
  apply(set_cross_entropy) apply(sigmoid_focal) apply(label_flip) apply(predictive_variance)

#define LABELDROP_DECLARE(name) int64_t name(const CpuPixelLossArguments&);
#define LABELDROP_OPERATORS                                          \
  LABELDROP_PIXEL_LOSSES(LABELDROP_DECLARE)                          \
  double sum_weights(const WeightArguments&, int);                   \
  int64_t dice_sums(const DiceSumsForwardArguments&, int);           \
  int64_t dice_sums_backward(const DiceSumsBackwardArguments&, int); \
  int64_t drop_labels(const DropLabelsArguments&, int);              \
  void label_dropout(const LabelDropoutArguments&, uint64_t);        \
  void normals(const NormalsArguments&);                             \
  void tiles(const TilesArguments&);

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
#define LABELDROP_DISPATCH(isa, call) \
  (isa == Isa::avx512 ? avx512::call : isa == Isa::avx2 ? avx2::call : baseline::call)
#else
#define LABELDROP_DISPATCH(isa, call) baseline::call
#endif

namespace {

#ifdef LABELDROP_X86
// Asked of the processor itself: the compilers' own question (__builtin_cpu_supports) does not link on Windows.
struct Processor {
  Processor() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return;
    unsigned state = 0, upper = 0;  // the registers that the operating system saves
    __asm__("xgetbv" : "=a"(state), "=d"(upper) : "c"(0));
    const bool used_by_avx2 = (c & bit_FMA) && (c & bit_F16C);  // by what is compiled for it
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    constexpr unsigned kAvx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    avx2 = (state & 0x06) == 0x06 && used_by_avx2 && (b & bit_AVX2);
    avx512 = avx2 && (state & 0xe6) == 0xe6 && (b & kAvx512) == kAvx512;
  }
  bool avx2 = false, avx512 = false;
};
#endif

Isa best_isa() {
#ifdef LABELDROP_X86
  static const Processor processor;
  if (processor.avx512) return Isa::avx512;
  if (processor.avx2) return Isa::avx2;
#endif
  return Isa::baseline;
}

Isa& chosen_isa() {
  static Isa isa = best_isa();
  return isa;
}

// Doubles have code in the baseline alone.
[[maybe_unused]] Isa isa_for(Float logits) { return logits == Float::f64 ? Isa::baseline : chosen_isa(); }

int64_t checked(int64_t result) {
  if (result == kOutOfMemory) throw std::bad_alloc();
  return result;
}

// Threads that are worth waking, at tens of microseconds each: one for every so many elements (torch: 32768).
int worth_waking(int threads, int64_t elements) {
  constexpr int64_t kElements = 16384;
  const int64_t most = (elements + kElements - 1) / kElements;
  return most < 1 ? 1 : most < threads ? static_cast<int>(most) : threads;
}
template <class Arguments>
int threads_for(const Arguments& a, int threads) {
  return worth_waking(threads, a.samples * a.channels * a.pixels);
}

}  // namespace

Isa current_isa() { return chosen_isa(); }

bool select_isa(Isa isa) {
  if (static_cast<int>(isa) < 0 || static_cast<int>(isa) > static_cast<int>(best_isa())) return false;
  chosen_isa() = isa;
  return true;
}

#define LABELDROP_FORWARD(name)                                                                                    \
  int64_t name(const PixelLossArguments& arguments, int threads) {                                                 \
    return checked(run_pixel_loss(arguments, threads_for(arguments, threads), [](const CpuPixelLossArguments& a) { \
      return LABELDROP_DISPATCH(isa_for(a.logits_type), name(a));                                                  \
    }));                                                                                                           \
  }
LABELDROP_PIXEL_LOSSES(LABELDROP_FORWARD)

double sum_weights(const WeightArguments& a, int threads) {
  return LABELDROP_DISPATCH(current_isa(), sum_weights(a, worth_waking(threads, a.samples * a.pixels)));
}

int64_t dice_sums(const DiceSumsForwardArguments& a, int threads) {
  return checked(LABELDROP_DISPATCH(isa_for(a.logits_type), dice_sums(a, threads_for(a, threads))));
}

int64_t dice_sums_backward(const DiceSumsBackwardArguments& a, int threads) {
  return checked(LABELDROP_DISPATCH(isa_for(a.logits_type), dice_sums_backward(a, threads_for(a, threads))));
}

void normals(const NormalsArguments& a) { LABELDROP_DISPATCH(current_isa(), normals(a)); }

void tiles(const TilesArguments& a) { LABELDROP_DISPATCH(isa_for(a.type), tiles(a)); }

int64_t drop_labels(const DropLabelsArguments& a, int threads) {
  return LABELDROP_DISPATCH(current_isa(), drop_labels(a, worth_waking(threads, a.samples * a.pixels)));
}

void label_dropout(const LabelDropoutArguments& a, uint64_t key) {
  LABELDROP_DISPATCH(current_isa(), label_dropout(a, key));
}

}  // namespace labeldrop
