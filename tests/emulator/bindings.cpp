// SPDX-License-Identifier: Apache-2.0
// The Python module `_emulator`: how to launch, and what a launch reports.
#include "bindings.h"

#include <pybind11/stl.h>

namespace padmarlin::emulator {
namespace {

Delivery delivery_of(const std::string& name) {
  if (name == "eager") return Delivery::kEager;
  if (name == "late") return Delivery::kLate;
  if (name == "random") return Delivery::kRandom;
  throw py::value_error("LaunchOptions: delivery is '" + name +
                        "', expected 'eager', 'late' or 'random'");
}

LaunchOptions make_options(uint64_t seed, const std::string& delivery, int resident_blocks,
                           const std::vector<std::pair<uintptr_t, size_t>>& regions) {
  if (resident_blocks < 1) {
    throw py::value_error("LaunchOptions: resident_blocks is " + std::to_string(resident_blocks) +
                          ", expected at least 1");
  }
  LaunchOptions options{seed, delivery_of(delivery), resident_blocks, {}};
  for (const auto& [pointer, bytes] : regions) options.regions.push_back({pointer, bytes});
  return options;
}

}  // namespace

PYBIND11_MODULE(_emulator, module) {
  py::register_exception<LaunchError>(module, "LaunchError", PyExc_RuntimeError);

  py::enum_<Dtype>(module, "Dtype").value("HALF", Dtype::kHalf).value("BFLOAT16", Dtype::kBfloat16);

  py::class_<LaunchOptions>(module, "LaunchOptions")
      .def(py::init(&make_options), py::kw_only(), py::arg("seed") = 0,
           py::arg("delivery") = "eager", py::arg("resident_blocks") = 1,
           py::arg("regions") = std::vector<std::pair<uintptr_t, size_t>>{})
      .def(
          "add_region",
          [](LaunchOptions& options, uintptr_t pointer, size_t bytes) {
            options.regions.push_back({pointer, bytes});
          },
          py::arg("pointer"), py::arg("bytes"))
      .def("clear_regions", [](LaunchOptions& options) { options.regions.clear(); });

  py::class_<SharedAccesses>(module, "SharedAccesses")
      .def_readonly("instructions", &SharedAccesses::instructions)
      .def_readonly("extra_wavefronts", &SharedAccesses::extra_wavefronts)
      .def("__repr__", [](const SharedAccesses& accesses) {
        return "SharedAccesses(instructions=" + std::to_string(accesses.instructions) +
               ", extra_wavefronts=" + std::to_string(accesses.extra_wavefronts) + ")";
      });

  bind_arithmetic(module);
  bind_bulk_probes(module);
  bind_dequantize(module);
  bind_format_probes(module);
  bind_gemm(module);
  bind_pipeline_probes(module);
  bind_primitive_probes(module);
  bind_repack(module);
  bind_round(module);
  bind_schedule(module);
}

}  // namespace padmarlin::emulator
