// SPDX-License-Identifier: Apache-2.0
// dequantize for Python: addresses and sizes as integers, as csrc/torch would hand them over.
#include <pybind11/stl.h>

#include "bindings.h"
#include "cuda/dequantize_kernel.cuh"

namespace padmarlin::emulator {
namespace {

Statistics dequantize(uintptr_t qweight, uintptr_t scales, uintptr_t zeros, uintptr_t slice_rows,
                      uintptr_t columns, uintptr_t out, int64_t lds, int64_t ldo, int n, int k,
                      int padded_k, int scale_rows, int front_pad, int bits, Dtype dtype,
                      int dequant, const LaunchOptions& options) {
  const DequantizeArguments args{.qweight = reinterpret_cast<const uint32_t*>(qweight),
                                 .scales = reinterpret_cast<const void*>(scales),
                                 .zeros = reinterpret_cast<const uint16_t*>(zeros),
                                 .slice_rows = reinterpret_cast<const int32_t*>(slice_rows),
                                 .columns = reinterpret_cast<const int32_t*>(columns),
                                 .out = reinterpret_cast<void*>(out),
                                 .lds = lds,
                                 .ldo = ldo,
                                 .n = n,
                                 .k = k,
                                 .padded_k = padded_k,
                                 .scale_rows = scale_rows,
                                 .front_pad = front_pad,
                                 .bits = bits,
                                 .dtype = dtype,
                                 .dequant = static_cast<Dequant>(dequant)};
  const DequantizeKernel kernel = dequantize_kernel_for(args);
  if (kernel == nullptr) {
    throw py::value_error("dequantize: no kernel for dequant " + std::to_string(dequant) +
                          " with " + std::to_string(bits) + " bits");
  }
  const int blocks = static_cast<int>(dequantize_blocks(n, padded_k));
  return launch({"dequantize_kernel", blocks, 1, kDequantizeThreads, kDequantizeSharedBytes},
                options, [&] { kernel(args); });
}

}  // namespace

void bind_dequantize(py::module_& module) {
  using py::arg;
  module.def("dequantize", &dequantize, py::kw_only(), arg("qweight"), arg("scales"),
             arg("zeros") = 0, arg("slice_rows"), arg("columns") = 0, arg("out"), arg("lds"),
             arg("ldo"), arg("n"), arg("k"), arg("padded_k"), arg("scale_rows"),
             arg("front_pad") = 0, arg("bits"), arg("dtype"), arg("dequant"),
             arg("options") = LaunchOptions{});
}

}  // namespace padmarlin::emulator
