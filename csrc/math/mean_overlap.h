// A soft Dice term and its derivatives. With q = (2 I + offset) / D, D = P + T + epsilon, a term of weight w is
//
//     w (1 - q), or w q;    dq/dI = 2 / D,    dq/dP = -q / D
#pragma once

#include <cstdint>

#include "../arguments.h"
#include "portable.h"

namespace labeldrop {

// I, P and T of a class, in one sample or in several, and whether it counts in any.
struct OverlapSums {
  double intersection, prediction, truth;
  bool included;
};

struct OverlapTerm {
  double value, by_intersection, by_prediction;
};

LABELDROP_INLINE double weight_of_class(const MeanOverlapArguments& a, int64_t k) {
  return a.class_weight ? a.class_weight[k] : 1;
}

// Class k; `scale` is the factor of all terms.
LABELDROP_INLINE OverlapTerm overlap_term(const MeanOverlapArguments& a, int64_t k, const OverlapSums& sums,
                                          double scale) {
  const double denominator = sums.prediction + sums.truth + a.epsilon;
  const double q = (2 * sums.intersection + a.offset) / denominator;
  const double weight = scale * weight_of_class(a, k);
  const double by_q = a.complement ? -weight : weight;
  return {weight * (a.complement ? 1 - q : q), 2 * by_q / denominator, -by_q * q / denominator};
}

// How many samples share their terms: a sample's own begin at each multiple of that.
LABELDROP_INLINE int64_t samples_of_term(const MeanOverlapArguments& a) { return a.batch ? a.samples : 1; }

// What divides a sum of weights.
LABELDROP_INLINE double nonzero(double sum) { return sum == 0 ? 1 : sum; }

}  // namespace labeldrop
