// The classes of a pixel split over the threads of a block, so that each has a few of them in registers however many
// there are; what the threads find out about their classes is joined through shared memory.
//
// A block of kBlock threads takes a tile of `lanes` times N pixels at a time: thread t has N of them, those of lane
// t % lanes, neighbours or not, and of their classes share t / lanes, at most MaxK neighbouring classes. Shares are
// alike but for the end, where some may have no class. So a thread knows its Share, loads those logits and forms, for
// each of its pixels, what it can say of them alone, such as the largest logit and the sum of exp(z - that) (MaxSums).
// Then
//
//     exchange.leave(found);                      // what this thread says of its N pixels
//     __syncthreads();
//     if (share.index < N) {                      // one thread a pixel: of its own ones, pixel share.index
//       const auto all = joined(exchange);        // maxima and sums of all shares: exp(z - joint maximum)
//       exchange.answer(...);                     // what all of the pixel's threads are to know
//     }
//     __syncthreads();                            // also where nobody reads the answer: leave() writes again
//     exchange.answer_of(i)                       // of this thread's pixel i
//
// exp(z - own maximum) becomes exp(z - joint maximum) by the factor exp(own - joint maximum), which goes into whatever
// the exponentials are multiplied by at the end. All threads go from tile to tile together, those without a pixel or a
// class as well.
#pragma once

#include "../math/elementary.h"
#include "register_pixels.cuh"

namespace labeldrop::cuda {

struct ClassSplit {
  int shift;    // lanes = 2^shift
  int classes;  // of a share

  LABELDROP_INLINE int lanes() const { return 1 << shift; }
  LABELDROP_INLINE int shares() const { return kBlock >> shift; }
};

// The most classes that can be split so that a share has no more than `most`.
constexpr int64_t most_split_classes(int most) { return static_cast<int64_t>(most) * kBlock; }

// Splits classes into shares of at most `most`, multiples of `step`, with N pixels a thread.
inline ClassSplit split_classes(const char* name, int64_t classes, int most, int step, int n) {
  if (classes > most_split_classes(most)) {
    throw std::runtime_error(std::string(name) + ": logits: " + std::to_string(classes) +
                             " classes, and a block takes " + "at most " + std::to_string(most_split_classes(most)) +
                             "; use the CPU or backend='reference'");
  }
  ClassSplit split{7, 0};
  static_assert(kBlock == 1 << 7, "lanes of a block with one share");
  // as many shares as pixels of a thread at least, so that there is a thread for each pixel of a tile
  while (split.shares() < n || split.shares() * most < classes) --split.shift;
  split.classes = static_cast<int>((classes + split.shares() * step - 1) / (split.shares() * step) * step);
  return split;
}

// What a thread has of its pixels' classes.
struct Share {
  __device__ __forceinline__ Share(const ClassSplit& split, int64_t classes)
      : lane(static_cast<int>(threadIdx.x) & (split.lanes() - 1)),
        index(static_cast<int>(threadIdx.x) >> split.shift),
        first(index * split.classes),
        count(static_cast<int>(classes) - first) {
    count = count < 0 ? 0 : count < split.classes ? count : split.classes;
  }

  // The bits of a row of the tables from the share's first class on: class first + k is bit k, for k < count <= 32.
  // Only for shares of some class.
  __device__ __forceinline__ uint32_t bits(const uint32_t* row) const {
    const int bit = first % 32;
    const uint64_t low = __ldg(row + first / 32);
    const uint64_t high = bit + count > 32 ? __ldg(row + first / 32 + 1) : 0;
    return static_cast<uint32_t>((high << 32 | low) >> bit);
  }

  __device__ __forceinline__ uint32_t every() const { return ~0u >> (32 - count); }  // those bits

  int lane, index, first, count;
};

// What threads tell each other, a struct Part; it takes bytes() of shared memory.
template <class Part, int N>
class Exchange {
 public:
  static LABELDROP_INLINE int64_t bytes(const ClassSplit& split) {
    return static_cast<int64_t>(sizeof(Part)) * N * (split.shares() + 1) * split.lanes();
  }

  __device__ __forceinline__ Exchange(const ClassSplit& split, const Share& share, unsigned char* shared)
      : parts_(reinterpret_cast<Part*>(shared) + share.lane),
        lanes_(split.lanes()),
        shares_(split.shares()),
        share_(share.index) {}

  __device__ __forceinline__ void leave(const Part (&parts)[N]) const {
#pragma unroll
    for (int i = 0; i < N; ++i) parts_[place(share_, i)] = parts[i];
  }
  // f(part) of each share, always in the same order, for the pixel that this thread joins.
  template <class Function>
  __device__ __forceinline__ void for_each_share(Function f) const {
    const Part* part = parts_ + place(0, share_);
#pragma unroll 4
    for (int share = 0; share < shares_; ++share, part += N * lanes_) f(*part);
  }
  __device__ __forceinline__ void answer(const Part& answer) const { parts_[place(shares_, share_)] = answer; }
  // The answer to this thread's pixel i.
  __device__ __forceinline__ const Part& answer_of(int i) const { return parts_[place(shares_, i)]; }

 private:
  __device__ __forceinline__ int place(int share, int i) const { return (share * N + i) * lanes_; }

  Part* parts_;
  int lanes_, shares_, share_;
};

// The largest logit of each of C parts of some classes, -inf if there is none, and the sum of exp(z - that), where
// -inf below -inf counts as 1.
template <class Real, int C>
struct alignas(2 * C * sizeof(Real) < 16 ? 2 * C * sizeof(Real) : 16) MaxSums {
  Real max[C], sum[C];
};

__device__ __forceinline__ float larger_number(float x, float y) { return fmaxf(x, y); }
__device__ __forceinline__ double larger_number(double x, double y) { return fmax(x, y); }
__device__ __forceinline__ float magnitude(float x) { return fabsf(x); }
__device__ __forceinline__ double magnitude(double x) { return fabs(x); }

// exp(own - joint), what exponentials below an own maximum are multiplied by to be below the joint one. 1 for two of
// -inf: parts that are -inf everywhere share their vanishing probability.
template <class Real>
__device__ __forceinline__ Real rescaling(Real own, Real joint) {
  return exp_nonpositive(own == joint ? Real(0) : own - joint);
}

// The same of all shares, for the pixel that this thread joins.
template <class Real, int C, int N>
__device__ __forceinline__ MaxSums<Real, C> joined(const Exchange<MaxSums<Real, C>, N>& exchange) {
  MaxSums<Real, C> all;
#pragma unroll
  for (int c = 0; c < C; ++c) {
    all.max[c] = -infinity<Real>();
    all.sum[c] = 0;
  }
  exchange.for_each_share([&](const MaxSums<Real, C>& part) {
#pragma unroll
    for (int c = 0; c < C; ++c) all.max[c] = larger_number(all.max[c], part.max[c]);
  });
  exchange.for_each_share([&](const MaxSums<Real, C>& part) {
#pragma unroll
    for (int c = 0; c < C; ++c) all.sum[c] += part.sum[c] * rescaling(part.max[c], all.max[c]);
  });
  return all;
}

}  // namespace labeldrop::cuda
