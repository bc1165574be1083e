#include <pybind11/pybind11.h>

#include <string>

namespace examples {
void run(const std::string& name, void* out, unsigned blocks, unsigned shared_bytes);
}

PYBIND11_MODULE(_cuda, m) {
  m.def("run", [](const std::string& name, uintptr_t out, unsigned blocks, unsigned shared_bytes) {
    examples::run(name, reinterpret_cast<void*>(out), blocks, shared_bytes);
  });
}
