// SPDX-License-Identifier: Apache-2.0
// The parts of the Python module `_emulator`, each bound by a source of its own.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "core/dtype.h"
#include "runtime.h"

namespace padmarlin::emulator {

namespace py = pybind11;

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

// Refuses an array of another size: the kernels would run over its end.
template <typename T>
void expect_size(const char* function, const char* argument, const Array<T>& array, ssize_t size) {
  if (array.size() != size) {
    throw py::value_error(std::string(function) + ": " + argument + " has " +
                          std::to_string(array.size()) + " elements, expected " +
                          std::to_string(size));
  }
}

void bind_arithmetic(py::module_& module);
void bind_bulk_probes(py::module_& module);
void bind_dequantize(py::module_& module);
void bind_format_probes(py::module_& module);
void bind_gemm(py::module_& module);
void bind_pipeline_probes(py::module_& module);
void bind_primitive_probes(py::module_& module);
void bind_repack(py::module_& module);
void bind_round(py::module_& module);
void bind_schedule(py::module_& module);

}  // namespace padmarlin::emulator
