// The mean of soft Dice terms from the sums of dice_sums, in doubles: a few numbers, no threads.
#include "../math/mean_overlap.h"

#include <vector>

#include "operators.h"

namespace labeldrop {

namespace {

// Those of samples first to end: [K].
std::vector<OverlapSums> sums_of(const MeanOverlapArguments& a, int64_t first, int64_t end) {
  std::vector<OverlapSums> sums(a.classes);
  for (int64_t n = first; n < end; ++n) {
    std::vector<double> truth(a.classes);
    for (int64_t l = 0; l < a.labels; ++l) {
      const double weight = a.label_weight[n * a.labels + l];
      const uint8_t* positive = a.positive + (n * a.labels + l) * a.classes;
      for (int64_t k = 0; k < a.classes; ++k) truth[k] += positive[k] ? weight : 0;
    }
    for (int64_t k = 0; k < a.classes; ++k) {
      const int64_t i = n * a.classes + k;
      if (!a.included[i]) continue;
      OverlapSums& s = sums[k];
      s = {s.intersection + a.intersection[i], s.prediction + a.prediction[i], s.truth + truth[k], true};
    }
  }
  return sums;
}

// The weights of all terms.
double divisor_of(const MeanOverlapArguments& a) {
  const int64_t step = samples_of_term(a);
  double sum = 0;
  for (int64_t first = 0; first < a.samples; first += step) {
    for (int64_t k = 0; k < a.classes; ++k) {
      bool included = false;
      for (int64_t n = first; n < first + step; ++n) included |= a.included[n * a.classes + k] != 0;
      if (included) sum += weight_of_class(a, k);
    }
  }
  return nonzero(sum);
}

template <class Real>
void run(const MeanOverlapArguments& a) {
  const int64_t step = samples_of_term(a);
  const double scale = a.factor / (a.mean ? divisor_of(a) : 1);
  Real* by_intersection = static_cast<Real*>(a.slopes);
  Real* by_prediction = by_intersection + a.samples * a.classes;
  double value = 0;
  for (int64_t first = 0; first < a.samples; first += step) {
    const std::vector<OverlapSums> sums = sums_of(a, first, first + step);
    for (int64_t k = 0; k < a.classes; ++k) {
      const OverlapTerm term = sums[k].included ? overlap_term(a, k, sums[k], scale) : OverlapTerm{};
      value += term.value;
      for (int64_t n = first; n < first + step; ++n) {
        const int64_t i = n * a.classes + k;
        by_intersection[i] = static_cast<Real>(a.included[i] ? term.by_intersection : 0);
        by_prediction[i] = static_cast<Real>(a.included[i] ? term.by_prediction : 0);
      }
    }
  }
  *a.slope_of_cross_entropy = 0;
  if (a.cross_entropy != nullptr) {
    double sum = 0, weights = 0;
    for (int64_t n = 0; n < a.samples; ++n) sum += a.cross_entropy[n];
    for (int64_t i = 0; i < a.samples * a.labels; ++i) weights += a.label_weight[i];
    *a.slope_of_cross_entropy = a.cross_entropy_factor / nonzero(weights);
    value += sum * *a.slope_of_cross_entropy;
  }
  *static_cast<Real*>(a.value) = static_cast<Real>(value);
}

}  // namespace

void mean_overlap(const MeanOverlapArguments& a) { a.is_double ? run<double>(a) : run<float>(a); }

}  // namespace labeldrop
