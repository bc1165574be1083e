// The sums of soft Dice losses on the CPU; compiled once per instruction set (LABELDROP_ISA).
//
// Each sample's blocks are split into parts, whose number does not depend on the threads. A part's sums are floats
// within a block and doubles over its blocks; the parts are added up in their order. So the sums depend neither on the
// number of threads nor on their timing.
#include "dice_pixels.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

constexpr int64_t kParts = 256;  // of the whole batch: enough to share out, and 1 MiB of sums at 256 classes

// How the blocks of a sample are split.
struct Parts {
  Parts(const DiceSumsArguments& a, int64_t block)
      : blocks((a.pixels + block - 1) / block), count(count_for(a.samples, blocks)) {}

  // first block of a part of a sample; that of part `count` is the end
  int64_t begin(int64_t part) const { return blocks * part / count; }

  const int64_t blocks, count;  // of a sample

 private:
  static int64_t count_for(int64_t samples, int64_t blocks) {
    const int64_t share = samples < kParts ? kParts / (samples > 0 ? samples : 1) : 1;
    return share < blocks ? share : blocks;
  }
};

// The sums of one part, [2 K + 1 + L]: number 2 k is class k's intersection, 2 k + 1 its prediction, then come the
// cross-entropy and the labels' weights.
int64_t sums_of_part(const DiceSumsArguments& a) { return 2 * a.channels + 1 + a.labels; }

template <class Real>
class PartSums {
 public:
  static constexpr int kLanes = Lanes<Real>::count;
  using V = typename Lanes<Real>::V;

  explicit PartSums(const DiceSumsArguments& a)
      : rows_(2 * a.channels + 1),
        labels_(a.labels),
        weighted_(a.pixel_weight != nullptr),
        block_(rows_ * kLanes),
        part_(rows_ * kLanes),
        pixels_(a.labels),
        weights_(kChains * a.labels) {}

  bool allocated() const { return block_.get() && part_.get() && pixels_.get() && weights_.get(); }

  LABELDROP_INLINE void add(int64_t row, V values) const {
    Real* sum = block_.get() + row * kLanes;
    store_lanes(sum, load_lanes<V>(sum) + values);
  }
  LABELDROP_INLINE void add_cross_entropy(V loss) const { add(rows_ - 1, loss); }

  // Pixels are counted, or weights added up: neighbours, which mostly have one label, in chains that do not wait for
  // each other.
  void add_labels(const DiceScratch<Real>& s, int n) const {
    if (weighted_) {
      for (int i = 0; i < n; ++i) {
        weights_.get()[i % kChains * labels_ + s.row[i]] += static_cast<double>(s.weight[i]);
      }
    } else {
      for (int i = 0; i < n; ++i) pixels_.get()[s.row[i]] += s.counted[i];
    }
  }

  // a block has ended
  void flush() const {
    Real* __restrict block = block_.get();
    double* __restrict part = part_.get();
#pragma omp simd
    for (int64_t i = 0; i < rows_ * kLanes; ++i) {
      part[i] += static_cast<double>(block[i]);
      block[i] = 0;
    }
  }

  // the part has ended
  void finish(double* sums) const {
    for (int64_t row = 0; row < rows_; ++row) {
      double sum = 0;
      for (int lane = 0; lane < kLanes; ++lane) {
        sum += part_.get()[row * kLanes + lane];
        part_.get()[row * kLanes + lane] = 0;
      }
      sums[row] = sum;
    }
    for (int64_t l = 0; l < labels_; ++l) {
      double sum = static_cast<double>(pixels_.get()[l]);
      for (int chain = 0; chain < kChains; ++chain) sum += weights_.get()[chain * labels_ + l];
      sums[rows_ + l] = sum;
    }
    memset(pixels_.get(), 0, labels_ * sizeof(int64_t));
    memset(weights_.get(), 0, kChains * labels_ * sizeof(double));
  }

 private:
  static constexpr int kChains = 4;
  const int64_t rows_, labels_;
  const bool weighted_;
  Buffer<Real> block_;
  Buffer<double> part_;
  Buffer<int64_t> pixels_;
  Buffer<double> weights_;
};

// Adds the pixels of one block to the sums.
template <DiceMode kMode, class Real>
struct AddBlock {
  const DiceSumsForwardArguments& a;
  const PartSums<Real>& sums;

  void operator()(const DiceScratch<Real>& s, const Block& block, Rows<const Real> logits, Rows<Real>,
                  const Prefetch& prefetch) const {
    using V = typename Lanes<Real>::V;
    const PredictionPower<Real> power(a.squared);
    const V zero{};
    for (int i = 0; i < block.count; i += Lanes<Real>::count) {
      prefetch(i, Lanes<Real>::count);
      const auto pixels = dice_pixels<kMode>(s, logits, a.channels, i);
      const V weight = load_lanes<V>(s.weight + i);
      const auto add = [&](int64_t k, V q, auto bits) __attribute__((always_inline)) {
        const V weighted = weight * q;
        sums.add(2 * k, bits[kPositive] ? weighted : zero);
        sums.add(2 * k + 1, bits[kCounted] ? power.term(q, weighted) : zero);
      };
      const V q_0 = background<kMode>(s, pixels, i);
      for_classes<kMode>(s, 0, 1, i, [&](int64_t k, auto bits) __attribute__((always_inline)) { add(k, q_0, bits); });
      for_classes<kMode>(s, 1, a.channels, i, [&](int64_t k, auto bits) __attribute__((always_inline)) {
        add(k, probability<kMode>(s, pixels, k, i, bits), bits);
      });
      if constexpr (kMode == DiceMode::softmax_and_cross_entropy) sums.add_cross_entropy(weight * pixels.loss);
    }
  }
};

// The sums of all parts, one after the other: [samples * parts, 2 K + 1 + L].
void add_parts(const DiceSumsForwardArguments& a, const Parts& parts, const double* sums) {
  memset(a.intersection, 0, a.samples * a.channels * sizeof(double));
  memset(a.prediction, 0, a.samples * a.channels * sizeof(double));
  memset(a.cross_entropy, 0, a.samples * sizeof(double));
  memset(a.label_weight, 0, a.samples * a.labels * sizeof(double));
  for (int64_t part = 0; part < a.samples * parts.count; ++part) {
    const double* of_part = sums + part * sums_of_part(a);
    const int64_t sample = part / parts.count;
    for (int64_t k = 0; k < a.channels; ++k) {
      a.intersection[sample * a.channels + k] += of_part[2 * k];
      a.prediction[sample * a.channels + k] += of_part[2 * k + 1];
    }
    a.cross_entropy[sample] += of_part[2 * a.channels];
    for (int64_t l = 0; l < a.labels; ++l) {
      a.label_weight[sample * a.labels + l] += of_part[2 * a.channels + 1 + l];
    }
  }
}

template <DiceMode kMode, class Real, class Storage>
int64_t run(const DiceSumsForwardArguments& a, int threads) {
  const int64_t size = pixel_block(a.channels);
  const Parts parts(a, size);
  const Buffer<double> all(a.samples * parts.count * sums_of_part(a));
  if (all.get() == nullptr) return kOutOfMemory;
  const int64_t invalid = share_out(a.samples * parts.count, threads, [&](int64_t begin, int64_t end) -> int64_t {
    DiceScratch<Real> scratch(a, size);
    const PartSums<Real> sums(a);
    if (!scratch.allocated() || !sums.allocated()) return kOutOfMemory;
    int64_t lowest = kNothing;
    for (int64_t p = begin; p < end; ++p) {
      const int64_t sample = p / parts.count, last = parts.begin(p % parts.count + 1);
      for (int64_t b = parts.begin(p % parts.count); b < last; ++b) {
        const int64_t index = sample * parts.blocks + b, next = index + 1;
        const Block block(a, index, size);
        const Block after(a, next < a.samples * parts.blocks ? next : index, size);
        const Prefetch prefetch(a, after, sizeof(Storage));
        const int64_t invalid = load_dice_masks(a, scratch, block);
        if (invalid >= 0 && block.pixel + invalid < lowest) lowest = block.pixel + invalid;
        sums.add_labels(scratch, block.count);
        const AddBlock<kMode, Real> add{a, sums};
        compute_in_place_or_scratch<Real, Storage>(a, nullptr, scratch, block, prefetch, add);
        sums.flush();
      }
      sums.finish(all.get() + p * sums_of_part(a));
    }
    return lowest;
  });
  if (invalid != kOutOfMemory) add_parts(a, parts, all.get());
  return invalid;
}

}  // namespace

int64_t dice_sums(const DiceSumsForwardArguments& a, int threads) {
  return with_dice_types(a, [&](auto mode, auto real, auto storage) {
    return run<mode(), decltype(real), decltype(storage)>(a, threads);
  });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
