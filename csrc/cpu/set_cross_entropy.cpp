// Set cross-entropy on the CPU; compiled once per instruction set (LABELDROP_ISA). Three passes over a tile, each with
// independent work in flight: exponentials and their sums; loss and factors of each pixel; the gradient.
#include "../math/set_cross_entropy.h"

#include "pixel_tiles.h"

namespace labeldrop {
namespace LABELDROP_ISA {
namespace {

// What the first pass leaves of a vector.
enum Form : int32_t {
  kWholeUnit,  // exponentials of the active classes; the pixels of its unit read one row
  kOneRow,     // the same; its own pixels do
  kOwnRows,    // exponentials, those of candidates negative, 0 for inactive classes
};

template <class Real>
class TileLoss {
 public:
  using V = typename Lanes<Real>::V;
  using Bits = typename Lanes<Real>::Bits;
  static constexpr int kLanes = Lanes<Real>::count, kVectors = kUnitVectors<Real>;

  LABELDROP_INLINE TileLoss(const CpuPixelLossArguments& a, const Tile<Real>& t, RowTables& tables)
      : a_(a), t_(t), tables_(tables) {}

  LABELDROP_INLINE void exponentials(const Fetch& fetch, int count) {
    for (int i = 0; i < count;) {
      const int end = end_of_run(t_, i, count);
      fetch(i, end > i ? end - i : kUnit<Real>);
      if (end > i) {
        const ClassList& list = tables_.list(t_.row[i]);
        for (int j = i; j < end; j += kUnit<Real>) t_.form[j / kLanes] = kWholeUnit;
        one_row<kVectors>(list, i, end);
        i = end;
        continue;
      }
      for (const int unit = i; i < unit + kUnit<Real>; i += kLanes) {
        if (reads_row<1>(t_, i, t_.row[i])) {
          t_.form[i / kLanes] = kOneRow;
          one_row<1>(tables_.list(t_.row[i]), i, i + kLanes);
        } else {
          t_.form[i / kLanes] = kOwnRows;
          if (!own_rows<true>(i)) own_rows_of_any_logits(i);
        }
      }
    }
  }

  // Loss, and what the exponentials of candidates and others are multiplied by in the gradient.
  LABELDROP_INLINE void pixels(int count) const {
    for (int i = 0; i < count; i += kLanes) {
      const auto pixel = set_cross_entropy_scales(load_lanes<V>(t_.sum_candidate + i), load_lanes<V>(t_.sum_other + i));
      const V factor = load_lanes<V>(t_.factor + i);
      store_lanes(t_.loss + i, load_lanes<V>(t_.loss + i) + pixel.loss);
      store_lanes(t_.sum_candidate + i, factor * pixel.candidate_scale);
      store_lanes(t_.sum_other + i, factor * pixel.other_scale);
    }
  }

  LABELDROP_INLINE void gradients(int count) {
    for (int i = 0; i < count;) {
      int end = i;
      while (end < count && t_.form[end / kLanes] == kWholeUnit && t_.row[end] == t_.row[i]) end += kUnit<Real>;
      if (end > i) {
        one_row_gradients<kVectors>(i, end);
        i = end;
        continue;
      }
      for (const int unit = i; i < unit + kUnit<Real>; i += kLanes) {
        if (t_.form[i / kLanes] == kOneRow) {
          one_row_gradients<1>(i, i + kLanes);
        } else {
          own_row_gradients(i);
        }
      }
    }
  }

 private:
  // ---- n vectors whose pixels read one row: no masks ----

  template <int n>
  LABELDROP_INLINE void maxima(const ClassList& list, int begin, int end, int i, V (&max)[n]) const {
    for (V& m : max) m = V{} - infinity<Real>();
    for_classes(t_, list, begin, end, i, [&](const Real* value) __attribute__((always_inline)) {
      for (int j = 0; j < n; ++j) {
        const V z = load_lanes<V>(value + j * kLanes);
        max[j] = larger(z, max[j]);
      }
    });
  }

  template <int n>
  LABELDROP_INLINE void exponentials_of(const ClassList& list, int begin, int end, int i, const V (&reference)[n],
                                        Real* sums) const {
    V sum[n] = {};
    for_classes(t_, list, begin, end, i, [&](Real* value) __attribute__((always_inline)) {
      for (int j = 0; j < n; ++j) {
        const V e = exp_nonpositive(load_lanes<V>(value + j * kLanes) - reference[j]);
        store_lanes(value + j * kLanes, e);
        sum[j] += e;
      }
    });
    for (int j = 0; j < n; ++j) store_lanes(sums + i + j * kLanes, sum[j]);
  }

  // Of pixels that read one row. The commonest rows, with one candidate and few others, have code of their own.
  template <int n>
  LABELDROP_INLINE void one_row(const ClassList& list, int begin, int end) {
    const int others = list.active - list.candidates;
    if (others == 0) return only_candidates<n>(list, begin, end);
    if (list.candidates == 1 && others == 1) return one_candidate<n, 1>(list, begin, end);
    if (list.candidates == 1 && others == 2) return one_candidate<n, 2>(list, begin, end);
    if (list.candidates == 1 && others == 3) return one_candidate<n, 3>(list, begin, end);
    return any_candidates<n>(list, begin, end);
  }

  template <int n, int others>
  LABELDROP_INLINE void one_candidate(const ClassList& list, int begin, int end) {
    for (int i = begin; i < end; i += n * kLanes) {
      Real* const values = t_.values + i;
      V candidate[n], reference[n], z[others][n], not_finite{};
      for (int j = 0; j < n; ++j) {
        candidate[j] = load_lanes<V>(values + list.offsets[0] + j * kLanes);
        for (int k = 0; k < others; ++k) z[k][j] = load_lanes<V>(values + list.offsets[1 + k] + j * kLanes);
        V max = z[0][j];
        for (int k = 1; k < others; ++k) max = larger(max, z[k][j]);
        const V gap = max - candidate[j];
        not_finite += gap - gap;
        reference[j] = other_reference(candidate[j], max);
      }
      if (!all_at_most(not_finite, Real(0))) {
        own_rows_of_any_logits(i, n);
        continue;
      }
      for (int j = 0; j < n; ++j) {
        V sum{};
        for (int k = 0; k < others; ++k) {
          const V e = exp_nonpositive(z[k][j] - reference[j]);
          store_lanes(values + list.offsets[1 + k] + j * kLanes, e);
          sum += e;
        }
        store_lanes(t_.loss + i + j * kLanes, reference[j] - candidate[j]);
        store_lanes(t_.sum_candidate + i + j * kLanes, V{} + 1);
        store_lanes(t_.sum_other + i + j * kLanes, sum);
      }
    }
  }

  template <int n>
  LABELDROP_INLINE void any_candidates(const ClassList& list, int begin, int end) {
    for (int i = begin; i < end; i += n * kLanes) {
      V max_candidate[n], max_other[n], not_finite{};
      maxima(list, 0, list.candidates, i, max_candidate);
      maxima(list, list.candidates, list.active, i, max_other);
      for (int j = 0; j < n; ++j) {
        const V gap = max_other[j] - max_candidate[j];
        not_finite += gap - gap;
      }
      if (!all_at_most(not_finite, Real(0))) {
        own_rows_of_any_logits(i, n);
        continue;
      }
      for (int j = 0; j < n; ++j) {
        max_other[j] = other_reference(max_candidate[j], max_other[j]);
        store_lanes(t_.loss + i + j * kLanes, max_other[j] - max_candidate[j]);
      }
      if (list.candidates > 1) {
        exponentials_of(list, 0, list.candidates, i, max_candidate, t_.sum_candidate);
      } else {
        for (int j = 0; j < n; ++j) store_lanes(t_.sum_candidate + i + j * kLanes, V{} + 1);  // the only one is e^0
      }
      exponentials_of(list, list.candidates, list.active, i, max_other, t_.sum_other);
    }
  }

  // No other class is active: the loss is 0 but for NaN and infinities, and no exponential is needed.
  template <int n>
  LABELDROP_INLINE void only_candidates(const ClassList& list, int begin, int end) const {
    const bool counted = t_.row[begin] != a_.labels;
    for (int i = begin; i < end; i += n * kLanes) {
      V max[n], nan[n] = {}, not_finite{};
      if (counted) {
        maxima(list, 0, list.candidates, i, max);
        for (int j = 0; j < n; ++j) not_finite += max[j] - max[j];
        if (!all_at_most(not_finite, Real(0))) {
          own_rows_of_any_logits(i, n);
          continue;
        }
        for_classes(t_, list, 0, list.candidates, i, [&](const Real* value) __attribute__((always_inline)) {
          for (int j = 0; j < n; ++j) {
            const V z = load_lanes<V>(value + j * kLanes);
            nan[j] = z == z ? nan[j] : z;
          }
        });
      }
      for (int j = 0; j < n; ++j) {
        store_lanes(t_.loss + i + j * kLanes, V{});
        store_lanes(t_.sum_candidate + i + j * kLanes, V{} + 1);
        store_lanes(t_.sum_other + i + j * kLanes, nan[j]);
      }
    }
  }

  template <int n>
  LABELDROP_INLINE void one_row_gradients(int begin, int end) {
    const ClassList& list = tables_.list(t_.row[begin]);
    const bool has_exponentials = list.candidates > 1 && list.active > list.candidates;
    for (int i = begin; i < end; i += n * kLanes) {
      V candidate[n], other[n];
      for (int j = 0; j < n; ++j) {
        candidate[j] = -load_lanes<V>(t_.sum_candidate + i + j * kLanes);
        other[j] = load_lanes<V>(t_.sum_other + i + j * kLanes);
      }
      for_classes(t_, list, 0, list.candidates, i, [&](Real* value) __attribute__((always_inline)) {
        for (int j = 0; j < n; ++j) {
          const V e = has_exponentials ? load_lanes<V>(value + j * kLanes) : V{} + 1;
          store_lanes(value + j * kLanes, e * candidate[j]);
        }
      });
      for_classes(t_, list, list.candidates, list.active, i, [&](Real* value) __attribute__((always_inline)) {
        for (int j = 0; j < n; ++j) store_lanes(value + j * kLanes, load_lanes<V>(value + j * kLanes) * other[j]);
      });
      for_classes(t_, list, list.active, static_cast<int>(a_.classes), i,
                  [&](Real* value) __attribute__((always_inline)) {
                    for (int j = 0; j < n; ++j) store_lanes(value + j * kLanes, V{});
                  });
    }
  }

  // ---- one vector whose pixels read rows of their own: masks ----

  // False, and nothing has been written to the logits, where a gap is too large or no number; not with kFinite false.
  template <bool kFinite>
  LABELDROP_INLINE bool own_rows(int i) const {
    const V zero{}, lowest = zero - infinity<Real>();
    const auto counted = load_lanes<Bits>(t_.row + i) != static_cast<int32_t>(a_.labels);
    V max_candidate = lowest, max_other = lowest;  // of the others; with kFinite, of all classes, which takes less
    for_each_class(t_, tables_, a_.classes, i,
                   [&](int64_t, const Real* value, auto is_candidate, [[maybe_unused]] auto is_other)
                       __attribute__((always_inline)) {
                         const V z = load_lanes<V>(value);
                         const V candidate = is_candidate ? z : lowest;
                         max_candidate = larger(candidate, max_candidate);
                         const V other = kFinite ? z : is_other ? z : lowest;
                         max_other = larger(other, max_other);
                       });
    if constexpr (kFinite) {
      max_candidate = counted ? max_candidate : max_other;
      if (!all_at_most(max_other - max_candidate, Real(kGap))) return false;
      max_other = max_candidate;
      store_lanes(t_.loss + i, zero);
    } else {
      max_candidate = counted ? max_candidate : zero;
      max_other = counted ? max_other : zero;
      store_lanes(t_.loss + i, other_reference(max_candidate, max_other) - max_candidate);
      max_candidate = finite_from_below(max_candidate);
      max_other = other_reference(max_candidate, finite_from_below(max_other));
    }
    V sum_candidate{}, sum_other{};
    for_each_class(
        t_, tables_, a_.classes, i,
        [&](int64_t, Real* value, auto is_candidate, auto is_other) __attribute__((always_inline)) {
          const V z = kFinite ? load_lanes<V>(value) : finite_from_below(load_lanes<V>(value));
          const V e = exp_nonpositive(z - (kFinite ? max_candidate : is_candidate ? max_candidate : max_other));
          const V candidate = is_candidate ? e : zero, other = is_other ? e : zero;
          sum_candidate += candidate;
          sum_other += other;
          store_lanes(value, other - candidate);
        });
    store_lanes(t_.sum_candidate + i, counted ? sum_candidate : zero + 1);
    store_lanes(t_.sum_other + i, sum_other);
    return true;
  }

  // of n vectors; rare, and the same for all
  __attribute__((noinline)) void own_rows_of_any_logits(int i, int n = 1) const {
    for (const int end = i + n * kLanes; i < end; i += kLanes) {
      own_rows<false>(i);
      t_.form[i / kLanes] = kOwnRows;
    }
  }

  LABELDROP_INLINE static V other_reference(V max_candidate, V max_other) {
    return larger(max_other - Real(kGap), max_candidate);
  }

  LABELDROP_INLINE void own_row_gradients(int i) const {
    const V candidate = load_lanes<V>(t_.sum_candidate + i), other = load_lanes<V>(t_.sum_other + i);
    if (!all_at_most((candidate - candidate) + (other - other), Real(0))) return own_row_gradients_of_no_numbers(i);
    Real* value = t_.values + i;
    for (int64_t k = 0; k < a_.classes; ++k, value += t_.pitch) {
      const V e = load_lanes<V>(value);
      store_lanes(value, e * choose_by_sign(e, candidate, other));
    }
  }

  // What is inactive stays 0 beside what is not finite, which 0 cannot be multiplied by.
  __attribute__((noinline)) void own_row_gradients_of_no_numbers(int i) const {
    const V candidate = load_lanes<V>(t_.sum_candidate + i), other = load_lanes<V>(t_.sum_other + i), zero{};
    for_each_class(t_, tables_, a_.classes, i,
                   [&](int64_t, Real* value, auto is_candidate, auto is_other) __attribute__((always_inline)) {
                     const V e = load_lanes<V>(value);
                     const V of_others = is_other ? e * other : zero;
                     store_lanes(value, is_candidate ? e * candidate : of_others);
                   });
  }

  const CpuPixelLossArguments& a_;
  const Tile<Real>& t_;
  RowTables& tables_;
};

}  // namespace

int64_t set_cross_entropy(const CpuPixelLossArguments& a) {
  return run_tiles(a, [&a](const auto& tile, RowTables& tables, const Block& block, const Fetch& fetch) {
    TileLoss loss(a, tile, tables);
    loss.exponentials(fetch, block.count);
    loss.pixels(block.count);
    if (a.gradient != nullptr) loss.gradients(block.count);
  });
}

}  // namespace LABELDROP_ISA
}  // namespace labeldrop
