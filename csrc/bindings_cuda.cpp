// The module labeldrop_bench._cuda: names alone; see bindings.h for the arguments.
#include "bindings.h"
#include "cuda/operators.h"

namespace labeldrop {

template <class Struct>
struct Launched : Struct {
  cuda::Stream stream;
};

template <class Struct>
void fields(Arguments& from, Launched<Struct>& to) {
  fields(from, static_cast<Struct&>(to));
  LABELDROP_READ(to.stream);
}

template <class Struct, void (*kOperator)(const Struct&, cuda::Stream)>
void launched(const Launched<Struct>& a) {
  kOperator(a, a.stream);
}

namespace cuda {

void fields(Arguments& from, CudaPixelLossArguments& to) {
  fields(from, static_cast<PixelLossArguments&>(to));
  LABELDROP_READ(to.unless_one, to.scratch);
}

void fields(Arguments& from, ScaleArguments& to) { LABELDROP_READ(to.values, to.size, to.factor, to.is_double); }

}  // namespace cuda

void fields(Arguments& from, RuleTablesArguments& to) {
  LABELDROP_READ(to.annotated, to.member, to.exhaustive, to.samples, to.labels, to.classes, to.steps, to.count,
                 to.dropped, to.tables, to.table_count, to.words, to.positive_step, to.merged_step, to.included_step,
                 to.positive, to.merged, to.included, to.weight, to.label_weight, to.weights_are_double, to.zero);
}

// A loss that is a sum over pixels, after the divisor of its mean.
template <void (*kLoss)(const cuda::CudaPixelLossArguments&, cuda::Stream)>
void pixel_loss(const Launched<cuda::CudaPixelLossArguments>& given) {
  cuda::CudaPixelLossArguments a = given;
  if (a.mean) cuda::sum_weights(weights_of(a), a.scratch, a.divisor, given.stream);
  auto* blocks = reinterpret_cast<uint32_t*>(a.scratch + cuda::kPartials);
  a.partials = {a.scratch, blocks + 1, a.divisor, false, a.result, a.logits_type == Float::f64};
  kLoss(a, given.stream);
}

struct DiceSumsWithScratch : DiceSumsForwardArguments {
  double* partials;
};

void fields(Arguments& from, DiceSumsWithScratch& to) {
  fields(from, static_cast<DiceSumsForwardArguments&>(to));
  LABELDROP_READ(to.partials);
}

void dice_sums(const DiceSumsWithScratch& a, cuda::Stream stream) { cuda::dice_sums(a, a.partials, stream); }

struct DiceSumsBackwardWithFactor : DiceSumsBackwardArguments {};

void fields(Arguments& from, DiceSumsBackwardWithFactor& to) {
  fields(from, static_cast<DiceSumsBackwardArguments&>(to));
  LABELDROP_READ(to.factor);
}

void dice_sums_backward(const DiceSumsBackwardWithFactor& a, cuda::Stream stream) {
  cuda::dice_sums_backward(a, stream);
}

struct DiceSumsSizes {
  int64_t samples, classes, labels, pixels;
};

void fields(Arguments& from, DiceSumsSizes& to) { LABELDROP_READ(to.samples, to.classes, to.labels, to.pixels); }

int64_t dice_sums_partials(const DiceSumsSizes& a) {
  return cuda::dice_sums_partials(a.samples, a.classes, a.labels, a.pixels);
}

struct KeyedLabelDropout : LabelDropoutArguments {
  const int64_t* key;
};

void fields(Arguments& from, KeyedLabelDropout& to) {
  fields(from, static_cast<LabelDropoutArguments&>(to));
  LABELDROP_READ(to.key);
}

void label_dropout(const KeyedLabelDropout& a, cuda::Stream stream) { cuda::label_dropout(a, a.key, stream); }

PyMethodDef functions[] = {
    {"driver_version", [](PyObject*, PyObject*) { return to_python(cuda::driver_version()); }, METH_NOARGS,
     "The newest CUDA that the driver runs, as 13000; 0 without a driver."},
    function<pixel_loss<cuda::set_cross_entropy>>("set_cross_entropy"),
    function<pixel_loss<cuda::sigmoid_focal>>("sigmoid_focal"),
    function<pixel_loss<cuda::label_flip>>("label_flip"),
    function<pixel_loss<cuda::predictive_variance>>("predictive_variance"),
    function<launched<cuda::ScaleArguments, cuda::scale>>("scale"),
    function<launched<PackArguments, cuda::pack_tables>>("pack_tables"),
    function<launched<RuleTablesArguments, cuda::rule_tables>>("rule_tables"),
    function<dice_sums_partials>("dice_sums_partials", "Doubles of scratch that dice_sums needs."),
    function<launched<DiceSumsWithScratch, dice_sums>>("dice_sums"),
    function<launched<DiceSumsBackwardWithFactor, dice_sums_backward>>("dice_sums_backward"),
    function<launched<MeanOverlapArguments, cuda::mean_overlap>>("mean_overlap"),
    function<launched<DropLabelsArguments, cuda::drop_labels>>("drop_labels"),
    function<launched<KeyedLabelDropout, label_dropout>>("label_dropout"),
    {},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT,
                      "_cuda",
                      "CUDA kernels of labeldrop_bench",
                      -1,
                      functions,
                      nullptr,
                      nullptr,
                      nullptr,
                      nullptr};

// What the module says of its build; Python's exception is set where it cannot.
void add_constants(PyObject* module) {
  const auto list = cuda::architectures();
  PyObject* architectures = PyTuple_New(static_cast<Py_ssize_t>(list.size()));
  if (!architectures) return;
  for (size_t i = 0; i < list.size(); ++i) PyTuple_SetItem(architectures, i, to_python(list[i]));
  PyModule_AddObjectRef(module, "architectures", architectures);
  Py_DECREF(architectures);
  PyModule_AddIntConstant(module, "scratch", cuda::kScratch);
  PyModule_AddIntConstant(module, "runtime_version", cuda::runtime_version());
}

}  // namespace labeldrop

PyMODINIT_FUNC PyInit__cuda() {
  PyObject* module = PyModule_Create(&labeldrop::module);
  if (module) labeldrop::add_constants(module);
  return module;
}
