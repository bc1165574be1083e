// The module labeldrop_bench._cuda: names and argument lists only. Pointers and streams come as integers.
#include <pybind11/pybind11.h>

#include "cuda/operators.h"

namespace py = pybind11;
using namespace labeldrop;

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of labeldrop_bench";
  m.def(
      "drop_labels",
      [](uintptr_t target, uintptr_t out, int type, uintptr_t annotated, int64_t samples, int64_t pixels,
         int64_t labels, int64_t ignore_index, uintptr_t stream) {
        cuda::drop_labels(
            {reinterpret_cast<const void*>(target), reinterpret_cast<void*>(out), static_cast<Integer>(type),
             reinterpret_cast<const uint8_t*>(annotated), samples, pixels, labels, ignore_index},
            reinterpret_cast<cuda::Stream>(stream));
      },
      py::arg("target"), py::arg("out"), py::arg("type"), py::arg("annotated"), py::arg("samples"), py::arg("pixels"),
      py::arg("labels"), py::arg("ignore_index"), py::arg("stream"));
}
