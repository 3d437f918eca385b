// SPDX-License-Identifier: Apache-2.0
// The rounding kernels for Python: addresses and sizes as integers, as csrc/torch would hand them
// over.
#include <pybind11/stl.h>

#include "bindings.h"
#include "cuda/round_kernel.cuh"

namespace padmarlin::emulator {
namespace {

Statistics round(uintptr_t products, uintptr_t bias, uintptr_t out, int64_t ldp, int64_t ldo, int m,
                 int n, Dtype dtype, const LaunchOptions& options) {
  const RoundArguments args{.products = reinterpret_cast<const float*>(products),
                            .bias = reinterpret_cast<const void*>(bias),
                            .out = reinterpret_cast<void*>(out),
                            .ldp = ldp,
                            .ldo = ldo,
                            .m = m,
                            .n = n,
                            .dtype = dtype};
  const RoundKernel kernel = round_kernel_for(dtype);
  const int blocks = static_cast<int>(round_blocks(m, n));
  return launch({"round_kernel", blocks, 1, kRoundThreads, 0}, options, [&] { kernel(args); });
}

}  // namespace

void bind_round(py::module_& module) {
  using py::arg;
  module.def("round", &round, py::kw_only(), arg("products"), arg("bias") = 0, arg("out"),
             arg("ldp"), arg("ldo"), arg("m"), arg("n"), arg("dtype"),
             arg("options") = LaunchOptions{});
}

}  // namespace padmarlin::emulator
