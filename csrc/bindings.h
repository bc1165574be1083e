// Functions of Python for both modules, by the part of its C interface that stays: one module serves every Python from
// 3.10 on. Each function takes a struct, whose members are named once, and a call gives all of them. Pointers come as
// integers (Tensor.data_ptr()), 0 is null.
#pragma once

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030A0000
#endif
#include <Python.h>

#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <type_traits>

#include "arguments.h"

namespace labeldrop {

// Thrown where Python has its exception already.
struct Raised {};

template <class... Values>
[[noreturn]] void raise_type_error(const char* format, Values... values) {
  PyErr_Format(PyExc_TypeError, format, values...);
  throw Raised();
}

// --- Values of Python as those of C++; false, maybe with an exception of Python's own, where that cannot be ---

inline bool convert(PyObject* from, bool& to) {
  to = from == Py_True;
  return to || from == Py_False;
}

inline bool convert(PyObject* from, double& to) {
  to = PyFloat_AsDouble(from);
  return to != -1 || !PyErr_Occurred();
}

// Integers, codes of an enum and addresses.
template <class Value>
bool convert(PyObject* from, Value& to) {
  using Number =
      std::conditional_t<std::is_pointer_v<Value>, uintptr_t, std::conditional_t<std::is_enum_v<Value>, int, Value>>;
  using Wide = std::conditional_t<std::is_signed_v<Number>, long long, unsigned long long>;
  Wide wide;
  if constexpr (std::is_signed_v<Number>) {
    wide = PyLong_AsLongLong(from);
  } else {
    wide = PyLong_AsUnsignedLongLong(from);
  }
  const auto number = static_cast<Number>(wide);
  to = (Value)number;  // of three kinds
  return number == wide && (wide != static_cast<Wide>(-1) || !PyErr_Occurred());
}

// As many values as the array has, or less; the others stay.
template <class Value, size_t kSize>
bool convert(PyObject* from, Value (&to)[kSize]) {
  const Py_ssize_t size = PySequence_Size(from);
  bool done = size >= 0 && size <= static_cast<Py_ssize_t>(kSize);
  for (Py_ssize_t i = 0; done && i < size; ++i) {
    PyObject* item = PySequence_GetItem(from, i);
    done = item != nullptr && convert(item, to[i]);
    Py_XDECREF(item);
  }
  return done;
}

template <class Value>
constexpr const char* kind() {
  if (std::is_array_v<Value>) return "a few numbers";
  if (std::is_same_v<Value, bool>) return "True or False";
  return std::is_floating_point_v<Value> ? "a number" : "an integer that fits";
}

inline PyObject* to_python(bool value) { return PyBool_FromLong(value); }
inline PyObject* to_python(int value) { return PyLong_FromLong(value); }
inline PyObject* to_python(int64_t value) { return PyLong_FromLongLong(value); }
inline PyObject* to_python(PyObject* value) { return value; }

// --- Arguments ---

constexpr Py_ssize_t kMostArguments = 40;

// The names in "to.logits, to.target": interned strings, which are never freed.
struct Names {
  PyObject* list[kMostArguments];

  explicit Names(const char* members) {
    for (PyObject** name = list; (members = std::strchr(members, '.')); ++name) {
      const size_t length = std::strcspn(++members, ",");
      *name = PyUnicode_FromStringAndSize(members, static_cast<Py_ssize_t>(length));
      PyUnicode_InternInPlace(name);
    }
  }
};

// Those of one call, by keyword or in the order in which they are read.
class Arguments {
 public:
  Arguments(const char* function, PyObject* const* values, Py_ssize_t positional, PyObject* names)
      : function_(function), values_(values), positional_(positional), named_(names ? PyTuple_Size(names) : 0) {
    if (named_ > kMostArguments) raise_type_error("%s: %zd arguments are too many", function, named_);
    for (Py_ssize_t i = 0; i < named_; ++i) names_[i] = PyTuple_GetItem(names, i);
  }

  template <class... Values>
  void read(const Names& names, Values&... values) {
    PyObject* const* name = names.list;
    (read_one(*name++, values), ...);
  }

  // There is nothing else.
  void end() const {
    for (Py_ssize_t i = 0; i < named_; ++i) {
      if (names_[i]) raise_type_error("%s: there is no argument %U, or it came twice", function_, names_[i]);
    }
    if (taken_ < positional_) raise_type_error("%s: takes %zd arguments, got %zd", function_, taken_, positional_);
  }

 private:
  template <class Value>
  void read_one(PyObject* name, Value& to) {
    PyObject* from = take(name);
    if (convert(from, to)) return;
    PyErr_Clear();
    raise_type_error("%s: %U must be %s, got %R", function_, name, kind<Value>(), from);
  }

  PyObject* take(PyObject* name) {
    if (taken_ < positional_) return values_[taken_++];
    // Keywords are interned strings too, and come in nearly the same order,
    for (Py_ssize_t tried = 0; tried < named_; ++tried) {
      const Py_ssize_t i = next_;
      next_ = i + 1 < named_ ? i + 1 : 0;
      if (names_[i] == name) return take_keyword(i);
    }
    // but for those that a program has put together.
    for (Py_ssize_t i = 0; i < named_; ++i) {
      if (names_[i] && PyUnicode_Compare(names_[i], name) == 0) return take_keyword(i);
    }
    raise_type_error("%s: missing argument %U", function_, name);
  }

  PyObject* take_keyword(Py_ssize_t i) {
    names_[i] = nullptr;
    return values_[positional_ + i];
  }

  const char* function_;
  PyObject* const* values_;
  Py_ssize_t positional_, named_, taken_ = 0, next_ = 0;
  PyObject* names_[kMostArguments];  // null if taken
};

// In a function fields(Arguments& from, Struct& to), which there is for each struct: LABELDROP_READ(to.logits, ...);
#define LABELDROP_READ(...)               \
  static const Names names(#__VA_ARGS__); \
  from.read(names, __VA_ARGS__)

// --- Functions ---

// What a C++ exception is in Python. Within a catch.
inline PyObject* raise_caught() {
  try {
    throw;
  } catch (const Raised&) {
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

template <auto kRun>
struct Function;
template <class Result, class Struct, Result (*kRun)(const Struct&)>
struct Function<kRun> {
  static inline const char* name;

  static PyObject* call(PyObject*, PyObject* const* values, Py_ssize_t positional, PyObject* names) {
    try {
      Arguments from(name, values, positional, names);
      Struct to{};
      fields(from, to);
      from.end();
      if constexpr (!std::is_void_v<Result>) return to_python(kRun(to));
      kRun(to);
    } catch (...) {
      return raise_caught();
    }
    Py_RETURN_NONE;
  }
};

// A function of Python that fills kRun's struct and calls it.
template <auto kRun>
PyMethodDef function(const char* name, const char* doc = nullptr) {
  Function<kRun>::name = name;
  const auto call = reinterpret_cast<void (*)()>(Function<kRun>::call);
  return {name, reinterpret_cast<PyCFunction>(call), METH_FASTCALL | METH_KEYWORDS, doc};
}

// While one lives, other threads of Python run.
class WithoutInterpreter {
 public:
  WithoutInterpreter() : state_(PyEval_SaveThread()) {}
  ~WithoutInterpreter() { PyEval_RestoreThread(state_); }
  WithoutInterpreter(const WithoutInterpreter&) = delete;

 private:
  PyThreadState* state_;
};

// --- The structs' members; those of one device alone stand in its bindings ---

inline void fields(Arguments& from, LossArguments& to) {
  LABELDROP_READ(to.logits, to.logits_type, to.channels_last, to.target, to.target_type, to.tables, to.samples,
                 to.channels, to.pixels, to.labels, to.ignore_index, to.pixel_weight);
}

inline void fields(Arguments& from, PixelLossArguments& to) {
  fields(from, static_cast<LossArguments&>(to));
  LABELDROP_READ(to.classes, to.label_weight, to.class_weight, to.parameters, to.key, to.upstream,
                 to.upstream_per_pixel, to.divisor, to.mean, to.result, to.loss, to.gradient);
}

inline void fields(Arguments& from, DiceSumsArguments& to) {
  fields(from, static_cast<LossArguments&>(to));
  LABELDROP_READ(to.merged, to.sigmoid, to.squared, to.with_cross_entropy);
}

inline void fields(Arguments& from, DiceSumsForwardArguments& to) {
  fields(from, static_cast<DiceSumsArguments&>(to));
  LABELDROP_READ(to.intersection, to.prediction, to.label_weight, to.cross_entropy);
}

inline void fields(Arguments& from, DiceSumsBackwardArguments& to) {
  fields(from, static_cast<DiceSumsArguments&>(to));
  LABELDROP_READ(to.upstream_intersection, to.upstream_prediction, to.upstream_cross_entropy, to.gradient);
}

inline void fields(Arguments& from, MeanOverlapArguments& to) {
  LABELDROP_READ(to.intersection, to.prediction, to.label_weight, to.cross_entropy, to.positive, to.included,
                 to.class_weight, to.samples, to.classes, to.labels, to.offset, to.epsilon, to.complement, to.mean,
                 to.batch, to.factor, to.cross_entropy_factor, to.is_double, to.value, to.slopes,
                 to.slope_of_cross_entropy);
}

inline void fields(Arguments& from, PackArguments& to) {
  LABELDROP_READ(to.tables, to.count, to.rows, to.classes, to.words);
}

inline void fields(Arguments& from, DropLabelsArguments& to) {
  LABELDROP_READ(to.target, to.out, to.target_type, to.annotated, to.samples, to.pixels, to.labels, to.ignore_index);
}

inline void fields(Arguments& from, LabelDropoutArguments& to) {
  LABELDROP_READ(to.annotated, to.probability, to.out, to.samples, to.labels);
}

}  // namespace labeldrop
