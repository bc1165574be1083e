// The module labeldrop_bench._cuda: names alone; see bindings.h for the arguments.
#include <pybind11/stl.h>

#include "bindings.h"
#include "cuda/operators.h"

using namespace labeldrop;

namespace labeldrop {

template <>
Fields<cuda::CudaPixelLossArguments> fields_of() {
  using Struct = cuda::CudaPixelLossArguments;
  return pixel_loss_fields<Struct>() + Fields<Struct>{LABELDROP_FIELD(unless_one), LABELDROP_FIELD(partials)};
}

template <>
Fields<cuda::ScaleArguments> fields_of() {
  using Struct = cuda::ScaleArguments;
  return {LABELDROP_FIELD(values), LABELDROP_FIELD(size), LABELDROP_FIELD(factor), LABELDROP_FIELD(is_double)};
}

}  // namespace labeldrop

namespace {

// An operator whose struct and stream are all that it takes.
template <class Struct, class Operator>
void bind(py::module_& m, const char* name, Operator run) {
  m.def(
      name, [run](uintptr_t stream, const py::kwargs& fields) { run(read<Struct>(fields), pointer<void>(stream)); },
      py::kw_only(), py::arg("stream"));
}

// A loss that is a sum over pixels, after the divisor of its mean.
template <void (*kLoss)(const cuda::CudaPixelLossArguments&, cuda::Stream)>
void run_pixel_loss(const cuda::CudaPixelLossArguments& a, cuda::Stream stream) {
  if (a.mean) cuda::sum_weights(weights_of(a), a.partials, a.divisor, stream);
  kLoss(a, stream);
}

template <void (*kLoss)(const cuda::CudaPixelLossArguments&, cuda::Stream)>
void bind_pixel_loss(py::module_& m, const char* name) {
  bind<cuda::CudaPixelLossArguments>(m, name, run_pixel_loss<kLoss>);
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
  bind<cuda::ScaleArguments>(m, "scale", cuda::scale);
  bind<PackArguments>(m, "pack_tables", cuda::pack_tables);
  m.def("dice_sums_partials", &cuda::dice_sums_partials, py::arg("samples"), py::arg("classes"), py::arg("labels"),
        py::arg("pixels"), "Doubles of scratch that dice_sums needs.");
  m.def(
      "dice_sums",
      [](uintptr_t partials, uintptr_t stream, const py::kwargs& fields) {
        cuda::dice_sums(read<DiceSumsForwardArguments>(fields), pointer<double>(partials), pointer<void>(stream));
      },
      py::kw_only(), py::arg("partials"), py::arg("stream"));
  bind<DiceSumsBackwardArguments>(m, "dice_sums_backward", cuda::dice_sums_backward);
  bind<DropLabelsArguments>(m, "drop_labels", cuda::drop_labels);
  m.def(
      "label_dropout",
      [](uintptr_t key, uintptr_t stream, const py::kwargs& fields) {
        cuda::label_dropout(read<LabelDropoutArguments>(fields), pointer<const int64_t>(key), pointer<void>(stream));
      },
      py::kw_only(), py::arg("key"), py::arg("stream"));
}
