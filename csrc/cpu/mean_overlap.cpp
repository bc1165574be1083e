// The mean of soft Dice terms from the sums of dice_sums, in doubles: a few numbers, no threads.
#include "../math/mean_overlap.h"

#include <vector>

#include "operators.h"

namespace labeldrop {

namespace {

double divisor_of(const MeanOverlapArguments& a) {
  double sum = 0;
  for (int64_t i = 0; i < a.samples * a.classes; ++i) {
    if (a.included[i]) sum += a.class_weight ? a.class_weight[i % a.classes] : 1;
  }
  return nonzero(sum);
}

// T of one sample: [K].
void add_up_truth(const MeanOverlapArguments& a, int64_t n, double* truth) {
  for (int64_t l = 0; l < a.labels; ++l) {
    const double weight = a.label_weight[n * a.labels + l];
    const uint8_t* positive = a.positive + (n * a.labels + l) * a.classes;
    for (int64_t k = 0; k < a.classes; ++k) truth[k] += positive[k] ? weight : 0;
  }
}

template <class Real>
void run(const MeanOverlapArguments& a) {
  const int64_t terms = a.samples * a.classes;
  const double scale = a.factor / (a.mean ? divisor_of(a) : 1);
  Real* by_intersection = static_cast<Real*>(a.slopes);
  Real* by_prediction = by_intersection + terms;
  double value = 0;
  for (int64_t n = 0; n < a.samples; ++n) {
    std::vector<double> truth(a.classes);
    add_up_truth(a, n, truth.data());
    for (int64_t k = 0; k < a.classes; ++k) {
      const int64_t i = n * a.classes + k;
      by_intersection[i] = by_prediction[i] = 0;
      if (!a.included[i]) continue;
      const OverlapTerm term = overlap_term(a, n, k, truth[k], scale);
      value += term.value;
      by_intersection[i] = static_cast<Real>(term.by_intersection);
      by_prediction[i] = static_cast<Real>(term.by_prediction);
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
