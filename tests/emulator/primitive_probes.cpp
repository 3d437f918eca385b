// SPDX-License-Identifier: Apache-2.0
// Launches the kernels of tests/probes/primitives.cuh.
#include <pybind11/stl.h>

#include "../probes/primitives.cuh"
#include "bindings.h"

namespace padmarlin::emulator {
namespace {

Array<float> mma(Dtype dtype, const Array<uint32_t>& a, const Array<uint32_t>& b) {
  expect_size("mma", "a", a, 4 * kWarp);
  expect_size("mma", "b", b, 2 * kWarp);
  Array<float> d({kWarp, 4});
  float* const out = d.mutable_data();
  launch({"mma_probe", 1, 1, kWarp, 0}, {}, [&] {
    dtype == Dtype::kHalf ? probes::mma_probe<Dtype::kHalf>(a.data(), b.data(), out)
                          : probes::mma_probe<Dtype::kBfloat16>(a.data(), b.data(), out);
  });
  return d;
}

std::pair<Array<uint32_t>, Statistics> ldmatrix(const Array<uint16_t>& matrices, int row_pitch) {
  expect_size("ldmatrix", "matrices", matrices, kWarp * 8);
  if (row_pitch < 16 || row_pitch > probes::kMaxRowPitch) {
    throw py::value_error("ldmatrix: row_pitch is " + std::to_string(row_pitch) +
                          ", expected 16.." + std::to_string(probes::kMaxRowPitch));
  }
  Array<uint32_t> fragments({kWarp, 4});
  uint32_t* const out = fragments.mutable_data();
  const auto* const rows = reinterpret_cast<const uint4*>(matrices.data());
  const Statistics statistics =
      launch({"ldmatrix_probe", 1, 1, kWarp, probes::kLdmatrixSharedBytes}, {},
             [&] { probes::ldmatrix_probe(rows, row_pitch, out); });
  return {fragments, statistics};
}

}  // namespace

void bind_primitive_probes(py::module_& module) {
  module.def("mma", &mma, py::arg("dtype"), py::arg("a"), py::arg("b"));
  module.def("ldmatrix", &ldmatrix, py::arg("matrices"), py::arg("row_pitch"));
}

}  // namespace padmarlin::emulator
