#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include <exception>
#include <string>

namespace examples {
void run(const std::string& name, void* out, unsigned blocks, unsigned shared_bytes);
}

static PyObject* run(PyObject*, PyObject* arguments) {
  const char* name = nullptr;
  unsigned long long out = 0;
  unsigned blocks = 0, shared_bytes = 0;
  if (!PyArg_ParseTuple(arguments, "sKII", &name, &out, &blocks, &shared_bytes)) return nullptr;
  try {
    examples::run(name, reinterpret_cast<void*>(out), blocks, shared_bytes);
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
  Py_RETURN_NONE;
}

static PyMethodDef functions[] = {{"run", run, METH_VARARGS, nullptr}, {}};
static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_cuda", nullptr, -1, functions, nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PyInit__cuda() { return PyModule_Create(&module); }
