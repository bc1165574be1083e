// A soft Dice term and its derivatives. With q = (2 I + offset) / D, D = P + T + epsilon, a term of weight w is
//
//     w (1 - q), or w q;    dq/dI = 2 / D,    dq/dP = -q / D
#pragma once

#include <cstdint>

#include "../arguments.h"
#include "portable.h"

namespace labeldrop {

struct OverlapTerm {
  double value, by_intersection, by_prediction;
};

// Class k of sample n; truth is T, `scale` the factor of all terms.
LABELDROP_INLINE OverlapTerm overlap_term(const MeanOverlapArguments& a, int64_t n, int64_t k, double truth,
                                          double scale) {
  const int64_t i = n * a.classes + k;
  const double denominator = a.prediction[i] + truth + a.epsilon;
  const double q = (2 * a.intersection[i] + a.offset) / denominator;
  const double weight = scale * (a.class_weight ? a.class_weight[k] : 1);
  const double by_q = a.complement ? -weight : weight;
  return {weight * (a.complement ? 1 - q : q), 2 * by_q / denominator, -by_q * q / denominator};
}

// What divides a sum of weights.
LABELDROP_INLINE double nonzero(double sum) { return sum == 0 ? 1 : sum; }

}  // namespace labeldrop
