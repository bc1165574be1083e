// The module labeldrop_bench._cpu: names and argument lists only. Pointers come as integers (Tensor.data_ptr()).
#include <pybind11/pybind11.h>

#include <vector>

#include "cpu/operators.h"

namespace py = pybind11;
using namespace labeldrop;

namespace {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

py::tuple set_cross_entropy_binding(uintptr_t logits, int logits_type, uintptr_t target, int target_type,
                                    uintptr_t candidates, uintptr_t active, int64_t samples, int64_t classes,
                                    int64_t pixels, int64_t labels, bool channels_last, int64_t ignore_index,
                                    uintptr_t loss, uintptr_t gradient, uintptr_t upstream, double scale, int threads) {
  double sum = 0;
  int64_t count = 0, invalid = kValid;
  {
    py::gil_scoped_release release;
    const int64_t blocks = set_cross_entropy_blocks(samples, classes, pixels);
    std::vector<double> block_loss(blocks);
    std::vector<int64_t> block_count(blocks);
    invalid = set_cross_entropy({pointer<const void>(logits),
                                 static_cast<Float>(logits_type),
                                 pointer<const void>(target),
                                 static_cast<Integer>(target_type),
                                 pointer<const uint32_t>(candidates),
                                 pointer<const uint32_t>(active),
                                 samples,
                                 classes,
                                 pixels,
                                 labels,
                                 channels_last ? 1 : pixels,
                                 channels_last ? classes : 1,
                                 ignore_index,
                                 pointer<void>(loss),
                                 block_loss.data(),
                                 block_count.data(),
                                 pointer<void>(gradient),
                                 pointer<const void>(upstream),
                                 scale,
                                 threads});
    for (int64_t b = 0; b < blocks; ++b) {
      sum += block_loss[b];
      count += block_count[b];
    }
  }
  return py::make_tuple(sum, count, invalid);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of labeldrop_bench";
  m.def("set_cross_entropy", &set_cross_entropy_binding, py::arg("logits"), py::arg("logits_type"), py::arg("target"),
        py::arg("target_type"), py::arg("candidates"), py::arg("active"), py::arg("samples"), py::arg("classes"),
        py::arg("pixels"), py::arg("labels"), py::arg("channels_last"), py::arg("ignore_index"), py::arg("loss"),
        py::arg("gradient"), py::arg("upstream"), py::arg("scale"), py::arg("threads"),
        "Returns (sum of the loss, pixels that count, first invalid pixel or -1).");
  m.def(
      "count_pixels",
      [](uintptr_t target, int type, int64_t size, int64_t ignore_index, int threads) {
        py::gil_scoped_release release;
        return count_pixels(pointer<const void>(target), static_cast<Integer>(type), size, ignore_index, threads);
      },
      py::arg("target"), py::arg("type"), py::arg("size"), py::arg("ignore_index"), py::arg("threads"),
      "Number of pixels that differ from ignore_index.");
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
  m.def("current_isa", [] { return static_cast<int>(current_isa()); }, "0 baseline, 1 AVX2, 2 AVX-512");
  m.def(
      "select_isa", [](int isa) { return select_isa(static_cast<Isa>(isa)); }, py::arg("isa"),
      "Use a lesser instruction set; False if there is no such one here. For tests.");
}
