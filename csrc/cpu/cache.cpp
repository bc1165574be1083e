#include "cache.h"

#ifdef LABELDROP_X86
#include <cpuid.h>
#endif

namespace labeldrop {
namespace {

// Of one leaf that describes caches, in the same form with Intel and AMD; 0 without such a leaf. The C library's answer
// (sysconf) is that of all cores together on some processors, of which one core reaches an eighth.
[[maybe_unused]] int64_t largest_cache([[maybe_unused]] unsigned leaf) {
  int64_t largest = 0;
#ifdef LABELDROP_X86
  unsigned a = 0, b = 0, c = 0, d = 0;
  for (unsigned i = 0; i < 8 && __get_cpuid_count(leaf, i, &a, &b, &c, &d) && (a & 31) != 0; ++i) {
    const int64_t ways = (b >> 22) + 1, partitions = (b >> 12 & 0x3ff) + 1, line = (b & 0xfff) + 1;
    const int64_t bytes = ways * partitions * line * (int64_t{c} + 1);
    largest = bytes > largest ? bytes : largest;
  }
#endif
  return largest;
}

}  // namespace

int64_t last_level_cache() {
  static const int64_t bytes = [] {
    constexpr unsigned kIntel = 4, kAmd = 0x8000001d;
    const int64_t intel = largest_cache(kIntel), found = intel > 0 ? intel : largest_cache(kAmd);
    return found > 0 ? found : int64_t{32} << 20;
  }();
  return bytes;
}

}  // namespace labeldrop
