// The module labeldrop_bench._cuda: names and argument lists only. Pointers and streams come as integers, 0 is null.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "bindings_dice.h"
#include "cuda/operators.h"

namespace py = pybind11;
using namespace labeldrop;

namespace {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

using PixelLossOperator = void (*)(const cuda::CudaPixelLossArguments&, cuda::Stream);

template <PixelLossOperator Operator>
void bind_pixel_loss(py::module_& m, const char* name) {
  m.def(
      name,
      [](uintptr_t logits, int logits_type, bool channels_last, uintptr_t target, int target_type, uintptr_t candidates,
         uintptr_t active, int64_t samples, int64_t channels, int64_t classes, int64_t pixels, int64_t labels,
         int64_t ignore_index, uintptr_t label_weight, uintptr_t class_weight, uintptr_t pixel_weight,
         const std::vector<double>& parameters, uintptr_t loss, uintptr_t gradient, uintptr_t upstream,
         bool upstream_per_pixel, uintptr_t divisor, bool unless_one, uintptr_t key, uintptr_t partials,
         uintptr_t result, uintptr_t stream) {
        cuda::CudaPixelLossArguments a{};
        a.logits = pointer<const void>(logits);
        a.logits_type = static_cast<Float>(logits_type);
        a.channels_last = channels_last;
        a.target = pointer<const void>(target);
        a.target_type = static_cast<Integer>(target_type);
        a.candidates = pointer<const uint32_t>(candidates);
        a.active = pointer<const uint32_t>(active);
        a.samples = samples, a.channels = channels, a.classes = classes, a.pixels = pixels, a.labels = labels;
        a.ignore_index = ignore_index;
        a.label_weight = pointer<const void>(label_weight);
        a.class_weight = pointer<const void>(class_weight);
        a.pixel_weight = pointer<const void>(pixel_weight);
        a.parameters = parameters.data();
        a.loss = pointer<void>(loss);
        a.gradient = pointer<void>(gradient);
        a.upstream = pointer<const void>(upstream);
        a.upstream_per_pixel = upstream_per_pixel;
        a.divisor = pointer<const double>(divisor);
        a.unless_one = unless_one;
        a.key = pointer<const int64_t>(key);
        a.partials = pointer<double>(partials);
        a.result = pointer<void>(result);
        Operator(a, pointer<void>(stream));
      },
      py::kw_only(), py::arg("logits"), py::arg("logits_type"), py::arg("channels_last"), py::arg("target"),
      py::arg("target_type"), py::arg("candidates"), py::arg("active"), py::arg("samples"), py::arg("channels"),
      py::arg("classes"), py::arg("pixels"), py::arg("labels"), py::arg("ignore_index"), py::arg("label_weight"),
      py::arg("class_weight"), py::arg("pixel_weight"), py::arg("parameters"), py::arg("loss"), py::arg("gradient"),
      py::arg("upstream"), py::arg("upstream_per_pixel"), py::arg("divisor"), py::arg("unless_one"), py::arg("key"),
      py::arg("partials"), py::arg("result"), py::arg("stream"));
}

void bind_sum_weights(py::module_& m) {
  m.def(
      "sum_weights",
      [](uintptr_t target, int target_type, int64_t samples, int64_t pixels, int64_t labels, int64_t ignore_index,
         uintptr_t label_weight, uintptr_t pixel_weight, bool weights_are_double, uintptr_t partials, uintptr_t sum,
         uintptr_t stream) {
        cuda::sum_weights(
            {pointer<const void>(target), static_cast<Integer>(target_type), samples, pixels, labels, ignore_index,
             pointer<const void>(label_weight), pointer<const void>(pixel_weight), weights_are_double},
            pointer<double>(partials), pointer<double>(sum), pointer<void>(stream));
      },
      py::kw_only(), py::arg("target"), py::arg("target_type"), py::arg("samples"), py::arg("pixels"),
      py::arg("labels"), py::arg("ignore_index"), py::arg("label_weight"), py::arg("pixel_weight"),
      py::arg("weights_are_double"), py::arg("partials"), py::arg("sum"), py::arg("stream"));
}

void bind_drop_labels(py::module_& m) {
  m.def(
      "drop_labels",
      [](uintptr_t target, uintptr_t out, int type, uintptr_t annotated, int64_t samples, int64_t pixels,
         int64_t labels, int64_t ignore_index, uintptr_t stream) {
        cuda::drop_labels({pointer<const void>(target), pointer<void>(out), static_cast<Integer>(type),
                           pointer<const uint8_t>(annotated), samples, pixels, labels, ignore_index},
                          pointer<void>(stream));
      },
      py::arg("target"), py::arg("out"), py::arg("type"), py::arg("annotated"), py::arg("samples"), py::arg("pixels"),
      py::arg("labels"), py::arg("ignore_index"), py::arg("stream"));
  m.def(
      "label_dropout",
      [](uintptr_t annotated, uintptr_t probability, uintptr_t key, uintptr_t out, int64_t samples, int64_t labels,
         uintptr_t stream) {
        cuda::label_dropout({reinterpret_cast<const uint8_t*>(annotated), reinterpret_cast<const float*>(probability),
                             reinterpret_cast<const int64_t*>(key), reinterpret_cast<uint8_t*>(out), samples, labels},
                            reinterpret_cast<cuda::Stream>(stream));
      },
      py::kw_only(), py::arg("annotated"), py::arg("probability"), py::arg("key"), py::arg("out"), py::arg("samples"),
      py::arg("labels"), py::arg("stream"));
}

void bind_dice_sums(py::module_& m) {
  bind_dice_sums_arguments(m);
  m.def("dice_sums_partials", &cuda::dice_sums_partials, py::arg("samples"), py::arg("classes"), py::arg("labels"),
        py::arg("pixels"), "Doubles of scratch that dice_sums needs.");
  m.def(
      "dice_sums",
      [](const DiceSumsArguments& arguments, uintptr_t intersection, uintptr_t prediction, uintptr_t label_weight,
         uintptr_t cross_entropy, uintptr_t partials, uintptr_t stream) {
        cuda::dice_sums({arguments, pointer<double>(intersection), pointer<double>(prediction),
                         pointer<double>(label_weight), pointer<double>(cross_entropy)},
                        pointer<double>(partials), pointer<void>(stream));
      },
      py::arg("arguments"), py::kw_only(), py::arg("intersection"), py::arg("prediction"), py::arg("label_weight"),
      py::arg("cross_entropy"), py::arg("partials"), py::arg("stream"));
  m.def(
      "dice_sums_backward",
      [](const DiceSumsArguments& arguments, uintptr_t upstream_intersection, uintptr_t upstream_prediction,
         uintptr_t upstream_cross_entropy, uintptr_t gradient, uintptr_t stream) {
        cuda::dice_sums_backward(
            {arguments, pointer<const void>(upstream_intersection), pointer<const void>(upstream_prediction),
             pointer<const double>(upstream_cross_entropy), pointer<void>(gradient)},
            pointer<void>(stream));
      },
      py::arg("arguments"), py::kw_only(), py::arg("upstream_intersection"), py::arg("upstream_prediction"),
      py::arg("upstream_cross_entropy"), py::arg("gradient"), py::arg("stream"));
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of labeldrop_bench";
  m.attr("partials") = cuda::kPartials;
  m.attr("architectures") = py::tuple(py::cast(cuda::architectures()));
  m.attr("runtime_version") = cuda::runtime_version();
  m.def("driver_version", &cuda::driver_version, "The newest CUDA that the driver runs, as 13000; 0 without a driver.");
  bind_pixel_loss<cuda::set_cross_entropy>(m, "set_cross_entropy");
  bind_pixel_loss<cuda::sigmoid_focal>(m, "sigmoid_focal");
  bind_pixel_loss<cuda::label_flip>(m, "label_flip");
  bind_pixel_loss<cuda::predictive_variance>(m, "predictive_variance");
  bind_sum_weights(m);
  bind_dice_sums(m);
  bind_drop_labels(m);
}
