// Arguments of the kernels as keywords of Python, for both modules: each struct's members are named once, and a call
// gives all of them. Pointers come as integers (Tensor.data_ptr()), 0 is null.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <type_traits>
#include <vector>

#include "arguments.h"

namespace labeldrop {

namespace py = pybind11;

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

template <class Value>
void assign(Value& to, py::handle from) {
  if constexpr (std::is_pointer_v<Value>) {
    to = reinterpret_cast<Value>(from.cast<uintptr_t>());
  } else if constexpr (std::is_enum_v<Value>) {
    to = static_cast<Value>(from.cast<int>());
  } else if constexpr (std::is_array_v<Value>) {
    size_t i = 0;
    for (py::handle each : from) {
      if (i == std::extent_v<Value>) throw py::value_error("too many values for an array");
      assign(to[i++], each);
    }
  } else {
    to = from.cast<Value>();
  }
}

template <class Struct>
struct Field {
  py::handle name;  // an interned string, which is never freed
  void (*set)(Struct&, py::handle);
};
template <class Struct>
using Fields = std::vector<Field<Struct>>;

template <class Struct, auto kMember>
Field<Struct> field(const char* name) {
  return {PyUnicode_InternFromString(name), [](Struct& to, py::handle from) { assign(to.*kMember, from); }};
}
#define LABELDROP_FIELD(name) field<Struct, &Struct::name>(#name)

template <class Struct>
Fields<Struct> loss_fields() {
  return {LABELDROP_FIELD(logits),  LABELDROP_FIELD(logits_type),  LABELDROP_FIELD(channels_last),
          LABELDROP_FIELD(target),  LABELDROP_FIELD(target_type),  LABELDROP_FIELD(tables),
          LABELDROP_FIELD(samples), LABELDROP_FIELD(channels),     LABELDROP_FIELD(pixels),
          LABELDROP_FIELD(labels),  LABELDROP_FIELD(ignore_index), LABELDROP_FIELD(pixel_weight)};
}

template <class Struct>
Fields<Struct> operator+(Fields<Struct> fields, const Fields<Struct>& more) {
  fields.insert(fields.end(), more.begin(), more.end());
  return fields;
}

template <class Struct>
Fields<Struct> pixel_loss_fields() {
  return loss_fields<Struct>() + Fields<Struct>{LABELDROP_FIELD(classes),
                                                LABELDROP_FIELD(label_weight),
                                                LABELDROP_FIELD(class_weight),
                                                LABELDROP_FIELD(parameters),
                                                LABELDROP_FIELD(key),
                                                LABELDROP_FIELD(upstream),
                                                LABELDROP_FIELD(upstream_per_pixel),
                                                LABELDROP_FIELD(divisor),
                                                LABELDROP_FIELD(mean),
                                                LABELDROP_FIELD(result),
                                                LABELDROP_FIELD(loss),
                                                LABELDROP_FIELD(gradient)};
}

template <class Struct>
Fields<Struct> dice_fields() {
  return loss_fields<Struct>() + Fields<Struct>{LABELDROP_FIELD(merged), LABELDROP_FIELD(sigmoid),
                                                LABELDROP_FIELD(squared), LABELDROP_FIELD(with_cross_entropy)};
}

// One list for each struct; those of one device alone stand in its bindings.
template <class Struct>
Fields<Struct> fields_of();

template <>
inline Fields<DiceSumsForwardArguments> fields_of() {
  using Struct = DiceSumsForwardArguments;
  return dice_fields<Struct>() + Fields<Struct>{LABELDROP_FIELD(intersection), LABELDROP_FIELD(prediction),
                                                LABELDROP_FIELD(label_weight), LABELDROP_FIELD(cross_entropy)};
}

template <>
inline Fields<DiceSumsBackwardArguments> fields_of() {
  using Struct = DiceSumsBackwardArguments;
  return dice_fields<Struct>() + Fields<Struct>{LABELDROP_FIELD(upstream_intersection),
                                                LABELDROP_FIELD(upstream_prediction),
                                                LABELDROP_FIELD(upstream_cross_entropy), LABELDROP_FIELD(gradient)};
}

template <>
inline Fields<PackArguments> fields_of() {
  using Struct = PackArguments;
  return {LABELDROP_FIELD(tables), LABELDROP_FIELD(count), LABELDROP_FIELD(rows), LABELDROP_FIELD(classes),
          LABELDROP_FIELD(words)};
}

template <>
inline Fields<DropLabelsArguments> fields_of() {
  using Struct = DropLabelsArguments;
  return {LABELDROP_FIELD(target),    LABELDROP_FIELD(out),         LABELDROP_FIELD(target_type),
          LABELDROP_FIELD(annotated), LABELDROP_FIELD(samples),     LABELDROP_FIELD(pixels),
          LABELDROP_FIELD(labels),    LABELDROP_FIELD(ignore_index)};
}

template <>
inline Fields<LabelDropoutArguments> fields_of() {
  using Struct = LabelDropoutArguments;
  return {LABELDROP_FIELD(annotated), LABELDROP_FIELD(probability), LABELDROP_FIELD(out), LABELDROP_FIELD(samples),
          LABELDROP_FIELD(labels)};
}

// A struct from keywords: all of its fields and nothing else.
template <class Struct>
Struct read(const py::kwargs& keywords) {
  static const Fields<Struct> fields = fields_of<Struct>();
  Struct to{};
  for (const Field<Struct>& each : fields) {
    PyObject* value = PyDict_GetItemWithError(keywords.ptr(), each.name.ptr());
    if (value == nullptr) throw py::type_error("missing argument " + py::cast<std::string>(each.name));
    each.set(to, value);
  }
  if (keywords.size() != fields.size()) throw py::type_error("an argument that there is not");
  return to;
}

}  // namespace labeldrop
