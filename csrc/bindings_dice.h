// The arguments that both passes of dice_sums take, as an object of Python: pointers come as integers.
#pragma once

#include <pybind11/pybind11.h>

#include "dice_sums.h"

namespace labeldrop {

inline DiceSumsArguments dice_sums_arguments(uintptr_t logits, int logits_type, bool channels_last, uintptr_t target,
                                             int target_type, uintptr_t tables, uintptr_t merged,
                                             uintptr_t pixel_weight, int64_t samples, int64_t channels, int64_t pixels,
                                             int64_t labels, int64_t ignore_index, bool sigmoid, bool squared,
                                             bool with_cross_entropy) {
  return {reinterpret_cast<const void*>(logits),
          static_cast<Float>(logits_type),
          channels_last,
          reinterpret_cast<const void*>(target),
          static_cast<Integer>(target_type),
          reinterpret_cast<const uint32_t*>(tables),
          reinterpret_cast<const uint32_t*>(merged),
          reinterpret_cast<const void*>(pixel_weight),
          samples,
          channels,
          pixels,
          labels,
          ignore_index,
          sigmoid,
          squared,
          with_cross_entropy};
}

inline void bind_dice_sums_arguments(pybind11::module_& m) {
  namespace py = pybind11;
  py::class_<DiceSumsArguments>(m, "DiceSumsArguments", py::module_local())
      .def(py::init(&dice_sums_arguments), py::kw_only(), py::arg("logits"), py::arg("logits_type"),
           py::arg("channels_last"), py::arg("target"), py::arg("target_type"), py::arg("tables"), py::arg("merged"),
           py::arg("pixel_weight"), py::arg("samples"), py::arg("channels"), py::arg("pixels"), py::arg("labels"),
           py::arg("ignore_index"), py::arg("sigmoid"), py::arg("squared"), py::arg("with_cross_entropy"));
}

}  // namespace labeldrop
