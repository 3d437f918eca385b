// SPDX-License-Identifier: Apache-2.0
// repack_gptq for Python: addresses and sizes as integers, as csrc/torch would hand them over.
#include <pybind11/stl.h>

#include "bindings.h"
#include "cuda/repack_kernel.cuh"

namespace padmarlin::emulator {
namespace {

Statistics repack_gptq(uintptr_t qweight, uintptr_t source_rows, uintptr_t slice_rows,
                       uintptr_t pad_codes, uintptr_t out, int64_t ldw, int source_words, int n,
                       int padded_n, int padded_k, int scale_rows, int bits, int field_base,
                       const LaunchOptions& options) {
  const RepackArguments args{.qweight = reinterpret_cast<const uint32_t*>(qweight),
                             .source_rows = reinterpret_cast<const int32_t*>(source_rows),
                             .slice_rows = reinterpret_cast<const int32_t*>(slice_rows),
                             .pad_codes = reinterpret_cast<const uint8_t*>(pad_codes),
                             .out = reinterpret_cast<uint32_t*>(out),
                             .ldw = ldw,
                             .source_words = source_words,
                             .n = n,
                             .padded_n = padded_n,
                             .padded_k = padded_k,
                             .scale_rows = scale_rows,
                             .bits = bits,
                             .field_base = field_base};
  if (bits != 4 && bits != 8) {
    throw py::value_error("repack_gptq: bits is " + std::to_string(bits) + ", expected 4 or 8");
  }
  const int blocks = static_cast<int>(repack_blocks(padded_n, padded_k));
  return launch({"repack_gptq_kernel", blocks, 1, kRepackThreads, 0}, options,
                [&] { bits == 4 ? repack_gptq_kernel<4>(args) : repack_gptq_kernel<8>(args); });
}

}  // namespace

void bind_repack(py::module_& module) {
  using py::arg;
  module.def("repack_gptq", &repack_gptq, py::kw_only(), arg("qweight"), arg("source_rows"),
             arg("slice_rows"), arg("pad_codes") = 0, arg("out"), arg("ldw"), arg("source_words"),
             arg("n"), arg("padded_n"), arg("padded_k"), arg("scale_rows"), arg("bits"),
             arg("field_base"), arg("options") = LaunchOptions{});
}

}  // namespace padmarlin::emulator
