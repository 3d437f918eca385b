// SPDX-License-Identifier: Apache-2.0
// repack for Python: addresses and sizes as integers, as csrc/torch would hand them over.
#include <pybind11/stl.h>

#include "bindings.h"
#include "cuda/repack_kernel.cuh"

namespace padmarlin::emulator {
namespace {

Statistics repack(uintptr_t words, uintptr_t source_rows, uintptr_t slice_rows, uintptr_t pad_codes,
                  uintptr_t out, int64_t ldw, int word_rows, int word_columns, int packing,
                  int first_column, int n, int padded_n, int padded_k, int scale_rows, int bits,
                  int field_base, const LaunchOptions& options) {
  const RepackArguments args{.words = reinterpret_cast<const uint32_t*>(words),
                             .source_rows = reinterpret_cast<const int32_t*>(source_rows),
                             .slice_rows = reinterpret_cast<const int32_t*>(slice_rows),
                             .pad_codes = reinterpret_cast<const uint8_t*>(pad_codes),
                             .out = reinterpret_cast<uint32_t*>(out),
                             .ldw = ldw,
                             .word_rows = word_rows,
                             .word_columns = word_columns,
                             .packing = static_cast<Packing>(packing),
                             .first_column = first_column,
                             .n = n,
                             .padded_n = padded_n,
                             .padded_k = padded_k,
                             .scale_rows = scale_rows,
                             .bits = bits,
                             .field_base = field_base};
  const RepackKernel kernel = repack_kernel_for(args.packing, bits);
  if (kernel == nullptr) {
    throw py::value_error("repack: no packing " + std::to_string(packing) + " with " +
                          std::to_string(bits) + " bits");
  }
  const int blocks = static_cast<int>(repack_blocks(padded_n, padded_k));
  return launch({"repack_kernel", blocks, 1, kRepackThreads, 0}, options, [&] { kernel(args); });
}

}  // namespace

void bind_repack(py::module_& module) {
  using py::arg;
  module.def("repack", &repack, py::kw_only(), arg("words"), arg("source_rows"), arg("slice_rows"),
             arg("pad_codes") = 0, arg("out"), arg("ldw"), arg("word_rows"), arg("word_columns"),
             arg("packing"), arg("first_column"), arg("n"), arg("padded_n"), arg("padded_k"),
             arg("scale_rows"), arg("bits"), arg("field_base"), arg("options") = LaunchOptions{});
}

}  // namespace padmarlin::emulator
