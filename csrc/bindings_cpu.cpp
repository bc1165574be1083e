// The module labeldrop_bench._cpu: names alone; see bindings.h for the arguments.
#include <pybind11/stl.h>

#include <array>

#include "bindings.h"
#include "cpu/operators.h"
#include "math/philox.h"

using namespace labeldrop;

namespace labeldrop {

template <>
Fields<PixelLossArguments> fields_of() {
  return pixel_loss_fields<PixelLossArguments>();
}

template <>
Fields<NormalsArguments> fields_of() {
  using Struct = NormalsArguments;
  return {LABELDROP_FIELD(out), LABELDROP_FIELD(first), LABELDROP_FIELD(elements), LABELDROP_FIELD(groups),
          LABELDROP_FIELD(key)};
}

}  // namespace labeldrop

namespace {

// An operator whose struct and number of threads are all that it takes.
template <class Struct, class Operator>
void bind(py::module_& m, const char* name, Operator run, const char* returns) {
  m.def(
      name,
      [run](int threads, const py::kwargs& fields) {
        const auto a = read<Struct>(fields);
        py::gil_scoped_release release;
        return run(a, threads);
      },
      py::kw_only(), py::arg("threads"), returns);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of labeldrop_bench";
  constexpr const char* kInvalid = "Returns the first invalid pixel or -1.";
  bind<PixelLossArguments>(m, "predictive_variance", predictive_variance, kInvalid);
  bind<PixelLossArguments>(m, "set_cross_entropy", set_cross_entropy, kInvalid);
  bind<PixelLossArguments>(m, "sigmoid_focal", sigmoid_focal, kInvalid);
  bind<PixelLossArguments>(m, "label_flip", label_flip, kInvalid);
  m.def("pack_tables", [](const py::kwargs& fields) { pack_tables(read<PackArguments>(fields)); });
  bind<DiceSumsForwardArguments>(m, "dice_sums", dice_sums, kInvalid);
  bind<DiceSumsBackwardArguments>(m, "dice_sums_backward", dice_sums_backward, kInvalid);
  bind<DropLabelsArguments>(m, "drop_labels", drop_labels, kInvalid);
  m.def(
      "label_dropout",
      [](uint64_t key, const py::kwargs& fields) { label_dropout(read<LabelDropoutArguments>(fields), key); },
      py::kw_only(), py::arg("key"));
  m.def(
      "philox4x32",
      [](std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
        const auto words = philox4x32<uint32_t>({counter[0], counter[1], counter[2], counter[3]}, {key[0], key[1]});
        return py::make_tuple(words.c0, words.c1, words.c2, words.c3);
      },
      py::arg("counter"), py::arg("key"), "Four random words. For tests.");
  m.def(
      "normals", [](const py::kwargs& fields) { normals(read<NormalsArguments>(fields)); },
      "Normal numbers [4 groups, elements]. For tests.");
  m.def(
      "tiles",
      [](uintptr_t values, int64_t pitch, uintptr_t memory, int type, int64_t channels, int64_t channel_stride,
         int64_t pixel_stride, int count, bool load, bool streaming) {
        tiles({pointer<void>(values), pitch, pointer<void>(memory), static_cast<Float>(type), channels, channel_stride,
               pixel_stride, count, load, streaming});
      },
      py::kw_only(), py::arg("values"), py::arg("pitch"), py::arg("memory"), py::arg("type"), py::arg("channels"),
      py::arg("channel_stride"), py::arg("pixel_stride"), py::arg("count"), py::arg("load"), py::arg("streaming"),
      "A tile's way in or out. For tests.");
  m.def("current_isa", [] { return static_cast<int>(current_isa()); }, "0 baseline, 1 AVX2, 2 AVX-512");
  m.def(
      "select_isa", [](int isa) { return select_isa(static_cast<Isa>(isa)); }, py::arg("isa"),
      "Use a lesser instruction set; False if there is no such one here. For tests.");
}
