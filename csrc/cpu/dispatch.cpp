// Run-time choice of the instruction set. Every operator's file is compiled once per set, in a namespace of that name.
#include <new>

#include "operators.h"

#define LABELDROP_OPERATORS                                   \
  int64_t set_cross_entropy(const SetCrossEntropyArguments&); \
  int64_t drop_labels(const DropLabelsArguments&);            \
  int64_t count_pixels(const void*, Integer, int64_t, int64_t, int);

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

int64_t set_cross_entropy(const SetCrossEntropyArguments& a) {
  return checked(LABELDROP_DISPATCH(set_cross_entropy(a)));
}

int64_t drop_labels(const DropLabelsArguments& a) { return LABELDROP_DISPATCH(drop_labels(a)); }

int64_t count_pixels(const void* target, Integer type, int64_t size, int64_t ignore_index, int threads) {
  return LABELDROP_DISPATCH(count_pixels(target, type, size, ignore_index, threads));
}

}  // namespace labeldrop
