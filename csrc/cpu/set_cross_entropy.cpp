// Set cross-entropy on the CPU; compiled once per instruction set (LABELDROP_ISA).
//
// Pixels go through in blocks that stay in cache: labels -> bit masks; then, a vector of pixels at a time, maxima,
// exponentials and sums, loss, gradient. Vectors run over pixels, so any K will do. Contiguous floats are read and
// written where they are; other element types and channels-last go through scratch. The sum over pixels is kept per
// block and added up in a fixed order by the caller, so the loss depends neither on the number of threads nor on their
// timing.
#include "../math/set_cross_entropy.h"

#include <omp.h>

#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "block_io.h"
#include "lanes.h"
#include "operators.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

constexpr int kPadding = 64;  // elements past a block's end that whole vectors may touch
// Classes read and written side by side in memory. More than this many address streams at once outrun the TLB and the
// prefetchers, and copying class by class through scratch is faster (measured: K = 32 takes 1.3 times as long).
constexpr int64_t kMostStreams = 16;

// What one thread works in. Rows are `pitch` elements, one per pixel of the block.
template <class Real>
class Scratch {
 public:
  Scratch(int64_t classes, int64_t block) : pitch(block + kPadding), words((classes + 31) / 32) {
    const int64_t bytes = pitch * ((classes + 2) * sizeof(Real) + (2 * words + 2) * sizeof(int32_t));
    memory_ = aligned_alloc(64, bytes);  // rows start at cache lines: the pitch is a multiple of 16 elements
    if (memory_ == nullptr) return;
    memset(memory_, 0, bytes);
    values = static_cast<Real*>(memory_);
    loss = values + classes * pitch;
    upstream = loss + pitch;
    candidates = reinterpret_cast<int32_t*>(upstream + pitch);
    others = candidates + words * pitch;
    row = others + words * pitch;
    counted = row + pitch;
  }
  ~Scratch() { free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  bool allocated() const { return memory_ != nullptr; }

  const int64_t pitch, words;
  Real* values = nullptr;  // [K, pitch]: exponentials; before and after them logits and gradient that pass through
  Real *loss = nullptr, *upstream = nullptr;
  int32_t *candidates = nullptr, *others = nullptr;  // [W, pitch] bits: candidates; active and no candidate
  int32_t *row = nullptr, *counted = nullptr;        // the pixel's row of the tables; 1 where the pixel counts

 private:
  void* memory_ = nullptr;
};

// Labels to bit masks; a pixel that does not count has no active class. Returns the first invalid pixel or -1.
template <class Real>
int64_t load_masks(const SetCrossEntropyArguments& a, const Scratch<Real>& s, int64_t sample, int64_t first, int n,
                   int64_t& count) {
  bool valid = true;
  const int64_t invalid = with_integers(a.target, a.target_type, [&](auto* target) -> int64_t {
    target += sample * a.pixels + first;
    count = load_labels(s.row, s.counted, target, n, a.labels, a.ignore_index, valid);
    return valid ? -1 : first_invalid(target, n, a.labels, a.ignore_index);
  });
  for (int64_t w = 0; w < s.words; ++w) {
    const uint32_t* __restrict candidates = a.candidates + sample * a.labels * s.words + w;
    const uint32_t* __restrict active = a.active + sample * a.labels * s.words + w;
    int32_t* __restrict candidate_bits = s.candidates + w * s.pitch;
    int32_t* __restrict other_bits = s.others + w * s.pitch;
    const int32_t* __restrict row = s.row;
    const int32_t* __restrict counted = s.counted;
    const int32_t words = static_cast<int32_t>(s.words);
#pragma omp simd
    for (int i = 0; i < n; ++i) {
      const uint32_t all = static_cast<uint32_t>(-counted[i]);
      const uint32_t candidate = candidates[row[i] * words];
      candidate_bits[i] = static_cast<int32_t>(candidate & all);
      other_bits[i] = static_cast<int32_t>(active[row[i] * words] & ~candidate & all);
    }
  }
  return invalid;
}

template <class V>
struct Parts {
  V candidates, others;
};

// Where a block's classes lie: class k of pixel i is at start[k * pitch + i].
template <class Real>
struct Rows {
  Real* start;
  int64_t pitch;
};

// One step of a vector of pixels over all classes: step(k, is_candidate, is_other).
template <class Real, class Step>
LABELDROP_INLINE void for_each_class(const Scratch<Real>& s, int64_t classes, int pixel, Step step) {
  using Bits = typename Lanes<Real>::Bits;
  for (int64_t w = 0; w < s.words; ++w) {
    const Bits candidates = load_lanes<Bits>(s.candidates + w * s.pitch + pixel);
    const Bits others = load_lanes<Bits>(s.others + w * s.pitch + pixel);
    const int64_t end = classes < 32 * (w + 1) ? classes : 32 * (w + 1);
    for (int64_t k = 32 * w; k < end; ++k) {
      // the class's bit as the sign: what vector selection looks at
      const int shift = static_cast<int>(31 - k % 32);
      step(k, (candidates << shift) < 0, (others << shift) < 0);
    }
  }
}

template <class Real>
LABELDROP_INLINE Parts<typename Lanes<Real>::V> maxima(const Scratch<Real>& s, Rows<const Real> logits, int64_t classes,
                                                       int pixel) {
  using V = typename Lanes<Real>::V;
  const V lowest = V{} - infinity<Real>();
  Parts<V> max{lowest, lowest};
  for_each_class(s, classes, pixel, [&](int64_t k, auto is_candidate, auto is_other) __attribute__((always_inline)) {
    const V z = finite_from_below(load_lanes<V>(logits.start + k * logits.pitch + pixel));
    const V candidate = is_candidate ? z : lowest;
    const V other = is_other ? z : lowest;
    max.candidates = candidate > max.candidates ? candidate : max.candidates;
    max.others = other > max.others ? other : max.others;
  });
  return max;
}

// Stores each class's exponential in scratch and returns the sums.
template <class Real, class V>
LABELDROP_INLINE Parts<V> exponentials(const Scratch<Real>& s, Rows<const Real> logits, int64_t classes, int pixel,
                                       Parts<V> max) {
  const V zero{};
  Parts<V> sum{zero, zero};
  for_each_class(s, classes, pixel, [&](int64_t k, auto is_candidate, auto is_other) __attribute__((always_inline)) {
    const V z = finite_from_below(load_lanes<V>(logits.start + k * logits.pitch + pixel));
    const V e = exp_nonpositive(z - (is_candidate ? max.candidates : max.others));
    store_lanes(s.values + k * s.pitch + pixel, e);
    sum.candidates += is_candidate ? e : zero;
    sum.others += is_other ? e : zero;
  });
  return sum;
}

// The gradient from the exponentials.
template <class Real, class V>
LABELDROP_INLINE void gradients(const Scratch<Real>& s, Rows<Real> gradient, int64_t classes, int pixel,
                                Parts<V> scale) {
  const V zero{};
  for_each_class(s, classes, pixel, [&](int64_t k, auto is_candidate, auto is_other) __attribute__((always_inline)) {
    // chosen, not multiplied by 0: the exponential of what is inactive may be NaN
    const V product = load_lanes<V>(s.values + k * s.pitch + pixel) * (is_candidate ? scale.candidates : scale.others);
    store_lanes(gradient.start + k * gradient.pitch + pixel, is_candidate | is_other ? product : zero);
  });
}

// Loss of every pixel of the block, and its gradient if there is a place for it. Returns the sum of the loss.
template <class Real, class Prefetch>
double compute(const SetCrossEntropyArguments& a, const Scratch<Real>& s, Rows<const Real> logits, Rows<Real> gradient,
               int n, const Prefetch& prefetch) {
  using V = typename Lanes<Real>::V;
  const Real scale = static_cast<Real>(a.scale);
  for (int i = 0; i < n; i += Lanes<Real>::count) {
    prefetch(i, Lanes<Real>::count);
    const Parts<V> max = maxima(s, logits, a.classes, i);
    const Parts<V> sum = exponentials(s, logits, a.classes, i, max);
    const auto pixel = set_cross_entropy_pixel(max.candidates, sum.candidates, max.others, sum.others);
    store_lanes(s.loss + i, pixel.loss);
    if (gradient.start != nullptr) {
      const V factor = scale * load_lanes<V>(s.upstream + i);
      gradients(s, gradient, a.classes, i, Parts<V>{pixel.candidate_scale * factor, pixel.other_scale * factor});
    }
  }
  constexpr int kSums = 8;  // independent sums, so that adding up vectorises
  double sums[kSums] = {};
  for (int i = 0; i < n; ++i) s.loss[i] = s.counted[i] ? s.loss[i] : Real(0);
  for (int i = n; i % kSums != 0; ++i) s.loss[i] = 0;
  for (int i = 0; i < n; i += kSums) {
    for (int j = 0; j < kSums; ++j) sums[j] += static_cast<double>(s.loss[i + j]);
  }
  double sum = 0;
  for (double part : sums) sum += part;
  return sum;
}

// The upstream gradient of n pixels; all ones if there is none, so that the factor is `scale` alone.
template <class Real>
void load_upstream(const SetCrossEntropyArguments& a, Scratch<Real>& s, int64_t first, int n) {
  const Real* upstream = static_cast<const Real*>(a.upstream);
  for (int i = 0; i < n; ++i) s.upstream[i] = upstream ? upstream[first + i] : Real(1);
}

// A block's place in the tensors.
struct Block {
  Block(const SetCrossEntropyArguments& a, int64_t index, int64_t size) {
    const int64_t blocks_per_sample = (a.pixels + size - 1) / size;
    sample = index / blocks_per_sample;
    first = index % blocks_per_sample * size;
    count = static_cast<int>(a.pixels - first < size ? a.pixels - first : size);
    pixel = sample * a.pixels + first;
    element = sample * a.classes * a.pixels + first * a.pixel_stride;
  }

  int64_t sample, first;   // first pixel within the sample
  int count;               // pixels
  int64_t pixel, element;  // offsets in [N, S] and of class 0 in [N, K, S]
};

// Fetches the next block's logits while this one is computed, so that memory and arithmetic overlap.
template <class Storage>
class Prefetch {
 public:
  Prefetch(const SetCrossEntropyArguments& a, const Block& next)
      : logits_(static_cast<const Storage*>(a.logits) + next.element), a_(a) {}

  // the part that a vector of `lanes` pixels from `pixel` takes
  LABELDROP_INLINE void operator()(int pixel, int lanes) const {
    if (a_.pixel_stride == 1) {
      for (int64_t k = 0; k < a_.classes; ++k) __builtin_prefetch(logits_ + k * a_.class_stride + pixel);
    } else {
      const char* from = reinterpret_cast<const char*>(logits_ + pixel * a_.pixel_stride);
      const int64_t bytes = lanes * a_.pixel_stride * static_cast<int64_t>(sizeof(Storage));
      for (int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(from + offset);
    }
  }

 private:
  const Storage* logits_;
  const SetCrossEntropyArguments& a_;
};

template <class Real, class Storage>
double compute_in_place_or_scratch(const SetCrossEntropyArguments& a, const Scratch<Real>& s, const Block& block,
                                   const Prefetch<Storage>& prefetch) {
  const Storage* logits = static_cast<const Storage*>(a.logits) + block.element;
  Storage* gradient = a.gradient ? static_cast<Storage*>(a.gradient) + block.element : nullptr;
  if constexpr (std::is_same_v<Real, Storage>) {
    if (a.pixel_stride == 1 && a.classes <= kMostStreams && block.count % Lanes<Real>::count == 0) {
      return compute<Real>(a, s, {logits, a.class_stride}, {gradient, a.class_stride}, block.count, prefetch);
    }
  }
  for (int64_t k = 0; k < a.classes; ++k) {
    load_class(s.values + k * s.pitch, logits + k * a.class_stride, a.pixel_stride, block.count);
  }
  const double loss =
      compute<Real>(a, s, {s.values, s.pitch}, {gradient ? s.values : nullptr, s.pitch}, block.count, prefetch);
  for (int64_t k = 0; k < a.classes && gradient != nullptr; ++k) {
    store_class(gradient + k * a.class_stride, s.values + k * s.pitch, a.pixel_stride, block.count);
  }
  return loss;
}

// One block; returns the flat index of its first invalid pixel, or -1.
template <class Real, class Storage>
int64_t process_block(const SetCrossEntropyArguments& a, Scratch<Real>& s, int64_t index, const Block& block,
                      const Prefetch<Storage>& prefetch) {
  const int64_t invalid = load_masks(a, s, block.sample, block.first, block.count, a.block_count[index]);
  if (a.gradient != nullptr) load_upstream(a, s, block.pixel, block.count);
  a.block_loss[index] = compute_in_place_or_scratch<Real, Storage>(a, s, block, prefetch);
  if (a.loss != nullptr) memcpy(static_cast<Real*>(a.loss) + block.pixel, s.loss, block.count * sizeof(Real));
  return invalid < 0 ? -1 : block.pixel + invalid;
}

template <class Real, class Storage>
int64_t run(const SetCrossEntropyArguments& a) {
  const int64_t size = set_cross_entropy_block(a.classes);
  const int64_t blocks = set_cross_entropy_blocks(a.samples, a.classes, a.pixels);
  int64_t lowest = INT64_MAX;
  bool out_of_memory = false;
#pragma omp parallel num_threads(a.threads) reduction(min : lowest) reduction(|| : out_of_memory)
  {
    Scratch<Real> scratch(a.classes, size);
    out_of_memory = !scratch.allocated();
    // contiguous shares, so that each thread reads and writes memory in order
    const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
    const int64_t end = out_of_memory ? 0 : blocks * (thread + 1) / threads;
    for (int64_t b = blocks * thread / threads; b < end; ++b) {
      const Prefetch<Storage> prefetch(a, Block(a, b + 1 < end ? b + 1 : b, size));
      const int64_t invalid = process_block<Real, Storage>(a, scratch, b, Block(a, b, size), prefetch);
      if (invalid >= 0 && invalid < lowest) lowest = invalid;
    }
  }
  if (out_of_memory) return kOutOfMemory;
  return lowest == INT64_MAX ? kValid : lowest;
}

}  // namespace

int64_t set_cross_entropy(const SetCrossEntropyArguments& a) {
  switch (a.logits_type) {
    case Float::f32: return run<float, float>(a);
    case Float::bf16: return run<float, BFloat16>(a);
    case Float::f16: return run<float, Float16>(a);
    case Float::f64: return run<double, double>(a);
  }
  return kValid;
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
