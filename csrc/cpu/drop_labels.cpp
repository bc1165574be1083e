// Label dropout as a rewrite of the target: one read and one write per pixel. Compiled once per instruction set.
#include "block_io.h"
#include "operators.h"
#include "threads.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

constexpr int64_t kBlock = 4096;

// n pixels of one sample; returns whether all of them are labels or ignore_index.
template <class Value>
bool rewrite_by_bits(Value* __restrict out, const Value* __restrict target, int n, uint32_t kept, int64_t labels,
                     int64_t ignore_index) {
  int invalid = 0;
#pragma omp simd reduction(| : invalid)
  for (int i = 0; i < n; ++i) {
    const Value label = target[i];
    const bool ignored = static_cast<int64_t>(label) == ignore_index;
    const bool valid = static_cast<int64_t>(label) >= 0 && static_cast<int64_t>(label) < labels;
    const bool keep = kept >> (static_cast<uint32_t>(label) & 31u) & 1u;
    invalid |= !(ignored || valid);
    out[i] = ignored || keep ? label : Value(0);
  }
  return invalid == 0;
}

template <class Value>
bool rewrite_by_table(Value* __restrict out, const Value* __restrict target, int n, const uint8_t* annotated,
                      int64_t labels, int64_t ignore_index) {
  bool all_valid = true;
  for (int i = 0; i < n; ++i) {
    const int64_t label = static_cast<int64_t>(target[i]);
    const bool ignored = label == ignore_index;
    const bool valid = label >= 0 && label < labels;
    all_valid &= ignored || valid;
    out[i] = ignored || (valid && annotated[label]) ? target[i] : Value(0);
  }
  return all_valid;
}

template <class Value>
int64_t run(const DropLabelsArguments& a, const Value* target, int threads) {
  Value* out = static_cast<Value*>(a.out);
  const int64_t blocks_per_sample = (a.pixels + kBlock - 1) / kBlock;
  return share_out(a.samples * blocks_per_sample, threads, [&](int64_t begin, int64_t end) {
    int64_t lowest = kNothing;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t sample = b / blocks_per_sample;
      const int64_t offset = b % blocks_per_sample * kBlock;
      const int64_t first = sample * a.pixels + offset;
      const int n = static_cast<int>(a.pixels - offset < kBlock ? a.pixels - offset : kBlock);
      const uint8_t* annotated = a.annotated + sample * a.labels;
      bool valid;
      if (a.labels <= 32) {
        uint32_t kept = 0;
        for (int64_t l = 0; l < a.labels; ++l) kept |= static_cast<uint32_t>(annotated[l] != 0) << l;
        valid = rewrite_by_bits(out + first, target + first, n, kept, a.labels, a.ignore_index);
      } else {
        valid = rewrite_by_table(out + first, target + first, n, annotated, a.labels, a.ignore_index);
      }
      if (!valid) {
        const int64_t pixel = first + first_invalid(target + first, n, a.labels, a.ignore_index);
        if (pixel < lowest) lowest = pixel;
      }
    }
    return lowest;
  });
}

}  // namespace

int64_t drop_labels(const DropLabelsArguments& a, int threads) {
  return with_integers(a.target, a.target_type, [&](auto* target) { return run(a, target, threads); });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
