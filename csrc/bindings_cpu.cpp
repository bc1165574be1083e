// The module labeldrop_bench._cpu: names alone; see bindings.h for the arguments.
#include "bindings.h"
#include "cpu/operators.h"
#include "math/philox.h"

namespace labeldrop {

template <class Struct>
struct Threaded : Struct {
  int threads;
};

template <class Struct>
void fields(Arguments& from, Threaded<Struct>& to) {
  fields(from, static_cast<Struct&>(to));
  LABELDROP_READ(to.threads);
}

template <class Struct, int64_t (*kOperator)(const Struct&, int)>
int64_t threaded(const Threaded<Struct>& a) {
  WithoutInterpreter others_run;
  return kOperator(a, a.threads);
}

struct KeyedLabelDropout : LabelDropoutArguments {
  uint64_t key;
};

void fields(Arguments& from, KeyedLabelDropout& to) {
  fields(from, static_cast<LabelDropoutArguments&>(to));
  LABELDROP_READ(to.key);
}

void keyed_label_dropout(const KeyedLabelDropout& a) { label_dropout(a, a.key); }

void fields(Arguments& from, NormalsArguments& to) { LABELDROP_READ(to.out, to.first, to.elements, to.groups, to.key); }

void fields(Arguments& from, TilesArguments& to) {
  LABELDROP_READ(to.values, to.pitch, to.memory, to.type, to.channels, to.channel_stride, to.pixel_stride, to.count,
                 to.load, to.streaming);
}

struct PhiloxArguments {
  uint32_t counter[4], key[2];
};

void fields(Arguments& from, PhiloxArguments& to) { LABELDROP_READ(to.counter, to.key); }

PyObject* philox(const PhiloxArguments& a) {
  const auto words =
      philox4x32<uint32_t>({a.counter[0], a.counter[1], a.counter[2], a.counter[3]}, {a.key[0], a.key[1]});
  return Py_BuildValue("IIII", words.c0, words.c1, words.c2, words.c3);
}

struct IsaArguments {
  Isa isa;
};

void fields(Arguments& from, IsaArguments& to) { LABELDROP_READ(to.isa); }

bool choose_isa(const IsaArguments& a) { return select_isa(a.isa); }

constexpr const char* kInvalid = "Returns the first invalid pixel or -1.";

PyMethodDef functions[] = {
    function<threaded<PixelLossArguments, predictive_variance>>("predictive_variance", kInvalid),
    function<threaded<PixelLossArguments, set_cross_entropy>>("set_cross_entropy", kInvalid),
    function<threaded<PixelLossArguments, sigmoid_focal>>("sigmoid_focal", kInvalid),
    function<threaded<PixelLossArguments, label_flip>>("label_flip", kInvalid),
    function<threaded<DiceSumsForwardArguments, dice_sums>>("dice_sums", kInvalid),
    function<threaded<DiceSumsBackwardArguments, dice_sums_backward>>("dice_sums_backward", kInvalid),
    function<threaded<DropLabelsArguments, drop_labels>>("drop_labels", kInvalid),
    function<mean_overlap>("mean_overlap"),
    function<pack_tables>("pack_tables"),
    function<keyed_label_dropout>("label_dropout"),
    function<philox>("philox4x32", "Four random words. For tests."),
    function<normals>("normals", "Normal numbers [4 groups, elements]. For tests."),
    function<tiles>("tiles", "A tile's way in or out. For tests."),
    {"current_isa", [](PyObject*, PyObject*) { return to_python(static_cast<int>(current_isa())); }, METH_NOARGS,
     "0 baseline, 1 AVX2, 2 AVX-512"},
    function<choose_isa>("select_isa", "Use a lesser instruction set; False if there is no such one here. For tests."),
    {},
};

PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_cpu", "CPU kernels of labeldrop_bench", -1, functions, nullptr, nullptr, nullptr, nullptr};

}  // namespace labeldrop

PyMODINIT_FUNC PyInit__cpu() { return PyModule_Create(&labeldrop::module); }
