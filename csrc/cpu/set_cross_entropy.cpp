// Set cross-entropy on the CPU; compiled once per instruction set (LABELDROP_ISA).
//
// Pixels go through in blocks that stay in cache: labels -> bit masks, logits -> scratch and the maxima of both parts,
// exponentials and their sums, loss, gradient. Every loop runs over the pixels of the block, so it vectorises for any K
// and any element type. The sum over pixels is kept per block and added up in a fixed order by the caller, so the
// loss depends neither on the number of threads nor on their timing.
#include <omp.h>

#include <cstdlib>

#include "../math/set_cross_entropy.h"
#include "block_io.h"
#include "operators.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

constexpr int kLanes = 16;  // partial sums of the loss, so that adding up vectorises

template <class Real>
class Scratch {
 public:
  Scratch(int64_t classes, int64_t block) : pitch(block + kLanes), words((classes + 31) / 32) {
    const size_t reals = static_cast<size_t>((classes + 6) * pitch);
    const size_t bytes = reals * sizeof(Real) + static_cast<size_t>(pitch) * (2 * words * sizeof(uint32_t) + 8);
    memory_ = aligned_alloc(64, (bytes + 127) / 64 * 64);
    logits = static_cast<Real*>(memory_);
    max_candidate = logits + classes * pitch;
    max_other = max_candidate + pitch;
    sum_candidate = max_other + pitch;
    sum_other = sum_candidate + pitch;
    loss = sum_other + pitch;
    upstream = loss + pitch;
    label = reinterpret_cast<int64_t*>(upstream + pitch);
    candidates = reinterpret_cast<uint32_t*>(label + pitch);
    active = candidates + words * pitch;
  }
  ~Scratch() { free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  bool allocated() const { return memory_ != nullptr; }

  const int64_t pitch, words;
  Real *logits;  // [K, pitch]: logits, then exponentials, then gradient
  Real *max_candidate, *max_other, *sum_candidate, *sum_other, *loss, *upstream;
  int64_t* label;
  uint32_t *candidates, *active;  // [W, pitch]

 private:
  void* memory_;
};

// Labels to bit masks; a pixel that does not count has no active class. Returns the first invalid pixel or -1.
template <class Real>
int load_masks(const SetCrossEntropyArguments& a, Scratch<Real>& s, int64_t sample, int64_t first, int n,
               int64_t& count) {
  load_labels(s.label, a.target, a.target_type, sample * a.pixels + first, n);
  const int64_t table = sample * a.labels * s.words;
  int invalid = -1;
  count = 0;
  for (int i = 0; i < n; ++i) {
    const int64_t label = s.label[i];
    const bool counted = label != a.ignore_index;
    const bool valid = label >= 0 && label < a.labels;
    if (counted && !valid && invalid < 0) invalid = i;
    count += counted;
    for (int64_t w = 0; w < s.words; ++w) {
      const int64_t row = table + (counted && valid ? label : 0) * s.words + w;
      s.candidates[w * s.pitch + i] = counted ? a.candidates[row] : 0;
      s.active[w * s.pitch + i] = counted ? a.active[row] : 0;
    }
  }
  return invalid;
}

template <class Real, class Storage>
void load_logits_and_maxima(const SetCrossEntropyArguments& a, Scratch<Real>& s, const Storage* from, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i) s.max_candidate[i] = s.max_other[i] = -infinity<Real>();
  for (int64_t k = 0; k < a.classes; ++k) {
    Real* __restrict z = s.logits + k * s.pitch;
    load_class(z, from + k * a.class_stride, a.pixel_stride, n);
    const uint32_t* __restrict candidates = s.candidates + k / 32 * s.pitch;
    const uint32_t* __restrict active = s.active + k / 32 * s.pitch;
    Real* __restrict max_candidate = s.max_candidate;
    Real* __restrict max_other = s.max_other;
    const uint32_t bit = 1u << (k % 32);
#pragma omp simd
    for (int i = 0; i < n; ++i) {
      const Real candidate = candidates[i] & bit ? z[i] : -infinity<Real>();
      const Real other = active[i] & ~candidates[i] & bit ? z[i] : -infinity<Real>();
      max_candidate[i] = candidate > max_candidate[i] ? candidate : max_candidate[i];
      max_other[i] = other > max_other[i] ? other : max_other[i];
    }
  }
}

template <class Real>
void exponentials_and_sums(const SetCrossEntropyArguments& a, Scratch<Real>& s, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i) s.sum_candidate[i] = s.sum_other[i] = 0;
  for (int64_t k = 0; k < a.classes; ++k) {
    Real* __restrict z = s.logits + k * s.pitch;
    const uint32_t* __restrict candidates = s.candidates + k / 32 * s.pitch;
    const uint32_t* __restrict active = s.active + k / 32 * s.pitch;
    const Real* __restrict max_candidate = s.max_candidate;
    const Real* __restrict max_other = s.max_other;
    Real* __restrict sum_candidate = s.sum_candidate;
    Real* __restrict sum_other = s.sum_other;
    const uint32_t bit = 1u << (k % 32);
#pragma omp simd
    for (int i = 0; i < n; ++i) {
      const bool candidate = candidates[i] & bit;
      const bool other = active[i] & ~candidates[i] & bit;
      const Real e = set_exponential(z[i], candidate ? max_candidate[i] : max_other[i]);
      z[i] = e;
      sum_candidate[i] += candidate ? e : Real(0);
      sum_other[i] += other ? e : Real(0);
    }
  }
}

// Loss of each pixel; the sums become the factors of the gradient. Returns the block's loss.
template <class Real>
double losses_and_scales(const SetCrossEntropyArguments& a, Scratch<Real>& s, int n) {
  const Real scale = static_cast<Real>(a.scale);
  double lanes[kLanes] = {};
#pragma omp simd
  for (int i = 0; i < n; ++i) {
    const SetCrossEntropyPixel<Real> pixel =
        set_cross_entropy_pixel(s.max_candidate[i], s.sum_candidate[i], s.max_other[i], s.sum_other[i]);
    const Real factor = scale * s.upstream[i];
    s.sum_candidate[i] = pixel.candidate_scale * factor;
    s.sum_other[i] = pixel.other_scale * factor;
    s.loss[i] = s.label[i] == a.ignore_index ? Real(0) : pixel.loss;
  }
  for (int i = n; i % kLanes != 0; ++i) s.loss[i] = 0;
  for (int i = 0; i < n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += static_cast<double>(s.loss[i + j]);
  }
  double sum = 0;
  for (double lane : lanes) sum += lane;
  return sum;
}

template <class Real, class Storage>
void store_gradient(const SetCrossEntropyArguments& a, Scratch<Real>& s, Storage* to, int n) {
  for (int64_t k = 0; k < a.classes; ++k) {
    Real* __restrict z = s.logits + k * s.pitch;
    const uint32_t* __restrict candidates = s.candidates + k / 32 * s.pitch;
    const uint32_t* __restrict active = s.active + k / 32 * s.pitch;
    const Real* __restrict candidate_scale = s.sum_candidate;
    const Real* __restrict other_scale = s.sum_other;
    const uint32_t bit = 1u << (k % 32);
#pragma omp simd
    for (int i = 0; i < n; ++i) {
      // chosen, not multiplied by 0: what is inactive may hold a NaN
      const Real gradient = z[i] * (candidates[i] & bit ? candidate_scale[i] : other_scale[i]);
      z[i] = active[i] & bit ? gradient : Real(0);
    }
    store_class(to + k * a.class_stride, z, a.pixel_stride, n);
  }
}

// The upstream gradient of n pixels; all ones if there is none, so that the factor is `scale` alone.
template <class Real>
void load_upstream(const SetCrossEntropyArguments& a, Scratch<Real>& s, int64_t first, int n) {
  const Real* upstream = static_cast<const Real*>(a.upstream);
#pragma omp simd
  for (int i = 0; i < n; ++i) s.upstream[i] = upstream ? upstream[first + i] : Real(1);
}

// One block; returns the flat index of its first invalid pixel, or -1.
template <class Real, class Storage>
int64_t process_block(const SetCrossEntropyArguments& a, Scratch<Real>& s, int64_t block_index, int64_t block) {
  const int64_t blocks_per_sample = (a.pixels + block - 1) / block;
  const int64_t sample = block_index / blocks_per_sample;
  const int64_t first = block_index % blocks_per_sample * block;
  const int n = static_cast<int>(a.pixels - first < block ? a.pixels - first : block);
  const int64_t pixel = sample * a.pixels + first;
  const int64_t element = sample * a.classes * a.pixels + first * a.pixel_stride;

  const int invalid = load_masks(a, s, sample, first, n, a.block_count[block_index]);
  load_logits_and_maxima(a, s, static_cast<const Storage*>(a.logits) + element, n);
  exponentials_and_sums(a, s, n);
  load_upstream(a, s, pixel, n);
  a.block_loss[block_index] = losses_and_scales(a, s, n);
  if (a.loss != nullptr) {
    Real* loss = static_cast<Real*>(a.loss) + pixel;
    for (int i = 0; i < n; ++i) loss[i] = s.loss[i];
  }
  if (a.gradient != nullptr) store_gradient(a, s, static_cast<Storage*>(a.gradient) + element, n);
  return invalid < 0 ? -1 : pixel + invalid;
}

template <class Real, class Storage>
int64_t run(const SetCrossEntropyArguments& a) {
  const int64_t block = set_cross_entropy_block(a.classes);
  const int64_t blocks = a.samples * ((a.pixels + block - 1) / block);
  int64_t first_invalid = INT64_MAX;
  bool out_of_memory = false;
#pragma omp parallel num_threads(a.threads) reduction(min : first_invalid) reduction(|| : out_of_memory)
  {
    Scratch<Real> scratch(a.classes, block);
    out_of_memory = !scratch.allocated();
    const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
    // contiguous shares, so that each thread reads and writes memory in order
    for (int64_t b = blocks * thread / threads; b < blocks * (thread + 1) / threads && !out_of_memory; ++b) {
      const int64_t invalid = process_block<Real, Storage>(a, scratch, b, block);
      if (invalid >= 0 && invalid < first_invalid) first_invalid = invalid;
    }
  }
  if (out_of_memory) return kOutOfMemory;
  return first_invalid == INT64_MAX ? kValid : first_invalid;
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
