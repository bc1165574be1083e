// The module labeldrop_bench._cpu: names and argument lists only. Pointers come as integers (Tensor.data_ptr()).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <vector>

#include "bindings_dice.h"
#include "cpu/operators.h"
#include "math/philox.h"

namespace py = pybind11;
using namespace labeldrop;

namespace {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

using PixelLoss = int64_t (*)(const CpuPixelLossArguments&);

// (sum of the loss, first invalid pixel or -1)
template <PixelLoss loss_function>
py::tuple pixel_loss(uintptr_t logits, int logits_type, bool channels_last, uintptr_t target, int target_type,
                     uintptr_t candidates, uintptr_t active, int64_t samples, int64_t channels, int64_t classes,
                     int64_t pixels, int64_t labels, int64_t ignore_index, uintptr_t label_weight,
                     uintptr_t class_weight, uintptr_t pixel_weight, const std::vector<double>& parameters,
                     uintptr_t loss, uintptr_t gradient, uintptr_t upstream, double scale, uint64_t key, int threads) {
  std::vector<double> block_loss(pixel_blocks(samples, channels, pixels));
  CpuPixelLossArguments a{};
  a.logits = pointer<const void>(logits);
  a.logits_type = static_cast<Float>(logits_type);
  a.channels_last = channels_last;
  a.target = pointer<const void>(target);
  a.target_type = static_cast<Integer>(target_type);
  a.candidates = pointer<const uint32_t>(candidates);
  a.active = pointer<const uint32_t>(active);
  a.samples = samples;
  a.channels = channels;
  a.classes = classes;
  a.pixels = pixels;
  a.labels = labels;
  a.ignore_index = ignore_index;
  a.label_weight = pointer<const void>(label_weight);
  a.class_weight = pointer<const void>(class_weight);
  a.pixel_weight = pointer<const void>(pixel_weight);
  a.parameters = parameters.data();
  a.loss = pointer<void>(loss);
  a.gradient = pointer<void>(gradient);
  a.upstream = pointer<const void>(upstream);
  a.scale = scale;
  a.key = key;
  a.block_loss = block_loss.data();
  a.threads = threads;
  int64_t invalid = kValid;
  {
    py::gil_scoped_release release;
    invalid = loss_function(a);
  }
  double sum = 0;
  for (double block : block_loss) sum += block;
  return py::make_tuple(sum, invalid);
}

template <PixelLoss loss_function>
void bind_pixel_loss(py::module_& m, const char* name) {
  m.def(name, &pixel_loss<loss_function>, py::kw_only(), py::arg("logits"), py::arg("logits_type"),
        py::arg("channels_last"), py::arg("target"), py::arg("target_type"), py::arg("candidates"), py::arg("active"),
        py::arg("samples"), py::arg("channels"), py::arg("classes"), py::arg("pixels"), py::arg("labels"),
        py::arg("ignore_index"), py::arg("label_weight"), py::arg("class_weight"), py::arg("pixel_weight"),
        py::arg("parameters"), py::arg("loss"), py::arg("gradient"), py::arg("upstream"), py::arg("scale"),
        py::arg("key"), py::arg("threads"), "Returns (sum of the loss, first invalid pixel or -1).");
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of labeldrop_bench";
  bind_pixel_loss<predictive_variance>(m, "predictive_variance");
  bind_pixel_loss<set_cross_entropy>(m, "set_cross_entropy");
  bind_pixel_loss<sigmoid_focal>(m, "sigmoid_focal");
  bind_pixel_loss<label_flip>(m, "label_flip");
  m.def(
      "sum_weights",
      [](uintptr_t target, int target_type, int64_t samples, int64_t pixels, int64_t labels, int64_t ignore_index,
         uintptr_t label_weight, uintptr_t pixel_weight, bool weights_are_double, int threads) {
        py::gil_scoped_release release;
        return sum_weights(
            {pointer<const void>(target), static_cast<Integer>(target_type), samples, pixels, labels, ignore_index,
             pointer<const void>(label_weight), pointer<const void>(pixel_weight), weights_are_double},
            threads);
      },
      py::kw_only(), py::arg("target"), py::arg("target_type"), py::arg("samples"), py::arg("pixels"),
      py::arg("labels"), py::arg("ignore_index"), py::arg("label_weight"), py::arg("pixel_weight"),
      py::arg("weights_are_double"), py::arg("threads"), "Sum of the weights of the pixels that count.");
  bind_dice_sums_arguments(m);
  m.def(
      "dice_sums",
      [](const DiceSumsArguments& arguments, uintptr_t intersection, uintptr_t prediction, uintptr_t label_weight,
         uintptr_t cross_entropy, int threads) {
        py::gil_scoped_release release;
        return dice_sums({arguments, pointer<double>(intersection), pointer<double>(prediction),
                          pointer<double>(label_weight), pointer<double>(cross_entropy)},
                         threads);
      },
      py::arg("arguments"), py::kw_only(), py::arg("intersection"), py::arg("prediction"), py::arg("label_weight"),
      py::arg("cross_entropy"), py::arg("threads"), "Returns the first invalid pixel or -1.");
  m.def(
      "dice_sums_backward",
      [](const DiceSumsArguments& arguments, uintptr_t upstream_intersection, uintptr_t upstream_prediction,
         uintptr_t upstream_cross_entropy, uintptr_t gradient, int threads) {
        py::gil_scoped_release release;
        return dice_sums_backward(
            {arguments, pointer<const void>(upstream_intersection), pointer<const void>(upstream_prediction),
             pointer<const double>(upstream_cross_entropy), pointer<void>(gradient)},
            threads);
      },
      py::arg("arguments"), py::kw_only(), py::arg("upstream_intersection"), py::arg("upstream_prediction"),
      py::arg("upstream_cross_entropy"), py::arg("gradient"), py::arg("threads"),
      "Returns the first invalid pixel or -1.");
  m.def(
      "drop_labels",
      [](uintptr_t target, uintptr_t out, int type, uintptr_t annotated, int64_t samples, int64_t pixels,
         int64_t labels, int64_t ignore_index, int threads) {
        py::gil_scoped_release release;
        return drop_labels({pointer<const void>(target), pointer<void>(out), static_cast<Integer>(type),
                            pointer<const uint8_t>(annotated), samples, pixels, labels, ignore_index, threads});
      },
      py::arg("target"), py::arg("out"), py::arg("type"), py::arg("annotated"), py::arg("samples"), py::arg("pixels"),
      py::arg("labels"), py::arg("ignore_index"), py::arg("threads"), "Returns the first invalid pixel or -1.");
  m.def(
      "label_dropout",
      [](uintptr_t annotated, uintptr_t probability, uint64_t key, uintptr_t out, int64_t samples, int64_t labels) {
        py::gil_scoped_release release;
        label_dropout({pointer<const uint8_t>(annotated), pointer<const float>(probability), key, pointer<uint8_t>(out),
                       samples, labels});
      },
      py::kw_only(), py::arg("annotated"), py::arg("probability"), py::arg("key"), py::arg("out"), py::arg("samples"),
      py::arg("labels"));
  m.def(
      "philox4x32",
      [](std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
        const auto words = philox4x32<uint32_t>({counter[0], counter[1], counter[2], counter[3]}, {key[0], key[1]});
        return py::make_tuple(words.c0, words.c1, words.c2, words.c3);
      },
      py::arg("counter"), py::arg("key"), "Four random words. For tests.");
  m.def(
      "normals",
      [](uintptr_t out, uint64_t first, int64_t elements, int64_t groups, uint64_t key) {
        normals({pointer<float>(out), first, elements, groups, key});
      },
      py::kw_only(), py::arg("out"), py::arg("first"), py::arg("elements"), py::arg("groups"), py::arg("key"),
      "Normal numbers [4 groups, elements]. For tests.");
  m.def("current_isa", [] { return static_cast<int>(current_isa()); }, "0 baseline, 1 AVX2, 2 AVX-512");
  m.def(
      "select_isa", [](int isa) { return select_isa(static_cast<Isa>(isa)); }, py::arg("isa"),
      "Use a lesser instruction set; False if there is no such one here. For tests.");
}
